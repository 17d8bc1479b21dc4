/* Weight gradient of MLS codes (mls.h): a group is a sample, so a vector of integer sums holds one group in each lane;
 * or all samples are one group, whose sums grow in 64 bits.
 *
 * Per vector of samples: the errors of all output channels become pairs of neighbouring outputs; then each input
 * channel, the work of one thread, becomes the pairs of pixels that they meet. The integer sums over all positions stay
 * in registers. Scaled to float terms, they are added to the totals one sample after the other. */
#include "mls.h"
#include <stdlib.h>
#include <string.h>

typedef struct {
    const mlp_mls_wgrad *g;
    const mlp_mls_lanes *lanes;
    int64_t taps, pairs, rows, columns;   /* pairs in an error row; activations that the outputs reach */
    int64_t down, across;                 /* rows and pairs of a segment, whose sums fit 32 bits */
    char *error;                          /* (features, out rows, pairs) vectors */
} plan;

/* Pairs of integers of one channel's rows, `row` and `column` being where the first of them lies in the image. */
static void fill(const plan *p, const int8_t *codes, const int64_t *size, int64_t row, int64_t rows, int64_t column,
                 int64_t columns, int64_t n, const int16_t *table, int64_t every, int64_t distance, int16_t *values,
                 char *out)
{
    int64_t lanes = p->lanes->lanes, batch = p->g->batch, valid = mlp_min(lanes, batch - n);
    int64_t from = mlp_min(mlp_max(-column, 0), columns), to = mlp_max(mlp_min(size[1] - column, columns), from);
    int64_t step = mlp_ceil_div(columns, every) * p->lanes->bytes;
    memset(values, 0, (size_t)(columns * lanes) * sizeof *values);
    for (int64_t r = 0; r < rows; r++, out += step) {
        if (row + r < 0 || row + r >= size[0] || to == from) {
            memset(out, 0, (size_t)step);
            continue;
        }
        p->lanes->expand(codes + ((row + r) * size[1] + column + from) * batch + n, batch, to - from, valid, table,
                         values + from * lanes);
        p->lanes->pair(values, columns, columns, every, distance, out);
    }
}

/* Integer sums of one input channel with every output channel, over the segment at (y, x): (features, taps) vectors. */
static void mac_segment(const plan *p, int64_t y, int64_t x, const char *act, char *sums)
{
    const mlp_mls_wgrad *g = p->g;
    int64_t down = mlp_min(p->down, g->out_size[0] - y), across = mlp_min(p->across, p->pairs - x);
    int64_t bytes = p->lanes->bytes, row = p->columns * bytes, error_row = p->pairs * bytes;
    int64_t error_feature = g->out_size[0] * error_row;
    const char *error = p->error + y * error_row + x * bytes;
    act += y * g->stride[0] * row + 2 * x * g->stride[1] * bytes;
    for (int64_t f = 0, features; f < g->features; f += features) {
        features = g->features - f >= MLP_MLS_FEATURES ? MLP_MLS_FEATURES : 1;
        for (int64_t ky = 0; ky < g->kernel[0]; ky++)
            for (int64_t kx = 0, taps; kx < g->kernel[1]; kx += taps) {
                taps = g->kernel[1] - kx >= MLP_MLS_TAPS ? MLP_MLS_TAPS : 1;
                p->lanes->mac_wgrad(error + f * error_feature, error_feature, error_row,
                                    act + ky * g->dilation[0] * row + kx * g->dilation[1] * bytes, g->stride[0] * row,
                                    2 * g->stride[1] * bytes, g->dilation[1] * bytes, down, across, (int)features,
                                    (int)taps, p->taps,
                                    sums + (f * p->taps + ky * g->kernel[1] + kx) * bytes);
            }
    }
}

/* Sums of one input channel in 32 bits, or in 64: of the lanes (wide), of all of them together (one). */
static void mac_channel(const plan *p, const char *act, char *sums, int64_t *totals)
{
    int64_t n = p->g->features * p->taps;
    for (int64_t y = 0; y < p->g->out_size[0]; y += p->down)
        for (int64_t x = 0; x < p->pairs; x += p->across) {
            mac_segment(p, y, x, act, sums);
            if (p->g->one)
                p->lanes->reduce(sums, n, totals);
            else if (p->g->wide)
                p->lanes->widen(sums, n, totals);
        }
}

/* The scales of `valid` lanes, which hold samples from n on of output channel f and input channel c; with `one`, those
 * of the channels. */
typedef struct {
    int32_t e[MLP_MLS_MOST_LANES] __attribute__((aligned(64)));
    int32_t both[MLP_MLS_MOST_LANES] __attribute__((aligned(64)));
    int32_t any[MLP_MLS_MOST_LANES] __attribute__((aligned(64)));
} scales;

static void set_scales(const mlp_mls_wgrad *g, int64_t f, int64_t c, int64_t n, int64_t valid, scales *s)
{
    int64_t row = g->one ? 1 : g->batch, step = !g->one;
    for (int64_t j = 0; j < valid; j++) {
        int64_t i = f * row + n + j * step, k = c * row + n + j * step;
        s->e[j] = g->exponent_error[i] + g->exponent_act[k] + 2;
        s->both[j] = -(g->bit_error[i] & g->bit_act[k]);
        s->any[j] = -(g->bit_error[i] | g->bit_act[k]);
    }
}

/* Adds one vector of samples to the totals (features, taps) of input channel c, in ascending order. */
static void add_samples(const plan *p, int64_t c, int64_t n, const char *sums, const int64_t *wide, float *terms,
                        float *totals)
{
    const mlp_mls_wgrad *g = p->g;
    int64_t lanes = p->lanes->lanes, valid = mlp_min(lanes, g->batch - n);
    for (int64_t f = 0; f < g->features; f++) {
        scales s = {{0}, {0}, {0}};
        set_scales(g, f, c, n, valid, &s);
        memset(terms, 0, (size_t)(p->taps * p->lanes->bytes));
        if (g->wide)
            p->lanes->shift_wide(wide + f * p->taps * lanes, p->taps, s.e, s.both, s.any, terms);
        else
            p->lanes->shift_add(sums + f * p->taps * p->lanes->bytes, p->taps, s.e, s.both, s.any, terms);
        for (int64_t t = 0; t < p->taps; t++)
            for (int64_t j = 0; j < valid; j++)
                totals[f * p->taps + t] += terms[t * lanes + j];
    }
}

/* The totals of input channel c from the whole sums, whose scales belong to the channels: here lanes are taps. */
static void add_whole(const plan *p, int64_t c, const int64_t *whole, float *totals)
{
    int64_t lanes = p->lanes->lanes;
    for (int64_t f = 0; f < p->g->features; f++) {
        scales s;
        set_scales(p->g, f, c, 0, lanes, &s);
        for (int64_t t = 0, few; t < p->taps; t += few) {
            int64_t sums[MLP_MLS_MOST_LANES] = {0};
            float terms[MLP_MLS_MOST_LANES] = {0};
            few = mlp_min(lanes, p->taps - t);
            memcpy(sums, whole + f * p->taps + t, (size_t)few * sizeof *sums);
            p->lanes->shift_wide(sums, 1, s.e, s.both, s.any, terms);
            memcpy(totals + f * p->taps + t, terms, (size_t)few * sizeof *terms);
        }
    }
}

static int run(plan *p)
{
    const mlp_mls_wgrad *g = p->g;
    int64_t bytes = p->lanes->bytes, lanes = p->lanes->lanes, outputs = g->features * p->taps;
    int64_t parts[] = {p->rows * p->columns * bytes, outputs * bytes, p->taps * bytes,
                       mlp_max(p->columns, g->out_size[1]) * bytes, g->wide ? 2 * outputs * bytes : 0}, size = 0;
    for (int i = 0; i < 5; i++)
        size += parts[i] = mlp_ceil_div(parts[i], 64) * 64;
    float *totals = calloc((size_t)(g->channels * outputs), sizeof *totals);
    int64_t *whole = g->one ? calloc((size_t)(g->channels * outputs), sizeof *whole) : NULL;
    int ready = totals && (whole || !g->one), failed = !ready;
    MLP_PRAGMA(omp parallel reduction(| : failed) num_threads(mlp_threads()))
    {
        char *memory = ready ? aligned_alloc(64, (size_t)size) : NULL;
        failed |= !memory;
        char *act = memory, *sums = act + parts[0];
        float *terms = (float *)(sums + parts[1]);
        int16_t *values = (int16_t *)(sums + parts[1] + parts[2]);
        int64_t *wide = (int64_t *)(sums + parts[1] + parts[2] + parts[3]);
        for (int64_t n = 0; n < g->batch; n += lanes) {
            MLP_PRAGMA(omp for schedule(dynamic))
            for (int64_t f = 0; f < g->features; f++)
                if (memory)
                    fill(p, g->error + f * g->out_size[0] * g->out_size[1] * g->batch, g->out_size, 0, g->out_size[0],
                         0, g->out_size[1], n, g->table_error, 2, 1, values,
                         p->error + f * g->out_size[0] * p->pairs * bytes);
            MLP_PRAGMA(omp for schedule(dynamic))
            for (int64_t c = 0; c < g->channels; c++)
                if (memory) {
                    fill(p, g->act + c * g->size[0] * g->size[1] * g->batch, g->size, -g->padding[0], p->rows,
                         -g->padding[1], p->columns, n, g->table_act, 1, g->stride[1], values, act);
                    if (g->wide)
                        memset(wide, 0, (size_t)(outputs * lanes) * sizeof *wide);
                    mac_channel(p, act, sums, g->one ? whole + c * outputs : wide);
                    if (!g->one)
                        add_samples(p, c, n, sums, wide, terms, totals + c * outputs);
                    else if (n + lanes >= g->batch)
                        add_whole(p, c, whole + c * outputs, totals + c * outputs);
                }
        }
        free(memory);
    }
    for (int64_t i = 0; ready && i < g->features; i++)
        for (int64_t c = 0; c < g->channels; c++)
            for (int64_t t = 0; t < p->taps; t++)
                g->out[(i * g->channels + c) * p->taps + t] =
                    (float)((double)totals[c * outputs + i * p->taps + t] * g->scale);
    free(totals);
    free(whole);
    return failed ? MLP_NO_MEMORY : MLP_OK;
}

int mlp_mls_wgrad_contract(const mlp_mls_wgrad *g)
{
    plan p = {.g = g, .lanes = mlp_mls_for_tier(), .taps = g->kernel[0] * g->kernel[1],
              .pairs = mlp_ceil_div(g->out_size[1], 2)};
    p.rows = (g->out_size[0] - 1) * g->stride[0] + (g->kernel[0] - 1) * g->dilation[0] + 1;
    p.columns = (g->out_size[1] - 1) * g->stride[1] + (g->kernel[1] - 1) * g->dilation[1] + 1;
    int64_t bytes = g->features * g->out_size[0] * p.pairs * p.lanes->bytes;
    int64_t most = INT32_MAX / 2 / mlp_max(g->product, 1);   /* pairs whose sum fits */
    if (!most)
        return MLP_OVERFLOW;
    p.across = mlp_min(p.pairs, most);
    p.down = p.across < p.pairs ? 1 : mlp_min(g->out_size[0], most / p.pairs);
    p.error = aligned_alloc(64, (size_t)(mlp_ceil_div(bytes, 64) * 64));
    int status = p.error ? run(&p) : MLP_NO_MEMORY;
    free(p.error);
    return status;
}
