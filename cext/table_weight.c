/* The table kernel's weight gradient in (C, H, W, N) storage: dot products over positions and pairs of images. A visit
 * of the inner loop sums in int32, visits are added up in int64: nothing can overflow, and no order matters. */
#include <stdatomic.h>
#include <string.h>
#include "table.h"

enum { CHANNELS = 64 };               /* of x and of dy in one part of the output */
enum { CHUNKS = 8 };                  /* of one part, if there is only one: enough for every thread */
enum { TILE_BYTES = 1100 << 10 };     /* both tiles of a band: within a core's second-level cache */
enum { VISIT_BYTES = 8 << 10 };       /* one channel's gradient in one visit of the inner loop: first-level cache */

typedef struct {
    const mlp_f32_geometry *q;
    const mlp_table_tiles *tier;
    const int8_t *dy, *x;
    ptrdiff_t cg, og, oh, ow, taps;                          /* channels of one group */
    ptrdiff_t c_parts, o_parts, chunks, items, tap_blocks;
    ptrdiff_t pitch, band, bands, visit, visit_columns;      /* images of a tile; rows of a band, size of a visit */
    ptrdiff_t skip_y, skip_x, step_y, step_x; /* from tile row to tile row in x; from output to output in the tile */
    ptrdiff_t tile_columns, x_plane, dy_plane;
    const int32_t *offset;
} plan;

typedef struct { ptrdiff_t group, o0, c0, outputs, channels, first, last; } task; /* a part, and its items of one chunk */

static task find_task(const plan *s, ptrdiff_t number)
{
    const ptrdiff_t chunk = number % s->chunks, part = number / s->chunks;
    const ptrdiff_t o0 = part / s->c_parts % s->o_parts * CHANNELS, c0 = part % s->c_parts * CHANNELS;
    return (task){part / s->c_parts / s->o_parts, o0, c0, MLP_MIN(CHANNELS, s->og - o0), MLP_MIN(CHANNELS, s->cg - c0),
                  chunk * s->items / s->chunks, (chunk + 1) * s->items / s->chunks};
}

typedef struct { const int8_t *x; ptrdiff_t channels, h, w, n; } picture; /* `channels` planes of a (C, H, W, N) array */
typedef struct { ptrdiff_t y0, x0, y_step, x_step, rows, columns; } cut;  /* may lie outside: zeros */

static void pack(const picture *from, const cut *c, ptrdiff_t n0, ptrdiff_t lanes, ptrdiff_t pitch, ptrdiff_t plane,
                 mlp_table_widen_fn *widen, int16_t *tile)
{
    const ptrdiff_t row = c->columns * pitch;
    ptrdiff_t low, high;
    mlp_table_inside(c->x0, c->x_step, c->columns, from->w, &low, &high);
    for (ptrdiff_t channel = 0; channel < from->channels; channel++)
        for (ptrdiff_t r = 0; r < c->rows; r++) {
            int16_t *to = tile + channel * plane + r * row;
            const ptrdiff_t y = c->y0 + r * c->y_step;
            if (y < 0 || y >= from->h || high <= low) {
                memset(to, 0, (size_t)row * sizeof *to);
                continue;
            }
            memset(to, 0, (size_t)(low * pitch) * sizeof *to);
            widen(from->x + ((channel * from->h + y) * from->w + c->x0 + low * c->x_step) * from->n + n0,
                  c->x_step * from->n, high - low, lanes, pitch, to + low * pitch);
            memset(to + high * pitch, 0, (size_t)((c->columns - high) * pitch) * sizeof *to);
        }
}

/* Add one band of one block of images to the sums [block of outputs][block of taps][tap][output]. */
static void add_band(const plan *s, const task *t, ptrdiff_t item, int16_t *x_tile, int16_t *dy_tile, int64_t *sums)
{
    const mlp_f32_geometry *q = s->q;
    const ptrdiff_t n0 = item / s->bands * s->pitch, y0 = item % s->bands * s->band;
    const ptrdiff_t lanes = MLP_MIN(s->pitch, q->batch - n0), rows = MLP_MIN(s->band, s->oh - y0);
    const int dm = s->tier->dot_outputs, dk = s->tier->dot_taps;
    const picture x = {s->x + (t->group * s->cg + t->c0) * q->height * q->width * q->batch, t->channels, q->height,
                       q->width, q->batch};
    const picture dy = {s->dy + (t->group * s->og + t->o0) * s->oh * s->ow * q->batch, t->outputs, s->oh, s->ow,
                        q->batch};
    const cut x_cut = {y0 * q->stride_h - q->padding_h, -q->padding_w, s->skip_y, s->skip_x,
                       (rows - 1) * s->step_y + (q->kernel_h - 1) * q->dilation_h + 1, s->tile_columns};
    const cut dy_cut = {y0, 0, 1, 1, rows, s->ow};
    pack(&x, &x_cut, n0, lanes, s->pitch, s->x_plane, s->tier->widen, x_tile);
    pack(&dy, &dy_cut, n0, lanes, s->pitch, s->dy_plane, s->tier->widen, dy_tile);
    const ptrdiff_t x_row = s->step_y * s->tile_columns * s->pitch, dy_row = s->ow * s->pitch;
    for (ptrdiff_t r = 0; r < rows; r += s->visit)
        for (ptrdiff_t p = 0; p < s->ow; p += s->visit_columns)
            for (ptrdiff_t o = 0; o < t->outputs; o += dm)
                for (ptrdiff_t k = 0; k < t->channels * s->taps; k += dk)
                    s->tier->dot(dy_tile + o * s->dy_plane + r * dy_row + p * s->pitch, s->dy_plane, dy_row,
                                 x_tile + r * x_row + p * s->step_x * s->pitch, s->offset + k, x_row,
                                 s->step_x * s->pitch, MLP_MIN(s->visit, rows - r), MLP_MIN(s->visit_columns, s->ow - p),
                                 s->pitch, sums + (o / dm * s->tap_blocks + k / dk) * dm * dk);
}

/* Everything that follows from the sizes; 0 if a tile's distances do not fit 32 bits. */
static int make_plan(plan *s, ptrdiff_t *x_room, ptrdiff_t *dy_room)
{
    const mlp_f32_geometry *q = s->q;
    const int dm = s->tier->dot_outputs, dk = s->tier->dot_taps;
    const ptrdiff_t channels = MLP_MIN(s->cg, CHANNELS), outputs = mlp_f32_ceil(MLP_MIN(s->og, CHANNELS), dm) * dm;
    s->c_parts = mlp_f32_ceil(s->cg, CHANNELS), s->o_parts = mlp_f32_ceil(s->og, CHANNELS);
    s->tap_blocks = mlp_f32_ceil(channels * s->taps, dk);
    s->pitch = MLP_TABLE_LANES;
    while (s->pitch < 256 && s->pitch < q->batch && s->oh * s->ow * s->pitch * 2 < VISIT_BYTES)
        s->pitch *= 2; /* small planes: more images, so that a visit of the inner loop is long enough */
    s->skip_y = q->kernel_h == 1 ? q->stride_h : 1, s->skip_x = q->kernel_w == 1 ? q->stride_w : 1;
    s->step_y = q->stride_h / s->skip_y, s->step_x = q->stride_w / s->skip_x;
    s->tile_columns = (s->ow - 1) * s->step_x + (q->kernel_w - 1) * q->dilation_w + 1;
    const ptrdiff_t span = (q->kernel_h - 1) * q->dilation_h + 1;
    const ptrdiff_t fixed = channels * (span - s->step_y) * s->tile_columns * s->pitch * 2;
    const ptrdiff_t each = (channels * s->step_y * s->tile_columns + outputs * s->ow) * s->pitch * 2;
    s->band = MLP_MIN(s->oh, MLP_MAX(1, (TILE_BYTES - fixed) / each));
    s->bands = mlp_f32_ceil(s->oh, s->band), s->band = mlp_f32_ceil(s->oh, s->bands);
    s->bands = mlp_f32_ceil(s->oh, s->band);
    s->visit = MLP_MIN(s->band, MLP_MAX(1, VISIT_BYTES / (s->ow * s->pitch * 2)));
    s->visit_columns = s->visit > 1 ? s->ow : MLP_MIN(s->ow, MLP_TABLE_TERMS / s->pitch);
    s->x_plane = ((s->band - 1) * s->step_y + span) * s->tile_columns * s->pitch, s->dy_plane = s->band * s->ow * s->pitch;
    *x_room = mlp_f32_ceil(channels * s->x_plane + 32, 32) * 32;
    *dy_room = mlp_f32_ceil(outputs * s->dy_plane + 32, 32) * 32;
    return *x_room <= INT32_MAX;
}

int mlp_table_conv2d_weight_grad(const mlp_f32_geometry *q, const int8_t *dy, const int8_t *x, int64_t *dw)
{
    plan s = {.q = q, .tier = mlp_table_tiles_in_force(), .dy = dy, .x = x, .taps = q->kernel_h * q->kernel_w,
              .cg = q->channels / q->groups, .og = q->outputs / q->groups,
              .oh = mlp_f32_positions(q->height, q->kernel_h, q->stride_h, q->padding_h, q->dilation_h),
              .ow = mlp_f32_positions(q->width, q->kernel_w, q->stride_w, q->padding_w, q->dilation_w)};
    memset(dw, 0, (size_t)(q->outputs * s.cg * s.taps) * sizeof *dw);
    if (!q->batch || !s.oh || !s.ow || !q->outputs || !s.cg)
        return MLP_OK;
    ptrdiff_t x_room, dy_room;
    if (!make_plan(&s, &x_room, &dy_room))
        return MLP_UNSUPPORTED;
    const int dm = s.tier->dot_outputs, dk = s.tier->dot_taps;
    const ptrdiff_t parts = q->groups * s.o_parts * s.c_parts;
    s.items = mlp_f32_ceil(q->batch, s.pitch) * s.bands;
    s.chunks = MLP_MIN(s.items, MLP_MAX(1, CHUNKS / parts));
    const ptrdiff_t tasks = parts * s.chunks;
    const ptrdiff_t sums_of_one = mlp_f32_ceil(MLP_MIN(s.og, CHANNELS), dm) * dm * s.tap_blocks * dk;
    const int threads = mlp_workers(tasks);
    int32_t *offset = mlp_f32_alloc((size_t)(s.tap_blocks * dk), sizeof *offset);
    int16_t *tiles = mlp_f32_alloc((size_t)(threads * (x_room + dy_room)), sizeof *tiles);
    int64_t *sums = mlp_f32_alloc((size_t)(tasks * sums_of_one), sizeof *sums);
    int status = offset && tiles && sums ? MLP_OK : MLP_NO_MEMORY;
    if (status == MLP_OK) {
        for (ptrdiff_t k = 0; k < s.tap_blocks * dk; k++) { /* what fills up the last block repeats the first tap */
            const ptrdiff_t t = k % s.taps, channel = k / s.taps;
            offset[k] = channel >= MLP_MIN(s.cg, CHANNELS) ? 0 : (int32_t)(channel * s.x_plane
                + (t / q->kernel_w * q->dilation_h * s.tile_columns + t % q->kernel_w * q->dilation_w) * s.pitch);
        }
        s.offset = offset;
        atomic_llong next = 0;
        MLP_PARALLEL_FOR(threads)
        for (int thread = 0; thread < threads; thread++) {
            int16_t *x_tile = tiles + thread * (x_room + dy_room), *dy_tile = x_tile + x_room;
            memset(x_tile, 0, (size_t)(x_room + dy_room) * sizeof *x_tile); /* what fills up blocks is defined */
            for (ptrdiff_t i; (i = atomic_fetch_add(&next, 1)) < tasks;) {
                const task t = find_task(&s, i);
                memset(sums + i * sums_of_one, 0, (size_t)sums_of_one * sizeof *sums);
                for (ptrdiff_t item = t.first; item < t.last; item++)
                    add_band(&s, &t, item, x_tile, dy_tile, sums + i * sums_of_one);
            }
        }
        for (ptrdiff_t i = 0; i < tasks; i++) {
            const task t = find_task(&s, i);
            const int64_t *from = sums + i * sums_of_one;
            for (ptrdiff_t o = 0; o < t.outputs; o++) {
                int64_t *to = dw + ((t.group * s.og + t.o0 + o) * s.cg + t.c0) * s.taps;
                for (ptrdiff_t k = 0; k < t.channels * s.taps; k++)
                    to[k] += from[((o / dm * s.tap_blocks + k / dk) * dk + k % dk) * dm + o % dm];
            }
        }
    }
    free(offset);
    free(tiles);
    free(sums);
    return status;
}
