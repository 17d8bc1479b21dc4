/* One walk over output pixels, forward and input gradient, without im2col.
 *
 * Every output pixel of a channel is a sum over (input channel, tap) in a fixed order. Forward, the taps stand at fixed
 * distances from the pixel times the stride. Backward, the output pixels fall into stride_y x stride_x classes
 * ("phases"), and within a class the taps that reach it stand at fixed distances again. Each output is computed by one
 * thread in one order, so neither the thread count nor the cut into stripes can change a bit. */
#include <stdatomic.h>
#include <string.h>
#include "conv_walk.h"

enum { TILE_BYTES = 1 << 20 };       /* a tile stays in a core's second-level cache next to weights and results */
enum { IMAGES = 128 };               /* in one tile, at most */
enum { STRIPE_ROWS = 8, ITEMS = 4 }; /* rows of a stripe, at least; pieces of work a thread, where rows allow it */

typedef struct { ptrdiff_t y, x, weight; } tap; /* distance from (pixel * in_step), and where its weight lies */

typedef struct {
    const mlp_conv_job *job;
    ptrdiff_t batch, groups;
    ptrdiff_t in_channels, in_h, in_w;          /* channels of one group */
    ptrdiff_t out_channels, out_h, out_w;
    ptrdiff_t rows, columns;                    /* outputs of this walk: first + i * out_step, i < rows */
    ptrdiff_t first_y, first_x, out_step_y, out_step_x, in_step_y, in_step_x;
    ptrdiff_t weight_group, weight_out, weight_in; /* distances in the weight between groups and channels */
    ptrdiff_t kernel, taps;                     /* all taps, and those of this walk */
    tap *tap;
} walk;

/* What a walk derives from its sizes. */
typedef struct {
    ptrdiff_t m, blocks, count, chunks, lanes, parts, lane_blocks, y_low, x_low, height;
    ptrdiff_t skip_y, skip_x, step_y, step_x, columns, low, high; /* tile columns low .. high - 1 lie in the picture */
    ptrdiff_t stripe, stripes, items, pixel, row, part;           /* pixel, row, part: bytes of the tile */
} plan;

static plan make_plan(const walk *s)
{
    const mlp_conv_tiles *tier = s->job->tier;
    plan p = {.m = tier->outputs, .blocks = mlp_f32_ceil(s->out_channels, tier->outputs),
              .count = s->in_channels * s->taps, .lanes = MLP_LINE / tier->size};
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
    p.low = p.x_low >= 0 ? 0 : MLP_MIN(p.columns, mlp_f32_ceil(-p.x_low, p.skip_x));
    p.high = MLP_MAX(p.low, MLP_MIN(p.columns, s->in_w <= p.x_low ? 0 : mlp_f32_ceil(s->in_w - p.x_low, p.skip_x)));
    p.pixel = (s->in_channels | 1) * MLP_LINE, p.row = p.pixel * p.columns, p.part = p.row * p.height;
    p.parts = MLP_MAX(1, MLP_MIN(TILE_BYTES / p.part, mlp_f32_ceil(MLP_MIN(s->batch, IMAGES), p.lanes)));
    p.lane_blocks = mlp_f32_ceil(s->batch, p.parts * p.lanes);
    /* Stripes of output rows occupy every thread. */
    const ptrdiff_t planes = s->groups * p.lane_blocks, wanted = mlp_f32_ceil((ptrdiff_t)mlp_threads() * ITEMS, planes);
    p.stripes = MLP_MAX(MLP_MIN(wanted, s->rows / STRIPE_ROWS), mlp_f32_ceil(mlp_threads(), planes));
    p.stripe = mlp_f32_ceil(s->rows, MLP_MIN(s->rows, p.stripes)), p.stripes = mlp_f32_ceil(s->rows, p.stripe);
    p.items = planes * p.stripes;
    return p;
}

/* The k-th product of a sum: its channel and its tap of this walk. */
static ptrdiff_t product(const walk *s, ptrdiff_t k, ptrdiff_t *t)
{
    *t = s->job->chunk ? k % s->taps : k / s->in_channels;
    return s->job->chunk ? k / s->taps : k % s->in_channels;
}

/* The weights in the order of the inner loop: [group][block of outputs][k][output], zeros to fill up. */
static void pack_weights(const walk *s, const plan *p, void *panel)
{
    float *floats = panel;
    double *doubles = panel;
    for (ptrdiff_t g = 0; g < s->groups; g++)
        for (ptrdiff_t o0 = 0; o0 < s->out_channels; o0 += p->m)
            for (ptrdiff_t k = 0, t; k < p->count; k++) {
                const ptrdiff_t c = product(s, k, &t);
                const float *w = s->job->weight + g * s->weight_group + c * s->weight_in + s->tap[t].weight;
                for (ptrdiff_t o = o0; o < o0 + p->m; o++) {
                    const float value = o < s->out_channels ? w[o * s->weight_out] : 0.0f;
                    if (s->job->tier->size == sizeof value)
                        *floats++ = value;
                    else
                        *doubles++ = value;
                }
            }
}

/* Where the chunks of the sum end. Returns how many chunks have a product. */
static ptrdiff_t cut_sum(const walk *s, const plan *p, int32_t *ends)
{
    ptrdiff_t chunks = 0, chunk = 0; /* chunk: the number of the one at hand, counting taps that reach no output */
    for (ptrdiff_t k = 0, t; k < p->count; k++) {
        const ptrdiff_t c = product(s, k, &t);
        const ptrdiff_t here = s->job->chunk ? (c * s->kernel + s->tap[t].weight) / s->job->chunk : 0;
        if (!chunks || here != chunk)
            chunks++, chunk = here;
        ends[chunks - 1] = (int32_t)(k + 1);
    }
    return chunks;
}

/* Where each product lies in the tile, a ring of `height` rows, for each place of the uppermost row in it. */
static void lay_out_sum(const walk *s, const plan *p, int32_t *offset)
{
    for (ptrdiff_t top = 0; top < p->height; top++)
        for (ptrdiff_t k = 0, t; k < p->count; k++) {
            const ptrdiff_t c = product(s, k, &t), row = (top + s->tap[t].y - p->y_low) % p->height;
            *offset++ = (int32_t)((row * p->columns + s->tap[t].x - p->x_low) * (s->in_channels | 1) + c)
                        * (int32_t)p->lanes;
        }
}

/* Fill row r of the tile from row y of the picture, which may lie outside. */
static void fill(const walk *s, const plan *p, ptrdiff_t g, ptrdiff_t n0, ptrdiff_t lanes, ptrdiff_t y, ptrdiff_t r,
                 char *tile)
{
    const mlp_conv_job *job = s->job;
    const ptrdiff_t parts = mlp_f32_ceil(lanes, p->lanes), inside = y >= 0 && y < s->in_h;
    const ptrdiff_t low = inside ? p->low : p->columns, high = inside ? p->high : p->columns;
    for (ptrdiff_t part = 0; part < parts; part++) {
        char *row = tile + part * p->part + r * p->row;
        memset(row, 0, (size_t)(low * p->pixel));
        memset(row + high * p->pixel, 0, (size_t)((p->columns - high) * p->pixel));
    }
    for (ptrdiff_t c = 0; high > low && c < s->in_channels; c++) {
        const ptrdiff_t line = ((g * s->in_channels + c) * s->in_h + y) * s->in_w;
        const ptrdiff_t at = (line + p->x_low + low * p->skip_x) * s->batch + n0;
        job->fill((const char *)job->in + at * job->element, p->skip_x * s->batch, high - low, lanes, job->how,
                  tile + r * p->row + low * p->pixel + c * MLP_LINE, p->pixel, p->part);
    }
}

static void run_item(const walk *s, const plan *p, ptrdiff_t item, const int32_t *offset, const int32_t *ends,
                     const char *panel, char *tile)
{
    const mlp_conv_job *job = s->job;
    const ptrdiff_t g = item / (p->lane_blocks * p->stripes), first = item / p->lane_blocks % p->stripes * p->stripe;
    const ptrdiff_t n0 = item % p->lane_blocks * p->parts * p->lanes, last = MLP_MIN(s->rows, first + p->stripe);
    const ptrdiff_t lanes = MLP_MIN(p->parts * p->lanes, s->batch - n0), plane = s->out_h * s->out_w * s->batch;
    const ptrdiff_t kept = MLP_MAX(0, p->height - p->step_y); /* rows of the tile that the next output row needs too */
    const ptrdiff_t channel = g * s->out_channels, size = job->tier->size;
    mlp_conv_row row = {.x = tile, .panel = panel + g * p->blocks * p->count * p->m * size, .ends = ends,
                        .chunks = p->chunks, .pixels = s->columns,
                        .x_step = p->step_x * (s->in_channels | 1) * p->lanes, .part = p->part / size,
                        .block = p->count * p->m, .y_plane = plane, .y_step = s->out_step_x * s->batch,
                        .row = job->row_scale ? job->row_scale + channel : NULL,
                        .lane = job->lane_scale ? job->lane_scale + n0 : NULL,
                        .outputs = s->out_channels, .lanes = lanes};
    for (ptrdiff_t y = first; y < last; y++) {
        const ptrdiff_t top = y * p->step_y; /* tile rows by a number of their own, modulo the length of the ring */
        for (ptrdiff_t r = y > first ? kept : 0; p->count && r < p->height; r++)
            fill(s, p, g, n0, lanes, y * s->in_step_y + p->y_low + r * p->skip_y, (top + r) % p->height, tile);
        row.offset = offset + top % p->height * p->count;
        row.y = job->out + channel * plane + n0
                + ((s->first_y + y * s->out_step_y) * s->out_w + s->first_x) * s->batch;
        job->tier->row(&row);
    }
}

static int run(const walk *s)
{
    if (!s->batch || !s->rows || !s->columns || !s->out_channels)
        return MLP_OK;
    plan p = make_plan(s);
    if (p.part > INT32_MAX)
        return MLP_UNSUPPORTED;
    const int threads = mlp_workers(p.items);
    const ptrdiff_t tile_bytes = p.part * p.parts + MLP_LINE;
    int32_t *offset = mlp_f32_alloc((size_t)(p.height * p.count), sizeof *offset);
    int32_t *ends = mlp_f32_alloc((size_t)p.count, sizeof *ends);
    char *panel = mlp_f32_alloc((size_t)(s->groups * p.blocks * p.count * p.m), (size_t)s->job->tier->size);
    char *tiles = mlp_f32_alloc((size_t)threads, (size_t)tile_bytes);
    const int status = offset && ends && panel && tiles ? MLP_OK : MLP_NO_MEMORY;
    if (status == MLP_OK) {
        p.chunks = cut_sum(s, &p, ends);
        lay_out_sum(s, &p, offset);
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

int mlp_conv_forward(const mlp_f32_geometry *q, const mlp_conv_job *job)
{
    const ptrdiff_t kernel = q->kernel_h * q->kernel_w, cg = q->channels / q->groups;
    walk s = {.job = job, .batch = q->batch, .groups = q->groups, .in_channels = cg, .in_h = q->height,
              .in_w = q->width, .out_channels = q->outputs / q->groups,
              .out_h = mlp_f32_positions(q->height, q->kernel_h, q->stride_h, q->padding_h, q->dilation_h),
              .out_w = mlp_f32_positions(q->width, q->kernel_w, q->stride_w, q->padding_w, q->dilation_w),
              .out_step_y = 1, .out_step_x = 1, .in_step_y = q->stride_h, .in_step_x = q->stride_w,
              .weight_group = q->outputs / q->groups * cg * kernel, .weight_out = cg * kernel, .weight_in = kernel,
              .kernel = kernel, .taps = kernel, .tap = mlp_f32_alloc((size_t)kernel, sizeof(tap))};
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

int mlp_conv_input_grad(const mlp_f32_geometry *q, const mlp_conv_job *job)
{
    const ptrdiff_t kernel = q->kernel_h * q->kernel_w, cg = q->channels / q->groups;
    walk s = {.job = job, .batch = q->batch, .groups = q->groups, .in_channels = q->outputs / q->groups,
              .in_h = mlp_f32_positions(q->height, q->kernel_h, q->stride_h, q->padding_h, q->dilation_h),
              .in_w = mlp_f32_positions(q->width, q->kernel_w, q->stride_w, q->padding_w, q->dilation_w),
              .out_channels = cg, .out_h = q->height, .out_w = q->width, .out_step_y = q->stride_h,
              .out_step_x = q->stride_w, .in_step_y = 1, .in_step_x = 1,
              .weight_group = q->outputs / q->groups * cg * kernel, .weight_out = kernel, .weight_in = cg * kernel,
              .kernel = kernel, .tap = mlp_f32_alloc((size_t)kernel, sizeof(tap))};
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
