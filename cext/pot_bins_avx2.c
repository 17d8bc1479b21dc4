/* The vector loops of pot_bins_lanes.h for the avx2 tier: vectors of 32 bytes. */
#include "pot_bins.h"
#include "pot_round.h"

#ifdef MLP_HAVE_AVX2
#define TIER avx2
#define VECTOR_BYTES 32
#define KEEP mlp_pot_keep_portable
#define SORT mlp_pot_sort_portable
#define TARGET MLP_TARGET_AVX2

#define LANE int16_t
#define WIDTH i16
#define SHIFTS_VARY 0
#include "pot_bins_lanes.h"

#define LANE int32_t
#define WIDTH i32
#define SHIFTS_VARY 1
#include "pot_bins_lanes.h"
#endif
