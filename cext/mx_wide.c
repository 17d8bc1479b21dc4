/* The loops of mx_wide_lanes.h for every tier. Products and sums are exact, so a fused multiply-add is the same. */
#include "mx_records.h"
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define TIER portable
#define VECTOR_BYTES 16
#define TARGET MLP_NOINLINE
#define STEPS 1
#define MULADD(a, b, c) ((a) * (b) + (c))
#define PAST(out, v) memcpy(out, v, 16)
#include "mx_wide_lanes.h"

#ifdef MLP_HAVE_AVX2
#define TIER avx2
#define VECTOR_BYTES 32
#define TARGET MLP_TARGET_AVX2
#define STEPS 1
#define MULADD(a, b, c) ((mlp_mx_doubles_avx2)_mm256_fmadd_pd((__m256d)(a), (__m256d)(b), (__m256d)(c)))
#define PAST(out, v) memcpy(out, v, 32)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#include "mx_wide_lanes.h"
#pragma GCC pop_options
#endif

#ifdef MLP_HAVE_AVX512
#define TIER avx512
#define VECTOR_BYTES 64
#define TARGET MLP_TARGET_AVX512
#define STEPS 3
#define MULADD(a, b, c) ((mlp_mx_doubles_avx512)_mm512_fmadd_pd((__m512d)(a), (__m512d)(b), (__m512d)(c)))
#define PAST(out, v) _mm512_stream_ps(out, _mm512_load_ps(v))
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#include "mx_wide_lanes.h"
#pragma GCC pop_options
#endif

const mlp_mx_kernel *mlp_mx_wide_kernel(void)
{
    return MLP_FOR_TIER(&mlp_mx_wide_portable, &mlp_mx_wide_avx2, &mlp_mx_wide_avx512);
}
