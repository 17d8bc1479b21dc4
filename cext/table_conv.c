/* The table kernel's convolution, forward and input gradient, in (C, H, W, N) storage: the walk of f32_conv.c on pairs
 * of channels, with exact sums in int32. */
#include <stdatomic.h>
#include <string.h>
#include "table.h"

enum { TILE_BYTES = 800 << 10 };

typedef struct { ptrdiff_t y, x, weight; } tap; /* distance from (pixel * in_step), and where its weight lies */

typedef struct {
    ptrdiff_t batch, groups;
    ptrdiff_t in_channels, in_h, in_w;          /* channels of one group */
    ptrdiff_t out_channels, out_h, out_w;
    ptrdiff_t rows, columns;                    /* outputs of this walk: first + i * out_step, i < rows */
    ptrdiff_t first_y, first_x, out_step_y, out_step_x, in_step_y, in_step_x;
    ptrdiff_t weight_group, weight_out, weight_in; /* distances in the weight between groups and channels */
    ptrdiff_t taps;
    tap *tap;
    const int8_t *in, *weight;
    const double *row_scale, *lane_scale;       /* one an output channel; one an image, padded to whole blocks */
    float *floats;
    int32_t *ints;
} walk;

/* What a walk derives from its sizes. */
typedef struct {
    ptrdiff_t m, blocks, pairs, count, lane_blocks, y_low, x_low, height;
    ptrdiff_t skip_y, skip_x, step_y, step_x, columns, band, bands, plane, items;
} plan;

static plan make_plan(const walk *s, int m)
{
    plan p = {.m = m, .blocks = mlp_f32_ceil(s->out_channels, m), .pairs = mlp_f32_ceil(s->in_channels, 2),
              .lane_blocks = mlp_f32_ceil(s->batch, MLP_TABLE_LANES)};
    p.count = p.pairs * s->taps;
    ptrdiff_t y_high = 0, x_high = 0;
    for (ptrdiff_t t = 0; t < s->taps; t++) {
        const tap *at = &s->tap[t];
        p.y_low = t ? MLP_MIN(p.y_low, at->y) : at->y, y_high = t ? MLP_MAX(y_high, at->y) : at->y;
        p.x_low = t ? MLP_MIN(p.x_low, at->x) : at->x, x_high = t ? MLP_MAX(x_high, at->x) : at->x;
    }
    p.height = y_high - p.y_low + 1;
    p.skip_y = p.height == 1 ? s->in_step_y : 1, p.skip_x = x_high == p.x_low ? s->in_step_x : 1;
    p.step_y = s->in_step_y / p.skip_y, p.step_x = s->in_step_x / p.skip_x;
    p.columns = (s->columns - 1) * p.step_x + x_high - p.x_low + 1;
    const ptrdiff_t row_bytes = MLP_MAX(1, p.pairs) * p.columns * MLP_TABLE_LANES * (ptrdiff_t)sizeof(int32_t);
    const ptrdiff_t room = TILE_BYTES / row_bytes - p.height;
    p.band = MLP_MIN(s->rows, room < 0 ? 1 : room / p.step_y + 1);
    p.bands = MLP_MAX(mlp_f32_ceil(s->rows, p.band), mlp_f32_ceil(mlp_threads(), s->groups * p.lane_blocks));
    p.band = mlp_f32_ceil(s->rows, MLP_MIN(s->rows, p.bands)), p.bands = mlp_f32_ceil(s->rows, p.band);
    p.plane = ((p.band - 1) * p.step_y + p.height) * p.columns * MLP_TABLE_LANES;
    p.items = s->groups * p.lane_blocks * p.bands;
    return p;
}

/* The weights in the order of the inner loop: [group][block of outputs][pair of channels, tap][output]. */
static void pack_weights(const walk *s, const plan *p, int32_t *panel)
{
    for (ptrdiff_t g = 0; g < s->groups; g++)
        for (ptrdiff_t o0 = 0; o0 < s->out_channels; o0 += p->m)
            for (ptrdiff_t c = 0; c < s->in_channels; c += 2)
                for (ptrdiff_t t = 0; t < s->taps; t++)
                    for (ptrdiff_t o = o0; o < o0 + p->m; o++) {
                        const int8_t *w = s->weight + g * s->weight_group + o * s->weight_out + c * s->weight_in
                                          + s->tap[t].weight;
                        const uint32_t even = o < s->out_channels ? (uint16_t)w[0] : 0;
                        const uint32_t odd = o < s->out_channels && c + 1 < s->in_channels
                                             ? (uint32_t)w[s->weight_in] : 0;
                        *panel++ = (int32_t)(even | odd << 16);
                    }
}

/* Copy what one item reads: pairs of channels, `rows` tile rows from y0 on, images n0 to n0 + lanes - 1. */
static void pack_tile(const walk *s, const plan *p, ptrdiff_t group, ptrdiff_t y0, ptrdiff_t rows, ptrdiff_t n0,
                      ptrdiff_t lanes, mlp_table_pair_fn *pair, int32_t *tile)
{
    const ptrdiff_t row = p->columns * MLP_TABLE_LANES, picture = s->in_h * s->in_w * s->batch;
    ptrdiff_t low, high;
    mlp_table_inside(p->x_low, p->skip_x, p->columns, s->in_w, &low, &high);
    for (ptrdiff_t c = 0; c < s->in_channels; c += 2)
        for (ptrdiff_t r = 0; r < rows; r++) {
            int32_t *to = tile + c / 2 * p->plane + r * row;
            const ptrdiff_t y = y0 + r * p->skip_y;
            if (y < 0 || y >= s->in_h || high <= low) {
                memset(to, 0, (size_t)row * sizeof *to);
                continue;
            }
            const int8_t *in = s->in + (group * s->in_channels + c) * picture
                               + (y * s->in_w + p->x_low + low * p->skip_x) * s->batch + n0;
            memset(to, 0, (size_t)(low * MLP_TABLE_LANES) * sizeof *to);
            pair(in, c + 1 < s->in_channels ? in + picture : NULL, p->skip_x * s->batch, high - low, lanes,
                 to + low * MLP_TABLE_LANES);
            memset(to + high * MLP_TABLE_LANES, 0, (size_t)((p->columns - high) * MLP_TABLE_LANES) * sizeof *to);
        }
}

static void run_item(const walk *s, const plan *p, ptrdiff_t item, const mlp_table_tiles *tier, const int32_t *offset,
                     const int32_t *panel, int32_t *tile)
{
    const ptrdiff_t g = item / (p->lane_blocks * p->bands), y0 = item / p->lane_blocks % p->bands * p->band;
    const ptrdiff_t n0 = item % p->lane_blocks * MLP_TABLE_LANES, rows = MLP_MIN(p->band, s->rows - y0);
    const ptrdiff_t lanes = MLP_MIN(MLP_TABLE_LANES, s->batch - n0), plane = s->out_h * s->out_w * s->batch;
    pack_tile(s, p, g, y0 * s->in_step_y + p->y_low, (rows - 1) * p->step_y + p->height, n0, lanes, tier->pair, tile);
    for (ptrdiff_t b = 0; b < p->blocks; b++)
        for (ptrdiff_t r = 0; r < rows; r++) {
            const ptrdiff_t channel = g * s->out_channels + b * p->m, y = s->first_y + (y0 + r) * s->out_step_y;
            const ptrdiff_t at = channel * plane + (y * s->out_w + s->first_x) * s->batch + n0;
            const mlp_table_target to = {s->floats ? s->floats + at : NULL, s->floats ? NULL : s->ints + at, plane,
                                         s->row_scale + channel, s->lane_scale + n0,
                                         (int)MLP_MIN(p->m, s->out_channels - b * p->m), (int)lanes};
            tier->gather(tile + r * p->step_y * p->columns * MLP_TABLE_LANES, offset,
                         panel + (g * p->blocks + b) * p->count * p->m, p->count, s->columns,
                         p->step_x * MLP_TABLE_LANES, s->out_step_x * s->batch, to);
        }
}

static int run(const walk *s)
{
    if (!s->batch || !s->rows || !s->columns || !s->out_channels)
        return MLP_OK;
    const mlp_table_tiles *tier = mlp_table_tiles_in_force();
    const plan p = make_plan(s, tier->gather_outputs);
    if (s->in_channels * s->taps > MLP_TABLE_TERMS)
        return MLP_OVERFLOW;
    if (p.plane * MLP_MAX(1, p.pairs) > INT32_MAX)
        return MLP_UNSUPPORTED;
    const int threads = mlp_workers(p.items);
    const ptrdiff_t pitch = mlp_f32_ceil(p.plane * p.pairs + 16, 16) * 16;
    int32_t *offset = mlp_f32_alloc((size_t)p.count, sizeof *offset);
    int32_t *panel = mlp_f32_alloc((size_t)(s->groups * p.blocks * p.count * p.m), sizeof *panel);
    int32_t *tiles = mlp_f32_alloc((size_t)(threads * pitch), sizeof *tiles);
    int status = offset && panel && tiles ? MLP_OK : MLP_NO_MEMORY;
    if (status == MLP_OK) {
        for (ptrdiff_t k = 0; k < p.count; k++) {
            const tap *t = &s->tap[k % s->taps];
            offset[k] = (int32_t)(k / s->taps * p.plane
                                  + ((t->y - p.y_low) * p.columns + t->x - p.x_low) * MLP_TABLE_LANES);
        }
        pack_weights(s, &p, panel);
        atomic_llong next = 0;
        MLP_PARALLEL_FOR(threads)
        for (int thread = 0; thread < threads; thread++)
            for (ptrdiff_t item; (item = atomic_fetch_add(&next, 1)) < p.items;)
                run_item(s, &p, item, tier, offset, panel, tiles + thread * pitch);
    }
    free(offset);
    free(panel);
    free(tiles);
    return status;
}

int mlp_table_conv2d(const mlp_f32_geometry *q, const int8_t *x, const int8_t *w, const double *row_scale,
                     const double *lane_scale, float *out_float, int32_t *out_int)
{
    const ptrdiff_t kernel = q->kernel_h * q->kernel_w, cg = q->channels / q->groups;
    walk s = {.batch = q->batch, .groups = q->groups, .in_channels = cg, .in_h = q->height, .in_w = q->width,
              .out_channels = q->outputs / q->groups,
              .out_h = mlp_f32_positions(q->height, q->kernel_h, q->stride_h, q->padding_h, q->dilation_h),
              .out_w = mlp_f32_positions(q->width, q->kernel_w, q->stride_w, q->padding_w, q->dilation_w),
              .out_step_y = 1, .out_step_x = 1, .in_step_y = q->stride_h, .in_step_x = q->stride_w,
              .weight_group = q->outputs / q->groups * cg * kernel, .weight_out = cg * kernel, .weight_in = kernel,
              .in = x, .weight = w, .row_scale = row_scale, .lane_scale = lane_scale, .floats = out_float,
              .ints = out_int, .taps = kernel, .tap = mlp_f32_alloc((size_t)kernel, sizeof(tap))};
    if (!s.tap)
        return MLP_NO_MEMORY;
    s.rows = s.out_h, s.columns = s.out_w;
    for (ptrdiff_t t = 0; t < kernel; t++)
        s.tap[t] = (tap){t / q->kernel_w * q->dilation_h - q->padding_h,
                         t % q->kernel_w * q->dilation_w - q->padding_w, t};
    int status = run(&s);
    free(s.tap);
    return status;
}

int mlp_table_conv2d_input_grad(const mlp_f32_geometry *q, const int8_t *dy, const int8_t *w, const double *row_scale,
                                const double *lane_scale, float *out_float, int32_t *out_int)
{
    const ptrdiff_t kernel = q->kernel_h * q->kernel_w, cg = q->channels / q->groups;
    walk s = {.batch = q->batch, .groups = q->groups, .in_channels = q->outputs / q->groups,
              .in_h = mlp_f32_positions(q->height, q->kernel_h, q->stride_h, q->padding_h, q->dilation_h),
              .in_w = mlp_f32_positions(q->width, q->kernel_w, q->stride_w, q->padding_w, q->dilation_w),
              .out_channels = cg, .out_h = q->height, .out_w = q->width, .out_step_y = q->stride_h,
              .out_step_x = q->stride_w, .in_step_y = 1, .in_step_x = 1,
              .weight_group = q->outputs / q->groups * cg * kernel, .weight_out = kernel, .weight_in = cg * kernel,
              .in = dy, .weight = w, .row_scale = row_scale, .lane_scale = lane_scale, .floats = out_float,
              .ints = out_int, .tap = mlp_f32_alloc((size_t)kernel, sizeof(tap))};
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
