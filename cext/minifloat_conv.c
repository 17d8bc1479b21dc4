/* Convolution of small floats, forward and input gradient, in (C, H, W, N) storage: the walk of f32_conv.c over tiles
 * of decoded numbers. Chunks of a float sum are cut by k over (channel, ky, kx), counting taps that reach no output. */
#include <stdatomic.h>
#include "minifloat.h"

enum { TILE_BYTES = 800 << 10 };

typedef struct { ptrdiff_t y, x, weight; } tap; /* distance from (pixel * in_step), and where its weight lies */

typedef struct {
    const mlp_minifloat_tiles *tier;
    int exact, in_man, weight_man;
    ptrdiff_t batch, groups;
    ptrdiff_t in_channels, in_h, in_w;          /* channels of one group */
    ptrdiff_t out_channels, out_h, out_w;
    ptrdiff_t rows, columns;                    /* outputs of this walk: first + i * out_step, i < rows */
    ptrdiff_t first_y, first_x, out_step_y, out_step_x, in_step_y, in_step_x;
    ptrdiff_t weight_group, weight_out, weight_in; /* distances in the weight between groups and channels */
    ptrdiff_t kernel, taps;                     /* all taps, and those of this walk */
    tap *tap;
    const int8_t *in, *weight;
    const double *row_scale, *lane_scale;       /* one an output channel; one an image */
    float *out;
} walk;

/* What a walk derives from its sizes. */
typedef struct {
    ptrdiff_t m, blocks, count, chunks, lane_blocks, y_low, x_low, height;
    ptrdiff_t skip_y, skip_x, step_y, step_x, columns, band, bands, plane, items;
} plan;

static plan make_plan(const walk *s)
{
    const ptrdiff_t m = s->tier->gather_outputs, lanes = s->tier->lanes;
    plan p = {.m = m, .blocks = mlp_f32_ceil(s->out_channels, m), .count = s->in_channels * s->taps,
              .lane_blocks = mlp_f32_ceil(s->batch, lanes)};
    ptrdiff_t y_high = 0, x_high = 0;
    for (ptrdiff_t t = 0; t < s->taps; t++) {
        const tap *at = &s->tap[t];
        p.y_low = t ? MLP_MIN(p.y_low, at->y) : at->y, y_high = t ? MLP_MAX(y_high, at->y) : at->y;
        p.x_low = t ? MLP_MIN(p.x_low, at->x) : at->x, x_high = t ? MLP_MAX(x_high, at->x) : at->x;
    }
    p.height = y_high - p.y_low + 1;
    /* A single tap row (column) needs only every in_step-th row (column) of the input: the tile skips the others. */
    p.skip_y = p.height == 1 ? s->in_step_y : 1, p.skip_x = x_high == p.x_low ? s->in_step_x : 1;
    p.step_y = s->in_step_y / p.skip_y, p.step_x = s->in_step_x / p.skip_x;
    p.columns = (s->columns - 1) * p.step_x + x_high - p.x_low + 1;
    /* Bands of output rows: small enough for the cache, and enough of them to occupy every thread. */
    const ptrdiff_t room = TILE_BYTES / (MLP_MAX(1, s->in_channels) * p.columns * MLP_MINIFLOAT_BYTES) - p.height;
    p.band = MLP_MIN(s->rows, room < 0 ? 1 : room / p.step_y + 1);
    p.bands = MLP_MAX(mlp_f32_ceil(s->rows, p.band), mlp_f32_ceil(mlp_threads(), s->groups * p.lane_blocks));
    p.band = mlp_f32_ceil(s->rows, MLP_MIN(s->rows, p.bands)), p.bands = mlp_f32_ceil(s->rows, p.band);
    p.plane = ((p.band - 1) * p.step_y + p.height) * p.columns * lanes;
    p.items = s->groups * p.lane_blocks * p.bands;
    return p;
}

/* The weights in the order of the inner loop: [group][block of outputs][channel, tap][output], zeros to fill up. */
static void pack_weights(const walk *s, const plan *p, void *panel)
{
    float *floats = panel;
    double *doubles = panel;
    for (ptrdiff_t g = 0; g < s->groups; g++)
        for (ptrdiff_t o0 = 0; o0 < s->out_channels; o0 += p->m)
            for (ptrdiff_t c = 0; c < s->in_channels; c++)
                for (ptrdiff_t t = 0; t < s->taps; t++)
                    for (ptrdiff_t o = o0; o < o0 + p->m; o++) {
                        const float value = o >= s->out_channels ? 0 : mlp_minifloat_value(
                            s->weight[g * s->weight_group + o * s->weight_out + c * s->weight_in + s->tap[t].weight],
                            s->weight_man);
                        if (s->exact)
                            *doubles++ = value;
                        else
                            *floats++ = value;
                    }
}

/* Where each product of the sum lies in the tile, and where the chunks of the sum end. Returns how many chunks. */
static ptrdiff_t lay_out_sum(const walk *s, const plan *p, int32_t *offset, int32_t *ends)
{
    ptrdiff_t chunks = 0, chunk = 0; /* chunks that have a product; the number of the one at hand among all */
    for (ptrdiff_t k = 0; k < p->count; k++) {
        const tap *t = &s->tap[k % s->taps];
        offset[k] = (int32_t)(k / s->taps * p->plane
                              + ((t->y - p->y_low) * p->columns + t->x - p->x_low) * s->tier->lanes);
        const ptrdiff_t here = s->exact ? 0 : (k / s->taps * s->kernel + t->weight) / MLP_MINIFLOAT_CHUNK;
        if (!chunks || here != chunk)
            chunks++, chunk = here;
        ends[chunks - 1] = (int32_t)(k + 1);
    }
    return chunks;
}

static void run_item(const walk *s, const plan *p, ptrdiff_t item, const int32_t *offset, const int32_t *ends,
                     const char *panel, char *tile)
{
    const ptrdiff_t size = s->tier->size, all = s->tier->lanes;
    const ptrdiff_t g = item / (p->lane_blocks * p->bands), y0 = item / p->lane_blocks % p->bands * p->band;
    const ptrdiff_t n0 = item % p->lane_blocks * all, rows = MLP_MIN(p->band, s->rows - y0);
    const ptrdiff_t lanes = MLP_MIN(all, s->batch - n0), plane = s->out_h * s->out_w * s->batch;
    const mlp_minifloat_picture from = {s->in + g * s->in_channels * s->in_h * s->in_w * s->batch, s->in_channels,
                                        s->in_h, s->in_w, s->batch, s->in_man};
    const mlp_minifloat_cut cut = {y0 * s->in_step_y + p->y_low, p->x_low, p->skip_y, p->skip_x,
                                   (rows - 1) * p->step_y + p->height, p->columns};
    if (p->count)
        mlp_minifloat_pack(s->tier, &from, &cut, n0, lanes, p->plane, tile);
    for (ptrdiff_t b = 0; b < p->blocks; b++)
        for (ptrdiff_t r = 0; r < rows; r++) {
            const ptrdiff_t channel = g * s->out_channels + b * p->m, y = s->first_y + (y0 + r) * s->out_step_y;
            const mlp_minifloat_target to = {
                s->out + channel * plane + (y * s->out_w + s->first_x) * s->batch + n0, plane, s->row_scale + channel,
                s->lane_scale + n0, (int)MLP_MIN(p->m, s->out_channels - b * p->m), (int)lanes};
            s->tier->gather(tile + r * p->step_y * p->columns * MLP_MINIFLOAT_BYTES, offset,
                            panel + (g * p->blocks + b) * p->count * p->m * size, ends, p->chunks, s->columns,
                            p->step_x * all, s->out_step_x * s->batch, to);
        }
}

static int run(const walk *s)
{
    if (!s->batch || !s->rows || !s->columns || !s->out_channels)
        return MLP_OK;
    plan p = make_plan(s);
    if (p.plane * MLP_MAX(1, s->in_channels) > INT32_MAX)
        return MLP_UNSUPPORTED;
    const int threads = mlp_workers(p.items);
    const ptrdiff_t tile_bytes = mlp_f32_ceil(p.plane * s->in_channels * s->tier->size, 64) * 64 + 64;
    int32_t *offset = mlp_f32_alloc((size_t)p.count, sizeof *offset);
    int32_t *ends = mlp_f32_alloc((size_t)p.count, sizeof *ends);
    char *panel = mlp_f32_alloc((size_t)(s->groups * p.blocks * p.count * p.m), (size_t)s->tier->size);
    char *tiles = mlp_f32_alloc((size_t)threads, (size_t)tile_bytes);
    const int status = offset && ends && panel && tiles ? MLP_OK : MLP_NO_MEMORY;
    if (status == MLP_OK) {
        p.chunks = lay_out_sum(s, &p, offset, ends);
        pack_weights(s, &p, panel);
        atomic_llong next = 0;
        MLP_PARALLEL_FOR(threads)
        for (int thread = 0; thread < threads; thread++)
            for (ptrdiff_t item; (item = atomic_fetch_add(&next, 1)) < p.items;)
                run_item(s, &p, item, offset, ends, panel, tiles + thread * tile_bytes);
    }
    free(offset);
    free(ends);
    free(panel);
    free(tiles);
    return status;
}

int mlp_minifloat_conv2d(const mlp_f32_geometry *q, int exact, const int8_t *x, int man_x, const int8_t *w, int man_w,
                         const double *row_scale, const double *lane_scale, float *out)
{
    const ptrdiff_t kernel = q->kernel_h * q->kernel_w, cg = q->channels / q->groups;
    walk s = {.tier = mlp_minifloat_tiles_in_force(exact), .exact = exact, .in_man = man_x, .weight_man = man_w,
              .batch = q->batch, .groups = q->groups, .in_channels = cg, .in_h = q->height, .in_w = q->width,
              .out_channels = q->outputs / q->groups,
              .out_h = mlp_f32_positions(q->height, q->kernel_h, q->stride_h, q->padding_h, q->dilation_h),
              .out_w = mlp_f32_positions(q->width, q->kernel_w, q->stride_w, q->padding_w, q->dilation_w),
              .out_step_y = 1, .out_step_x = 1, .in_step_y = q->stride_h, .in_step_x = q->stride_w,
              .weight_group = q->outputs / q->groups * cg * kernel, .weight_out = cg * kernel, .weight_in = kernel,
              .in = x, .weight = w, .row_scale = row_scale, .lane_scale = lane_scale, .out = out, .kernel = kernel,
              .taps = kernel, .tap = mlp_f32_alloc((size_t)kernel, sizeof(tap))};
    if (!s.tap)
        return MLP_NO_MEMORY;
    s.rows = s.out_h, s.columns = s.out_w;
    for (ptrdiff_t t = 0; t < kernel; t++)
        s.tap[t] = (tap){t / q->kernel_w * q->dilation_h - q->padding_h,
                         t % q->kernel_w * q->dilation_w - q->padding_w, t};
    const int status = run(&s);
    free(s.tap);
    return status;
}

int mlp_minifloat_conv2d_input_grad(const mlp_f32_geometry *q, int exact, const int8_t *dy, int man_dy, const int8_t *w,
                                    int man_w, const double *row_scale, const double *lane_scale, float *out)
{
    const ptrdiff_t kernel = q->kernel_h * q->kernel_w, cg = q->channels / q->groups;
    walk s = {.tier = mlp_minifloat_tiles_in_force(exact), .exact = exact, .in_man = man_dy, .weight_man = man_w,
              .batch = q->batch, .groups = q->groups, .in_channels = q->outputs / q->groups,
              .in_h = mlp_f32_positions(q->height, q->kernel_h, q->stride_h, q->padding_h, q->dilation_h),
              .in_w = mlp_f32_positions(q->width, q->kernel_w, q->stride_w, q->padding_w, q->dilation_w),
              .out_channels = cg, .out_h = q->height, .out_w = q->width, .out_step_y = q->stride_h,
              .out_step_x = q->stride_w, .in_step_y = 1, .in_step_x = 1,
              .weight_group = q->outputs / q->groups * cg * kernel, .weight_out = kernel, .weight_in = cg * kernel,
              .in = dy, .weight = w, .row_scale = row_scale, .lane_scale = lane_scale, .out = out, .kernel = kernel,
              .tap = mlp_f32_alloc((size_t)kernel, sizeof(tap))};
    int status = s.tap ? MLP_OK : MLP_NO_MEMORY;
    for (s.first_y = 0; status == MLP_OK && s.first_y < MLP_MIN(q->stride_h, q->height); s.first_y++)
        for (s.first_x = 0; status == MLP_OK && s.first_x < MLP_MIN(q->stride_w, q->width); s.first_x++) {
            /* Pixel first + i * stride was reached by tap t from the output at i + (first + padding - t) / stride. */
            s.taps = 0;
            for (ptrdiff_t t = 0; t < kernel; t++) {
                const ptrdiff_t y = s.first_y + q->padding_h - t / q->kernel_w * q->dilation_h;
                const ptrdiff_t x = s.first_x + q->padding_w - t % q->kernel_w * q->dilation_w;
                if (y % q->stride_h == 0 && x % q->stride_w == 0)
                    s.tap[s.taps++] = (tap){y / q->stride_h, x / q->stride_w, t};
            }
            s.rows = mlp_f32_ceil(q->height - s.first_y, q->stride_h);
            s.columns = mlp_f32_ceil(q->width - s.first_x, q->stride_w);
            status = run(&s);
        }
    free(s.tap);
    return status;
}
