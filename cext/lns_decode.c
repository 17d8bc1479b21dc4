/* Values of logarithmic codes: sign * float32(maximum * 2^((|code| - top) / gamma)), by table. Twin in
 * minilp/kernels/reference_lns.py.
 *
 * A run reports its largest level. What is beyond the top reads as the top, so no table is left. */
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

/* The code, brought within +-top; `largest` keeps the largest level seen. */
MLP_INLINE int32_t checked(int32_t code, int32_t top, uint32_t *largest)
{
    const uint32_t level = code < 0 ? 0u - (uint32_t)code : (uint32_t)code;
    *largest = level > *largest ? level : *largest;
    code = code > top ? top : code;
    return code < -top ? -top : code;
}

/* Few levels and one maximum: a table of signed float32 values, indexed by code + top. */
MLP_INLINE uint32_t small_run(const lns_decode_task *t, const mlp_run *run, int width)
{
    float table[2 * SMALL_TOP + 1], *middle = table + t->top;
    double maximum = t->maximum[run->scale];
    middle[0] = 0.0f;
    for (int64_t k = 1; k <= t->top; k++) {
        middle[k] = (float)(maximum * t->values[k]);
        middle[-k] = -middle[k];
    }
    float *restrict x = t->x + run->position;
    uint32_t largest = 0;
    const int32_t top = (int32_t)t->top;
    for (int64_t j = 0, n = run->n; j < n; j++)
        x[j] = middle[checked(code_at(t->codes, width, run->position + j), top, &largest)];
    return largest;
}

MLP_INLINE uint32_t wide_run(const lns_decode_task *t, const mlp_run *run, int width, int64_t scale_step)
{
    const float *restrict maximum = t->maximum + run->scale;
    float *restrict x = t->x + run->position;
    uint32_t largest = 0;
    const int32_t top = (int32_t)t->top;
    for (int64_t j = 0, n = run->n; j < n; j++) {
        int32_t code = checked(code_at(t->codes, width, run->position + j), top, &largest);
        int32_t level = code < 0 ? -code : code;
        float value = (float)((double)maximum[j * scale_step] * t->values[level]);
        x[j] = code < 0 ? -value : value;
    }
    return largest;
}

MLP_INLINE uint32_t width_run(const lns_decode_task *t, const mlp_run *run, int width)
{
    if (run->scale_step == 0 && t->top <= SMALL_TOP && run->n >= t->top)
        return small_run(t, run, width);
    return run->scale_step == 0 ? wide_run(t, run, width, 0) : wide_run(t, run, width, run->scale_step);
}

MLP_INLINE uint32_t decode_lns_run(const void *task, const mlp_run *run)
{
    const lns_decode_task *t = task;
    switch (t->width) {
    case 1: return width_run(t, run, 1);
    case 2: return width_run(t, run, 2);
    default: return width_run(t, run, 4);
    }
}

MLP_RUN_TIERS(decode_lns_run)

int mlp_lns_decode(const void *codes, float *x, int width, int ndim, const int64_t *shape, const int64_t *scale_steps,
                   const float *maximum, const double *values, int top)
{
    mlp_layout layout = {ndim, shape, scale_steps, scale_steps, 0};
    if (!mlp_layout_ok(&layout) || (width != 1 && width != 2 && width != 4) || top < 1 || top > 32768)
        return MLP_BAD_ARGUMENT;
    lns_decode_task task = {codes, x, maximum, values, top, width};
    const int threads = mlp_walk_threads(mlp_layout_size(&layout));
    return mlp_walk(&layout, decode_lns_run_for_tier(), &task, threads) > (uint32_t)top ? MLP_BAD_CODE : MLP_OK;
}
