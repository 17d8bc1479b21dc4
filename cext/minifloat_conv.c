/* Convolution of small floats, forward and input gradient: the walk of conv_walk.c, with tiles of decoded levels.
 * Exact sums of doubles may run in any order; float sums are cut into chunks of 32 products. */
#include "conv_walk.h"
#include "minifloat.h"

static int contract(const mlp_f32_geometry *q, int exact, const int8_t *in, int man, const int8_t *w, int man_w,
                    const double *row_scale, const double *lane_scale, float *out,
                    int walk(const mlp_f32_geometry *, const mlp_conv_job *))
{
    const ptrdiff_t weights = q->outputs * (q->channels / q->groups) * q->kernel_h * q->kernel_w;
    float *weight = mlp_f32_alloc((size_t)weights, sizeof *weight);
    if (!weight)
        return MLP_NO_MEMORY;
    for (ptrdiff_t i = 0; i < weights; i++)
        weight[i] = mlp_minifloat_value(w[i], man_w);
    const mlp_conv_tiles *tier = mlp_conv_tiles_in_force(exact);
    const mlp_conv_job job = {.tier = tier, .fill = tier->from_levels, .in = in, .how = &man, .element = sizeof *in,
                              .weight = weight, .chunk = exact ? 0 : MLP_MINIFLOAT_CHUNK, .row_scale = row_scale,
                              .lane_scale = lane_scale, .out = out};
    const int status = walk(q, &job);
    free(weight);
    return status;
}

int mlp_minifloat_conv2d(const mlp_f32_geometry *q, int exact, const int8_t *x, int man_x, const int8_t *w, int man_w,
                         const double *row_scale, const double *lane_scale, float *out)
{
    return contract(q, exact, x, man_x, w, man_w, row_scale, lane_scale, out, mlp_conv_forward);
}

int mlp_minifloat_conv2d_input_grad(const mlp_f32_geometry *q, int exact, const int8_t *dy, int man_dy, const int8_t *w,
                                    int man_w, const double *row_scale, const double *lane_scale, float *out)
{
    return contract(q, exact, dy, man_dy, w, man_w, row_scale, lane_scale, out, mlp_conv_input_grad);
}
