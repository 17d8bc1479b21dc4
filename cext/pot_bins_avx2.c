/* The vector loops of pot_bins_lanes.h for the avx2 tier: vectors of 32 bytes. */
#include "pot_bins.h"
#include "pot_round.h"

#ifdef MLP_HAVE_AVX2
#include <immintrin.h>

#define TIER avx2
#define VECTOR_BYTES 32
#define TARGET MLP_TARGET_AVX2

/* What codes stand for, by a table whose index is the code's low four bits: 9 ... 15 are -7 ... -1. */
#define WORDS_OF(to, codes)                                                                                            \
    to = (VECTOR)_mm256_cvtepi8_epi16(_mm_shuffle_epi8(                                                                \
        _mm_setr_epi8(0, 1, 2, 4, 8, 16, 32, 64, 0, -64, -32, -16, -8, -4, -2, -1),                                    \
        _mm_and_si128((__m128i)codes, _mm_set1_epi8(15))))

#define LANE int16_t
#define WIDTH i16
#define VALUES WORDS_OF
#include "pot_bins_lanes.h"

#define LANE int32_t
#define WIDTH i32
#define SHIFTS_VARY 1
#include "pot_bins_lanes.h"
#endif
