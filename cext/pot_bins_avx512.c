/* The vector loops of pot_bins_lanes.h for the avx512 tier: vectors of 64 bytes. And the weight gradient's sort:
 *
 *     for (level = levels; level > 0; level--)
 *         for (i = 0; i < n; i++)
 *             if (codes[i] == level)
 *                 *terms++ = offsets[i];     (and the same for -level)
 *
 * The vectors compare 64 codes at once and move the offsets of the equal ones together, in their order: the same list
 * as the counting sort of pot_bins_list.c gives, which needs a counter in memory, and a wait for it, for every term. */
#include "pot_bins.h"
#include "pot_round.h"

#ifdef MLP_HAVE_AVX512
#include <immintrin.h>

#define TIER avx512
#define VECTOR_BYTES 64
#define TARGET MLP_TARGET_AVX512
#define GRID
#define STREAM(to, from) _mm512_stream_ps(to, _mm512_load_ps(from))

/* Bit i to bit 2 i. */
static uint32_t spread(uint32_t bits)
{
    bits = (bits | bits << 8) & 0x00ff00ffu;
    bits = (bits | bits << 4) & 0x0f0f0f0fu;
    bits = (bits | bits << 2) & 0x33333333u;
    return (bits | bits << 1) & 0x55555555u;
}

/* Sixteen codes at a time: those that are not zero move together, and so do their offsets. */
TARGET int64_t mlp_pot_keep_avx512(const int8_t *row, int64_t step, int64_t count, const int32_t *where, int32_t base,
                                   int8_t *restrict codes, int32_t *restrict offsets)
{
    int64_t n = 0;
    for (; count > 0; count -= 16, row += 16 * step, where += 16) {
        uint32_t valid = count < 16 ? (1u << count) - 1 : 0xffff;
        __m128i code;
        if (step == 1)
            code = _mm_maskz_loadu_epi8((__mmask16)valid, row);
        else  /* every second byte; the last one of the row has no neighbour */
            code = _mm256_cvtepi16_epi8(_mm256_maskz_loadu_epi8(spread(valid), row));
        __mmask16 keep = _mm_test_epi8_mask(code, code);
        __m512i offset = _mm512_add_epi32(_mm512_loadu_si512(where), _mm512_set1_epi32(base));
        _mm512_storeu_si512(offsets + n, _mm512_maskz_compress_epi32(keep, offset));
        __m512i kept = _mm512_maskz_compress_epi32(keep, _mm512_cvtepi8_epi32(code));
        _mm_storeu_si128((__m128i *)(codes + n), _mm512_cvtepi32_epi8(kept));
        n += __builtin_popcount(keep);
    }
    return n;
}

/* Level by level: 64 codes are compared at once, and the offsets of the equal ones move together. */
TARGET void mlp_pot_sort_avx512(int8_t *codes, const int32_t *offsets, int64_t n, int levels, int32_t *terms,
                                int32_t *count)
{
    int64_t left = 0;
    int negative = 0;
    memset(codes + n, 0, MLP_POT_SPARE);
    memset(count, 0, 64 * sizeof *count);
    for (int64_t i = 0; i < n; i += 64) {
        __m512i code = _mm512_loadu_si512(codes + i);
        left += __builtin_popcountll(_mm512_test_epi8_mask(code, code));
        negative |= _mm512_movepi8_mask(code) != 0;
    }
    for (int level = levels; level > 0 && left > 0; level--)
        for (int sign = 1; sign >= -negative; sign -= 2) {
            __m512i wanted = _mm512_set1_epi8((int8_t)(sign * level));
            int32_t *start = terms;
            for (int64_t i = 0; i < n; i += 64) {
                uint64_t equal = _mm512_cmpeq_epi8_mask(_mm512_loadu_si512(codes + i), wanted);
                for (int j = 0; j < 64; j += 16) {  /* always four: a branch here would be a guess */
                    uint32_t part = equal >> j & 0xffff;
                    __m512i where = _mm512_loadu_si512(offsets + i + j);
                    _mm512_storeu_si512(terms, _mm512_maskz_compress_epi32((__mmask16)part, where));
                    terms += __builtin_popcount(part);
                }
            }
            count[(sign * level) & 63] = (int32_t)(terms - start);
            left -= terms - start;
        }
}

/* What codes stand for, by a table whose index is the code's low five bits: 25 ... 31 are -7 ... -1. */
static const int16_t words[32] = {0, 1, 2, 4, 8, 16, 32, 64, [25] = -64, -32, -16, -8, -4, -2, -1};
#define WORDS_OF(to, codes)                                                                                            \
    to = (VECTOR)_mm512_permutexvar_epi16(_mm512_cvtepi8_epi16((__m256i)codes), _mm512_loadu_si512(words))
/* The same for up to 16 levels, by a shift of each lane; the amount for a code of 0 leaves nothing. */
#define DOUBLEWORDS_OF(to, codes)                                                                                      \
    {                                                                                                                  \
        __m512i code = _mm512_cvtepi8_epi32((__m128i)codes), one = _mm512_set1_epi32(1);                               \
        __m512i power = _mm512_sllv_epi32(one, _mm512_sub_epi32(_mm512_abs_epi32(code), one));                         \
        to = (VECTOR)_mm512_mask_sub_epi32(power, _mm512_movepi32_mask(code), _mm512_setzero_si512(), power);          \
    }

#define LANE int16_t
#define WIDTH i16
#define VALUES WORDS_OF
#include "pot_bins_lanes.h"

#define LANE int32_t
#define WIDTH i32
#define VALUES DOUBLEWORDS_OF
#include "pot_bins_lanes.h"
#endif
