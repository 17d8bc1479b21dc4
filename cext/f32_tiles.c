/* The inner loop of the float32 weight gradient for each instruction set. */
#include <string.h>
#include "f32_conv.h"
#if defined(MLP_HAVE_AVX2) || defined(MLP_HAVE_AVX512)
#include <immintrin.h>
#endif

typedef float mlp_v4 __attribute__((vector_size(16)));

/* Portable: vectors of four, which every compiler lowers to what the machine has; no fused operation. */
static inline mlp_v4 load4(const float *p)
{
    mlp_v4 v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline float sum4(mlp_v4 v) { return (v[0] + v[1]) + (v[2] + v[3]); }
#define TIER(name) portable_##name
#define TARGET MLP_NOINLINE
#define TARGET_BODY
#define VEC mlp_v4
#define VF 4
#define LOAD load4
#define ZERO ((mlp_v4){0, 0, 0, 0})
#define FMA(a, b, c) ((a) * (b) + (c))
#define REDUCE4(a, b, c, d) ((mlp_v4){sum4(a), sum4(b), sum4(c), sum4(d)})
#define DM 4
#define DK 2
#include "f32_tile.h"

#ifdef MLP_HAVE_AVX2
/* The sums of four vectors: a transposing addition inside each quarter, then the quarters on top of each other. */
__attribute__((target("avx2,fma"))) static inline __m256 across256(__m256 a, __m256 b, __m256 c, __m256 d)
{
    __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    return _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
}
__attribute__((target("avx2,fma"))) static inline mlp_v4 halves256(__m256 a)
{
    return (mlp_v4)_mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
}
#define TIER(name) avx2_##name
#define TARGET MLP_TARGET_AVX2
#define TARGET_BODY __attribute__((target("avx2,fma")))
#define VEC __m256
#define VF 8
#define LOAD _mm256_loadu_ps
#define ZERO _mm256_setzero_ps()
#define FMA _mm256_fmadd_ps
#define REDUCE4(a, b, c, d) halves256(across256(a, b, c, d))
#define DM 4
#define DK 3
#include "f32_tile.h"
#endif

#ifdef MLP_HAVE_AVX512
__attribute__((target("avx512f,avx512dq,avx2,fma"))) static inline __m512 across512(__m512 a, __m512 b, __m512 c,
                                                                                    __m512 d)
{
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    return _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
}
__attribute__((target("avx512f,avx512dq,avx2,fma"))) static inline mlp_v4 quarters512(__m512 a)
{
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    return (mlp_v4)_mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
#define TIER(name) avx512_##name
#define TARGET MLP_TARGET_AVX512
#define TARGET_BODY __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define VEC __m512
#define VF 16
#define LOAD _mm512_loadu_ps
#define ZERO _mm512_setzero_ps()
#define FMA _mm512_fmadd_ps
#define REDUCE4(a, b, c, d) quarters512(across512(a, b, c, d))
#define DM 4
#define DK 6
#include "f32_tile.h"
#endif

const mlp_f32_tiles *mlp_f32_tiles_in_force(void)
{
    static const mlp_f32_tiles portable = {4, 2, portable_dot};
#ifdef MLP_HAVE_AVX512
    static const mlp_f32_tiles avx512 = {4, 6, avx512_dot};
    if (mlp_vector_tier() == MLP_AVX512)
        return &avx512;
#endif
#ifdef MLP_HAVE_AVX2
    static const mlp_f32_tiles avx2 = {4, 3, avx2_dot};
    if (mlp_vector_tier() >= MLP_AVX2)
        return &avx2;
#endif
    return &portable;
}
