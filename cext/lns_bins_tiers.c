/* The vector loops of lns_bins_lanes.h for every tier, and the choice among them. A walk keeps gamma * JOBS(gamma)
 * vectors of sums: 16 of AVX-512's 32 registers, 8 of the 16 that the others have. */
#include "lns_bins.h"
#include <string.h>
#ifdef MLP_HAVE_AVX512
#include <immintrin.h>
#endif

#define ADD_PLANE(acc, row, i, jobs) ((acc) + (row)[i])
#define SUB_PLANE(acc, row, i, jobs) ((acc) - (row)[i])
#define TIER portable
#define VECTOR_BYTES 16
#define JOBS(gamma) ((gamma) > 4 ? 1 : (gamma) > 2 ? 2 : 4)
#define TARGET MLP_NOINLINE
#define MASKED 0
#define ADD ADD_PLANE
#define SUB SUB_PLANE
#include "lns_bins_lanes.h"

#ifdef MLP_HAVE_AVX2
#define TIER avx2
#define VECTOR_BYTES 32
#define JOBS(gamma) ((gamma) > 4 ? 1 : (gamma) > 2 ? 2 : 4)
#define TARGET MLP_TARGET_AVX2
#define MASKED 0
#define ADD ADD_PLANE
#define SUB SUB_PLANE
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#include "lns_bins_lanes.h"
#pragma GCC pop_options
#endif

#ifdef MLP_HAVE_AVX512
#define TIER avx512
#define VECTOR_BYTES 64
#define JOBS(gamma) ((gamma) > 8 ? 1 : (gamma) > 4 ? 2 : 4)
#define TARGET MLP_TARGET_AVX512
#define MASKED 1
#define REST_IS(row, i, jobs) \
    _mm512_cmpeq_epi32_mask((__m512i)(row)[(jobs) + (i) % (jobs)], _mm512_set1_epi32((i) / (jobs)))
#define WHERE_REST_IS(what, acc, row, i, jobs) \
    (VECTOR)_mm512_mask_##what##_epi32((__m512i)(acc), REST_IS(row, i, jobs), (__m512i)(acc), \
                                       (__m512i)(row)[(i) % (jobs)])
#define ADD(acc, row, i, jobs) WHERE_REST_IS(add, acc, row, i, jobs)
#define SUB(acc, row, i, jobs) WHERE_REST_IS(sub, acc, row, i, jobs)
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#include "lns_bins_lanes.h"
#pragma GCC pop_options
#endif

const mlp_lns_lanes *mlp_lns_for_tier(int gamma)
{
    int which = 0;
    while (which < 5 && 1 << which != gamma)
        which++;
    if (which == 5)
        return NULL;
    return MLP_FOR_TIER(mlp_lns_tables_gall_portable[which],
                        mlp_lns_tables_gall_avx2[which],
                        mlp_lns_tables_gall_avx512[which]);
}
