/* The inner loops of the convolutions for each instruction set and each kind of number. */
#include <string.h>
#include "conv_walk.h"
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
#define TARGET_BODY
#define GM 4
#define GP 3
#define TIER(name) portable_float_##name
#define REAL float
#define VEC floats4
#define VF 4
#define LOAD load_floats4
#define STORE store_floats4
#define SPLAT(f) ((floats4){(f), (f), (f), (f)})
#define ZERO ((floats4){0, 0, 0, 0})
#define GATHER(t, i) ((floats4){(t)[(i)[0]], (t)[(i)[1]], (t)[(i)[2]], (t)[(i)[3]]})
#define FMA(a, b, c) ((a) * (b) + (c))
#include "conv_tile.h"
#define TIER(name) portable_double_##name
#define REAL double
#define VEC doubles2
#define VF 2
#define LOAD load_doubles2
#define STORE store_doubles2
#define SPLAT(f) ((doubles2){(f), (f)})
#define ZERO ((doubles2){0, 0})
#define FMA(a, b, c) ((a) * (b) + (c))
#include "conv_tile.h"
#undef TARGET
#undef TARGET_BODY
#undef GM
#undef GP

#ifdef MLP_HAVE_AVX2
#define TARGET MLP_TARGET_AVX2
#define TARGET_BODY __attribute__((target("avx2,fma")))
#define GM 4
#define GP 3
#define TIER(name) avx2_float_##name
#define REAL float
#define VEC __m256
#define VF 8
#define LOAD _mm256_loadu_ps
#define STORE _mm256_storeu_ps
#define SPLAT _mm256_set1_ps
#define ZERO _mm256_setzero_ps()
#define GATHER(t, i) _mm256_i32gather_ps(t, (__m256i)(i), 4)
#define FMA _mm256_fmadd_ps
#include "conv_tile.h"
#define TIER(name) avx2_double_##name
#define REAL double
#define VEC __m256d
#define VF 4
#define LOAD _mm256_loadu_pd
#define STORE _mm256_storeu_pd
#define SPLAT _mm256_set1_pd
#define ZERO _mm256_setzero_pd()
#define FMA _mm256_fmadd_pd
#include "conv_tile.h"
#undef TARGET
#undef TARGET_BODY
#undef GM
#undef GP
#endif

#ifdef MLP_HAVE_AVX512
#define TARGET MLP_TARGET_AVX512
#define TARGET_BODY __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define GM 8
#define GP 3
#define TIER(name) avx512_float_##name
#define REAL float
#define VEC __m512
#define VF 16
#define LOAD _mm512_loadu_ps
#define STORE _mm512_storeu_ps
#define SPLAT _mm512_set1_ps
#define ZERO _mm512_setzero_ps()
#define GATHER(t, i) _mm512_i32gather_ps((__m512i)(i), t, 4)
#define FMA _mm512_fmadd_ps
#include "conv_tile.h"
#define TIER(name) avx512_double_##name
#define REAL double
#define VEC __m512d
#define VF 8
#define LOAD _mm512_loadu_pd
#define STORE _mm512_storeu_pd
#define SPLAT _mm512_set1_pd
#define ZERO _mm512_setzero_pd()
#define FMA _mm512_fmadd_pd
#include "conv_tile.h"
#endif

const mlp_conv_tiles *mlp_conv_tiles_in_force(int doubles)
{
    return MLP_FOR_TIER(doubles ? &portable_double_tiles : &portable_float_tiles,
                        doubles ? &avx2_double_tiles : &avx2_float_tiles,
                        doubles ? &avx512_double_tiles : &avx512_float_tiles);
}
