/* Emulated weight gradient of MLS codes (mls_dot.h): lanes are input channels, a group is a sample.
 *
 *   for n ascending: for o, c, tap:   total += float32(P m) 2^-e,   P = sum over the pixels of error x act
 *
 * First the codes of the whole batch are turned: samples go outermost, channels of activations innermost, and pixels of
 * errors, so that four neighbours are a quad. Then a thread takes a vector of channels and some features through all
 * samples in order. The activations of a sample become quads, for every column of taps those that start where it does;
 * a quad of errors, the same in all lanes, multiplies one of them for each tap. Sums stay in registers over the whole
 * map, or in tiles; then come two scales and one float add per vector of outputs. mls_dot.h says why the bits are those
 * of mls_wgrad.c. */
#include "mls_dot.h"
#include <stdlib.h>
#include <string.h>

typedef struct {
    const mlp_mls_wgrad *g;
    const mlp_mls_dots *dots;
    mlp_mls_decode decode_act, decode_error;
    int tiles;
    int64_t taps, quads, rows;                /* quads of an error row; rows of activations that errors meet */
    int64_t runs, chunks, chunk;              /* error rows that do not touch; quads of one, in whole chunks */
    int64_t blocks, parts, features;          /* vectors of channels; cuts of the features, how many each */
    int64_t act_sample, error_sample, limit;  /* bytes of a sample; rows whose sums fit 16 bits */
    int64_t error_row, error_feature;         /* in bytes */
    int64_t *tap;                             /* where each starts in a tile, in bytes */
    uint8_t *act;                             /* (samples, blocks, H, W, lanes), biased */
    char *error;                              /* (samples, features, rows, quads) */
    int32_t *first;                           /* (samples, features): -bias times the sum of the errors */
    float *scale_act, *scale_error, *totals;  /* (samples, blocks, lanes), (samples, features); results */
} plan;

enum { SQUARE = 16 };   /* pixels and samples that are turned at a time */

/* One row of errors, of 16 samples; all rows at once where they touch. */
static void turn_row(const plan *p, const int8_t *codes, int64_t pixels, int64_t valid, char *out)
{
    const int64_t batch = p->g->batch, half = p->dots->lanes < SQUARE ? p->dots->lanes : 0;
    for (int64_t i = 0; i < pixels; i += SQUARE, codes += SQUARE * batch, out += SQUARE) {
        uint8_t some[SQUARE * SQUARE];
        const int64_t left = pixels - i;
        if (left >= SQUARE) {
            p->dots->turn(&p->decode_error, codes, batch, SQUARE, 0, 1, valid, (uint8_t *)out, p->error_sample, half);
            continue;
        }
        p->dots->turn(&p->decode_error, codes, batch, left, 0, 1, valid, some, SQUARE, half);
        for (int64_t j = 0; j < valid; j++)
            memcpy(out + j * p->error_sample, some + j * SQUARE, (size_t)left);
    }
}

static void turn_error(const plan *p, int64_t f)
{
    const mlp_mls_wgrad *g = p->g;
    const int64_t width = g->out_size[1], touching = p->error_row == width;
    const int64_t rows = touching ? 1 : g->out_size[0], pixels = touching ? g->out_size[0] * width : width;
    for (int64_t n = 0; n < g->batch; n += SQUARE) {
        char *out = p->error + n * p->error_sample + f * p->error_feature;
        const int64_t valid = mlp_min(SQUARE, g->batch - n);
        for (int64_t y = 0; y < rows; y++)
            turn_row(p, g->error + (f * rows + y) * pixels * g->batch + n, pixels, valid, out + y * p->error_row);
        for (int64_t j = 0; j < valid; j++, out += p->error_sample) {
            int32_t sum = 0;
            for (int64_t i = 0; p->decode_act.bias && i < p->error_feature; i++)
                sum += (int8_t)out[i];
            p->first[(n + j) * g->features + f] = -p->decode_act.bias * sum;
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

/* Columns of activations, padding included, that an error row meets. */
static int64_t columns(const plan *p)
{
    return 4 * p->quads * p->g->stride[1] + (p->g->kernel[1] - 1) * p->g->dilation[1];
}

/* Quads of one sample's activations of one vector of channels: (columns of taps, rows, quads) vectors. */
static void fill_tile(const plan *p, int64_t block, int64_t n, uint8_t *values, char *tile)
{
    const mlp_mls_wgrad *g = p->g;
    int64_t lanes = p->dots->lanes, row = p->quads * p->dots->bytes, width = g->size[1], left = g->padding[1];
    int64_t reach = mlp_max(mlp_min(width, columns(p) - left), 0);
    const uint8_t *act = p->act + n * p->act_sample + block * g->size[0] * width * lanes;
    for (int64_t r = 0; r < p->rows; r++, tile += row) {
        int64_t y = r - g->padding[0], there = y >= 0 && y < g->size[0] && reach;
        if (there)
            memcpy(values + left * lanes, act + y * width * lanes, (size_t)(reach * lanes));
        for (int64_t k = 0; k < g->kernel[1]; k++)
            if (there)
                p->dots->quads(values + k * g->dilation[1] * lanes, p->quads, g->stride[1], tile + k * p->rows * row);
            else
                memset(tile + k * p->rows * row, p->decode_act.bias, (size_t)row);
    }
}

static void run_tiles(const plan *p, int64_t block, int64_t n, int64_t f, int64_t features, const char *tile)
{
    const mlp_mls_wgrad *g = p->g;
    const int64_t lanes = p->dots->lanes;
    const mlp_mls_amx_wgrad w = {
        .act = tile, .error = p->error + n * p->error_sample + f * p->error_feature, .tap = p->tap, .taps = p->taps,
        .runs = p->runs, .chunks = p->chunks, .chunk = p->chunk,
        .act_run = g->stride[0] * p->quads * p->dots->bytes, .error_run = p->error_row,
        .error_feature = p->error_feature, .features = features, .scale_error = p->scale_error + n * g->features + f,
        .scale_act = p->scale_act + (n * p->blocks + block) * lanes,
        .totals = p->totals + (block * g->features + f) * p->taps * lanes, .feature = p->taps * lanes};
    mlp_mls_amx_block(&w);
}

static void run_dots(const plan *p, int64_t block, int64_t n, int64_t f, int64_t features, const char *tile)
{
    const mlp_mls_wgrad *g = p->g;
    const int64_t lanes = p->dots->lanes, row = p->quads * p->dots->bytes;
    mlp_mls_dot_wgrad w = {
        .error = p->error + n * p->error_sample + f * p->error_feature, .act_row = g->stride[0] * row,
        .act_tap = p->rows * row, .error_row = p->error_row, .error_feature = p->error_feature,
        .rows = g->out_size[0], .quads = p->quads, .limit = p->limit, .first = p->first + n * g->features + f,
        .scale_error = p->scale_error + n * g->features + f,
        .scale_act = p->scale_act + (n * p->blocks + block) * lanes, .feature = p->taps * lanes};
    for (int64_t ky = 0; ky < g->kernel[0]; ky++)
        for (int64_t kx = 0, taps; kx < g->kernel[1]; kx += taps) {
            taps = g->kernel[1] - kx >= 3 ? 3 : 1;
            w.act = tile + p->tap[ky * g->kernel[1] + kx];
            w.totals = p->totals + ((block * g->features + f) * p->taps + ky * g->kernel[1] + kx) * lanes;
            p->dots->wgrad(&w, (int)features, (int)taps);
        }
}

static void run_part(const plan *p, int64_t block, int64_t part, uint8_t *values, char *tile)
{
    const int64_t from = part * p->features, to = mlp_min(from + p->features, p->g->features);
    const int64_t most = p->dots->wgrad_features;
    memset(values, p->decode_act.bias, (size_t)(columns(p) * p->dots->lanes));
    for (int64_t n = 0; n < p->g->batch; n++) {
        fill_tile(p, block, n, values, tile);
        if (p->tiles)
            for (int64_t f = from; f < to; f += SQUARE)
                run_tiles(p, block, n, f, mlp_min(SQUARE, to - f), tile);
        else
            for (int64_t f = from, features; f < to; f += features) {
                features = to - f >= most ? most : 1;
                run_dots(p, block, n, f, features, tile);
            }
    }
}

static int run(const plan *p)
{
    const mlp_mls_wgrad *g = p->g;
    int64_t vectors = g->kernel[1] * p->rows * p->quads + p->chunk;   /* a last chunk may reach beyond the rest */
    int64_t tile = mlp_ceil_div(vectors * p->dots->bytes, 64) * 64;
    int64_t size = tile + mlp_ceil_div(mlp_max(columns(p), g->padding[1]) * p->dots->lanes, 64) * 64;
    int failed = 0;
    MLP_PRAGMA(omp parallel reduction(| : failed) num_threads(mlp_threads()))
    {
        char *memory = aligned_alloc(64, (size_t)size);
        uint8_t *values = (uint8_t *)memory + tile;
        failed |= !memory;
        MLP_PRAGMA(omp for schedule(dynamic) nowait)
        for (int64_t f = 0; f < g->features; f++)
            if (memory)
                turn_error(p, f);
        MLP_PRAGMA(omp for schedule(dynamic))
        for (int64_t i = 0; i < mlp_ceil_div(g->channels, 16) * g->size[0]; i++)
            turn_act(p, i / g->size[0] * 16, i % g->size[0]);
        if (p->tiles)
            mlp_mls_amx_on(p->chunk);
        MLP_PRAGMA(omp for schedule(dynamic))
        for (int64_t i = 0; i < p->blocks * p->parts; i++)
            if (memory)
                run_part(p, i / p->parts, i % p->parts, values, memory);
        if (p->tiles)
            mlp_mls_amx_off();
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

/* How errors lie and where taps start. Rows of errors that meet rows of activations one after the other touch, and are
 * one run of quads; a run is filled up to whole chunks. */
static void plan_runs(plan *p)
{
    const mlp_mls_wgrad *g = p->g;
    const int64_t touching = g->stride[0] == 1, all = touching ? g->out_size[0] * p->quads : p->quads;
    p->runs = touching ? 1 : g->out_size[0];
    p->chunk = mlp_min(all, 16);
    p->chunks = mlp_ceil_div(all, p->chunk);
    p->error_row = 4 * (touching ? p->quads : p->chunks * p->chunk);
    p->error_feature = 4 * p->runs * p->chunks * p->chunk;
    p->rows = (g->out_size[0] - 1) * g->stride[0] + (g->kernel[0] - 1) * g->dilation[0] + 1;
    for (int64_t t = 0; t < p->taps; t++)
        p->tap[t] = (t % g->kernel[1] * p->rows + t / g->kernel[1] * g->dilation[0]) * p->quads * p->dots->bytes;
}

int mlp_mls_dot_wgrad_contract(const mlp_mls_wgrad *g)
{
    plan p = {.g = g, .dots = mlp_mls_dots_for_tier(), .tiles = mlp_mls_amx(), .taps = g->kernel[0] * g->kernel[1],
              .quads = mlp_ceil_div(g->out_size[1], 4)};
    if (!p.dots || g->one || g->wide)
        return MLP_UNSUPPORTED;
    p.limit = p.dots->pairs ? INT16_MAX / (4 * mlp_max(g->product, 1) * p.quads) : g->out_size[0];
    if (p.limit < 1)
        return MLP_UNSUPPORTED;
    p.tap = malloc((size_t)p.taps * sizeof *p.tap);
    if (!p.tap)
        return MLP_NO_MEMORY;
    plan_runs(&p);
    mlp_mls_plan_decode(&p.decode_act, g->table_act);
    mlp_mls_plan_decode(&p.decode_error, g->table_error);
    p.decode_error.bias = 0;
    if (p.tiles)   /* tiles multiply signed bytes by signed ones */
        p.decode_act.bias = 0;
    p.blocks = mlp_ceil_div(g->channels, p.dots->lanes);
    int64_t most = p.tiles ? SQUARE : p.dots->wgrad_features;
    if (p.tiles && p.blocks * mlp_ceil_div(g->features, SQUARE) < mlp_threads())
        most = SQUARE / 2;   /* half a tile each, rather than a thread without work */
    const int64_t some = mlp_ceil_div(g->features, most);   /* a cut never moves an add of one output */
    p.features = mlp_ceil_div(some, mlp_min(some, mlp_ceil_div(mlp_threads(), p.blocks))) * most;
    p.parts = mlp_ceil_div(g->features, p.features);
    /* A line more, so that the samples do not lie a power of two apart and fall on each other in the cache. */
    p.act_sample = mlp_ceil_div(p.blocks * p.dots->lanes * g->size[0] * g->size[1], 64) * 64 + 64;
    p.error_sample = mlp_ceil_div(g->features * p.error_feature, 64) * 64 + 64;
    /* The last tile of errors may begin at any feature, and has 16 rows. */
    int64_t lanes = p.blocks * p.dots->lanes;
    int64_t errors = g->batch * p.error_sample + mlp_ceil_div(SQUARE * p.error_feature, 64) * 64;
    p.act = aligned_alloc(64, (size_t)(g->batch * p.act_sample));
    p.error = aligned_alloc(64, (size_t)errors);
    p.first = malloc((size_t)(g->batch * g->features) * sizeof *p.first);
    p.scale_error = malloc((size_t)(g->batch * g->features) * sizeof *p.scale_error);
    int64_t scales = mlp_ceil_div(g->batch * lanes * 4, 64) * 64, totals = g->features * p.taps * lanes * 4;
    p.scale_act = aligned_alloc(64, (size_t)(scales + mlp_ceil_div(totals, 64) * 64));
    int status = MLP_NO_MEMORY;
    if (p.act && p.error && p.first && p.scale_error && p.scale_act) {
        if (p.error_feature != g->out_size[0] * g->out_size[1])   /* what is no pixel counts nothing */
            memset(p.error, 0, (size_t)errors);
        p.totals = memset((char *)p.scale_act + scales, 0, (size_t)totals);
        set_scales(&p);
        status = run(&p);
        if (status == MLP_OK)
            store(&p);
    }
    free(p.tap);
    free(p.act);
    free(p.error);
    free(p.first);
    free(p.scale_error);
    free(p.scale_act);
    return status;
}
