/* The inner loops of the int8 engine for each instruction set. All sums are exact integers, so the order in which a tier
 * adds them makes no difference; dot8_tile.h holds the loops. */
#include <string.h>
#include "dot8.h"
#if defined(MLP_HAVE_AVX2) || defined(MLP_HAVE_AVX512)
#include <immintrin.h>
#endif

#ifdef MLP_HAVE_AVX512
#define AVX512 "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"
#include "dot8_put.h"
#else
#define mlp_dot8_put_floats(...) ((void)0) /* never called */
#define mlp_dot8_put_done() ((void)0)
#endif

typedef int32_t pairs4 __attribute__((vector_size(16)));

/* Portable: vectors of four pairs; each half is sign-extended by shifts and multiplied in 32 bits. */
static inline pairs4 load_pairs4(const void *p)
{
    pairs4 v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void store_pairs4(int32_t *p, pairs4 v) { memcpy(p, &v, sizeof v); }
static inline pairs4 low4(pairs4 v)
{
    typedef uint32_t words4 __attribute__((vector_size(16)));
    return (pairs4)((words4)v << 16) >> 16;
}
static inline pairs4 madd4(pairs4 a, pairs4 b, pairs4 c) { return c + low4(a) * low4(b) + (a >> 16) * (b >> 16); }
static inline int32_t sum_pairs4(pairs4 v) { return v[0] + v[1] + v[2] + v[3]; }
#define TIER(name) mlp_dot8_##name##_portable
#define TARGET MLP_NOINLINE
#define TARGET_BODY
#define VEC pairs4
#define VP 4
#define LOAD load_pairs4
#define STORE store_pairs4
#define SPLAT(i) ((pairs4){(i), (i), (i), (i)})
#define ZERO ((pairs4){0, 0, 0, 0})
#define MADD madd4
#define REDUCE sum_pairs4
#define NUMBER int16_t
#define ONES 0x10001
#define WIDE_PUT 0
#define GM 2
#define GV 2
#define WM 1
#define WV 2
#define DM 2
#define DK 2
#include "dot8_tile.h"

#ifdef MLP_HAVE_AVX2
__attribute__((target("avx2,fma"))) static inline int32_t sum256(__m256i v)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}
#define TIER(name) mlp_dot8_##name##_avx2
#define TARGET MLP_TARGET_AVX2
#define TARGET_BODY __attribute__((target("avx2,fma")))
#define VEC __m256i
#define VP 8
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define STORE(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define SPLAT _mm256_set1_epi32
#define ZERO _mm256_setzero_si256()
#define MADD(a, b, c) _mm256_add_epi32(c, _mm256_madd_epi16(a, b))
#define REDUCE sum256
#define NUMBER int16_t
#define ONES 0x10001
#define WIDE_PUT 0
#define GM 4
#define GV 2
#define WM 3
#define WV 1
#define DM 4
#define DK 2
#include "dot8_tile.h"
#endif

#ifdef MLP_HAVE_AVX512
#define TIER(name) mlp_dot8_##name##_avx512
#define TARGET MLP_TARGET_AVX512
#define TARGET_BODY __attribute__((target(AVX512)))
#define VEC __m512i
#define VP 16
#define LOAD _mm512_loadu_si512
#define STORE _mm512_storeu_si512
#define SPLAT _mm512_set1_epi32
#define ZERO _mm512_setzero_si512()
#define MADD(a, b, c) _mm512_add_epi32(c, _mm512_madd_epi16(a, b))
#define REDUCE _mm512_reduce_add_epi32
#define NUMBER int16_t
#define ONES 0x10001
#define WIDE_PUT 1
#define GM 8
#define GV 2
#define WM 3
#define WV 2
#define DM 4
#define DK 6
#include "dot8_tile.h"
#endif

/* vpdpbusd multiplies unsigned bytes by signed ones: those of x are stored 128 too large (xor 128), and a sum starts at
 * -128 times the sum of its weights. What passes through the 32 bits in between may wrap (the instruction does not
 * saturate); the sum that comes out is the exact one, since that one fits. */
#if defined(MLP_HAVE_AVX512) && defined(MLP_HAVE_VNNI)
#define TIER(name) mlp_dot8_##name##_vnni
#define TARGET MLP_TARGET_VNNI
#define TARGET_BODY __attribute__((target(AVX512 ",avx512vnni")))
#define VEC __m512i
#define VP 16
#define LOAD _mm512_loadu_si512
#define STORE _mm512_storeu_si512
#define SPLAT _mm512_set1_epi32
#define ZERO _mm512_setzero_si512()
#define MADD(a, b, c) _mm512_dpbusd_epi32(c, a, b)
#define REDUCE _mm512_reduce_add_epi32
#define NUMBER int8_t
#define ONES 0x1010101
#define WIDE_PUT 1
#define GM 8
#define GV 2
#define WM 4
#define WV 2
#define DM 4
#define DK 6
#include "dot8_tile.h"
#endif

#if defined(MLP_HAVE_AVX512) && defined(MLP_HAVE_VNNI) && defined(MLP_HAVE_AMX)
#define TILE_TIER
#include "dot8_amx.h"
#endif

#define GATHERS(tier) \
    {{mlp_dot8_gather11_##tier, mlp_dot8_gather12_##tier}, {mlp_dot8_gather21_##tier, mlp_dot8_gather22_##tier}}
#define DOTS(tier) mlp_dot8_dot_##tier, mlp_dot8_total_##tier

const mlp_dot8_tiles *mlp_dot8_tiles_in_force(void)
{
    static const mlp_dot8_tiles portable = {
        2, 2, 1, 32, 0, 0, {{2, 1}, {1, 1}}, GATHERS(portable), 2, 2, DOTS(portable), mlp_dot8_digits_portable,
        mlp_dot8_pairs_portable, mlp_dot8_widen_portable, NULL};
#ifdef TILE_TIER /* the weight gradient has its tiles in dot8_weight_amx.c */
    static const mlp_dot8_tiles amx = {
        4, 1, 16, 16, 0, 128, {{16, 16}, {16, 16}}, GATHERS(amx), 4, 6, DOTS(vnni), mlp_dot8_digits_avx512,
        NULL, NULL,
        mlp_dot8_quads_avx512};
    if (mlp_tier() >= MLP_AMX)
        return &amx;
#endif
#if defined(MLP_HAVE_AVX512) && defined(MLP_HAVE_VNNI)
    static const mlp_dot8_tiles vnni = {
        4, 1, 1, 32, 128, 128, {{8, 4}, {4, 4}}, GATHERS(vnni), 4, 6, DOTS(vnni), mlp_dot8_digits_avx512,
        NULL, NULL,
        mlp_dot8_quads_avx512};
    if (mlp_tier() >= MLP_VNNI)
        return &vnni;
#endif
#ifdef MLP_HAVE_AVX512
    static const mlp_dot8_tiles avx512 = {
        2, 2, 1, 32, 0, 0, {{8, 3}, {3, 3}}, GATHERS(avx512), 4, 6, DOTS(avx512), mlp_dot8_digits_avx2,
        mlp_dot8_pairs_avx2, mlp_dot8_widen_avx2,
        NULL};
    if (mlp_tier() >= MLP_AVX512)
        return &avx512;
#endif
#ifdef MLP_HAVE_AVX2
    static const mlp_dot8_tiles avx2 = {
        2, 2, 1, 32, 0, 0, {{4, 3}, {3, 3}}, GATHERS(avx2), 4, 2, DOTS(avx2), mlp_dot8_digits_avx2, mlp_dot8_pairs_avx2,
        mlp_dot8_widen_avx2, NULL};
    if (mlp_tier() >= MLP_AVX2)
        return &avx2;
#endif
    return &portable;
}
