/* The inner loops of the float32 convolutions for each instruction set, and the copy that feeds them. */
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
static inline void store4(float *p, mlp_v4 v) { memcpy(p, &v, sizeof v); }
static inline float sum4(mlp_v4 v) { return (v[0] + v[1]) + (v[2] + v[3]); }
#define TIER(name) portable_##name
#define TARGET MLP_NOINLINE
#define TARGET_BODY
#define VEC mlp_v4
#define VF 4
#define LOAD load4
#define STORE store4
#define SPLAT(f) ((mlp_v4){(f), (f), (f), (f)})
#define ZERO ((mlp_v4){0, 0, 0, 0})
#define FMA(a, b, c) ((a) * (b) + (c))
#define REDUCE4(a, b, c, d) ((mlp_v4){sum4(a), sum4(b), sum4(c), sum4(d)})
#define GM 4
#define GV 2
#define DM 4
#define DK 2
#include "f32_tile.h"

#if defined(MLP_HAVE_AVX2) || defined(MLP_HAVE_AVX512)
/* The sums of four vectors of four: a transposing addition, two levels deep. */
__attribute__((target("avx2,fma"))) static inline mlp_v4 across128(__m128 a, __m128 b, __m128 c, __m128 d)
{
    __m128 ab = _mm_add_ps(_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b));
    __m128 cd = _mm_add_ps(_mm_unpacklo_ps(c, d), _mm_unpackhi_ps(c, d));
    return (mlp_v4)_mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
}
#endif

#ifdef MLP_HAVE_AVX2
__attribute__((target("avx2,fma"))) static inline __m128 halves256(__m256 a)
{
    return _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
}
#define TIER(name) avx2_##name
#define TARGET MLP_TARGET_AVX2
#define TARGET_BODY __attribute__((target("avx2,fma")))
#define VEC __m256
#define VF 8
#define LOAD _mm256_loadu_ps
#define STORE _mm256_storeu_ps
#define SPLAT _mm256_set1_ps
#define ZERO _mm256_setzero_ps()
#define FMA _mm256_fmadd_ps
#define REDUCE4(a, b, c, d) across128(halves256(a), halves256(b), halves256(c), halves256(d))
#define GM 4
#define GV 2
#define DM 4
#define DK 3
#include "f32_tile.h"
#endif

#ifdef MLP_HAVE_AVX512
__attribute__((target("avx512f,avx512dq,avx2,fma"))) static inline __m128 quarters512(__m512 a)
{
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
#define TIER(name) avx512_##name
#define TARGET MLP_TARGET_AVX512
#define TARGET_BODY __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define VEC __m512
#define VF 16
#define LOAD _mm512_loadu_ps
#define STORE _mm512_storeu_ps
#define SPLAT _mm512_set1_ps
#define ZERO _mm512_setzero_ps()
#define FMA _mm512_fmadd_ps
#define REDUCE4(a, b, c, d) across128(quarters512(a), quarters512(b), quarters512(c), quarters512(d))
#define GM 8
#define GV 2
#define DM 4
#define DK 6
#include "f32_tile.h"
#endif

const mlp_f32_tiles *mlp_f32_tiles_in_force(void)
{
    static const mlp_f32_tiles portable = {4, 4, 2, portable_gather, portable_dot};
#ifdef MLP_HAVE_AVX512
    static const mlp_f32_tiles avx512 = {8, 4, 6, avx512_gather, avx512_dot};
    if (mlp_tier() == MLP_AVX512)
        return &avx512;
#endif
#ifdef MLP_HAVE_AVX2
    static const mlp_f32_tiles avx2 = {4, 4, 3, avx2_gather, avx2_dot};
    if (mlp_tier() >= MLP_AVX2)
        return &avx2;
#endif
    return &portable;
}

void mlp_f32_pack(const float *x, ptrdiff_t h, ptrdiff_t w, ptrdiff_t n, ptrdiff_t channels, ptrdiff_t y0, ptrdiff_t x0,
                  ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t n0, ptrdiff_t lanes, ptrdiff_t pitch, ptrdiff_t plane,
                  float *tile)
{
    ptrdiff_t inside0 = MLP_MIN(MLP_MAX(0, -x0), columns);               /* first and last column inside the image */
    ptrdiff_t inside1 = MLP_MAX(inside0, MLP_MIN(columns, w - x0));
    for (ptrdiff_t c = 0; c < channels; c++)
        for (ptrdiff_t r = 0; r < rows; r++) {
            float *to = tile + c * plane + r * columns * pitch;
            ptrdiff_t y = y0 + r;
            if (y < 0 || y >= h) {
                memset(to, 0, (size_t)(columns * pitch) * sizeof *to);
                continue;
            }
            const float *from = x + ((c * h + y) * w + x0) * n + n0;
            memset(to, 0, (size_t)(inside0 * pitch) * sizeof *to);
            if (lanes == MLP_F32_LANES && pitch == MLP_F32_LANES) {
                for (ptrdiff_t i = inside0; i < inside1; i++)
                    memcpy(to + i * MLP_F32_LANES, from + i * n, MLP_F32_LANES * sizeof *to);
            } else {
                for (ptrdiff_t i = inside0; i < inside1; i++) {
                    memcpy(to + i * pitch, from + i * n, (size_t)lanes * sizeof *to);
                    memset(to + i * pitch + lanes, 0, (size_t)(pitch - lanes) * sizeof *to);
                }
            }
            memset(to + inside1 * pitch, 0, (size_t)((columns - inside1) * pitch) * sizeof *to);
        }
}
