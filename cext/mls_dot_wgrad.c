/* Emulated weight gradient of MLS codes (mls_dot.h): lanes are input channels, a group is a sample.
 *
 *   for n ascending: for o, c, tap:   total += float32(P m) 2^-e,   P = sum over the pixels of error x act
 *
 * First the codes of the whole batch are turned: samples go outermost, channels of activations innermost, errors become
 * quads of neighbouring pixels. Then a thread takes a vector of channels and some features through all samples in
 * order. The activations of a sample become quads that start at every column; a quad of errors, the same in all lanes,
 * multiplies one of them for each tap. Sums stay in registers over the whole map; then come two scales and one float
 * add per vector of outputs. mls_dot.h says why the bits are those of mls_wgrad.c. */
#include "mls_dot.h"
#include <stdlib.h>
#include <string.h>

typedef struct {
    const mlp_mls_wgrad *g;
    const mlp_mls_dots *dots;
    mlp_mls_decode decode_act, decode_error;
    int64_t taps, quads, rows, starts;        /* quads of an error row; rows and columns where activation quads start */
    int64_t blocks, parts, features;          /* vectors of channels; cuts of the features, how many each */
    int64_t act_sample, error_sample, limit;  /* bytes of a sample; rows whose sums fit 16 bits */
    uint8_t *act;                             /* (samples, blocks, H, W, lanes), biased */
    char *error;                              /* (samples, features, rows, quads) */
    int32_t *first;                           /* (samples, features): -bias times the sum of the errors */
    float *scale_act, *scale_error, *totals;  /* (samples, blocks, lanes), (samples, features); results */
} plan;

static void turn_error(const plan *p, int64_t f, uint8_t *values, char *quads)
{
    const mlp_mls_wgrad *g = p->g;
    int64_t lanes = p->dots->lanes, height = g->out_size[0], width = g->out_size[1];
    memset(values, 0, (size_t)((width + 3) * lanes));
    for (int64_t n = 0; n < g->batch; n += lanes) {
        int64_t valid = mlp_min(lanes, g->batch - n);
        int32_t sums[16] = {0};
        for (int64_t y = 0; y < height; y++) {
            p->dots->decode(&p->decode_error, g->error + (f * height + y) * width * g->batch + n, g->batch, width,
                            valid, values, lanes, 0);
            p->dots->quads(values, width, 1, 4, p->dots->bytes, quads);
            p->dots->tally(quads, p->quads, sums);
            for (int64_t j = 0; j < valid; j++) {
                int32_t *out = (int32_t *)(p->error + (n + j) * p->error_sample) + (f * height + y) * p->quads;
                for (int64_t q = 0; q < p->quads; q++)
                    out[q] = ((const int32_t *)quads)[q * lanes + j];
            }
        }
        for (int64_t j = 0; j < valid; j++) {
            p->first[(n + j) * g->features + f] = -p->decode_act.bias * sums[j];
            p->scale_error[(n + j) * g->features + f] =
                mlp_mls_group_scale(g->exponent_error[f * g->batch + n + j], g->bit_error[f * g->batch + n + j]);
        }
    }
}

/* One row of pixels of the 16 channels from c on. */
static void turn_act(const plan *p, int64_t c, int64_t y)
{
    const mlp_mls_wgrad *g = p->g;
    int64_t lanes = p->dots->lanes, map = g->size[0] * g->size[1], block = map * lanes;
    for (int64_t n = 0; n < g->batch; n += 16)
        p->dots->turn(&p->decode_act, g->act + (c * map + y * g->size[1]) * g->batch + n, map * g->batch,
                      mlp_min(16, g->channels - c), g->batch, g->size[1], mlp_min(16, g->batch - n),
                      p->act + n * p->act_sample + c / lanes * block + y * g->size[1] * lanes, p->act_sample,
                      c / lanes + 1 < p->blocks ? block : 0);
}

/* Quads of one sample's activations of one vector of channels: (rows, starts) vectors. */
static void fill_tile(const plan *p, int64_t block, int64_t n, uint8_t *values, char *tile)
{
    const mlp_mls_wgrad *g = p->g;
    int64_t lanes = p->dots->lanes, bytes = p->dots->bytes, width = g->size[1], left = g->padding[1];
    int64_t length = p->starts + 3 * g->stride[1], reach = mlp_max(mlp_min(width, length - left), 0);
    const uint8_t *act = p->act + n * p->act_sample + block * g->size[0] * width * lanes;
    for (int64_t r = 0; r < p->rows; r++, tile += p->starts * bytes) {
        int64_t y = r - g->padding[0];
        if (y < 0 || y >= g->size[0] || !reach) {
            memset(tile, p->decode_act.bias, (size_t)(p->starts * bytes));
            continue;
        }
        memcpy(values + left * lanes, act + y * width * lanes, (size_t)(reach * lanes));
        p->dots->quads(values, p->starts, g->stride[1], 1, bytes, tile);
    }
}

static void run_part(const plan *p, int64_t block, int64_t part, uint8_t *values, char *tile)
{
    const mlp_mls_wgrad *g = p->g;
    int64_t lanes = p->dots->lanes, bytes = p->dots->bytes, map = g->out_size[0] * p->quads * 4;
    int64_t from = part * p->features, to = mlp_min(from + p->features, g->features);
    memset(values, p->decode_act.bias, (size_t)((p->starts + 3 * g->stride[1]) * lanes));
    for (int64_t n = 0; n < g->batch; n++) {
        fill_tile(p, block, n, values, tile);
        for (int64_t f = from, features; f < to; f += features) {
            features = to - f >= p->dots->wgrad_features ? p->dots->wgrad_features : 1;
            mlp_mls_dot_wgrad w = {
                .error = p->error + n * p->error_sample + f * map, .act_row = g->stride[0] * p->starts * bytes,
                .act_quad = 4 * g->stride[1] * bytes, .act_tap = g->dilation[1] * bytes, .error_feature = map,
                .rows = g->out_size[0], .quads = p->quads, .limit = p->limit, .first = p->first + n * g->features + f,
                .scale_error = p->scale_error + n * g->features + f,
                .scale_act = p->scale_act + (n * p->blocks + block) * lanes, .feature = p->taps * lanes};
            for (int64_t ky = 0; ky < g->kernel[0]; ky++)
                for (int64_t kx = 0, taps; kx < g->kernel[1]; kx += taps) {
                    taps = g->kernel[1] - kx >= 3 ? 3 : 1;
                    w.act = tile + (ky * g->dilation[0] * p->starts + kx * g->dilation[1]) * bytes;
                    w.totals = p->totals + ((block * g->features + f) * p->taps + ky * g->kernel[1] + kx) * lanes;
                    p->dots->wgrad(&w, (int)features, (int)taps);
                }
        }
    }
}

static int run(const plan *p)
{
    const mlp_mls_wgrad *g = p->g;
    int64_t lanes = p->dots->lanes, bytes = p->dots->bytes;
    int64_t columns = mlp_max(p->starts + 3 * g->stride[1], g->padding[1]) + g->out_size[1] + 3;
    int64_t tile = mlp_ceil_div(mlp_max(p->rows * p->starts, p->quads) * bytes, 64) * 64;
    int64_t size = tile + mlp_ceil_div(columns * lanes, 64) * 64;
    int failed = 0;
    MLP_PRAGMA(omp parallel reduction(| : failed) num_threads(mlp_threads()))
    {
        char *memory = aligned_alloc(64, (size_t)size);
        uint8_t *values = (uint8_t *)memory + tile;
        failed |= !memory;
        MLP_PRAGMA(omp for schedule(dynamic) nowait)
        for (int64_t f = 0; f < g->features; f++)
            if (memory)
                turn_error(p, f, values, memory);
        MLP_PRAGMA(omp for schedule(dynamic))
        for (int64_t i = 0; i < mlp_ceil_div(g->channels, 16) * g->size[0]; i++)
            turn_act(p, i / g->size[0] * 16, i % g->size[0]);
        MLP_PRAGMA(omp for schedule(dynamic))
        for (int64_t i = 0; i < p->blocks * p->parts; i++)
            if (memory)
                run_part(p, i / p->parts, i % p->parts, values, memory);
        free(memory);
    }
    return failed ? MLP_NO_MEMORY : MLP_OK;
}

static void set_scales(const plan *p)
{
    const mlp_mls_wgrad *g = p->g;
    int64_t lanes = p->blocks * p->dots->lanes;
    for (int64_t n = 0; n < g->batch; n++)
        for (int64_t c = 0; c < lanes; c++)
            p->scale_act[n * lanes + c] = c < g->channels ? mlp_mls_group_scale(g->exponent_act[c * g->batch + n],
                                                                                g->bit_act[c * g->batch + n]) : 0;
}

static void store(const plan *p)
{
    const mlp_mls_wgrad *g = p->g;
    int64_t lanes = p->dots->lanes;
    for (int64_t f = 0; f < g->features; f++)
        for (int64_t c = 0; c < g->channels; c++) {
            const float *total = p->totals + (c / lanes * g->features + f) * p->taps * lanes + c % lanes;
            for (int64_t t = 0; t < p->taps; t++)
                g->out[(f * g->channels + c) * p->taps + t] = (float)((double)total[t * lanes] * g->scale);
        }
}

int mlp_mls_dot_wgrad_contract(const mlp_mls_wgrad *g)
{
    plan p = {.g = g, .dots = mlp_mls_dots_for_tier(), .taps = g->kernel[0] * g->kernel[1],
              .quads = mlp_ceil_div(g->out_size[1], 4)};
    if (!p.dots || g->one || g->wide)
        return MLP_UNSUPPORTED;
    p.limit = p.dots->pairs ? INT16_MAX / (4 * mlp_max(g->product, 1) * p.quads) : g->out_size[0];
    if (p.limit < 1)
        return MLP_UNSUPPORTED;
    mlp_mls_plan_decode(&p.decode_act, g->table_act);
    mlp_mls_plan_decode(&p.decode_error, g->table_error);
    p.decode_error.bias = 0;
    p.rows = (g->out_size[0] - 1) * g->stride[0] + (g->kernel[0] - 1) * g->dilation[0] + 1;
    p.starts = 4 * (p.quads - 1) * g->stride[1] + (g->kernel[1] - 1) * g->dilation[1] + 1;
    p.blocks = mlp_ceil_div(g->channels, p.dots->lanes);
    int64_t some = mlp_ceil_div(g->features, p.dots->wgrad_features);   /* a cut never moves an add of one output */
    p.features = mlp_ceil_div(some, mlp_min(some, mlp_ceil_div(mlp_threads(), p.blocks))) * p.dots->wgrad_features;
    p.parts = mlp_ceil_div(g->features, p.features);
    /* A line more, so that the samples do not lie a power of two apart and fall on each other in the cache. */
    p.act_sample = mlp_ceil_div(p.blocks * p.dots->lanes * g->size[0] * g->size[1], 64) * 64 + 64;
    p.error_sample = mlp_ceil_div(g->features * g->out_size[0] * p.quads * 4, 64) * 64 + 64;
    int64_t lanes = p.blocks * p.dots->lanes;
    p.act = aligned_alloc(64, (size_t)(g->batch * p.act_sample));
    p.error = aligned_alloc(64, (size_t)(g->batch * p.error_sample));
    p.first = malloc((size_t)(g->batch * g->features) * sizeof *p.first);
    p.scale_error = malloc((size_t)(g->batch * g->features) * sizeof *p.scale_error);
    int64_t scales = mlp_ceil_div(g->batch * lanes * 4, 64) * 64, totals = g->features * p.taps * lanes * 4;
    p.scale_act = aligned_alloc(64, (size_t)(scales + mlp_ceil_div(totals, 64) * 64));
    int status = MLP_NO_MEMORY;
    if (p.act && p.error && p.first && p.scale_error && p.scale_act) {
        p.totals = memset((char *)p.scale_act + scales, 0, (size_t)totals);
        set_scales(&p);
        status = run(&p);
        if (status == MLP_OK)
            store(&p);
    }
    free(p.act);
    free(p.error);
    free(p.first);
    free(p.scale_error);
    free(p.scale_act);
    return status;
}
