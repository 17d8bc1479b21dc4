/* Real numbers to levels of small floats: magnitude / 2^exponent, capped at the largest value, to the nearest even or
 * stochastically chosen multiple of its octave's step. Twin in minilp/kernels/reference_minifloat.py. */
#include "minifloat.h"
#include "quantise.h"

typedef struct {
    const uint32_t *x;
    int8_t *codes;
    const int32_t *exponent;
    const uint32_t *key; /* NULL rounds to nearest even */
    int32_t man, emin, top;
} minifloat_task;

MLP_INLINE float two_to_the(int32_t exponent)
{
    const uint32_t word = (uint32_t)(exponent + 127) << 23;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

MLP_INLINE uint32_t minifloat_run(const minifloat_task *t, const mlp_run *run, int64_t scale_step, int stochastic)
{
    const uint32_t *restrict x = t->x + run->position;
    int8_t *restrict codes = t->codes + run->position;
    const int32_t *restrict exponent = t->exponent + run->scale;
    const int32_t man = t->man, emin = t->emin, top = t->top;
    const float most = mlp_minifloat_value(top, man) * two_to_the(emin - man);
    const uint32_t key = stochastic ? t->key[0] : 0, run_key = stochastic ? mlp_run_key(t->key, run->index) : 0;
    const uint32_t index = (uint32_t)run->index, step = (uint32_t)run->index_step;
    uint32_t largest = 0;
    for (int64_t j = 0, n = run->n; j < n; j++) {
        const uint32_t word = x[j], magnitude = word & MLP_ABS_MASK;
        largest = magnitude > largest ? magnitude : largest;
        float value;
        memcpy(&value, &magnitude, sizeof value);
        value *= two_to_the(-exponent[j * scale_step]);
        value = value < most ? value : most; /* NaN too; the caller refuses it */
        int32_t bits, octave, level;
        memcpy(&bits, &value, sizeof bits);
        octave = (bits >> 23) - 127;
        octave = octave > emin ? octave : emin;
        value *= two_to_the(man - octave); /* in steps of its octave: exact, below 2^(man + 1) */
        if (stochastic) {
            level = (int32_t)value;
            const float fraction = (value - (float)level) * 16777216.0f;
            const uint32_t draw = mlp_draw(key, run_key, index + (uint32_t)j * step);
            level += (float)(int32_t)(draw >> 8) < fraction;
        } else {
            level = (int32_t)((value + 8388608.0f) - 8388608.0f); /* adding 2^23 leaves no bits below one */
        }
        level += (octave - emin) << man; /* a carry into the next octave is the next level */
        level = level < top ? level : top;
        const int32_t sign = (int32_t)word >> 31;
        codes[j] = (int8_t)((level ^ sign) - sign);
    }
    return largest;
}

MLP_INLINE uint32_t encode_minifloat_run(const void *task, const mlp_run *run)
{
    const minifloat_task *t = task;
    switch (run->scale_step) { /* a loop of its own for the two steps that occur in practice */
    case 0: return t->key ? minifloat_run(t, run, 0, 1) : minifloat_run(t, run, 0, 0);
    case 1: return t->key ? minifloat_run(t, run, 1, 1) : minifloat_run(t, run, 1, 0);
    default: return t->key ? minifloat_run(t, run, run->scale_step, 1) : minifloat_run(t, run, run->scale_step, 0);
    }
}

MLP_RUN_TIERS(encode_minifloat_run)

int mlp_minifloat_encode(const uint32_t *x, int8_t *codes, int ndim, const int64_t *shape, const int64_t *scale_steps,
                         const int64_t *index_steps, const int32_t *exponent, int man, int emin, int top,
                         const uint32_t *key, uint64_t offset, uint32_t *largest)
{
    const mlp_layout layout = {ndim, shape, scale_steps, index_steps, offset};
    if (!mlp_layout_ok(&layout) || man < 1 || man > 7 || emin < -30 || emin > 0 || top < 1 || top > 127)
        return MLP_BAD_ARGUMENT;
    const minifloat_task task = {x, codes, exponent, key, man, emin, top};
    *largest = mlp_walk(&layout, encode_minifloat_run_for_tier(), &task, mlp_walk_threads(mlp_layout_size(&layout)));
    return MLP_OK;
}
