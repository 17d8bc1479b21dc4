/* Convolution in float32, forward and input gradient: the walk of conv_walk.c over tiles that are copies, or over codes
 * that a table turns into float32 on their way into the tile. */
#include "conv_walk.h"

static int contract(const mlp_f32_geometry *q, const float *in, const float *w, float *out,
                    int walk(const mlp_f32_geometry *, const mlp_conv_job *))
{
    const mlp_conv_tiles *tier = mlp_conv_tiles_in_force(0);
    const mlp_conv_job job = {.tier = tier, .fill = tier->from_floats, .in = in, .element = sizeof *in, .weight = w,
                              .out = out};
    return walk(q, &job);
}

static int contract_codes(const mlp_f32_geometry *q, const mlp_codes *in, const float *w, float *out,
                          int walk(const mlp_f32_geometry *, const mlp_conv_job *))
{
    const mlp_conv_tiles *tier = mlp_conv_tiles_in_force(0);
    const mlp_conv_table table = {in->table + in->top, (int32_t)in->top};
    if (!mlp_codes_ok(in))
        return MLP_BAD_ARGUMENT;
    const mlp_conv_job job = {.tier = tier, .fill = in->width == 1 ? tier->from_bytes : tier->from_words,
                              .in = in->codes, .how = &table, .element = (int)in->width, .weight = w, .out = out};
    return walk(q, &job);
}

int mlp_f32_conv2d(const mlp_f32_geometry *q, const float *x, const float *w, float *y)
{
    return contract(q, x, w, y, mlp_conv_forward);
}

int mlp_f32_conv2d_input_grad(const mlp_f32_geometry *q, const float *dy, const float *w, float *dx)
{
    return contract(q, dy, w, dx, mlp_conv_input_grad);
}

int mlp_coded_conv2d(const mlp_f32_geometry *q, const mlp_codes *x, const float *w, float *y)
{
    return contract_codes(q, x, w, y, mlp_conv_forward);
}

int mlp_coded_conv2d_input_grad(const mlp_f32_geometry *q, const mlp_codes *dy, const float *w, float *dx)
{
    return contract_codes(q, dy, w, dx, mlp_conv_input_grad);
}
