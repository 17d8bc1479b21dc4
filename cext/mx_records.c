/* Rows of images and weight gradients of MX contractions on records; see mx_records.h. */
#include "mx_records.h"
#include "elementwise.h"
#include <stdlib.h>
#include <string.h>

enum { TOTALS = MLP_MX_FEATURES * MLP_MX_TAPS * 16 };   /* of vectors of at most 16 lanes */

int64_t mlp_mx_record_lanes(int wide)
{
    const mlp_mx_kernel *kernel = mlp_mx_records_kernel(wide);
    return kernel ? kernel->lanes : 0;
}

typedef struct {
    const mlp_mx_rows *g;
    const mlp_mx_kernel *kernel;
    int64_t lane, pixel;       /* bytes: all records of one vector of a pixel, and of a whole pixel */
    int64_t phases, most;      /* of a row; terms of an output, at most */
    mlp_mx_place *at;          /* (rows, phases, most) */
    int64_t *counts;
    int past;                  /* a big result: whole vectors of it go past the caches */
} rows_plan;

/* The terms of the first output of phase f in row y, in their order. */
static int64_t list_terms(const rows_plan *p, int64_t y, int64_t f, mlp_mx_place *at)
{
    const mlp_mx_rows *g = p->g;
    int64_t n = 0, record = mlp_mx_lane_record(p->kernel, g->pairs), word = mlp_mx_word_record(p->kernel, g->pairs);
    for (int64_t k = 0; k < g->blocks; k++)
        for (int64_t ky = 0; ky < g->kernel[0]; ky++)
            for (int64_t kx = 0; kx < g->kernel[1]; kx++) {
                int64_t iy = mlp_mx_at(g, 0, y, ky), ix = mlp_mx_at(g, 1, f, kx);
                if (iy >= 0 && ix >= 0)
                    at[n++] = (mlp_mx_place){(iy * g->in_size[1] + ix) * p->pixel + k * record,
                                             ((k * g->kernel[0] + ky) * g->kernel[1] + kx) * word};
            }
    return n;
}

/* Phase f of row y for one vector of samples, all output channels: neighbours have the terms of the first, moved on. */
static void row_phase(const rows_plan *p, int64_t y, int64_t f, int64_t v)
{
    const mlp_mx_rows *g = p->g;
    const int64_t lanes = p->kernel->lanes, plane = g->out_size[0] * g->out_size[1] * g->batch;
    const int64_t count = mlp_ceil_div(mlp_max(g->out_size[1] - f, 0), p->phases), out_step = p->phases * g->batch;
    const int64_t valid = mlp_min(lanes, g->batch - v * lanes), i = y * p->phases + f;
    float *out = g->out + (y * g->out_size[1] + f) * g->batch + v * lanes;
    mlp_mx_terms t = {.lanes = (const char *)g->input + v * p->lane, .length = g->pairs, .count = p->counts[i],
                      .step = (g->input_grad ? 1 : g->stride[1]) * p->pixel, .at = p->at + i * p->most,
                      .feature = p->most * mlp_mx_word_record(p->kernel, g->pairs)};
    for (int64_t x = 0, steps; x < count; x += steps, t.lanes += steps * t.step, out += steps * out_step) {
        steps = mlp_min(MLP_MX_TAPS, count - x);
        for (int64_t o = 0, features; o < g->out_channels; o += features) {
            float total[TOTALS] __attribute__((aligned(64)));
            features = o + MLP_MX_FEATURES <= g->out_channels ? MLP_MX_FEATURES : 1;
            memset(total, 0, (size_t)(features * steps * lanes) * sizeof *total);
            t.words = g->weight + o * t.feature;
            p->kernel->sum(&t, (int)features, (int)steps, total);
            for (int64_t each = 0; each < features * steps; each++)
                p->kernel->put(total + each * lanes, g->scale, valid,
                               out + (o + each / steps) * plane + each % steps * out_step, p->past);
        }
    }
}

int mlp_mx_rows_records(const mlp_mx_rows *g)
{
    const mlp_mx_kernel *kernel = mlp_mx_records_kernel(g->wide);
    if (!kernel || g->pairs > MLP_MX_MOST)
        return MLP_UNSUPPORTED;
    const int64_t vectors = mlp_ceil_div(g->batch, kernel->lanes), rows = g->out_size[0];
    rows_plan p = {.g = g, .kernel = kernel, .phases = g->input_grad ? g->stride[1] : 1,
                   .lane = g->blocks * mlp_mx_lane_record(kernel, g->pairs),
                   .most = g->blocks * g->kernel[0] * g->kernel[1],
                   .past = g->batch % kernel->lanes == 0   /* a vector is then whole lines */
                           && mlp_flat_past(g->out, g->out_channels * rows * g->out_size[1] * g->batch)};
    p.pixel = vectors * p.lane;
    p.at = malloc((size_t)(rows * p.phases * p.most) * sizeof *p.at);
    p.counts = malloc((size_t)(rows * p.phases) * sizeof *p.counts);
    int status = p.at && p.counts ? MLP_OK : MLP_NO_MEMORY;
    if (status == MLP_OK) {
        for (int64_t i = 0; i < rows * p.phases; i++)
            p.counts[i] = list_terms(&p, i / p.phases, i % p.phases, p.at + i * p.most);
        MLP_PRAGMA(omp parallel num_threads(mlp_threads()))
        {
            MLP_PRAGMA(omp for schedule(dynamic))
            for (int64_t t = 0; t < rows * vectors; t++)
                for (int64_t f = 0; f < p.phases; f++)
                    row_phase(&p, t / vectors, f, t % vectors);
            mlp_flat_settle(&(mlp_flat){.past = p.past});
        }
    }
    free(p.at);
    free(p.counts);
    return status;
}

/* Row y of outputs and block k, for `features` channels from o on and one vector of input channels: all taps. */
static void weight_row(const mlp_mx_wgrad *g, const mlp_mx_kernel *kernel, int64_t o, int64_t features, int64_t vector,
                       int64_t k, int64_t y, const mlp_mx_place *at)
{
    const int64_t lanes = kernel->lanes, record = mlp_mx_lane_record(kernel, g->block_pairs), pixel = g->pairs * record;
    const int64_t row = g->out_size[1] * mlp_mx_word_record(kernel, g->block_pairs);
    const int64_t taps = g->kernel[0] * g->kernel[1];
    mlp_mx_terms t = {.length = g->block_pairs, .count = g->out_size[1], .step = g->dilation[1] * pixel, .at = at,
                      .feature = g->pairs * g->out_size[0] * row};
    for (int64_t ky = 0; ky < g->kernel[0]; ky++) {
        int64_t in_row = vector * g->size[0] + y * g->stride[0] + ky * g->dilation[0];
        t.lanes = (const char *)g->act + in_row * g->size[1] * pixel + k * record;
        for (int64_t kx = 0, steps; kx < g->kernel[1]; kx += steps, t.lanes += steps * t.step) {
            steps = mlp_min(MLP_MX_TAPS, g->kernel[1] - kx);
            for (int64_t f = 0, some; f < features; f += some) {
                some = features == MLP_MX_FEATURES ? MLP_MX_FEATURES : 1;
                float total[TOTALS] __attribute__((aligned(64)));
                float *out = g->out + (((o + f) * taps + ky * g->kernel[1] + kx) * g->vectors + vector) * lanes;
                t.words = g->error + (o + f) * t.feature + (k * g->out_size[0] + y) * row;
                for (int64_t i = 0; i < some * steps; i++)
                    memcpy(total + i * lanes, out + (i / steps * taps + i % steps) * g->vectors * lanes,
                           (size_t)lanes * sizeof *total);
                kernel->sum(&t, (int)some, (int)steps, total);
                for (int64_t i = 0; i < some * steps; i++)
                    memcpy(out + (i / steps * taps + i % steps) * g->vectors * lanes, total + i * lanes,
                           (size_t)lanes * sizeof *total);
            }
        }
    }
}

int mlp_mx_wgrad_records(const mlp_mx_wgrad *g)
{
    const mlp_mx_kernel *kernel = mlp_mx_records_kernel(g->wide);
    if (!kernel || g->block_pairs > MLP_MX_MOST)
        return MLP_UNSUPPORTED;
    const int64_t parts = mlp_ceil_div(g->features, MLP_MX_FEATURES), length = g->block_pairs;
    mlp_mx_place *at = malloc((size_t)g->out_size[1] * sizeof *at);
    if (!at)
        return MLP_NO_MEMORY;
    for (int64_t x = 0; x < g->out_size[1]; x++)
        at[x] = (mlp_mx_place){x * g->stride[1] * g->pairs * mlp_mx_lane_record(kernel, length),
                               x * mlp_mx_word_record(kernel, length)};
    MLP_PRAGMA(omp parallel for schedule(dynamic) num_threads(mlp_threads()))
    for (int64_t t = 0; t < g->vectors * parts; t++) {
        int64_t o = t % parts * MLP_MX_FEATURES, features = mlp_min(MLP_MX_FEATURES, g->features - o);
        for (int64_t k = 0; k < g->pairs; k++)
            for (int64_t y = 0; y < g->out_size[0]; y++)
                weight_row(g, kernel, o, features, t / parts, k, y, at);
    }
    free(at);
    return MLP_OK;
}
