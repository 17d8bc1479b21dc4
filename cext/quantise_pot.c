/* Power-of-two codes by integer arithmetic on float bits; twins in minilp/kernels/reference_quantise.py.
 *
 * A level is the biased exponent of the rounded magnitude less `base`, the biased exponent just below the smallest
 * power. To round is to add to the bits before the mantissa is shifted out: a constant (nearest), or a random number
 * below one unit of the exponent (stochastic; the carry then happens with exactly the mantissa's probability). */
#include "quantise.h"

typedef struct {
    const uint32_t *x;
    int8_t *codes;
    const int32_t *beta;
    const uint32_t *key; /* NULL rounds to nearest */
    int32_t addend, half, base, top;
    uint32_t limit;
    int64_t *beyond; /* counts of |x| > limit, one for each piece of the walk; or NULL */
} pot_task;

MLP_INLINE int8_t signed_level(int32_t level, int32_t top, uint32_t word)
{
    level = level < 0 ? 0 : level;
    level = level > top ? top : level;
    int32_t sign = (int32_t)word >> 31; /* 0 or -1 */
    return (int8_t)((level ^ sign) - sign);
}

MLP_INLINE int32_t nearest_level(uint32_t magnitude, int32_t base, int32_t addend, int32_t half)
{
    int32_t level = ((int32_t)(magnitude + (uint32_t)addend) >> 23) - base;
    int32_t kept = (int32_t)(magnitude >> 23) - base + half; /* half = 1: 1 from half the smallest power on */
    kept = kept > 1 ? 1 : kept;
    level = kept > level ? kept : level;
    return magnitude < 0x00800000u ? 0 : level; /* subnormals are zero */
}

MLP_INLINE int32_t stochastic_level(uint32_t magnitude, int32_t base, uint32_t draw)
{
    int32_t exponent = (int32_t)(magnitude >> 23);
    int32_t above = ((int32_t)(magnitude + (draw >> 9)) >> 23) - base;
    uint32_t fraction = exponent > 0 ? magnitude << 8 | 0x80000000u : magnitude << 9;
    int32_t distance = base - exponent;
    uint32_t shift = (uint32_t)(distance < 0 ? 0 : distance > 31 ? 31 : distance);
    fraction = distance > 31 ? 0 : fraction >> shift; /* |x| / smallest power, in units of 2^-32 */
    int32_t below = draw < fraction;
    return exponent > base ? above : below;
}

MLP_INLINE uint32_t nearest_run(const pot_task *t, const mlp_run *run, int64_t scale_step, const int counts)
{
    const uint32_t *restrict x = t->x + run->position;
    int8_t *restrict codes = t->codes + run->position;
    const int32_t *restrict beta = t->beta + run->scale;
    int32_t addend = t->addend, half = t->half, offset = t->base, top = t->top, found = 0;
    uint32_t largest = 0, limit = t->limit;
    for (int64_t j = 0, n = run->n; j < n; j++) {
        uint32_t word = x[j], magnitude = word & MLP_ABS_MASK;
        largest = magnitude > largest ? magnitude : largest;
        codes[j] = signed_level(nearest_level(magnitude, beta[j * scale_step] + offset, addend, half), top, word);
        if (counts)
            found += mlp_beyond(word, limit);
    }
    if (counts)
        t->beyond[run->position / MLP_PIECE] += found;
    return largest;
}

MLP_INLINE uint32_t stochastic_run(const pot_task *t, const mlp_run *run, int64_t scale_step, const int counts)
{
    const uint32_t *restrict x = t->x + run->position;
    int8_t *restrict codes = t->codes + run->position;
    const int32_t *restrict beta = t->beta + run->scale;
    int32_t offset = t->base, top = t->top, found = 0;
    uint32_t key = t->key[0], run_key = mlp_run_key(t->key, run->index);
    uint32_t index = (uint32_t)run->index, step = (uint32_t)run->index_step, largest = 0, limit = t->limit;
    for (int64_t j = 0, n = run->n; j < n; j++) {
        uint32_t word = x[j], magnitude = word & MLP_ABS_MASK;
        largest = magnitude > largest ? magnitude : largest;
        uint32_t draw = mlp_draw(key, run_key, index + (uint32_t)j * step);
        codes[j] = signed_level(stochastic_level(magnitude, beta[j * scale_step] + offset, draw), top, word);
        if (counts)
            found += mlp_beyond(word, limit);
    }
    if (counts)
        t->beyond[run->position / MLP_PIECE] += found;
    return largest;
}

MLP_INLINE uint32_t step_run(const pot_task *t, const mlp_run *run, int64_t scale_step, const int counts)
{
    return t->key ? stochastic_run(t, run, scale_step, counts) : nearest_run(t, run, scale_step, counts);
}

MLP_INLINE uint32_t encode_run(const void *task, const mlp_run *run)
{
    const pot_task *t = task;
    switch (run->scale_step) { /* a loop of its own for the two steps that occur in practice */
    case 0: return t->beyond ? step_run(t, run, 0, 1) : step_run(t, run, 0, 0);
    case 1: return step_run(t, run, 1, t->beyond != NULL);
    default: return step_run(t, run, run->scale_step, t->beyond != NULL);
    }
}

MLP_RUN_TIERS(encode_run)

static int32_t emax_of(int bits) { return (1 << (bits - 2)) - 1; }

int mlp_pot_encode(const uint32_t *x, int8_t *codes, int ndim, const int64_t *shape, const int64_t *scale_steps,
                   const int64_t *index_steps, const int32_t *beta, int bits, int addend, int half, uint32_t limit,
                   int64_t *beyond, const uint32_t *key, uint64_t offset, uint32_t *largest)
{
    mlp_layout layout = {ndim, shape, scale_steps, index_steps, offset};
    if (!mlp_layout_ok(&layout) || bits < 3 || bits > 6)
        return MLP_BAD_ARGUMENT;
    int32_t emax = emax_of(bits);
    pot_task task = {x, codes, beta, key, addend, half, 126 - emax, 2 * emax + 1, limit, beyond};
    *largest = mlp_walk(&layout, encode_run_for_tier(), &task, mlp_walk_threads(mlp_layout_size(&layout)));
    return MLP_OK;
}

typedef struct {
    const int8_t *codes;
    uint32_t *x;
    const int32_t *beta;
    int32_t base;
} pot_decode_task;

MLP_INLINE uint32_t decode_pot_run(const void *task, const mlp_run *run)
{
    const pot_decode_task *t = task;
    const int8_t *restrict codes = t->codes + run->position;
    const int32_t *restrict beta = t->beta + run->scale;
    uint32_t *restrict x = t->x + run->position;
    int32_t base = t->base;
    for (int64_t j = 0, n = run->n; j < n; j++) {
        int32_t code = codes[j], level = code < 0 ? -code : code;
        uint32_t word = (uint32_t)(level + base + beta[j * run->scale_step]) << 23 | ((uint32_t)code & 0x80000000u);
        x[j] = code == 0 ? 0 : word;
    }
    return 0;
}

MLP_RUN_TIERS(decode_pot_run)

int mlp_pot_decode(const int8_t *codes, uint32_t *x, int ndim, const int64_t *shape, const int64_t *scale_steps,
                   const int32_t *beta, int bits)
{
    mlp_layout layout = {ndim, shape, scale_steps, scale_steps, 0};
    if (!mlp_layout_ok(&layout) || bits < 3 || bits > 6)
        return MLP_BAD_ARGUMENT;
    pot_decode_task task = {codes, x, beta, 126 - emax_of(bits)};
    mlp_walk(&layout, decode_pot_run_for_tier(), &task, mlp_walk_threads(mlp_layout_size(&layout)));
    return MLP_OK;
}
