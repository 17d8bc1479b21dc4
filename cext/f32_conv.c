/* Float32 convolution, forward and input gradient, in (C, H, W, N) storage, without im2col.
 *
 * Both are one walk: every output pixel of a channel is a sum over (input channel, tap) in a fixed order. Forward, the
 * taps stand at fixed distances from the pixel times the stride. Backward, the output pixels fall into stride_y x
 * stride_x classes ("phases"), and within a class the taps that reach it stand at fixed distances again. Each output
 * is computed by one thread in one order, so the thread count cannot change a bit. */
#include <stdatomic.h>
#include "f32_conv.h"

/* How far a tile may grow: it should stay in a core's second-level cache next to the weights. */
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
} walk;

/* The weights in the order of the inner loop: [group][block of outputs][channel, tap][output], zeros to fill up. */
static void pack_weights(const walk *s, const float *w, int outputs, float *panel)
{
    for (ptrdiff_t g = 0; g < s->groups; g++)
        for (ptrdiff_t o0 = 0; o0 < s->out_channels; o0 += outputs)
            for (ptrdiff_t c = 0; c < s->in_channels; c++)
                for (ptrdiff_t t = 0; t < s->taps; t++)
                    for (ptrdiff_t o = o0; o < o0 + outputs; o++)
                        *panel++ = o < s->out_channels ? w[g * s->weight_group + o * s->weight_out
                                                           + c * s->weight_in + s->tap[t].weight] : 0.0f;
}

static int run(const walk *s, const float *in, const float *w, float *out)
{
    if (!s->batch || !s->rows || !s->columns || !s->out_channels)
        return MLP_OK;
    const mlp_f32_tiles *tier = mlp_f32_tiles_in_force();
    const ptrdiff_t m = tier->gather_outputs, blocks = mlp_f32_ceil(s->out_channels, m);
    const ptrdiff_t count = s->in_channels * s->taps, lane_blocks = mlp_f32_ceil(s->batch, MLP_F32_LANES);
    ptrdiff_t y_low = 0, y_high = 0, x_low = 0, x_high = 0;
    for (ptrdiff_t t = 0; t < s->taps; t++) {
        const tap *p = &s->tap[t];
        y_low = t ? MLP_MIN(y_low, p->y) : p->y, y_high = t ? MLP_MAX(y_high, p->y) : p->y;
        x_low = t ? MLP_MIN(x_low, p->x) : p->x, x_high = t ? MLP_MAX(x_high, p->x) : p->x;
    }
    /* Bands of output rows: small enough for the cache, and enough of them to occupy every thread. */
    /* A single tap row (column) needs only every in_step-th row (column) of the input: the tile skips the others. */
    const ptrdiff_t skip_y = y_high == y_low ? s->in_step_y : 1, skip_x = x_high == x_low ? s->in_step_x : 1;
    const ptrdiff_t step_y = s->in_step_y / skip_y, step_x = s->in_step_x / skip_x;
    const ptrdiff_t columns = (s->columns - 1) * step_x + x_high - x_low + 1;
    const ptrdiff_t row_floats = MLP_MAX(1, s->in_channels) * columns * MLP_F32_LANES;
    ptrdiff_t room = TILE_BYTES / (ptrdiff_t)sizeof(float) / row_floats - (y_high - y_low + 1);
    ptrdiff_t band = room < 0 ? 1 : room / step_y + 1;
    ptrdiff_t bands = mlp_f32_ceil(s->rows, MLP_MIN(band, s->rows));
    bands = MLP_MIN(s->rows, MLP_MAX(bands, mlp_f32_ceil(mlp_threads(), s->groups * lane_blocks)));
    band = mlp_f32_ceil(s->rows, bands), bands = mlp_f32_ceil(s->rows, band);
    const ptrdiff_t tile_rows = (band - 1) * step_y + y_high - y_low + 1;
    const ptrdiff_t plane = tile_rows * columns * MLP_F32_LANES, tile_floats = plane * s->in_channels;
    if (tile_floats > INT32_MAX)
        return MLP_UNSUPPORTED;

    const ptrdiff_t items = s->groups * lane_blocks * bands;
    const int threads = mlp_workers(items);
    const ptrdiff_t tile_pitch = mlp_f32_ceil(tile_floats + 16, 16) * 16;
    int32_t *offset = mlp_f32_alloc((size_t)count, sizeof *offset);
    float *panel = mlp_f32_alloc((size_t)(s->groups * blocks * count * m), sizeof *panel);
    float *tiles = mlp_f32_alloc((size_t)(threads * tile_pitch), sizeof *tiles);
    int status = offset && panel && tiles ? MLP_OK : MLP_NO_MEMORY;
    if (status == MLP_OK) {
        for (ptrdiff_t c = 0; c < s->in_channels; c++)
            for (ptrdiff_t t = 0; t < s->taps; t++)
                offset[c * s->taps + t] = (int32_t)(c * plane + ((s->tap[t].y - y_low) * columns
                                                                 + s->tap[t].x - x_low) * MLP_F32_LANES);
        pack_weights(s, w, (int)m, panel);
        atomic_llong next = 0;
        MLP_PARALLEL_FOR(threads)
        for (int thread = 0; thread < threads; thread++) {
            float *tile = tiles + thread * tile_pitch;
            for (ptrdiff_t item; (item = atomic_fetch_add(&next, 1)) < items;) {
                const ptrdiff_t g = item / (lane_blocks * bands), y0 = item / lane_blocks % bands * band;
                const ptrdiff_t n0 = item % lane_blocks * MLP_F32_LANES, rows = MLP_MIN(band, s->rows - y0);
                const int lanes = (int)MLP_MIN(MLP_F32_LANES, s->batch - n0);
                const ptrdiff_t y_plane = s->out_h * s->out_w * s->batch;
                const mlp_f32_picture from = {in + g * s->in_channels * s->in_h * s->in_w * s->batch, s->in_channels,
                                              s->in_h, s->in_w, s->batch};
                const mlp_f32_cut cut = {y0 * s->in_step_y + y_low, x_low, skip_y, skip_x,
                                         (rows - 1) * step_y + y_high - y_low + 1, columns};
                if (count)
                    mlp_f32_pack(&from, &cut, n0, lanes, MLP_F32_LANES, plane, tile);
                for (ptrdiff_t b = 0; b < blocks; b++)
                    for (ptrdiff_t r = 0; r < rows; r++) {
                        const ptrdiff_t y = s->first_y + (y0 + r) * s->out_step_y;
                        float *to = out + (g * s->out_channels + b * m) * y_plane
                                    + (y * s->out_w + s->first_x) * s->batch + n0;
                        tier->gather(tile + r * step_y * columns * MLP_F32_LANES, offset,
                                     panel + (g * blocks + b) * count * m, count, s->columns,
                                     step_x * MLP_F32_LANES, to, y_plane, s->out_step_x * s->batch,
                                     (int)MLP_MIN(m, s->out_channels - b * m), lanes);
                    }
            }
        }
    }
    free(offset);
    free(panel);
    free(tiles);
    return status;
}

int mlp_f32_conv2d(const mlp_f32_geometry *q, const float *x, const float *w, float *y)
{
    const ptrdiff_t kernel = q->kernel_h * q->kernel_w, cg = q->channels / q->groups;
    walk s = {.batch = q->batch, .groups = q->groups, .in_channels = cg, .in_h = q->height, .in_w = q->width,
              .out_channels = q->outputs / q->groups,
              .out_h = mlp_f32_positions(q->height, q->kernel_h, q->stride_h, q->padding_h, q->dilation_h),
              .out_w = mlp_f32_positions(q->width, q->kernel_w, q->stride_w, q->padding_w, q->dilation_w),
              .out_step_y = 1, .out_step_x = 1, .in_step_y = q->stride_h, .in_step_x = q->stride_w,
              .weight_group = q->outputs / q->groups * cg * kernel, .weight_out = cg * kernel, .weight_in = kernel,
              .taps = kernel, .tap = mlp_f32_alloc((size_t)kernel, sizeof(tap))};
    if (!s.tap)
        return MLP_NO_MEMORY;
    s.rows = s.out_h, s.columns = s.out_w;
    for (ptrdiff_t t = 0; t < kernel; t++)
        s.tap[t] = (tap){t / q->kernel_w * q->dilation_h - q->padding_h,
                         t % q->kernel_w * q->dilation_w - q->padding_w, t};
    int status = run(&s, x, w, y);
    free(s.tap);
    return status;
}

int mlp_f32_conv2d_input_grad(const mlp_f32_geometry *q, const float *dy, const float *w, float *dx)
{
    const ptrdiff_t kernel = q->kernel_h * q->kernel_w, cg = q->channels / q->groups;
    walk s = {.batch = q->batch, .groups = q->groups, .in_channels = q->outputs / q->groups,
              .in_h = mlp_f32_positions(q->height, q->kernel_h, q->stride_h, q->padding_h, q->dilation_h),
              .in_w = mlp_f32_positions(q->width, q->kernel_w, q->stride_w, q->padding_w, q->dilation_w),
              .out_channels = cg, .out_h = q->height, .out_w = q->width, .out_step_y = q->stride_h,
              .out_step_x = q->stride_w, .in_step_y = 1, .in_step_x = 1,
              .weight_group = q->outputs / q->groups * cg * kernel, .weight_out = kernel, .weight_in = cg * kernel,
              .tap = mlp_f32_alloc((size_t)kernel, sizeof(tap))};
    int status = s.tap ? MLP_OK : MLP_NO_MEMORY;
    for (s.first_y = 0; status == MLP_OK && s.first_y < MLP_MIN(q->stride_h, q->height); s.first_y++)
        for (s.first_x = 0; status == MLP_OK && s.first_x < MLP_MIN(q->stride_w, q->width); s.first_x++) {
            /* Pixel first + i * stride was reached by tap t from the output at i + (first + padding - t) / stride. */
            s.taps = 0;
            for (ptrdiff_t t = 0; t < kernel; t++) {
                ptrdiff_t y = s.first_y + q->padding_h - t / q->kernel_w * q->dilation_h;
                ptrdiff_t x = s.first_x + q->padding_w - t % q->kernel_w * q->dilation_w;
                if (y % q->stride_h == 0 && x % q->stride_w == 0)
                    s.tap[s.taps++] = (tap){y / q->stride_h, x / q->stride_w, t};
            }
            s.rows = mlp_f32_ceil(q->height - s.first_y, q->stride_h);
            s.columns = mlp_f32_ceil(q->width - s.first_x, q->stride_w);
            status = run(&s, dy, w, dx);
        }
    free(s.tap);
    return status;
}
