/* Real numbers to MLS levels; twin in minilp/kernels/reference_mls.py. The scalar loop, in units of the last place:
 *
 *   for j:  ratio = |x[j]| / unit (S_t S_g);  steps = ratio 2^(man - exponent), its fraction rounded to nearest even, or
 *           to 2^-16 and a draw of 16 bits added;  level = whole + (binade << man)
 *
 * `exact_block` is that loop: the quotient is taken in double, where it falls on the same side of every rounding
 * threshold as the exact one. `quick_block` takes it in single precision, by the reciprocal of the unit: steps come out
 * in fixed point, 2^-19 each. Reciprocal and product are rounded once each, an error of at most 2^-23 of ratio, that is
 * 2^(man - 3) <= 2 fixed-point units for man <= 4, and cutting off loses less than 1. So where the sum lies MARGIN = 4 or
 * more from a whole number of steps, both see the same one. A block with an element that lies nearer (one and a half in
 * a hundred thousand do, and ties) is done again by the loop in double. The binade needs no such care: at its border
 * the level is the same seen from both sides. */
#include "quantise.h"
#include <stdlib.h>

enum { BLOCK = 128, FIXED = 19, MARGIN = 4, QUICK_MAN = 4 };

typedef struct {
    const float *x;
    int8_t *codes;
    const double *unit;
    const float *reciprocal; /* of each unit; NULL where the quick loop is not allowed */
    const uint32_t *key;     /* NULL rounds to nearest even */
    uint32_t *maxima;        /* one row of `units` words a thread, where neighbours have scales of their own; or NULL */
    int64_t units;
    int64_t man, binades, top;
    int sudden;
} mls_task;

MLP_INLINE uint64_t double_bits(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

MLP_INLINE double bits_double(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The integer nearest to 0 <= x < 2^51, ties to even: what is left of x after adding 2^52. */
MLP_INLINE int64_t nearest_integer(double x) { return (int64_t)(double_bits(x + 0x1p52) & 0xFFFFFFFFFFFFFu); }

MLP_INLINE void exact_block(const mls_task *t, const float *x, const double *unit, const uint32_t *draw, int64_t n,
                            int64_t scale_step, int draws, int sudden, int32_t *levels)
{
    int64_t man = t->man, lowest = 1023 - t->binades, wide[BLOCK];
    double one = (double)(1 << man), small = 1.0 / one;
    for (int64_t j = 0; j < n; j++) {
        double ratio = __builtin_fabs((double)x[j]) / unit[j * scale_step];
        ratio = ratio < 2.0 ? ratio : 2.0; /* NaN too; the caller refuses it */
        int64_t exponent = (int64_t)(double_bits(ratio) >> 52);
        exponent = exponent > lowest ? exponent : lowest;
        double steps = ratio * bits_double((uint64_t)(man + 2046 - exponent) << 52);
        int below = steps < one;
        if (sudden)
            steps = below ? steps * small : steps;
        int64_t whole = nearest_integer(draws ? steps * 65536.0 : steps);
        whole = draws ? (whole + (int64_t)draw[j]) >> 16 : whole;
        int64_t binade = exponent - lowest, level = whole + (binade << man);
        if (sudden)
            level = below ? whole : level - ((int64_t)1 << man) + 1;
        wide[j] = level;
    }
    for (int64_t j = 0; j < n; j++)
        levels[j] = (int32_t)wide[j];
}

/* Returns whether an element lies too near to a threshold. */
MLP_INLINE int quick_block(const mls_task *t, const float *x, const float *reciprocal, const uint32_t *draw, int64_t n,
                           int64_t scale_step, int draws, int32_t *levels)
{
    const int32_t man = (int32_t)t->man, lowest = 127 - (int32_t)t->binades, mask = (1 << FIXED) - 1;
    int32_t doubt = 0;
    for (int64_t j = 0; j < n; j++) {
        float ratio = __builtin_fabsf(x[j]) * reciprocal[j * scale_step];
        ratio = ratio < 2.0f ? ratio : 2.0f;
        int32_t word;
        memcpy(&word, &ratio, sizeof word);
        int32_t binade = (word >> 23) - lowest, under = binade < 0 ? -binade : 0;
        int32_t shift = 23 - FIXED - man + under;
        shift = shift < 31 ? shift : 31;
        int32_t sum = ((word & 0x7FFFFF) | 0x800000) >> shift;
        sum += draws ? (int32_t)(draw[j] << (FIXED - 16)) + (1 << (FIXED - 17)) : 1 << (FIXED - 1);
        doubt |= ((sum + MARGIN) & mask) < 2 * MARGIN;
        levels[j] = (sum >> FIXED) + ((binade + under) << man);
    }
    return doubt;
}

/* Magnitudes that are larger than those so far. */
MLP_INLINE void raise(uint32_t *restrict maxima, const uint32_t *restrict word, int64_t n)
{
    for (int64_t j = 0; j < n; j++) {
        uint32_t magnitude = word[j] & MLP_ABS_MASK, before = maxima[j];
        maxima[j] = magnitude > before ? magnitude : before;
    }
}

MLP_INLINE uint32_t mls_run(const mls_task *t, const mlp_run *run, int64_t scale_step, int draws, int sudden)
{
    const float *restrict x = t->x + run->position;
    int8_t *restrict codes = t->codes + run->position;
    const int32_t top = (int32_t)t->top;
    const int quick = !sudden && t->reciprocal;
    uint32_t key = draws ? t->key[0] : 0, run_key = draws ? mlp_run_key(t->key, run->index) : 0;
    uint32_t index = (uint32_t)run->index, step = (uint32_t)run->index_step, largest = 0;
    uint32_t *restrict maxima = t->maxima ? t->maxima + run->slot * t->units + run->scale : NULL;
    for (int64_t begin = 0; begin < run->n; begin += BLOCK) { /* short loops, each over lanes of one width */
        int64_t n = run->n - begin < BLOCK ? run->n - begin : BLOCK, scale = run->scale + begin * scale_step;
        uint32_t word[BLOCK], draw[BLOCK];
        int32_t levels[BLOCK];
        memcpy(word, x + begin, (size_t)n * sizeof *word);
        for (int64_t j = 0; draws && j < n; j++)
            draw[j] = mlp_draw(key, run_key, index + (uint32_t)(begin + j) * step) >> 16;
        if (!quick || quick_block(t, x + begin, t->reciprocal + scale, draw, n, scale_step, draws, levels))
            exact_block(t, x + begin, t->unit + scale, draw, n, scale_step, draws, sudden, levels);
        if (maxima)
            raise(maxima + begin, word, n);
        for (int64_t j = 0; j < n; j++) {
            uint32_t magnitude = word[j] & MLP_ABS_MASK;
            largest = magnitude > largest ? magnitude : largest;
            int32_t level = levels[j], sign = (int32_t)word[j] >> 31;
            level = level < top ? level : top;
            codes[begin + j] = (int8_t)((level ^ sign) - sign);
        }
    }
    return largest;
}

MLP_INLINE uint32_t encode_mls_run(const void *task, const mlp_run *run)
{
    const mls_task *t = task;
    if (t->sudden)
        return t->key ? mls_run(t, run, run->scale_step, 1, 1) : mls_run(t, run, run->scale_step, 0, 1);
    switch (run->scale_step) { /* a loop of its own for the two steps that occur in practice */
    case 0: return t->key ? mls_run(t, run, 0, 1, 0) : mls_run(t, run, 0, 0, 0);
    case 1: return t->key ? mls_run(t, run, 1, 1, 0) : mls_run(t, run, 1, 0, 0);
    default: return t->key ? mls_run(t, run, run->scale_step, 1, 0) : mls_run(t, run, run->scale_step, 0, 0);
    }
}

MLP_RUN_TIERS(encode_mls_run)

int mlp_mls_encode(const float *x, int8_t *codes, int ndim, const int64_t *shape, const int64_t *scale_steps,
                   const int64_t *index_steps, const double *unit, int man, int binades, int top, int sudden,
                   const uint32_t *key, uint64_t offset, uint32_t *largest, int64_t threads, uint32_t *maxima)
{
    mlp_layout layout = {ndim, shape, scale_steps, index_steps, offset};
    if (!mlp_layout_ok(&layout) || man < 0 || man > 7 || binades < 0 || binades > 8 || top < 1 || top > 127
        || threads < 1 || (maxima && scale_steps[ndim - 1] != 1))
        return MLP_BAD_ARGUMENT;
    int64_t units = 1;
    for (int axis = 0; axis < ndim; axis++)
        units += (shape[axis] - 1) * scale_steps[axis];
    float *reciprocal = malloc((size_t)units * sizeof *reciprocal);
    if (!reciprocal)
        return MLP_NO_MEMORY;
    int quick = man <= QUICK_MAN;
    for (int64_t i = 0; i < units; i++) {
        quick &= unit[i] > 0x1p-100 && unit[i] < 0x1p100; /* the reciprocal is a normal number */
        reciprocal[i] = (float)(1.0 / unit[i]);
    }
    mls_task task = {x, codes, unit, quick ? reciprocal : NULL, key, maxima, units, man, binades, top, sudden};
    *largest = mlp_walk(&layout, encode_mls_run_for_tier(), &task, (int)threads);
    free(reciprocal);
    return MLP_OK;
}
