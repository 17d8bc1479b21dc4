/* The vector loops of pot_bins_lanes.h for the avx512 tier: vectors of 64 bytes. */
#include "pot_bins.h"
#include "pot_round.h"

#ifdef MLP_HAVE_AVX512
#define TIER avx512
#define VECTOR_BYTES 64
#define TARGET MLP_TARGET_AVX512

#define LANE int16_t
#define WIDTH i16
#define SHIFTS_VARY 1
#include "pot_bins_lanes.h"

#define LANE int32_t
#define WIDTH i32
#define SHIFTS_VARY 1
#include "pot_bins_lanes.h"
#endif
