/* The vector loops of mls_product_lanes.h for every tier that has fused multiply-adds, and the choice among them. */
#include "mls_product.h"
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#ifdef MLP_HAVE_AVX2
#define TIER avx2
#define VECTOR_BYTES 32
#define ROWS 6
#define TARGET MLP_TARGET_AVX2
#define MULADD(a, b, c) ((mlp_mls_product_numbers_avx2)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#include "mls_product_lanes.h"
#pragma GCC pop_options
#endif

#ifdef MLP_HAVE_AVX512
#define TIER avx512
#define VECTOR_BYTES 64
#define ROWS 14
#define TARGET MLP_TARGET_AVX512
#define MULADD(a, b, c) ((mlp_mls_product_numbers_avx512)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#include "mls_product_lanes.h"
#pragma GCC pop_options
#endif

#ifdef MLP_HAVE_VNNI
#define TIER vnni
#define VECTOR_BYTES 64
#define ROWS 14
#define TARGET MLP_TARGET_VNNI
#define MULADD(a, b, c) ((mlp_mls_product_numbers_vnni)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#define DOT(sum, a, b) ((mlp_mls_product_ints_vnni)_mm512_dpbusd_epi32((__m512i)(sum), (__m512i)(a), (__m512i)(b)))
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")
#include "mls_product_lanes.h"
#pragma GCC pop_options
#endif

const mlp_mls_products *mlp_mls_products_for_tier(void)
{
#ifdef MLP_HAVE_VNNI
    if (mlp_tier() >= MLP_VNNI)
        return &mlp_mls_products_vnni;
#endif
#ifdef MLP_HAVE_AVX512
    if (mlp_tier() >= MLP_AVX512)
        return &mlp_mls_products_avx512;
#endif
#ifdef MLP_HAVE_AVX2
    if (mlp_tier() >= MLP_AVX2)
        return &mlp_mls_products_avx2;
#endif
    return NULL;
}
