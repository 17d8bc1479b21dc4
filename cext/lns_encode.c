/* Logarithmic codes: signed levels of |x| / maximum on a lattice of gamma levels an octave. Twins, and the tables, in
 * minilp/kernels/reference_lns.py; no logarithm is taken.
 *
 * t = |x| / maximum in double gives the octave by its exponent field, and a search of its mantissa in `edges` the place
 * inside. Where many numbers share one maximum, the edges are moved to float32 mantissas of x once, by the same
 * quotients, and the loop is integer comparisons only. */
#include "quantise.h"

enum { NEAREST = 0, LINEAR = 1, EXPONENT = 2, BLOCK = 128, FEW = 16, LEVELS = 256, LOG_BITS = 22 };

typedef struct {
    const float *x;
    void *codes;
    const float *maximum;
    const double *edges, *values; /* (1, gamma thresholds, 4); 0 and the value of each level */
    const int64_t *buckets;       /* edges at or below the start of each of 2 gamma pieces of [1, 2) */
    const uint32_t *key;
    int64_t lattice, top;         /* lattice: steps an octave of `edges`, gamma but for EXPONENT */
    int log_lattice, log_gamma, width, rule;
} lns_task;

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

/* Signs and zeros, and codes of one of three widths. Returns the largest magnitude bits. */
MLP_INLINE uint32_t store(void *codes, int width, int64_t at, const uint32_t *word, int32_t *level, int64_t n,
                          int32_t lowest, int32_t top)
{
    uint32_t largest = 0;
    for (int64_t j = 0; j < n; j++) {
        uint32_t magnitude = word[j] & MLP_ABS_MASK;
        largest = magnitude > largest ? magnitude : largest;
        int32_t k = level[j], sign = (int32_t)word[j] >> 31;
        k = k < lowest ? lowest : k;
        k = k > top ? top : k;
        k = magnitude == 0 ? 0 : k;
        level[j] = (k ^ sign) - sign;
    }
    if (width == 1) {
        int8_t *restrict out = (int8_t *)codes + at;
        for (int64_t j = 0; j < n; j++)
            out[j] = (int8_t)level[j];
    } else if (width == 2) {
        int16_t *restrict out = (int16_t *)codes + at;
        for (int64_t j = 0; j < n; j++)
            out[j] = (int16_t)level[j];
    } else {
        memcpy((int32_t *)codes + at, level, (size_t)n * sizeof *level);
    }
    return largest;
}

/* Where the level rises inside an octave of x, as mantissa bits of x; 2^23 where it does not. Returns the level of the
 * octave's first number, relative to the octave of the maximum and at most 0. */
static int32_t own_edges(const lns_task *t, uint32_t maximum, int32_t *bound)
{
    int64_t gamma = t->lattice;
    double whole = (double)((maximum & 0x007FFFFFu) | 0x00800000u);
    const double *edge = t->edges + 1;
    int64_t first = -gamma; /* edges -gamma .. -1 are those of the octave below, at half their size */
    while (first < 0 && edge[first + gamma] * 0.5 <= 8388608.0 / whole)
        first++;
    for (int64_t n = 0; n < gamma; n++) {
        int64_t i = first + n;
        double want = i < 0 ? edge[i + gamma] * 0.5 : edge[i];
        int32_t guess = (int32_t)(want * whole);
        guess = guess < 8388608 ? 8388608 : guess > 16777216 ? 16777216 : guess;
        while (guess > 8388608 && (double)(guess - 1) / whole >= want)
            guess--;
        while (guess < 16777216 && (double)guess / whole < want)
            guess++;
        bound[n] = guess - 8388608;
    }
    return (int32_t)first;
}

/* Up by linear distance, between values read from a table: as linear_level, with the table of one maximum. */
MLP_INLINE void raise_levels(const float *worth, const uint32_t *word, const uint32_t *draw, int32_t *level, int64_t n,
                             int32_t top)
{
    for (int64_t j = 0; j < n; j++) {
        int32_t k = level[j];
        k = k < 0 ? 0 : k;
        k = k > top - 1 ? top - 1 : k;
        uint32_t bits = word[j] & MLP_ABS_MASK;
        float magnitude;
        memcpy(&magnitude, &bits, sizeof magnitude);
        double low = worth[k], high = worth[k + 1];
        level[j] = k + ((double)draw[j] * (high - low) < ((double)magnitude - low) * 4294967296.0);
    }
}

/* Levels under one maximum, nearest or by linear distance: gamma (a constant here) integer comparisons an element. */
MLP_INLINE uint32_t shared_run(const lns_task *t, const mlp_run *run, const int32_t *bound, int32_t offset, int gamma,
                               int linear)
{
    const float *restrict x = t->x + run->position;
    int32_t top = (int32_t)t->top, edge[FEW];
    memcpy(edge, bound, (size_t)gamma * sizeof *edge);
    float worth[LEVELS + 1];
    double maximum = t->maximum[run->scale];
    for (int32_t k = 0; linear && k <= top; k++)
        worth[k] = (float)(maximum * t->values[k]);
    uint32_t key = linear ? t->key[0] : 0, run_key = linear ? mlp_run_key(t->key, run->index) : 0;
    uint32_t index = (uint32_t)run->index, step = (uint32_t)run->index_step, largest = 0;
    for (int64_t begin = 0; begin < run->n; begin += BLOCK) {
        int64_t n = run->n - begin < BLOCK ? run->n - begin : BLOCK;
        uint32_t word[BLOCK];
        int32_t level[BLOCK];
        memcpy(word, x + begin, (size_t)n * sizeof *word);
        for (int64_t j = 0; j < n; j++) {
            int32_t magnitude = (int32_t)(word[j] & MLP_ABS_MASK), mantissa = magnitude & 0x007FFFFF;
            int32_t k = (magnitude >> 23) * gamma + offset;
            for (int r = 0; r < gamma; r++)
                k += mantissa >= edge[r];
            level[j] = k;
        }
        if (linear) {
            uint32_t draw[BLOCK];
            for (int64_t j = 0; j < n; j++)
                draw[j] = mlp_draw(key, run_key, index + (uint32_t)(begin + j) * step);
            raise_levels(worth, word, draw, level, n, top);
        }
        uint32_t seen = store(t->codes, t->width, run->position + begin, word, level, n, !linear, top);
        largest = seen > largest ? seen : largest;
    }
    return largest;
}

/* How many edges lie at or below a mantissa in [1, 2), given as the bits of a double: a look-up and one comparison. */
MLP_INLINE int64_t edges_below(const lns_task *t, uint64_t mantissa)
{
    int64_t count = t->buckets[(mantissa & 0xFFFFFFFFFFFFFu) >> (51 - t->log_lattice)];
    return count + (bits_double(mantissa) >= t->edges[count + 1]);
}

MLP_INLINE int32_t linear_level(const lns_task *t, double magnitude, double maximum, int64_t level, uint32_t draw)
{
    int64_t top = t->top;
    level = level < 0 ? 0 : level;
    level = level > top - 1 ? top - 1 : level;
    double low = (float)(maximum * t->values[level]), high = (float)(maximum * t->values[level + 1]);
    return (int32_t)level + ((double)draw * (high - low) < (magnitude - low) * 4294967296.0);
}

/* octave: the power of two before the mantissa; count: lattice points below it. */
MLP_INLINE int32_t exponent_level(const lns_task *t, int64_t octave, double mantissa, int64_t count, uint32_t draw)
{
    int bits = LOG_BITS - t->log_lattice, shift = LOG_BITS - t->log_gamma;
    double low = t->edges[count], high = t->edges[count + 1];
    double between = (mantissa - low) / (high - low) * (double)(1 << bits);
    int64_t nearest = (int64_t)(double_bits(between + 0x1p52) & 0xFFFFFFFFFFFFFu);
    int64_t position = (octave * t->lattice + count) * ((int64_t)1 << bits) + nearest;
    return (int32_t)((position + (int64_t)(draw >> (32 - shift))) >> shift) + (int32_t)t->top;
}

/* Any step of the maxima, any gamma, any rule: one division an element. */
MLP_INLINE uint32_t general_run(const lns_task *t, const mlp_run *run, int64_t scale_step, int rule)
{
    const float *restrict x = t->x + run->position;
    const float *restrict maximum = t->maximum + run->scale;
    int64_t top = t->top;
    int log_lattice = t->log_lattice;
    uint32_t key = rule ? t->key[0] : 0, run_key = rule ? mlp_run_key(t->key, run->index) : 0;
    uint32_t index = (uint32_t)run->index, step = (uint32_t)run->index_step, largest = 0;
    for (int64_t begin = 0; begin < run->n; begin += BLOCK) {
        int64_t n = run->n - begin < BLOCK ? run->n - begin : BLOCK;
        uint32_t word[BLOCK], draw[BLOCK];
        int32_t level[BLOCK];
        memcpy(word, x + begin, (size_t)n * sizeof *word);
        for (int64_t j = 0; rule && j < n; j++)
            draw[j] = mlp_draw(key, run_key, index + (uint32_t)(begin + j) * step);
        for (int64_t j = 0; j < n; j++) {
            double magnitude = __builtin_fabs((double)x[begin + j]), scale = maximum[(begin + j) * scale_step];
            uint64_t bits = double_bits(magnitude / scale);
            int64_t octave = (int64_t)(bits >> 52) - 1023;
            uint64_t mantissa = (bits & 0xFFFFFFFFFFFFFu) | 0x3FF0000000000000u;
            int64_t count = edges_below(t, mantissa), below = octave * ((int64_t)1 << log_lattice) + count;
            if (rule == LINEAR)
                level[j] = linear_level(t, magnitude, scale, below + top, draw[j]);
            else if (rule == EXPONENT)
                level[j] = exponent_level(t, octave, bits_double(mantissa), count, draw[j]);
            else
                level[j] = (int32_t)(below + top);
        }
        uint32_t seen = store(t->codes, t->width, run->position + begin, word, level, n, rule != LINEAR, (int32_t)top);
        largest = seen > largest ? seen : largest;
    }
    return largest;
}

/* `linear` is a constant: nearest or by linear distance. */
MLP_INLINE uint32_t fast_or_general_run(const lns_task *t, const mlp_run *run, int linear)
{
    uint32_t maximum;
    memcpy(&maximum, t->maximum + run->scale, sizeof maximum);
    int32_t exponent = (int32_t)(maximum >> 23), gamma = (int32_t)t->lattice;
    int64_t worth_it = linear ? 4 * t->top : BLOCK;
    if (run->scale_step == 0 && gamma <= FEW && (!linear || t->top <= LEVELS) && run->n >= worth_it && exponent > 0) {
        int32_t bound[FEW], offset = (int32_t)t->top - gamma * exponent + own_edges(t, maximum, bound);
        if (offset + gamma <= !linear) /* all subnormal x, whose mantissas the edges do not fit, end up lowest */
            switch (gamma) {
            case 1: return shared_run(t, run, bound, offset, 1, linear);
            case 2: return shared_run(t, run, bound, offset, 2, linear);
            case 4: return shared_run(t, run, bound, offset, 4, linear);
            case 8: return shared_run(t, run, bound, offset, 8, linear);
            default: return shared_run(t, run, bound, offset, 16, linear);
            }
    }
    return general_run(t, run, run->scale_step, linear ? LINEAR : NEAREST);
}

MLP_INLINE uint32_t encode_lns_run(const void *task, const mlp_run *run)
{
    const lns_task *t = task;
    if (t->rule == EXPONENT)
        return general_run(t, run, run->scale_step, EXPONENT);
    return t->rule == LINEAR ? fast_or_general_run(t, run, 1) : fast_or_general_run(t, run, 0);
}

MLP_RUN_TIERS(encode_lns_run)

int mlp_lns_encode(const float *x, void *codes, int width, int ndim, const int64_t *shape, const int64_t *scale_steps,
                   const int64_t *index_steps, const float *maximum, const double *edges, const int64_t *buckets,
                   const double *values, int log_lattice, int log_gamma, int top, int rule, const uint32_t *key,
                   uint64_t offset, uint32_t *largest)
{
    mlp_layout layout = {ndim, shape, scale_steps, index_steps, offset};
    if (!mlp_layout_ok(&layout) || (width != 1 && width != 2 && width != 4) || log_gamma < 0 || log_gamma > 15 ||
        log_lattice < log_gamma || log_lattice > 15 || top < 1 || top > 32768 || rule < NEAREST || rule > EXPONENT ||
        (rule != NEAREST && !key) || (rule != EXPONENT && log_lattice != log_gamma))
        return MLP_BAD_ARGUMENT;
    lns_task task = {x, codes, maximum, edges, values, buckets, key, (int64_t)1 << log_lattice, top, log_lattice,
                     log_gamma, width, rule};
    *largest = mlp_walk(&layout, encode_lns_run_for_tier(), &task, mlp_walk_threads(mlp_layout_size(&layout)));
    return MLP_OK;
}
