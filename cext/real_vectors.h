/* The float and double vectors of every instruction set under one set of names, and a file of loops compiled for each.
 * No include guard, on purpose. The includer defines LOOPS, the quoted name of that file, which finds:
 *   TIER(name)            the function's name in this tier        TARGET, TARGET_BODY   attributes
 *   REAL                  float or double                         VEC, VF   vector of VF numbers, VECTOR_BYTES long
 *   LOAD, STORE, SPLAT, ZERO
 *   FMA(a, b, c)          a * b + c, fused where the tier can
 *   GATHER(table, index)  floats only: table[index], lane by lane
 * and leaves portable_float_..., portable_double_..., avx2_float_..., and so on. */
#include <string.h>
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

#define VECTOR_BYTES 16
#define TARGET MLP_NOINLINE
#define TARGET_BODY
#define TIER(name) portable_float_##name
#define REAL float
#define VEC floats4
#define LOAD load_floats4
#define STORE store_floats4
#define SPLAT(f) ((floats4){(f), (f), (f), (f)})
#define ZERO ((floats4){0, 0, 0, 0})
#define FMA(a, b, c) ((a) * (b) + (c))
#define GATHER(t, i) ((floats4){(t)[(i)[0]], (t)[(i)[1]], (t)[(i)[2]], (t)[(i)[3]]})
#include "real_loops.h"
#define TIER(name) portable_double_##name
#define REAL double
#define VEC doubles2
#define LOAD load_doubles2
#define STORE store_doubles2
#define SPLAT(f) ((doubles2){(f), (f)})
#define ZERO ((doubles2){0, 0})
#define FMA(a, b, c) ((a) * (b) + (c))
#include "real_loops.h"
#undef VECTOR_BYTES
#undef TARGET
#undef TARGET_BODY

#ifdef MLP_HAVE_AVX2
#define VECTOR_BYTES 32
#define TARGET MLP_TARGET_AVX2
#define TARGET_BODY __attribute__((target("avx2,fma")))
#define TIER(name) avx2_float_##name
#define REAL float
#define VEC __m256
#define LOAD _mm256_loadu_ps
#define STORE _mm256_storeu_ps
#define SPLAT _mm256_set1_ps
#define ZERO _mm256_setzero_ps()
#define FMA _mm256_fmadd_ps
#define GATHER(t, i) _mm256_i32gather_ps(t, (__m256i)(i), 4)
#include "real_loops.h"
#define TIER(name) avx2_double_##name
#define REAL double
#define VEC __m256d
#define LOAD _mm256_loadu_pd
#define STORE _mm256_storeu_pd
#define SPLAT _mm256_set1_pd
#define ZERO _mm256_setzero_pd()
#define FMA _mm256_fmadd_pd
#include "real_loops.h"
#undef VECTOR_BYTES
#undef TARGET
#undef TARGET_BODY
#endif

#ifdef MLP_HAVE_AVX512
#define VECTOR_BYTES 64
#define TARGET MLP_TARGET_AVX512
#define TARGET_BODY __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define TIER(name) avx512_float_##name
#define REAL float
#define VEC __m512
#define LOAD _mm512_loadu_ps
#define STORE _mm512_storeu_ps
#define SPLAT _mm512_set1_ps
#define ZERO _mm512_setzero_ps()
#define FMA _mm512_fmadd_ps
#define GATHER(t, i) _mm512_i32gather_ps((__m512i)(i), t, 4)
#include "real_loops.h"
#define TIER(name) avx512_double_##name
#define REAL double
#define VEC __m512d
#define LOAD _mm512_loadu_pd
#define STORE _mm512_storeu_pd
#define SPLAT _mm512_set1_pd
#define ZERO _mm512_setzero_pd()
#define FMA _mm512_fmadd_pd
#include "real_loops.h"
#undef VECTOR_BYTES
#undef TARGET
#undef TARGET_BODY
#endif
