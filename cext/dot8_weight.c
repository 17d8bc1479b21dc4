/* The int8 engine's weight gradient in (C, H, W, N) storage:
 *
 *     for each output pixel, for each image: sum[output][channel][tap] += dy[output][pixel] * x[channel][pixel + tap];
 *
 * Of two digits by two there are three products (dot8_products.h). A tile holds one plane at a time.
 *
 * A visit of the inner loop sums in int32 over vectors of neighbouring images, visits are added up in int64: nothing can
 * overflow, and no order matters. Where x is stored 128 too large, 128 times the sum of dy is taken off at the end. */
#include <stdatomic.h>
#include "dot8_weight_tiles.h"

enum { CHANNELS = 64 };               /* of x and of dy in one part of the output */
enum { CHUNKS = 8 };                  /* of one part, if there is only one: enough for every thread */
enum { TILE_BYTES = 1100 << 10 };     /* both tiles of a band: within a core's second-level cache */
enum { VISIT_BYTES = 8 << 10 };       /* one channel's gradient in one visit of the inner loop: first-level cache */

typedef struct {
    const mlp_dot8 *call;
    mlp_dot8_products products;
    const mlp_f32_geometry *q;
    const mlp_dot8_tiles *tier;
    ptrdiff_t cg, og, oh, ow, taps;                          /* channels of one group */
    ptrdiff_t c_parts, o_parts, chunks, items, tap_blocks;
    ptrdiff_t pitch, band, bands, visit, visit_columns;      /* images of a tile; rows of a band, size of a visit */
    ptrdiff_t skip_y, skip_x, step_y, step_x; /* from tile row to tile row in x; from output to output in the tile */
    ptrdiff_t tile_columns, x_plane, dy_plane, x_room, dy_room;    /* numbers of a channel, and of a tile */
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

/* `digit` as in mlp_dot8_digits_fn; 16-bit numbers pass through `row`, room for the digits of one row. */
static void pack(const plan *s, const picture *from, const cut *c, ptrdiff_t n0, ptrdiff_t lanes, ptrdiff_t plane,
                 const int8_t *digit, int flip, int8_t *row, char *tile, mlp_dot8_largest *largest)
{
    const mlp_dot8_tiles *tier = s->tier;
    const ptrdiff_t pixel = s->pitch * tier->bytes, length = c->columns * pixel;
    ptrdiff_t low, high;
    mlp_dot8_inside(c->x0, c->x_step, c->columns, from->w, &low, &high);
    for (ptrdiff_t channel = 0; channel < from->channels; channel++)
        for (ptrdiff_t r = 0; r < c->rows; r++) {
            char *to = tile + channel * plane * tier->bytes + r * length;
            const ptrdiff_t y = c->y0 + r * c->y_step;
            if (y < 0 || y >= from->h || high <= low) {
                memset(to, flip, (size_t)length);
                continue;
            }
            memset(to, flip, (size_t)(low * pixel));
            memset(to + high * pixel, flip, (size_t)((c->columns - high) * pixel));
            const int8_t *in = from->x + ((channel * from->h + y) * from->w + c->x0 + low * c->x_step) * from->n + n0;
            const ptrdiff_t step = c->x_step * from->n;
            char *at = to + low * pixel;
            if (tier->bytes == 1) {
                tier->digits(in, step, high - low, lanes, digit, flip, (int8_t *)at, s->pitch, s->pitch,
                             largest);
                continue;
            }
            for (ptrdiff_t n = 0; n < s->pitch; n += MLP_DOT8_LANES) {
                tier->digits(in + MLP_MIN(n, lanes), step, high - low, lanes - MLP_MIN(n, lanes), digit, flip, row,
                             MLP_DOT8_LANES, MLP_DOT8_LANES, largest);
                tier->widen(row, high - low, (int16_t *)at + n, s->pitch);
            }
        }
}

/* Add one band of one block of images to the sums [block of outputs][block of taps][tap][output]. */
static void add_band(const plan *s, const task *t, ptrdiff_t item, char *x_tile, char *dy_tile, int8_t *row,
                     int64_t *sums, mlp_dot8_largest largest[2])
{
    const mlp_f32_geometry *q = s->q;
    const mlp_dot8 *call = s->call;
    const ptrdiff_t n0 = item / s->bands * s->pitch, y0 = item % s->bands * s->band, bytes = s->tier->bytes;
    const ptrdiff_t lanes = MLP_MIN(s->pitch, q->batch - n0), rows = MLP_MIN(s->band, s->oh - y0);
    const int dm = s->tier->dot_outputs, dk = s->tier->dot_taps;
    const picture x = {call->b + (t->group * s->cg + t->c0) * q->height * q->width * q->batch, t->channels, q->height,
                       q->width, q->batch};
    const picture dy = {call->a + (t->group * s->og + t->o0) * s->oh * s->ow * q->batch, t->outputs, s->oh, s->ow,
                        q->batch};
    const cut x_cut = {y0 * q->stride_h - q->padding_h, -q->padding_w, s->skip_y, s->skip_x,
                       (rows - 1) * s->step_y + (q->kernel_h - 1) * q->dilation_h + 1, s->tile_columns};
    const cut dy_cut = {y0, 0, 1, 1, rows, s->ow};
    const ptrdiff_t x_row = s->step_y * s->tile_columns * s->pitch, dy_row = s->ow * s->pitch;
    for (int i = 0; i < s->products.many; i++) {
        const mlp_dot8_product *now = s->products.product + i;
        if (i == 0 || now->b != now[-1].b)
            pack(s, &x, &x_cut, n0, lanes, s->x_plane, call->digits_b ? s->products.digits_b[now->b] : NULL,
                 s->tier->dot_flip, row, x_tile, &largest[1]);
        if (i == 0 || now->a != now[-1].a)
            pack(s, &dy, &dy_cut, n0, lanes, s->dy_plane, call->digits_a ? s->products.digits_a[now->a] : NULL, 0, row,
                 dy_tile, &largest[0]);
        for (ptrdiff_t r = 0; r < rows; r += s->visit)
            for (ptrdiff_t p = 0; p < s->ow; p += s->visit_columns) {
                const char *grad = dy_tile + (r * dy_row + p * s->pitch) * bytes;
                const char *act = x_tile + (r * x_row + p * s->step_x * s->pitch) * bytes;
                for (ptrdiff_t o = 0; o < t->outputs; o += dm)
                    for (ptrdiff_t k = 0; k < t->channels * s->taps; k += dk)
                        s->tier->dot(grad + o * s->dy_plane * bytes, s->dy_plane, dy_row, act, s->offset + k, x_row,
                                     s->step_x * s->pitch, MLP_MIN(s->visit, rows - r),
                                     MLP_MIN(s->visit_columns, s->ow - p), s->pitch, now->weight,
                                     sums + (o / dm * s->tap_blocks + k / dk) * dm * dk);
            }
        for (ptrdiff_t o = 0; s->tier->dot_flip && o < t->outputs; o++) {
            const int64_t excess = now->weight * s->tier->dot_flip
                                   * s->tier->total(dy_tile + o * s->dy_plane * bytes, rows * dy_row);
            int64_t *sum = sums + o / dm * s->tap_blocks * dm * dk + o % dm;
            for (ptrdiff_t k = 0; k < s->tap_blocks * dk; k++)
                sum[k * dm] -= excess;
        }
    }
}

/* Everything that follows from the sizes; 0 if a tile's distances do not fit 32 bits. */
static int make_plan(plan *s)
{
    const mlp_f32_geometry *q = s->q;
    const int dm = s->tier->dot_outputs, dk = s->tier->dot_taps, bytes = s->tier->bytes;
    const ptrdiff_t channels = MLP_MIN(s->cg, CHANNELS), outputs = mlp_f32_ceil(MLP_MIN(s->og, CHANNELS), dm) * dm;
    s->c_parts = mlp_f32_ceil(s->cg, CHANNELS), s->o_parts = mlp_f32_ceil(s->og, CHANNELS);
    s->tap_blocks = mlp_f32_ceil(channels * s->taps, dk);
    s->pitch = bytes == 1 ? 2 * MLP_DOT8_LANES : MLP_DOT8_LANES; /* at least a vector */
    while (s->pitch < 256 && s->pitch < q->batch && s->oh * s->ow * s->pitch * bytes < VISIT_BYTES)
        s->pitch *= 2; /* small planes: more images, so that a visit of the inner loop is long enough */
    s->skip_y = q->kernel_h == 1 ? q->stride_h : 1, s->skip_x = q->kernel_w == 1 ? q->stride_w : 1;
    s->step_y = q->stride_h / s->skip_y, s->step_x = q->stride_w / s->skip_x;
    s->tile_columns = (s->ow - 1) * s->step_x + (q->kernel_w - 1) * q->dilation_w + 1;
    const ptrdiff_t span = (q->kernel_h - 1) * q->dilation_h + 1;
    const ptrdiff_t fixed = channels * (span - s->step_y) * s->tile_columns * s->pitch * bytes;
    const ptrdiff_t each = (channels * s->step_y * s->tile_columns + outputs * s->ow) * s->pitch * bytes;
    s->band = MLP_MIN(s->oh, MLP_MAX(1, (TILE_BYTES - fixed) / each));
    s->bands = mlp_f32_ceil(s->oh, s->band), s->band = mlp_f32_ceil(s->oh, s->bands);
    s->bands = mlp_f32_ceil(s->oh, s->band);
    s->visit = MLP_MIN(s->band, MLP_MAX(1, VISIT_BYTES / (s->ow * s->pitch * bytes)));
    s->visit_columns = s->visit > 1 ? s->ow : MLP_MIN(s->ow, MLP_DOT8_VISIT / s->pitch);
    s->x_plane = ((s->band - 1) * s->step_y + span) * s->tile_columns * s->pitch, s->dy_plane = s->band * s->ow * s->pitch;
    s->x_room = mlp_f32_ceil(channels * s->x_plane + 64, 64) * 64;
    s->dy_room = mlp_f32_ceil(outputs * s->dy_plane + 64, 64) * 64;
    return s->x_room <= INT32_MAX;
}

int mlp_dot8_conv2d_weight_grad(const mlp_dot8 *call)
{
    const mlp_f32_geometry *q = &call->size;
    int64_t *dw = call->out_int;
    plan s = {.call = call, .q = q, .tier = mlp_dot8_tiles_in_force(), .taps = q->kernel_h * q->kernel_w,
              .cg = q->channels / q->groups, .og = q->outputs / q->groups,
              .oh = mlp_f32_positions(q->height, q->kernel_h, q->stride_h, q->padding_h, q->dilation_h),
              .ow = mlp_f32_positions(q->width, q->kernel_w, q->stride_w, q->padding_w, q->dilation_w)};
    memset(dw, 0, (size_t)(q->outputs * s.cg * s.taps) * sizeof *dw);
    if (!q->batch || !s.oh || !s.ow || !q->outputs || !s.cg)
        return MLP_OK;
    if (mlp_dot8_weight_amx())
        return mlp_dot8_weight_tiles(call, mlp_dot8_weight_amx());
    if (!mlp_dot8_find_products(call, &s.products))
        return MLP_BAD_ARGUMENT;
    if (!make_plan(&s))
        return MLP_UNSUPPORTED;
    const int dm = s.tier->dot_outputs, dk = s.tier->dot_taps;
    const ptrdiff_t parts = q->groups * s.o_parts * s.c_parts;
    s.items = mlp_f32_ceil(q->batch, s.pitch) * s.bands;
    s.chunks = MLP_MIN(s.items, MLP_MAX(1, CHUNKS / parts));
    const ptrdiff_t tasks = parts * s.chunks;
    const ptrdiff_t sums_of_one = mlp_f32_ceil(MLP_MIN(s.og, CHANNELS), dm) * dm * s.tap_blocks * dk;
    const int threads = mlp_workers(tasks);
    int32_t *offset = mlp_f32_alloc((size_t)(s.tap_blocks * dk), sizeof *offset);
    const ptrdiff_t room = (s.x_room + s.dy_room) * s.tier->bytes;
    const ptrdiff_t row = MLP_MAX(s.tile_columns, s.ow) * MLP_DOT8_LANES;
    char *tiles = mlp_f32_alloc((size_t)(threads * (room + row)), 1);
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
        atomic_int within = 1;
        MLP_PARALLEL_FOR(threads)
        for (int thread = 0; thread < threads; thread++) {
            char *x_tile = tiles + thread * room, *dy_tile = x_tile + s.x_room * s.tier->bytes;
            int8_t *digits = (int8_t *)tiles + threads * room + thread * row;
            mlp_dot8_largest largest[2] = {{{0}}};
            memset(x_tile, 0, (size_t)room); /* what fills up blocks is defined */
            for (ptrdiff_t i; (i = atomic_fetch_add(&next, 1)) < tasks;) {
                const task t = find_task(&s, i);
                memset(sums + i * sums_of_one, 0, (size_t)sums_of_one * sizeof *sums);
                for (ptrdiff_t item = t.first; item < t.last; item++)
                    add_band(&s, &t, item, x_tile, dy_tile, digits, sums + i * sums_of_one, largest);
            }
            if (!mlp_dot8_within(&largest[0], call->top_a) || !mlp_dot8_within(&largest[1], call->top_b))
                atomic_store(&within, 0);
        }
        status = within ? MLP_OK : MLP_BAD_CODE;
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
