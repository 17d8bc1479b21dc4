/* The inner loop of the weight gradient of small floats for each instruction set, and the copy that feeds them. */
#include "minifloat.h"
#if defined(MLP_HAVE_AVX2) || defined(MLP_HAVE_AVX512)
#include <immintrin.h>
#endif

/* Portable: vectors of 16 bytes, which every compiler lowers to what the machine has; no fused operation. */
typedef float floats4 __attribute__((vector_size(16)));
typedef double doubles2 __attribute__((vector_size(16)));
static inline floats4 load_floats4(const float *p)
{
    floats4 v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void store_floats4(float *p, floats4 v) { memcpy(p, &v, sizeof v); }
static inline doubles2 load_doubles2(const double *p)
{
    doubles2 v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void store_doubles2(double *p, doubles2 v) { memcpy(p, &v, sizeof v); }
#define TARGET MLP_NOINLINE
#define WIDE 2
#define TARGET_BODY
#define DJ 4
#define DV 2
#define TIER(name) portable_float_##name
#define REAL float
#define VEC floats4
#define VF 4
#define LOAD load_floats4
#define STORE store_floats4
#define SPLAT(f) ((floats4){(f), (f), (f), (f)})
#define ZERO ((floats4){0, 0, 0, 0})
#define FMA(a, b, c) ((a) * (b) + (c))
#include "minifloat_tile.h"
#define TIER(name) portable_double_##name
#define REAL double
#define VEC doubles2
#define VF 2
#define LOAD load_doubles2
#define STORE store_doubles2
#define SPLAT(f) ((doubles2){(f), (f)})
#define ZERO ((doubles2){0, 0})
#define FMA(a, b, c) ((a) * (b) + (c))
#include "minifloat_tile.h"
#undef TARGET
#undef WIDE
#undef TARGET_BODY
#undef DJ
#undef DV

#ifdef MLP_HAVE_AVX2
#define TARGET MLP_TARGET_AVX2
#define WIDE 4
#define TARGET_BODY __attribute__((target("avx2,fma")))
#define DJ 6
#define DV 2
#define TIER(name) avx2_float_##name
#define REAL float
#define VEC __m256
#define VF 8
#define LOAD _mm256_loadu_ps
#define STORE _mm256_storeu_ps
#define SPLAT _mm256_set1_ps
#define ZERO _mm256_setzero_ps()
#define FMA _mm256_fmadd_ps
#include "minifloat_tile.h"
#define TIER(name) avx2_double_##name
#define REAL double
#define VEC __m256d
#define VF 4
#define LOAD _mm256_loadu_pd
#define STORE _mm256_storeu_pd
#define SPLAT _mm256_set1_pd
#define ZERO _mm256_setzero_pd()
#define FMA _mm256_fmadd_pd
#include "minifloat_tile.h"
#undef TARGET
#undef WIDE
#undef TARGET_BODY
#undef DJ
#undef DV
#endif

#ifdef MLP_HAVE_AVX512
#define TARGET MLP_TARGET_AVX512
#define WIDE 8
#define TARGET_BODY __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define DJ 8
#define DV 2
#define TIER(name) avx512_float_##name
#define REAL float
#define VEC __m512
#define VF 16
#define LOAD _mm512_loadu_ps
#define STORE _mm512_storeu_ps
#define SPLAT _mm512_set1_ps
#define ZERO _mm512_setzero_ps()
#define FMA _mm512_fmadd_ps
#include "minifloat_tile.h"
#define TIER(name) avx512_double_##name
#define REAL double
#define VEC __m512d
#define VF 8
#define LOAD _mm512_loadu_pd
#define STORE _mm512_storeu_pd
#define SPLAT _mm512_set1_pd
#define ZERO _mm512_setzero_pd()
#define FMA _mm512_fmadd_pd
#include "minifloat_tile.h"
#endif

const mlp_minifloat_tiles *mlp_minifloat_tiles_in_force(int exact)
{
    return MLP_FOR_TIER(exact ? &portable_double_tiles : &portable_float_tiles,
                        exact ? &avx2_double_tiles : &avx2_float_tiles,
                        exact ? &avx512_double_tiles : &avx512_float_tiles);
}

void mlp_minifloat_pack(const mlp_minifloat_tiles *tier, const mlp_minifloat_picture *from,
                        const mlp_minifloat_cut *cut, ptrdiff_t n0, ptrdiff_t lanes, ptrdiff_t plane, char *tile)
{
    const ptrdiff_t pixel = MLP_MINIFLOAT_BYTES, row = cut->columns * pixel;
    ptrdiff_t low, high;
    mlp_minifloat_inside(cut->x0, cut->x_step, cut->columns, from->w, &low, &high);
    for (ptrdiff_t c = 0; c < from->channels; c++)
        for (ptrdiff_t r = 0; r < cut->rows; r++) {
            char *to = tile + c * plane * tier->size + r * row;
            const ptrdiff_t y = cut->y0 + r * cut->y_step;
            if (y < 0 || y >= from->h || high <= low) {
                memset(to, 0, (size_t)row);
                continue;
            }
            memset(to, 0, (size_t)(low * pixel));
            tier->decode(from->codes + ((c * from->h + y) * from->w + cut->x0 + low * cut->x_step) * from->n + n0,
                         cut->x_step * from->n, high - low, lanes, from->man, to + low * pixel);
            memset(to + high * pixel, 0, (size_t)((cut->columns - high) * pixel));
        }
}
