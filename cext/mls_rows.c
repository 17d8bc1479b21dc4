/* Forward convolution and input gradient of MLS codes (mls.h): lanes are samples, a group is one input channel.
 *
 * A thread takes a band of output rows for one vector of samples and turns the codes under it into pairs of integers.
 * Then, for each output channel and each group in ascending order: the integer sums of the band, and their scaled terms
 * added to its float totals. Outputs are visited by phase as in pot_bins.h, so that strides cost nothing. */
#include "mls.h"
#include <stdlib.h>
#include <string.h>

typedef struct {
    const mlp_mls_rows *g;
    const mlp_mls_lanes *lanes;
    mlp_pot_axis y, x;
    int64_t band, bands, rows, columns;   /* output rows of a band (before the phase's step); inputs under it */
    int64_t most;                         /* pairs that a phase has room for */
    int64_t *pairs, *offset;              /* per phase; per phase and pair, in bytes */
    int32_t *weight;                      /* (phase, out_channels, in_channels, most) pairs of integers */
} plan;

static int plan_band(plan *p)
{
    int64_t span_y = p->y.high - p->y.low + 1, span_x = p->x.high - p->x.low + 1, bytes = p->lanes->bytes;
    int64_t width = p->x.phase[0].count, height = p->y.phase[0].count;
    p->columns = p->x.in_step * (width - 1) + span_x;
    int64_t fixed = (span_y - p->y.in_step) * p->columns * bytes;
    int64_t each = (p->y.in_step * p->columns + 2 * width) * bytes;
    p->band = mlp_max(1, mlp_min(height, (MLP_POT_L1_BYTES - fixed) / each));
    p->bands = mlp_ceil_div(height, p->band);
    p->band = mlp_ceil_div(height, p->bands);
    p->bands = mlp_ceil_div(height, p->band);
    p->rows = p->y.in_step * (p->band - 1) + span_y;
    return (double)p->g->in_channels * p->rows * p->columns * bytes < INT64_MAX / 4;
}

/* Two taps whose inputs are neighbours in a row share one multiply-add. */
static int plan_pairs(plan *p)
{
    const mlp_mls_rows *g = p->g;
    int64_t phases = p->y.phases * p->x.phases, taps = g->kernel[0] * g->kernel[1];
    int64_t kernels = g->out_channels * g->in_channels;
    p->most = taps;
    p->pairs = calloc((size_t)phases, sizeof *p->pairs);
    p->offset = malloc((size_t)(phases * taps) * sizeof *p->offset);
    p->weight = malloc((size_t)(phases * kernels * taps) * sizeof *p->weight);
    char *used = malloc((size_t)g->kernel[1]);
    if (!p->pairs || !p->offset || !p->weight || !used) {
        free(used);
        return 0;
    }
    for (int64_t f = 0; f < phases; f++) {
        const mlp_pot_phase *fy = &p->y.phase[f / p->x.phases], *fx = &p->x.phase[f % p->x.phases];
        for (int64_t i = 0; i < fy->taps; i++) {
            memset(used, 0, (size_t)g->kernel[1]);
            for (int64_t left = p->x.low; left <= p->x.high; left++)
                for (int64_t j = 0; j < fx->taps; j++) {
                    if (fx->offset[j] != left || used[j])
                        continue;
                    int64_t partner = -1, n = p->pairs[f]++;
                    for (int64_t k = 0; k < fx->taps; k++)
                        if (fx->offset[k] == left + 1)
                            partner = k;
                    used[j] = 1;
                    if (partner >= 0)
                        used[partner] = 1;
                    p->offset[f * taps + n] = ((fy->offset[i] - p->y.low) * p->columns + left - p->x.low)
                                              * p->lanes->bytes;
                    for (int64_t k = 0; k < kernels; k++) {
                        const int16_t *w = g->weight + k * taps + fy->tap[i] * g->kernel[1];
                        uint32_t low = (uint16_t)w[fx->tap[j]], high = partner >= 0 ? (uint16_t)w[fx->tap[partner]] : 0;
                        p->weight[(f * kernels + k) * taps + n] = (int32_t)(low | high << 16);
                    }
                }
        }
    }
    free(used);
    return 1;
}

/* Pairs of integers of every input channel under the band that starts at row a, samples from n on. */
static void fill_tile(const plan *p, int64_t a, int64_t n, int16_t *values, char *tile)
{
    const mlp_mls_rows *g = p->g;
    int64_t bytes = p->lanes->bytes, lanes = p->lanes->lanes, valid = mlp_min(lanes, g->batch - n);
    int64_t top = a * p->y.in_step + p->y.low, left = p->x.low;
    int64_t from = mlp_min(mlp_max(-left, 0), p->columns);
    int64_t to = mlp_max(mlp_min(g->in_size[1] - left, p->columns), from);
    memset(values, 0, (size_t)(p->columns * lanes) * sizeof *values);
    for (int64_t c = 0; c < g->in_channels; c++)
        for (int64_t r = 0; r < p->rows; r++, tile += p->columns * bytes) {
            int64_t y = top + r;
            if (y < 0 || y >= g->in_size[0] || to == from) {
                memset(tile, 0, (size_t)(p->columns * bytes));
                continue;
            }
            const int8_t *codes = g->input + ((c * g->in_size[0] + y) * g->in_size[1] + left + from) * g->batch + n;
            p->lanes->expand(codes, g->batch, to - from, valid, g->table, values + from * lanes);
            p->lanes->pair(values, p->columns, 1, 1, tile);
        }
}

typedef struct {
    char *tile, *sums, *totals;
    int16_t *values;
    int32_t *exponent, *bit;   /* (in_channels, lanes) of the samples in the lanes; exponents shifted left by 23 */
} scratch;

static void run_band(const plan *p, int64_t band, int64_t n, scratch *s)
{
    const mlp_mls_rows *g = p->g;
    int64_t lanes = p->lanes->lanes, bytes = p->lanes->bytes, valid = mlp_min(lanes, g->batch - n), a0 = band * p->band;
    int64_t taps = p->most, width = g->out_size[1];
    fill_tile(p, a0, n, s->values, s->tile);
    for (int64_t c = 0; c < g->in_channels; c++)
        for (int64_t j = 0; j < lanes; j++) {
            s->exponent[c * lanes + j] = j < valid ? g->exponent_input[c * g->batch + n + j] << 23 : 0;
            s->bit[c * lanes + j] = j < valid ? -g->bit_input[c * g->batch + n + j] : 0;
        }
    for (int64_t f = 0; f < p->y.phases * p->x.phases; f++) {
        const mlp_pot_phase *fy = &p->y.phase[f / p->x.phases], *fx = &p->x.phase[f % p->x.phases];
        int64_t down = mlp_min(p->band, fy->count - a0), across = fx->count;
        if (down <= 0 || across <= 0)
            continue;
        for (int64_t o = 0; o < g->out_channels; o++) {
            memset(s->totals, 0, (size_t)(down * across * bytes));
            for (int64_t c = 0; p->pairs[f] && c < g->in_channels; c++) {
                int32_t e[MLP_MLS_MOST_LANES] __attribute__((aligned(64)));
                int32_t both[MLP_MLS_MOST_LANES] __attribute__((aligned(64)));
                int32_t any[MLP_MLS_MOST_LANES] __attribute__((aligned(64)));
                int64_t k = o * g->in_channels + c;
                int32_t more = (g->exponent_weight[k] + 2) << 23, bit = -g->bit_weight[k];
                for (int64_t j = 0; j < lanes; j++) {
                    e[j] = s->exponent[c * lanes + j] + more;
                    both[j] = s->bit[c * lanes + j] & bit;
                    any[j] = s->bit[c * lanes + j] | bit;
                }
                p->lanes->mac_rows(s->tile + c * p->rows * p->columns * bytes, p->offset + f * taps,
                                   p->weight + (f * g->out_channels * g->in_channels + k) * taps, p->pairs[f], down,
                                   p->y.in_step * p->columns * bytes, across, p->x.in_step * bytes, s->sums);
                p->lanes->shift_add(s->sums, down * across, e, both, any, s->totals);
            }
            for (int64_t a = 0; a < down; a++)
                for (int64_t b = 0; b < across; b++) {
                    int64_t row = fy->origin + (a0 + a) * p->y.out_step, column = fx->origin + b * p->x.out_step;
                    p->lanes->store(s->totals + (a * across + b) * bytes, valid, g->scale,
                                    g->out + ((o * g->out_size[0] + row) * width + column) * g->batch + n);
                }
        }
    }
}

static int run(const plan *p)
{
    const mlp_mls_rows *g = p->g;
    int64_t bytes = p->lanes->bytes, lanes = p->lanes->lanes, vectors = mlp_ceil_div(g->batch, lanes);
    int64_t parts[] = {g->in_channels * p->rows * p->columns * bytes, p->band * p->x.phase[0].count * bytes,
                       p->band * p->x.phase[0].count * bytes, p->columns * bytes, g->in_channels * lanes * 4,
                       g->in_channels * lanes * 4}, size = 0;
    for (int i = 0; i < 6; i++)
        size += parts[i] = mlp_ceil_div(parts[i], 64) * 64;
    int failed = 0;
    MLP_PRAGMA(omp parallel reduction(| : failed) num_threads(mlp_threads()))
    {
        char *memory = aligned_alloc(64, (size_t)size), *at[6];
        failed |= !memory;
        for (int i = 0; memory && i < 6; i++)
            at[i] = i ? at[i - 1] + parts[i - 1] : memory;
        MLP_PRAGMA(omp for schedule(dynamic))
        for (int64_t t = 0; t < vectors * p->bands; t++)
            if (memory) {
                scratch s = {at[0], at[1], at[2], (int16_t *)at[3], (int32_t *)at[4], (int32_t *)at[5]};
                run_band(p, t % p->bands, t / p->bands * lanes, &s);
            }
        free(memory);
    }
    return failed ? MLP_NO_MEMORY : MLP_OK;
}

int mlp_mls_rows_contract(const mlp_mls_rows *g)
{
    plan p = {.g = g, .lanes = mlp_mls_for_tier()};
    int status = MLP_NO_MEMORY;
    if (mlp_pot_plan_axis(&p.y, g->input_grad, g->kernel[0], g->stride[0], g->padding[0], g->dilation[0],
                          g->out_size[0])
        && mlp_pot_plan_axis(&p.x, g->input_grad, g->kernel[1], g->stride[1], g->padding[1], g->dilation[1],
                             g->out_size[1])
        && plan_band(&p) && plan_pairs(&p))
        status = run(&p);
    mlp_pot_free_axis(&p.y);
    mlp_pot_free_axis(&p.x);
    free(p.pairs);
    free(p.offset);
    free(p.weight);
    return status;
}
