/* Contractions of MX codes: integer MACs inside a block, one float32 add between blocks, in ascending order. Twins in
 * minilp/kernels/reference_mx.py.
 *
 *   mx_encode.c  real numbers to levels and scales
 *   mx_pairs.c   levels to pairs of integers, with padding
 *   mx_lanes.h   the vector loops, one body for all tiers
 *   mx_tiers.c   their instances and the drivers
 *   mx_records.h the same sums another way, where that is faster or integers are wider
 *
 * Elements come as 16-bit integers in pairs along the sum, in one int32: one instruction multiplies two elements of a
 * block and adds them up. Images come with their padding, so that no loop tests a border. The term of a block is
 * float(P) * scale * scale; scales are powers of two and no term is subnormal, so both products are exact. */
#ifndef MINILP_MX_H
#define MINILP_MX_H
#include "minilp_core.h"
#include "pot_bins.h"

enum { MLP_MX_FEATURES = 4, MLP_MX_TAPS = 3 };

/* Where tap k of output i reads along one axis of a padded input; -1: nowhere. */
MLP_INLINE int64_t mlp_mx_at(const mlp_mx_rows *g, int axis, int64_t i, int64_t k)
{
    if (!g->input_grad)
        return i * g->stride[axis] + k * g->dilation[axis];
    int64_t t = i + g->padding[axis] - k * g->dilation[axis];
    return mlp_floor_mod(t, g->stride[axis]) ? -1 : mlp_floor_div(t, g->stride[axis]) + g->left[axis];
}

#endif
