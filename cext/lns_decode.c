/* Values of logarithmic codes: sign * float32(maximum * 2^((|code| - top) / gamma)), by table. Twin in
 * minilp/kernels/reference_lns.py. */
#include "quantise.h"

enum { SMALL_TOP = 256 };

typedef struct {
    const void *codes;
    float *x;
    const float *maximum;
    const double *values;
    int64_t top;
    int width;
} lns_decode_task;

MLP_INLINE int32_t code_at(const void *codes, int width, int64_t at)
{
    return width == 1 ? ((const int8_t *)codes)[at] : width == 2 ? ((const int16_t *)codes)[at]
                                                                 : ((const int32_t *)codes)[at];
}

/* Few levels and one maximum: a table of signed float32 values, indexed by code + top. */
MLP_INLINE void small_run(const lns_decode_task *t, const mlp_run *run, int width)
{
    float table[2 * SMALL_TOP + 1], *middle = table + t->top;
    double maximum = t->maximum[run->scale];
    middle[0] = 0.0f;
    for (int64_t k = 1; k <= t->top; k++) {
        middle[k] = (float)(maximum * t->values[k]);
        middle[-k] = -middle[k];
    }
    float *restrict x = t->x + run->position;
    for (int64_t j = 0, n = run->n; j < n; j++)
        x[j] = middle[code_at(t->codes, width, run->position + j)];
}

MLP_INLINE void wide_run(const lns_decode_task *t, const mlp_run *run, int width, int64_t scale_step)
{
    const float *restrict maximum = t->maximum + run->scale;
    float *restrict x = t->x + run->position;
    for (int64_t j = 0, n = run->n; j < n; j++) {
        int32_t code = code_at(t->codes, width, run->position + j), level = code < 0 ? -code : code;
        float value = (float)((double)maximum[j * scale_step] * t->values[level]);
        x[j] = code < 0 ? -value : value;
    }
}

MLP_INLINE void width_run(const lns_decode_task *t, const mlp_run *run, int width)
{
    if (run->scale_step == 0 && t->top <= SMALL_TOP && run->n >= t->top)
        small_run(t, run, width);
    else if (run->scale_step == 0)
        wide_run(t, run, width, 0);
    else
        wide_run(t, run, width, run->scale_step);
}

MLP_INLINE uint32_t decode_lns_run(const void *task, const mlp_run *run)
{
    const lns_decode_task *t = task;
    switch (t->width) {
    case 1: width_run(t, run, 1); break;
    case 2: width_run(t, run, 2); break;
    default: width_run(t, run, 4); break;
    }
    return 0;
}

MLP_RUN_TIERS(decode_lns_run)

int mlp_lns_decode(const void *codes, float *x, int width, int ndim, const int64_t *shape, const int64_t *scale_steps,
                   const float *maximum, const double *values, int top)
{
    mlp_layout layout = {ndim, shape, scale_steps, scale_steps, 0};
    if (!mlp_layout_ok(&layout) || (width != 1 && width != 2 && width != 4) || top < 1 || top > 32768)
        return MLP_BAD_ARGUMENT;
    lns_decode_task task = {codes, x, maximum, values, top, width};
    mlp_walk(&layout, decode_lns_run_for_tier(), &task, mlp_walk_threads(mlp_layout_size(&layout)));
    return MLP_OK;
}
