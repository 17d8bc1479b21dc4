/* Fixed-point codes: magnitude / step, capped at the top code, to the nearest even or stochastically chosen integer.
 * The step is a power of two, so the division is an exact multiplication. Twins in
 * minilp/kernels/reference_quantise.py. */
#include "quantise.h"

typedef struct {
    const uint32_t *x;
    int8_t *codes;
    const int32_t *exponent;
    const uint32_t *key; /* NULL rounds to nearest even */
    float top;
} fixed_task;

MLP_INLINE float power_of_two(int32_t exponent)
{
    uint32_t word = (uint32_t)(exponent + 127) << 23;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

/* Magnitude in steps, at most `top`; a NaN gives `top` (the caller refuses the tensor afterwards). */
MLP_INLINE float scaled(uint32_t magnitude, int32_t exponent, float top)
{
    float value;
    memcpy(&value, &magnitude, sizeof value);
    value *= power_of_two(-exponent);
    return value < top ? value : top;
}

MLP_INLINE uint32_t fixed_run(const fixed_task *t, const mlp_run *run, int64_t scale_step, int stochastic)
{
    const uint32_t *restrict x = t->x + run->position;
    int8_t *restrict codes = t->codes + run->position;
    const int32_t *restrict exponent = t->exponent + run->scale;
    float top = t->top;
    uint32_t key = stochastic ? t->key[0] : 0, run_key = stochastic ? mlp_run_key(t->key, run->index) : 0;
    uint32_t index = (uint32_t)run->index, step = (uint32_t)run->index_step, largest = 0;
    for (int64_t j = 0, n = run->n; j < n; j++) {
        uint32_t word = x[j], magnitude = word & MLP_ABS_MASK;
        largest = magnitude > largest ? magnitude : largest;
        float value = scaled(magnitude, exponent[j * scale_step], top);
        int32_t level, sign = (int32_t)word >> 31;
        if (stochastic) {
            level = (int32_t)value;
            float fraction = (value - (float)level) * 16777216.0f;
            uint32_t draw = mlp_draw(key, run_key, index + (uint32_t)j * step);
            level += (float)(int32_t)(draw >> 8) < fraction;
        } else {
            level = (int32_t)((value + 8388608.0f) - 8388608.0f); /* adding 2^23 leaves no bits below one */
        }
        codes[j] = (int8_t)((level ^ sign) - sign);
    }
    return largest;
}

MLP_INLINE uint32_t encode_fixed_run(const void *task, const mlp_run *run)
{
    const fixed_task *t = task;
    switch (run->scale_step) { /* a loop of its own for the two steps that occur in practice */
    case 0: return t->key ? fixed_run(t, run, 0, 1) : fixed_run(t, run, 0, 0);
    case 1: return t->key ? fixed_run(t, run, 1, 1) : fixed_run(t, run, 1, 0);
    default: return t->key ? fixed_run(t, run, run->scale_step, 1) : fixed_run(t, run, run->scale_step, 0);
    }
}

MLP_RUN_TIERS(encode_fixed_run)

int mlp_fixed_encode(const uint32_t *x, int8_t *codes, int ndim, const int64_t *shape, const int64_t *scale_steps,
                     const int64_t *index_steps, const int32_t *exponent, int bits, const uint32_t *key,
                     uint64_t offset, uint32_t *largest)
{
    mlp_layout layout = {ndim, shape, scale_steps, index_steps, offset};
    if (!mlp_layout_ok(&layout) || bits < 2 || bits > 8)
        return MLP_BAD_ARGUMENT;
    fixed_task task = {x, codes, exponent, key, (float)((1 << (bits - 1)) - 1)};
    *largest = mlp_walk(&layout, encode_fixed_run_for_tier(), &task, mlp_walk_threads(mlp_layout_size(&layout)));
    return MLP_OK;
}

typedef struct {
    const int8_t *codes;
    float *x;
    const int32_t *exponent;
} fixed_decode_task;

MLP_INLINE uint32_t decode_fixed_run(const void *task, const mlp_run *run)
{
    const fixed_decode_task *t = task;
    const int8_t *codes = t->codes + run->position;
    const int32_t *exponent = t->exponent + run->scale;
    float *x = t->x + run->position;
    for (int64_t j = 0; j < run->n; j++)
        x[j] = (float)codes[j] * power_of_two(exponent[j * run->scale_step]);
    return 0;
}

MLP_RUN_TIERS(decode_fixed_run)

int mlp_fixed_decode(const int8_t *codes, float *x, int ndim, const int64_t *shape, const int64_t *scale_steps,
                     const int32_t *exponent)
{
    mlp_layout layout = {ndim, shape, scale_steps, scale_steps, 0};
    if (!mlp_layout_ok(&layout))
        return MLP_BAD_ARGUMENT;
    fixed_decode_task task = {codes, x, exponent};
    mlp_walk(&layout, decode_fixed_run_for_tier(), &task, mlp_walk_threads(mlp_layout_size(&layout)));
    return MLP_OK;
}
