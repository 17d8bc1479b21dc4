/* Real numbers to MLS levels; twin in minilp/kernels/reference_mls.py. The quotient |x| / (S_t S_g) is taken in double,
 * where it falls on the same side of every rounding threshold as the exact one. */
#include "quantise.h"

enum { BLOCK = 128 };

typedef struct {
    const float *x;
    int8_t *codes;
    const double *unit;
    const uint32_t *key; /* NULL rounds to nearest even */
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

MLP_INLINE uint32_t mls_run(const mls_task *t, const mlp_run *run, int64_t scale_step, int draws, int sudden)
{
    const float *restrict x = t->x + run->position;
    int8_t *restrict codes = t->codes + run->position;
    const double *restrict unit = t->unit + run->scale;
    int64_t man = t->man, lowest = 1023 - t->binades;
    int32_t top = (int32_t)t->top;
    double one = (double)(1 << man), small = 1.0 / one;
    uint32_t key = draws ? t->key[0] : 0, run_key = draws ? mlp_run_key(t->key, run->index) : 0;
    uint32_t index = (uint32_t)run->index, step = (uint32_t)run->index_step, largest = 0;
    for (int64_t begin = 0; begin < run->n; begin += BLOCK) { /* three short loops, each over lanes of one width */
        int64_t n = run->n - begin < BLOCK ? run->n - begin : BLOCK;
        uint32_t word[BLOCK], draw[BLOCK];
        int64_t levels[BLOCK];
        memcpy(word, x + begin, (size_t)n * sizeof *word);
        for (int64_t j = 0; draws && j < n; j++)
            draw[j] = mlp_draw(key, run_key, index + (uint32_t)(begin + j) * step) >> 16;
        for (int64_t j = 0; j < n; j++) {
            double ratio = __builtin_fabs((double)x[begin + j]) / unit[(begin + j) * scale_step];
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
            levels[j] = level;
        }
        for (int64_t j = 0; j < n; j++) {
            uint32_t magnitude = word[j] & MLP_ABS_MASK;
            largest = magnitude > largest ? magnitude : largest;
            int32_t level = (int32_t)levels[j], sign = (int32_t)word[j] >> 31;
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
                   const uint32_t *key, uint64_t offset, uint32_t *largest)
{
    mlp_layout layout = {ndim, shape, scale_steps, index_steps, offset};
    if (!mlp_layout_ok(&layout) || man < 0 || man > 7 || binades < 0 || binades > 8 || top < 1 || top > 127)
        return MLP_BAD_ARGUMENT;
    mls_task task = {x, codes, unit, key, man, binades, top, sudden};
    *largest = mlp_walk(&layout, encode_mls_run_for_tier(), &task, mlp_walk_threads(mlp_layout_size(&layout)));
    return MLP_OK;
}
