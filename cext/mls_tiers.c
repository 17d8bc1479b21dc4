/* The vector loops of mls_lanes.h for every tier, and the choice among them. */
#include "mls.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define TIER portable
#define VECTOR_BYTES 16
#define TARGET MLP_NOINLINE
#if defined(__SSE2__)
#define MADD(a, b) ((mlp_mls_vector_portable)_mm_madd_epi16((__m128i)(a), (__m128i)(b)))
#else
#define MADD(a, b) ((((a) << 16) >> 16) * (((b) << 16) >> 16) + ((a) >> 16) * ((b) >> 16))
#endif
#include "mls_lanes.h"

#ifdef MLP_HAVE_AVX2
#define TIER avx2
#define VECTOR_BYTES 32
#define COUNTS
#define TARGET MLP_TARGET_AVX2
#define MADD(a, b) ((mlp_mls_vector_avx2)_mm256_madd_epi16((__m256i)(a), (__m256i)(b)))
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#include "mls_lanes.h"
#pragma GCC pop_options
#endif

#ifdef MLP_HAVE_AVX512
#define TIER avx512
#define VECTOR_BYTES 64
#define COUNTS
#define TARGET MLP_TARGET_AVX512
#define MADD(a, b) ((mlp_mls_vector_avx512)_mm512_madd_epi16((__m512i)(a), (__m512i)(b)))
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#include "mls_lanes.h"
#pragma GCC pop_options
#endif

const mlp_mls_lanes *mlp_mls_for_tier(void)
{
    return MLP_FOR_TIER(&mlp_mls_lanes_portable, &mlp_mls_lanes_avx2, &mlp_mls_lanes_avx512);
}
