/* The vector loops of mx_lanes.h for every tier, and the contractions that share them out to threads. */
#include "mx.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define TIER portable
#define VECTOR_BYTES 16
#define TARGET MLP_NOINLINE
#define JOBS 4
#if defined(__SSE2__)
#define MADD(sum, a, b) ((sum) + (mlp_mx_vector_portable)_mm_madd_epi16((__m128i)(a), (__m128i)(b)))
#else
#define MADD(sum, a, b) ((sum) + (((a) << 16) >> 16) * (((b) << 16) >> 16) + ((a) >> 16) * ((b) >> 16))
#endif
#include "mx_lanes.h"

#ifdef MLP_HAVE_AVX2
#define TIER avx2
#define VECTOR_BYTES 32
#define TARGET MLP_TARGET_AVX2
#define JOBS 4
#define MADD(sum, a, b) ((sum) + (mlp_mx_vector_avx2)_mm256_madd_epi16((__m256i)(a), (__m256i)(b)))
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#include "mx_lanes.h"
#pragma GCC pop_options
#endif

#ifdef MLP_HAVE_AVX512
#define TIER avx512
#define VECTOR_BYTES 64
#define TARGET MLP_TARGET_AVX512
#define JOBS 8
#define MADD(sum, a, b) ((sum) + (mlp_mx_vector_avx512)_mm512_madd_epi16((__m512i)(a), (__m512i)(b)))
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#include "mx_lanes.h"
#pragma GCC pop_options
#endif

#ifdef MLP_HAVE_VNNI
#define TIER vnni
#define VECTOR_BYTES 64
#define TARGET MLP_TARGET_VNNI
#define JOBS 8
#define MADD(sum, a, b) ((mlp_mx_vector_vnni)_mm512_dpwssd_epi32((__m512i)(sum), (__m512i)(a), (__m512i)(b)))
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")
#include "mx_lanes.h"
#pragma GCC pop_options
#endif

typedef struct {
    int64_t lanes;
    void (*row)(const mlp_mx_rows *g, int64_t y, int64_t v);
    void (*weight)(const mlp_mx_wgrad *g, int64_t o, int64_t features, int64_t vector);
} loops;

static loops for_tier(void)
{
#ifdef MLP_HAVE_VNNI
    if (mlp_tier() >= MLP_VNNI)
        return (loops){16, mlp_mx_row_vnni, mlp_mx_weight_vnni};
#endif
    return MLP_FOR_TIER(((loops){4, mlp_mx_row_portable, mlp_mx_weight_portable}),
                        ((loops){8, mlp_mx_row_avx2, mlp_mx_weight_avx2}),
                        ((loops){16, mlp_mx_row_avx512, mlp_mx_weight_avx512}));
}

int64_t mlp_mx_lanes(void)
{
    return for_tier().lanes;
}

int mlp_mx_rows_contract(const mlp_mx_rows *g)
{
    loops here = for_tier();
    if (g->lanes % here.lanes || g->lanes < g->batch)
        return MLP_BAD_ARGUMENT;
    int64_t vectors = mlp_ceil_div(g->batch, here.lanes);
    MLP_PRAGMA(omp parallel for schedule(dynamic) num_threads(mlp_threads()))
    for (int64_t t = 0; t < vectors * g->out_size[0]; t++)
        here.row(g, t % g->out_size[0], t / g->out_size[0] * here.lanes);
    return MLP_OK;
}

int mlp_mx_wgrad_contract(const mlp_mx_wgrad *g)
{
    loops here = for_tier();
    int64_t parts = mlp_ceil_div(g->features, MLP_MX_FEATURES);
    MLP_PRAGMA(omp parallel for schedule(dynamic) num_threads(mlp_threads()))
    for (int64_t t = 0; t < g->vectors * parts; t++) {
        int64_t o = t % parts * MLP_MX_FEATURES;
        here.weight(g, o, mlp_min(MLP_MX_FEATURES, g->features - o), t / parts);
    }
    return MLP_OK;
}
