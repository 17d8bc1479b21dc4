/* Forward convolution and input gradient of MLS codes (mls.h): lanes are samples, a group is one input channel, or all
 * of them.
 *
 * A thread takes a band of output rows for one vector of samples and turns the codes under it into pairs of integers.
 * Then, for each output channel and each group in ascending order: the integer sums of the band, and their scaled terms
 * added to its float totals. Outputs are visited by phase as in pot_bins.h, so that strides cost nothing.
 *
 * A linear layer under group scales that vary along its sum has groups of a single product: those are first multiplied
 * out, then scaled and added in one loop. */
#include "mls.h"
#include <stdlib.h>
#include <string.h>

enum { ONE_BYTES = 256 << 10, CHAIN = 64 };   /* tile of all channels; products that are multiplied out at a time */

typedef struct {
    const mlp_mls_rows *g;
    const mlp_mls_lanes *lanes;
    mlp_pot_axis y, x;
    int64_t band, bands, rows, columns;   /* output rows of a band (before the phase's step); inputs under it */
    int64_t planes, groups, segment;      /* tile planes: channels, or pairs of them; sums; most pairs in 32 bits */
    int64_t most;                         /* pairs that a phase has room for */
    int64_t *pairs, *offset;              /* a plane's per phase; per phase and plane and pair, in bytes */
    int32_t *weight;                      /* (phase, out_channels, most) pairs of integers */
} plan;

static int plan_band(plan *p)
{
    int64_t span_y = p->y.high - p->y.low + 1, span_x = p->x.high - p->x.low + 1, bytes = p->lanes->bytes;
    int64_t width = p->x.phase[0].count, height = p->y.phase[0].count, one = p->g->one;
    p->columns = p->x.in_step * (width - 1) + span_x;
    int64_t fixed = (span_y - p->y.in_step) * p->columns * bytes * (one ? p->planes : 1);
    int64_t each = (p->y.in_step * p->columns * (one ? p->planes : 1) + 2 * width) * bytes;
    p->band = mlp_max(1, mlp_min(height, ((one ? ONE_BYTES : MLP_POT_L1_BYTES) - fixed) / each));
    p->bands = mlp_ceil_div(height, p->band);
    p->band = mlp_ceil_div(height, p->bands);
    p->bands = mlp_ceil_div(height, p->band);
    p->rows = p->y.in_step * (p->band - 1) + span_y;
    return (double)p->planes * p->rows * p->columns * bytes < INT64_MAX / 4;
}

/* The taps that one multiply takes together, for one phase: two whose inputs are neighbours in a row, or, where pairs
 * are of channels, one. Returns their number; second is -1 where there is none. */
static int64_t pair_taps(const plan *p, const mlp_pot_phase *fy, const mlp_pot_phase *fx, char *used, int64_t *first,
                         int64_t *second, int64_t *offset)
{
    const mlp_mls_rows *g = p->g;
    int64_t n = 0;
    for (int64_t i = 0; i < fy->taps; i++) {
        memset(used, 0, (size_t)g->kernel[1]);
        for (int64_t left = p->x.low; left <= p->x.high; left++)
            for (int64_t j = 0; j < fx->taps; j++) {
                if (fx->offset[j] != left || used[j])
                    continue;
                int64_t partner = -1;
                for (int64_t k = 0; !g->one && k < fx->taps; k++)
                    if (fx->offset[k] == left + 1)
                        partner = k;
                used[j] = 1;
                if (partner >= 0)
                    used[partner] = 1;
                first[n] = fy->tap[i] * g->kernel[1] + fx->tap[j];
                second[n] = partner < 0 ? -1 : fy->tap[i] * g->kernel[1] + fx->tap[partner];
                offset[n++] = ((fy->offset[i] - p->y.low) * p->columns + left - p->x.low) * p->lanes->bytes;
            }
    }
    return n;
}

static int plan_pairs(plan *p)
{
    const mlp_mls_rows *g = p->g;
    int64_t phases = p->y.phases * p->x.phases, taps = g->kernel[0] * g->kernel[1];
    p->most = p->planes * taps;
    p->pairs = calloc((size_t)phases, sizeof *p->pairs);
    p->offset = malloc((size_t)(phases * p->most) * sizeof *p->offset);
    p->weight = malloc((size_t)(phases * g->out_channels * p->most) * sizeof *p->weight);
    int64_t *of = malloc((size_t)(3 * taps) * sizeof *of), *first = of + taps, *second = first + taps;
    char *used = malloc((size_t)g->kernel[1]);
    int done = p->pairs && p->offset && p->weight && of && used;
    for (int64_t f = 0; done && f < phases; f++) {
        const mlp_pot_phase *fy = &p->y.phase[f / p->x.phases], *fx = &p->x.phase[f % p->x.phases];
        int64_t pairs = p->pairs[f] = pair_taps(p, fy, fx, used, first, second, of);
        for (int64_t c = 0; c < p->planes; c++)
            for (int64_t n = 0; n < pairs; n++)
                p->offset[f * p->most + c * pairs + n] = c * p->rows * p->columns * p->lanes->bytes + of[n];
        for (int64_t o = 0; o < g->out_channels; o++)
            for (int64_t c = 0; c < p->planes; c++)
                for (int64_t n = 0; n < pairs; n++) {
                    int64_t channel = g->one ? 2 * c : c;
                    const int16_t *w = g->weight + (o * g->in_channels + channel) * taps;
                    uint32_t low = (uint16_t)w[first[n]], high = 0;
                    if (g->one && channel + 1 < g->in_channels)
                        high = (uint16_t)w[taps + first[n]];
                    else if (second[n] >= 0)
                        high = (uint16_t)w[second[n]];
                    p->weight[(f * g->out_channels + o) * p->most + c * pairs + n] = (int32_t)(low | high << 16);
                }
    }
    free(of);
    free(used);
    return done;
}

/* Pairs of integers of every plane under the band that starts at row a, samples from n on. */
static void fill_tile(const plan *p, int64_t a, int64_t n, int16_t *values, char *tile)
{
    const mlp_mls_rows *g = p->g;
    int64_t bytes = p->lanes->bytes, lanes = p->lanes->lanes, valid = mlp_min(lanes, g->batch - n);
    int64_t top = a * p->y.in_step + p->y.low, left = p->x.low, columns = p->columns;
    int64_t from = mlp_min(mlp_max(-left, 0), columns), to = mlp_max(mlp_min(g->in_size[1] - left, columns), from);
    int64_t picture = g->in_size[0] * g->in_size[1] * g->batch, distance = g->one ? columns : 1;
    memset(values, 0, (size_t)(2 * columns * lanes) * sizeof *values);
    for (int64_t c = 0; c < p->planes; c++)
        for (int64_t r = 0; r < p->rows; r++, tile += columns * bytes) {
            int64_t y = top + r, channel = g->one ? 2 * c : c, both = g->one && channel + 1 < g->in_channels;
            if (y < 0 || y >= g->in_size[0] || to == from) {
                memset(tile, 0, (size_t)(columns * bytes));
                continue;
            }
            const int8_t *codes = g->input + channel * picture + (y * g->in_size[1] + left + from) * g->batch + n;
            p->lanes->expand(codes, g->batch, to - from, valid, g->table, values + from * lanes);
            if (both)
                p->lanes->expand(codes + picture, g->batch, to - from, valid, g->table,
                                 values + (columns + from) * lanes);
            p->lanes->pair(values, both ? 2 * columns : columns, columns, 1, distance, tile);
        }
}

typedef struct {
    char *tile, *sums, *totals;
    int16_t *values;
    int32_t *exponent, *bit;   /* (groups, lanes) of the samples in the lanes; bits as masks */
    int64_t *wide;
} scratch;

/* Group q of output channel o of phase f: its integer sums of the band, and their terms added to the totals. */
static void add_group(const plan *p, int64_t f, int64_t o, int64_t q, int64_t down, int64_t across, const scratch *s)
{
    const mlp_mls_rows *g = p->g;
    int64_t lanes = p->lanes->lanes, bytes = p->lanes->bytes, k = o * p->groups + q, vectors = down * across;
    int64_t length = p->pairs[f] * p->planes / p->groups, last = (q + 1) * length;
    int32_t e[MLP_MLS_MOST_LANES] __attribute__((aligned(64)));
    int32_t both[MLP_MLS_MOST_LANES] __attribute__((aligned(64)));
    int32_t any[MLP_MLS_MOST_LANES] __attribute__((aligned(64)));
    int32_t more = g->exponent_weight[k] + 2, bit = -g->bit_weight[k];
    for (int64_t j = 0; j < lanes; j++) {
        e[j] = s->exponent[q * lanes + j] + more;
        both[j] = s->bit[q * lanes + j] & bit;
        any[j] = s->bit[q * lanes + j] | bit;
    }
    if (g->wide)
        memset(s->wide, 0, (size_t)(vectors * lanes) * sizeof *s->wide);
    for (int64_t i = q * length, few; i < last; i += few) {
        few = g->wide ? mlp_min(p->segment, last - i) : length;
        p->lanes->mac_rows(s->tile, p->offset + f * p->most + i, p->weight + (f * g->out_channels + o) * p->most + i,
                           few, down, p->y.in_step * p->columns * bytes, across, p->x.in_step * bytes, s->sums);
        if (g->wide)
            p->lanes->widen(s->sums, vectors, s->wide);
    }
    if (g->wide)
        p->lanes->shift_wide(s->wide, vectors, e, both, any, (float *)s->totals);
    else
        p->lanes->shift_add(s->sums, vectors, e, both, any, s->totals);
}

/* All groups of output channel o where each is one product of one output. */
static void add_chain(const plan *p, int64_t o, const scratch *s)
{
    const mlp_mls_rows *g = p->g;
    int64_t lanes = p->lanes->lanes, step = p->rows * p->columns * p->lanes->bytes;
    int32_t more[CHAIN], mask[CHAIN];
    for (int64_t c = 0, few; c < g->in_channels; c += few) {
        few = mlp_min(CHAIN, g->in_channels - c);
        for (int64_t i = 0; i < few; i++) {
            more[i] = g->exponent_weight[o * g->in_channels + c + i] + 2;
            mask[i] = -g->bit_weight[o * g->in_channels + c + i];
        }
        p->lanes->mac_each(s->tile + c * step, step, p->weight + o * p->most + c, few, s->sums);
        p->lanes->shift_chain(s->sums, few, s->exponent + c * lanes, s->bit + c * lanes, more, mask, s->totals);
    }
}

static void run_band(const plan *p, int64_t band, int64_t n, scratch *s)
{
    const mlp_mls_rows *g = p->g;
    int64_t lanes = p->lanes->lanes, bytes = p->lanes->bytes, valid = mlp_min(lanes, g->batch - n), a0 = band * p->band;
    int chain = !g->one && !g->wide && g->kernel[0] * g->kernel[1] * g->out_size[0] * g->out_size[1] == 1;
    fill_tile(p, a0, n, s->values, s->tile);
    for (int64_t c = 0; c < p->groups; c++)
        for (int64_t j = 0; j < lanes; j++) {
            s->exponent[c * lanes + j] = j < valid ? g->exponent_input[c * g->batch + n + j] : 0;
            s->bit[c * lanes + j] = j < valid ? -g->bit_input[c * g->batch + n + j] : 0;
        }
    for (int64_t f = 0; f < p->y.phases * p->x.phases; f++) {
        const mlp_pot_phase *fy = &p->y.phase[f / p->x.phases], *fx = &p->x.phase[f % p->x.phases];
        int64_t down = mlp_min(p->band, fy->count - a0), across = fx->count;
        if (down <= 0 || across <= 0)
            continue;
        for (int64_t o = 0; o < g->out_channels; o++) {
            memset(s->totals, 0, (size_t)(down * across * bytes));
            if (chain && p->pairs[f])
                add_chain(p, o, s);
            else
                for (int64_t q = 0; p->pairs[f] && q < p->groups; q++)
                    add_group(p, f, o, q, down, across, s);
            for (int64_t a = 0; a < down; a++)
                for (int64_t b = 0; b < across; b++) {
                    int64_t row = fy->origin + (a0 + a) * p->y.out_step, column = fx->origin + b * p->x.out_step;
                    p->lanes->store(s->totals + (a * across + b) * bytes, valid, g->scale,
                                    g->out + ((o * g->out_size[0] + row) * g->out_size[1] + column) * g->batch + n);
                }
        }
    }
}

static int run(const plan *p)
{
    const mlp_mls_rows *g = p->g;
    int64_t bytes = p->lanes->bytes, lanes = p->lanes->lanes, vectors = mlp_ceil_div(g->batch, lanes);
    int64_t outputs = p->band * p->x.phase[0].count * bytes;
    int64_t parts[] = {p->planes * p->rows * p->columns * bytes, mlp_max(outputs, CHAIN * bytes), outputs,
                       p->columns * bytes, p->groups * lanes * 4, p->groups * lanes * 4, g->wide ? 2 * outputs : 0};
    enum { PARTS = sizeof parts / sizeof *parts };
    int64_t size = 0;
    for (int i = 0; i < PARTS; i++)
        size += parts[i] = mlp_ceil_div(parts[i], 64) * 64;
    int failed = 0;
    MLP_PRAGMA(omp parallel reduction(| : failed) num_threads(mlp_threads()))
    {
        char *memory = aligned_alloc(64, (size_t)size), *at[PARTS];
        failed |= !memory;
        for (int i = 0; memory && i < PARTS; i++)
            at[i] = i ? at[i - 1] + parts[i - 1] : memory;
        MLP_PRAGMA(omp for schedule(dynamic))
        for (int64_t t = 0; t < vectors * p->bands; t++)
            if (memory) {
                scratch s = {at[0], at[1], at[2], (int16_t *)at[3], (int32_t *)at[4], (int32_t *)at[5],
                             (int64_t *)at[6]};
                run_band(p, t % p->bands, t / p->bands * lanes, &s);
            }
        free(memory);
    }
    return failed ? MLP_NO_MEMORY : MLP_OK;
}

int mlp_mls_rows_contract(const mlp_mls_rows *g)
{
    plan p = {.g = g, .lanes = mlp_mls_for_tier(), .segment = INT32_MAX / 2 / mlp_max(g->product, 1),
              .planes = g->one ? mlp_ceil_div(g->in_channels, 2) : g->in_channels,
              .groups = g->one ? 1 : g->in_channels};
    if (!p.segment)
        return MLP_OVERFLOW;
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
