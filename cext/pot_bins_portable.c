/* The vector loops of pot_bins_lanes.h for the portable tier: vectors of 16 bytes. */
#include "pot_bins.h"
#include "pot_round.h"

#define TIER portable
#define VECTOR_BYTES 16
#define TARGET MLP_NOINLINE

#define LANE int16_t
#define WIDTH i16
#define SHIFTS_VARY 0
#include "pot_bins_lanes.h"

#define LANE int32_t
#define WIDTH i32
#define SHIFTS_VARY 0
#include "pot_bins_lanes.h"
