/* The vector loops of mls_dot_lanes.h for every tier that has byte products, and the choice among them. */
#include "mls_dot.h"
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* A lane of a byte shuffle that brings byte i to the top: an index with its own top bit set picks a zero. */
#define TO_TOP(i) ((i) << 24 | 0x808080)
#define TO_TOP_16                                                                                                      \
    _mm512_setr_epi32(TO_TOP(0), TO_TOP(1), TO_TOP(2), TO_TOP(3), TO_TOP(4), TO_TOP(5), TO_TOP(6), TO_TOP(7),          \
                      TO_TOP(8), TO_TOP(9), TO_TOP(10), TO_TOP(11), TO_TOP(12), TO_TOP(13), TO_TOP(14), TO_TOP(15))

/* Four vectors' worth of bytes: 32-bit words of one group of lanes next to each other, then the bytes of each group. */
#define FOUR_BY_FOUR _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)
#define TURN4_16(bytes)                                                                                                \
    ((VECTOR)_mm512_shuffle_epi8(                                                                                      \
        _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),              \
                                 _mm512_loadu_si512(bytes)),                                                           \
        _mm512_broadcast_i32x4(FOUR_BY_FOUR)))

#ifdef MLP_HAVE_AVX2
#define TIER avx2
#define VECTOR_BYTES 32
#define ROWS_FEATURES 1
#define WGRAD_FEATURES 3
#define TARGET MLP_TARGET_AVX2
#define PAIRS 1
#define TOP(bytes)                                                                                                     \
    ((VECTOR)_mm256_shuffle_epi8(_mm256_broadcastq_epi64(_mm_loadl_epi64((const __m128i *)(bytes))),                   \
                                 _mm256_setr_epi32(TO_TOP(0), TO_TOP(1), TO_TOP(2), TO_TOP(3), TO_TOP(4), TO_TOP(5),   \
                                                   TO_TOP(6), TO_TOP(7))))
#define WIDEN(bytes) ((VECTOR)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(bytes))))
#define TURN4(bytes)                                                                                                   \
    ((VECTOR)_mm256_shuffle_epi8(_mm256_permutevar8x32_epi32(_mm256_loadu_si256((const __m256i *)(bytes)),             \
                                                             _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7)),               \
                                 _mm256_broadcastsi128_si256(FOUR_BY_FOUR)))
#define DOT(sum, x, w) ((VECTOR)_mm256_add_epi16((__m256i)(sum), _mm256_maddubs_epi16((__m256i)(x), (__m256i)(w))))
#define SUM(sum) ((VECTOR)_mm256_madd_epi16((__m256i)(sum), _mm256_set1_epi16(1)))
#define MULADD(a, b, c) ((FLOATS)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define PAST(out, v) _mm256_stream_ps(out, (__m256)(v))
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#include "mls_dot_lanes.h"
#pragma GCC pop_options
#endif

#ifdef MLP_HAVE_AVX512
#define TIER avx512
#define VECTOR_BYTES 64
#define ROWS_FEATURES 2
#define WGRAD_FEATURES 8
#define TARGET MLP_TARGET_AVX512
#define PAIRS 1
#define TOP(bytes)                                                                                                     \
    ((VECTOR)_mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)(bytes))), TO_TOP_16))
#define WIDEN(bytes) ((VECTOR)_mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)(bytes))))
#define TURN4(bytes) TURN4_16(bytes)
#define DOT(sum, x, w) ((VECTOR)_mm512_add_epi16((__m512i)(sum), _mm512_maddubs_epi16((__m512i)(x), (__m512i)(w))))
#define SUM(sum) ((VECTOR)_mm512_madd_epi16((__m512i)(sum), _mm512_set1_epi16(1)))
#define MULADD(a, b, c) ((FLOATS)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#define PAST(out, v) _mm512_stream_ps(out, (__m512)(v))
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#include "mls_dot_lanes.h"
#pragma GCC pop_options
#endif

#ifdef MLP_HAVE_VNNI
#define TIER vnni
#define VECTOR_BYTES 64
#define ROWS_FEATURES 2
#define WGRAD_FEATURES 8
#define TARGET MLP_TARGET_VNNI
#define PAIRS 0
#define TOP(bytes)                                                                                                     \
    ((VECTOR)_mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)(bytes))), TO_TOP_16))
#define WIDEN(bytes) ((VECTOR)_mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)(bytes))))
#define TURN4(bytes) TURN4_16(bytes)
#define DOT(sum, x, w) ((VECTOR)_mm512_dpbusd_epi32((__m512i)(sum), (__m512i)(x), (__m512i)(w)))
#define SUM(sum) (sum)
#define MULADD(a, b, c) ((FLOATS)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#define PAST(out, v) _mm512_stream_ps(out, (__m512)(v))
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")
#include "mls_dot_lanes.h"
#pragma GCC pop_options
#endif

const mlp_mls_dots *mlp_mls_dots_for_tier(void)
{
#ifdef MLP_HAVE_VNNI
    if (mlp_tier() >= MLP_VNNI)
        return &mlp_mls_dots_vnni;
#endif
#ifdef MLP_HAVE_AVX512
    if (mlp_tier() >= MLP_AVX512)
        return &mlp_mls_dots_avx512;
#endif
#ifdef MLP_HAVE_AVX2
    if (mlp_tier() >= MLP_AVX2)
        return &mlp_mls_dots_avx2;
#endif
    return NULL;
}

void mlp_mls_plan_decode(mlp_mls_decode *d, const int16_t *table)
{
    memset(d, 0, sizeof *d);
    for (int i = 0; i < 16 * MLP_MLS_MOST_CHUNKS; i++) {
        d->table[i / 16][i % 16] = (int8_t)table[i];
        if (table[i])
            d->chunks = i / 16 + 1;
        d->bias = table[i] > d->bias ? table[i] : d->bias;
        d->few = table[i] ? i < 8 : d->few;
    }
    for (int i = 0; i < 8; i++) {
        d->by_bits[-i & 15] = (int8_t)-table[i];
        d->by_bits[i] = (int8_t)table[i];
    }
}
