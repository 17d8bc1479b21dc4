/* Weight gradient of small floats in (C, H, W, N) storage. A chunk of the sum is a block of neighbouring images at one
 * pixel; chunks are added in the order (block, y, x). The batch is cut into runs of `run` images, each with sums of its
 * own, which the caller adds. Vectors run across output channels, so the error is turned to have these innermost. */
#include <stdatomic.h>
#include "minifloat.h"

enum { TILE_BYTES = 1100 << 10 };     /* both tiles of a band: within a core's second-level cache */
enum { VISIT_BYTES = 16 << 10 };      /* the turned errors of one visit of the inner loop: first-level cache */

typedef struct {
    const mlp_f32_geometry *q;
    const mlp_minifloat_tiles *tier;
    const int8_t *dy, *x;
    int man_dy, man_x;
    char *sums;
    ptrdiff_t cg, og, oh, ow, taps, run, runs;               /* channels of one group */
    ptrdiff_t c_part, c_parts, o_parts, tap_blocks, pitch, band, visit;
    ptrdiff_t skip_y, skip_x, step_y, step_x; /* from tile row to tile row in x; from output to output in the tile */
    ptrdiff_t tile_columns, span, x_plane;
    const int32_t *offset;
} plan;

typedef struct { ptrdiff_t group, o0, c0, outputs, channels, run; } task;

static task find_task(const plan *s, ptrdiff_t number)
{
    const ptrdiff_t part = number / s->runs, o0 = part / s->c_parts % s->o_parts * MLP_MINIFLOAT_CHANNELS;
    const ptrdiff_t c0 = part % s->c_parts * s->c_part;
    return (task){part / s->c_parts / s->o_parts, o0, c0, MLP_MIN(MLP_MINIFLOAT_CHANNELS, s->og - o0),
                  MLP_MIN(s->c_part, s->cg - c0), number % s->runs};
}

/* Add one band of output rows of one block of images to the totals [tap of a channel][output]. */
static void add_band(const plan *s, const task *t, ptrdiff_t n0, ptrdiff_t lanes, ptrdiff_t y0, char *x_tile,
                     char *dy_tile, char *totals)
{
    const mlp_f32_geometry *q = s->q;
    const ptrdiff_t rows = MLP_MIN(s->band, s->oh - y0), pixel = MLP_MINIFLOAT_BYTES, dk = s->tier->dot_taps;
    const ptrdiff_t plane = s->oh * s->ow * q->batch, size = s->tier->size;
    const mlp_minifloat_picture x = {s->x + (t->group * s->cg + t->c0) * q->height * q->width * q->batch, t->channels,
                                     q->height, q->width, q->batch, s->man_x};
    const mlp_minifloat_cut cut = {y0 * q->stride_h - q->padding_h, -q->padding_w, s->skip_y, s->skip_x,
                                   (rows - 1) * s->step_y + s->span, s->tile_columns};
    mlp_minifloat_pack(s->tier, &x, &cut, n0, lanes, s->x_plane, x_tile);
    const int8_t *dy = s->dy + (t->group * s->og + t->o0) * plane + y0 * s->ow * q->batch + n0;
    for (ptrdiff_t p = 0; p < rows * s->ow; p++)
        s->tier->turn(dy + p * q->batch, plane, t->outputs, lanes, s->pitch, s->man_dy, dy_tile + p * s->pitch * pixel);
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t p = 0; p < s->ow; p += s->visit)
            for (ptrdiff_t k = 0; k < t->channels * s->taps; k += dk)
                s->tier->dot(dy_tile + (r * s->ow + p) * s->pitch * pixel, s->pitch,
                             x_tile + (r * s->step_y * s->tile_columns + p * s->step_x) * pixel, s->offset + k,
                             s->step_x * s->tier->lanes, MLP_MIN(s->visit, s->ow - p), (int)lanes, t->outputs,
                             totals + k * s->pitch * size);
}

static void run_task(const plan *s, const task *t, char *x_tile, char *dy_tile, char *totals)
{
    const ptrdiff_t size = s->tier->size, last = MLP_MIN(s->q->batch, (t->run + 1) * s->run);
    memset(totals, 0, (size_t)(s->tap_blocks * s->tier->dot_taps * s->pitch * size));
    for (ptrdiff_t n0 = t->run * s->run; n0 < last; n0 += s->tier->lanes)
        for (ptrdiff_t y0 = 0; y0 < s->oh; y0 += s->band)
            add_band(s, t, n0, MLP_MIN(s->tier->lanes, last - n0), y0, x_tile, dy_tile, totals);
    for (ptrdiff_t o = 0; o < t->outputs; o++) {
        const ptrdiff_t row = t->run * s->q->outputs + t->group * s->og + t->o0 + o;
        char *to = s->sums + (row * s->cg + t->c0) * s->taps * size;
        for (ptrdiff_t k = 0; k < t->channels * s->taps; k++)
            memcpy(to + k * size, totals + (k * s->pitch + o) * size, (size_t)size);
    }
}

/* Everything that follows from the sizes. */
static void make_plan(plan *s)
{
    const mlp_f32_geometry *q = s->q;
    s->runs = mlp_f32_ceil(q->batch, s->run), s->o_parts = mlp_f32_ceil(s->og, MLP_MINIFLOAT_CHANNELS);
    s->c_part = MLP_MIN(s->cg, MLP_MINIFLOAT_CHANNELS);
    while (s->c_part > 8 && q->groups * s->o_parts * mlp_f32_ceil(s->cg, s->c_part) * s->runs < mlp_threads())
        s->c_part = mlp_f32_ceil(s->c_part, 2); /* parts change no bit: more of them to occupy every thread */
    s->c_parts = mlp_f32_ceil(s->cg, s->c_part);
    const ptrdiff_t width = 64 / s->tier->size;
    s->pitch = mlp_f32_ceil(MLP_MIN(s->og, MLP_MINIFLOAT_CHANNELS), width) * width;
    s->tap_blocks = mlp_f32_ceil(s->c_part * s->taps, s->tier->dot_taps);
    /* A kernel one tap high (wide) needs only every stride-th row (column) of x: the tile skips the others. */
    s->skip_y = q->kernel_h == 1 ? q->stride_h : 1, s->skip_x = q->kernel_w == 1 ? q->stride_w : 1;
    s->step_y = q->stride_h / s->skip_y, s->step_x = q->stride_w / s->skip_x;
    s->tile_columns = (s->ow - 1) * s->step_x + (q->kernel_w - 1) * q->dilation_w + 1;
    s->span = (q->kernel_h - 1) * q->dilation_h + 1;
    const ptrdiff_t fixed = s->c_part * (s->span - s->step_y) * s->tile_columns * MLP_MINIFLOAT_BYTES;
    const ptrdiff_t each = (s->c_part * s->step_y * s->tile_columns + s->ow * s->pitch) * MLP_MINIFLOAT_BYTES;
    s->band = MLP_MIN(s->oh, MLP_MAX(1, (TILE_BYTES - fixed) / each));
    s->band = mlp_f32_ceil(s->oh, mlp_f32_ceil(s->oh, s->band));
    s->visit = MLP_MAX(1, VISIT_BYTES / (s->pitch * MLP_MINIFLOAT_BYTES));
    s->x_plane = ((s->band - 1) * s->step_y + s->span) * s->tile_columns * s->tier->lanes;
}

int mlp_minifloat_conv2d_weight_grad(const mlp_f32_geometry *q, int exact, const int8_t *dy, int man_dy,
                                     const int8_t *x, int man_x, int64_t run, void *sums)
{
    plan s = {.q = q, .tier = mlp_minifloat_tiles_in_force(exact), .dy = dy, .x = x, .man_dy = man_dy, .man_x = man_x,
              .sums = sums, .run = run, .taps = q->kernel_h * q->kernel_w, .cg = q->channels / q->groups,
              .og = q->outputs / q->groups,
              .oh = mlp_f32_positions(q->height, q->kernel_h, q->stride_h, q->padding_h, q->dilation_h),
              .ow = mlp_f32_positions(q->width, q->kernel_w, q->stride_w, q->padding_w, q->dilation_w)};
    if (!q->batch || !s.oh || !s.ow || !q->outputs || !s.cg || run < 1 || run % MLP_MINIFLOAT_CHUNK)
        return MLP_BAD_ARGUMENT;
    make_plan(&s);
    const ptrdiff_t x_bytes = mlp_f32_ceil(s.c_part * s.x_plane * s.tier->size, 64) * 64 + 64;
    const ptrdiff_t dy_bytes = s.band * s.ow * s.pitch * MLP_MINIFLOAT_BYTES + 64;
    const ptrdiff_t padded = s.tap_blocks * s.tier->dot_taps, total_bytes = padded * s.pitch * s.tier->size;
    if (s.c_part * s.x_plane > INT32_MAX)
        return MLP_UNSUPPORTED;
    const ptrdiff_t tasks = q->groups * s.o_parts * s.c_parts * s.runs, each = x_bytes + dy_bytes + total_bytes;
    const int threads = mlp_workers(tasks);
    int32_t *offset = mlp_f32_alloc((size_t)padded, sizeof *offset);
    char *scratch = mlp_f32_alloc((size_t)threads, (size_t)each);
    const int status = offset && scratch ? MLP_OK : MLP_NO_MEMORY;
    if (status == MLP_OK) {
        for (ptrdiff_t k = 0; k < padded; k++) { /* what fills up the last block repeats the first tap */
            const ptrdiff_t t = k % s.taps;
            offset[k] = k >= s.c_part * s.taps ? 0 : (int32_t)(k / s.taps * s.x_plane
                + (t / q->kernel_w * q->dilation_h * s.tile_columns + t % q->kernel_w * q->dilation_w) * s.tier->lanes);
        }
        s.offset = offset;
        atomic_llong next = 0;
        MLP_PARALLEL_FOR(threads)
        for (int thread = 0; thread < threads; thread++) {
            char *own = scratch + thread * each;
            memset(own, 0, (size_t)each); /* what fills up blocks is defined */
            for (ptrdiff_t i; (i = atomic_fetch_add(&next, 1)) < tasks;) {
                const task t = find_task(&s, i);
                run_task(&s, &t, own, own + x_bytes, own + x_bytes + dy_bytes);
            }
        }
    }
    free(offset);
    free(scratch);
    return status;
}
