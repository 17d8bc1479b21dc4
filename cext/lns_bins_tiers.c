/* The vector loops of lns_bins_lanes.h for every tier, and the choice among them. A walk keeps gamma * JOBS(gamma)
 * vectors of sums: 16 of AVX-512's 32 registers, 8 of the 16 that the others have. */
#include "lns_bins.h"
#include <string.h>

#define TIER portable
#define VECTOR_BYTES 16
#define JOBS(gamma) ((gamma) > 4 ? 1 : (gamma) > 2 ? 2 : 4)
#define TARGET MLP_NOINLINE
#include "lns_bins_lanes.h"

#ifdef MLP_HAVE_AVX2
#define TIER avx2
#define VECTOR_BYTES 32
#define JOBS(gamma) ((gamma) > 4 ? 1 : (gamma) > 2 ? 2 : 4)
#define TARGET MLP_TARGET_AVX2
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
