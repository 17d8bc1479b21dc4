/* Float32 weight gradient of a convolution in (C, H, W, N) storage: a dot product over every position and image.
 *
 * The order of the sum is fixed by the shape alone. The output is cut into parts of at most 64 x 64 channels. For each
 * part, the work (blocks of images times bands of rows) is cut into chunks; each chunk adds up its share into sums of
 * its own, and the chunks' sums are added in order. Threads take whole chunks, so their number cannot change a bit. */
#include <stdatomic.h>
#include <string.h>
#include "conv_walk.h"

enum { CHANNELS = 64 };               /* of x and of dy in one part of the output */
enum { CHUNKS = 8 };                  /* of one part, if there is only one: enough for every thread */
enum { IMAGES = 64 };                 /* of a tile */
enum { TILE_BYTES = 1400 << 10 };     /* both tiles of a band: within a core's second-level cache */
enum { VISIT_BYTES = 8 << 10 };       /* one channel's gradient in one visit of the inner loop: first-level cache */

/* An operand: elements of any kind, and what makes them float32. */
typedef struct { const char *at; ptrdiff_t element; mlp_conv_fill_fn *fill; mlp_conv_table table; } operand;

/* What a tile is cut from, `channels` planes of a (C, H, W, N) array, and where: rows y0, y0 + y_step, ... and columns
 * x0, x0 + x_step, ..., which may lie outside, where zeros are written. */
typedef struct { const operand *from; ptrdiff_t first, channels, h, w; } picture;
typedef struct { ptrdiff_t y0, x0, y_step, x_step, rows, columns; } cut;

typedef struct {
    const mlp_f32_geometry *q;
    const mlp_f32_tiles *tier;
    operand dy, x;
    ptrdiff_t cg, og, oh, ow, taps;                          /* channels of one group */
    ptrdiff_t c_parts, o_parts, chunks, items, tap_blocks;
    ptrdiff_t pitch, band, bands, visit;                     /* images of a tile; rows of a band and of a visit */
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

/* Fill a tile [channel][row][column][lane] with images n0 .. n0 + lanes - 1 and zeros up to the pitch. */
static void fill(const plan *s, const picture *from, const cut *at, ptrdiff_t n0, ptrdiff_t lanes, ptrdiff_t plane,
                 float *tile)
{
    const ptrdiff_t n = s->q->batch, row = at->columns * s->pitch;
    /* First column inside the picture, and the first one behind it. */
    const ptrdiff_t low = at->x0 >= 0 ? 0 : MLP_MIN(at->columns, mlp_f32_ceil(-at->x0, at->x_step));
    const ptrdiff_t room = from->w - at->x0;
    const ptrdiff_t high = MLP_MAX(low, MLP_MIN(at->columns, room <= 0 ? 0 : mlp_f32_ceil(room, at->x_step)));
    for (ptrdiff_t c = 0; c < from->channels; c++)
        for (ptrdiff_t r = 0; r < at->rows; r++) {
            float *to = tile + c * plane + r * row;
            const ptrdiff_t y = at->y0 + r * at->y_step;
            const ptrdiff_t line = (((from->first + c) * from->h + y) * from->w + at->x0 + low * at->x_step) * n + n0;
            if (y < 0 || y >= from->h || lanes < s->pitch)
                memset(to, 0, (size_t)row * sizeof *to);
            if (y < 0 || y >= from->h)
                continue;
            memset(to, 0, (size_t)(low * s->pitch) * sizeof *to);
            from->from->fill(from->from->at + line * from->from->element, at->x_step * n, high - low, lanes,
                             &from->from->table, (char *)(to + low * s->pitch), s->pitch * (ptrdiff_t)sizeof *to,
                             MLP_LINE);
            memset(to + high * s->pitch, 0, (size_t)((at->columns - high) * s->pitch) * sizeof *to);
        }
}

/* Add one band of one block of images to the sums [block of outputs][block of taps][tap][output]. */
static void add_band(const plan *s, const task *t, ptrdiff_t item, float *x_tile, float *dy_tile, float *sums)
{
    const mlp_f32_geometry *q = s->q;
    const ptrdiff_t n0 = item / s->bands * s->pitch, y0 = item % s->bands * s->band;
    const ptrdiff_t lanes = MLP_MIN(s->pitch, q->batch - n0), rows = MLP_MIN(s->band, s->oh - y0);
    const int dm = s->tier->dot_outputs, dk = s->tier->dot_taps;
    const picture x = {&s->x, t->group * s->cg + t->c0, t->channels, q->height, q->width};
    const picture dy = {&s->dy, t->group * s->og + t->o0, t->outputs, s->oh, s->ow};
    const cut dy_cut = {y0, 0, 1, 1, rows, s->ow};
    const ptrdiff_t span = (q->kernel_h - 1) * q->dilation_h + 1, row = s->tile_columns * s->pitch;
    cut x_cut = {y0 * q->stride_h - q->padding_h, -q->padding_w, s->skip_y, s->skip_x, (rows - 1) * s->step_y + span,
                 s->tile_columns};
    float *x_new = x_tile;
    if (item > t->first && y0 && span > s->step_y) { /* rows that the band before has read too */
        const ptrdiff_t kept = span - s->step_y;
        for (ptrdiff_t c = 0; c < t->channels; c++)
            memmove(x_tile + c * s->x_plane, x_tile + c * s->x_plane + s->band * s->step_y * row,
                    (size_t)(kept * row) * sizeof *x_tile);
        x_cut.y0 += kept, x_cut.rows -= kept, x_new += kept * row; /* span > 1: no row of x is skipped */
    }
    fill(s, &x, &x_cut, n0, lanes, s->x_plane, x_new);
    fill(s, &dy, &dy_cut, n0, lanes, s->dy_plane, dy_tile);
    /* Full tiles without a stride: the images of a row's pixels are one run. */
    const ptrdiff_t whole = lanes == s->pitch && s->step_x == 1;
    const ptrdiff_t runs = whole ? 1 : s->ow, length = whole ? s->ow * lanes : lanes;
    for (ptrdiff_t r = 0; r < rows; r += s->visit)
        for (ptrdiff_t o = 0; o < t->outputs; o += dm)
            for (ptrdiff_t k = 0; k < t->channels * s->taps; k += dk)
                s->tier->dot(dy_tile + o * s->dy_plane + r * s->ow * s->pitch, s->dy_plane, s->ow * s->pitch,
                             x_tile + r * s->step_y * row, s->offset + k, s->step_y * row, s->step_x * s->pitch,
                             MLP_MIN(s->visit, rows - r), runs, s->pitch, length,
                             sums + (o / dm * s->tap_blocks + k / dk) * dm * dk);
}

/* Add the sums of one task to their places in dw. */
static void add_sums(const plan *s, task t, const float *sums, float *dw)
{
    const int dm = s->tier->dot_outputs, dk = s->tier->dot_taps;
    const ptrdiff_t count = t.channels * s->taps, row = s->cg * s->taps;
    dw += (t.group * s->og + t.o0) * row + t.c0 * s->taps;
    for (ptrdiff_t o = 0; o < t.outputs; o += dm)
        for (ptrdiff_t block = 0; block < s->tap_blocks; block++, sums += dm * dk)
            for (ptrdiff_t k = block * dk; k < MLP_MIN(count, (block + 1) * dk); k++)
                for (ptrdiff_t m = o; m < MLP_MIN(t.outputs, o + dm); m++)
                    dw[m * row + k] += sums[(k - block * dk) * dm + m - o];
}

static int contract(const mlp_f32_geometry *q, operand dy, operand x, float *dw)
{
    plan s = {.q = q, .tier = mlp_f32_tiles_in_force(), .dy = dy, .x = x, .taps = q->kernel_h * q->kernel_w,
              .cg = q->channels / q->groups, .og = q->outputs / q->groups,
              .oh = mlp_f32_positions(q->height, q->kernel_h, q->stride_h, q->padding_h, q->dilation_h),
              .ow = mlp_f32_positions(q->width, q->kernel_w, q->stride_w, q->padding_w, q->dilation_w)};
    memset(dw, 0, (size_t)(q->outputs * s.cg * s.taps) * sizeof *dw);
    if (!q->batch || !s.oh || !s.ow || !q->outputs || !s.cg)
        return MLP_OK;
    const int dm = s.tier->dot_outputs, dk = s.tier->dot_taps;
    const ptrdiff_t channels = MLP_MIN(s.cg, CHANNELS), outputs = mlp_f32_ceil(MLP_MIN(s.og, CHANNELS), dm) * dm;
    s.c_parts = mlp_f32_ceil(s.cg, CHANNELS), s.o_parts = mlp_f32_ceil(s.og, CHANNELS);
    s.tap_blocks = mlp_f32_ceil(channels * s.taps, dk);
    /* Small planes: more images a tile, so that a visit of the inner loop is long enough to pay for its end. */
    s.pitch = 16;
    while (s.pitch < MLP_MIN(q->batch, IMAGES) || (s.pitch < MLP_MIN(q->batch, 2 * IMAGES)
                                                   && s.oh * s.ow * s.pitch * 4 < VISIT_BYTES))
        s.pitch *= 2;
    /* A kernel one tap high (wide) needs only every stride-th row (column) of x: the tile skips the others. */
    s.skip_y = q->kernel_h == 1 ? q->stride_h : 1, s.skip_x = q->kernel_w == 1 ? q->stride_w : 1;
    s.step_y = q->stride_h / s.skip_y, s.step_x = q->stride_w / s.skip_x;
    s.tile_columns = (s.ow - 1) * s.step_x + (q->kernel_w - 1) * q->dilation_w + 1;
    const ptrdiff_t span = (q->kernel_h - 1) * q->dilation_h + 1;
    const ptrdiff_t fixed = channels * (span - s.step_y) * s.tile_columns * s.pitch * 4;
    const ptrdiff_t each = (channels * s.step_y * s.tile_columns + outputs * s.ow) * s.pitch * 4;
    s.band = MLP_MIN(s.oh, MLP_MAX(1, (TILE_BYTES - fixed) / each));
    s.bands = mlp_f32_ceil(s.oh, s.band), s.band = mlp_f32_ceil(s.oh, s.bands), s.bands = mlp_f32_ceil(s.oh, s.band);
    s.visit = MLP_MIN(s.band, MLP_MAX(1, VISIT_BYTES / (s.ow * s.pitch * 4)));
    s.x_plane = ((s.band - 1) * s.step_y + span) * s.tile_columns * s.pitch, s.dy_plane = s.band * s.ow * s.pitch;
    const ptrdiff_t x_floats = mlp_f32_ceil(channels * s.x_plane + 16, 16) * 16;
    const ptrdiff_t dy_floats = mlp_f32_ceil(outputs * s.dy_plane + 16, 16) * 16;
    if (x_floats > INT32_MAX)
        return MLP_UNSUPPORTED;

    const ptrdiff_t parts = q->groups * s.o_parts * s.c_parts;
    s.items = mlp_f32_ceil(q->batch, s.pitch) * s.bands;
    s.chunks = MLP_MIN(s.items, MLP_MAX(1, CHUNKS / parts));
    const ptrdiff_t tasks = parts * s.chunks, sums_of_one = mlp_f32_ceil(outputs * s.tap_blocks * dk, 16) * 16;
    const int threads = mlp_workers(tasks);
    int32_t *offset = mlp_f32_alloc((size_t)(s.tap_blocks * dk), sizeof *offset);
    float *tiles = mlp_f32_alloc((size_t)(threads * (x_floats + dy_floats)), sizeof *tiles);
    float *sums = mlp_f32_alloc((size_t)(tasks * sums_of_one), sizeof *sums);
    int status = offset && tiles && sums ? MLP_OK : MLP_NO_MEMORY;
    if (status == MLP_OK) {
        for (ptrdiff_t k = 0; k < s.tap_blocks * dk; k++) { /* what fills up the last block repeats the first tap */
            const ptrdiff_t t = k % s.taps;
            offset[k] = k >= channels * s.taps ? 0 : (int32_t)(k / s.taps * s.x_plane
                + (t / q->kernel_w * q->dilation_h * s.tile_columns + t % q->kernel_w * q->dilation_w) * s.pitch);
        }
        s.offset = offset;
        atomic_llong next = 0;
        MLP_PARALLEL_FOR(threads)
        for (int thread = 0; thread < threads; thread++) {
            float *x_tile = tiles + thread * (x_floats + dy_floats), *dy_tile = x_tile + x_floats;
            for (ptrdiff_t i; (i = atomic_fetch_add(&next, 1)) < tasks;) {
                const task t = find_task(&s, i);
                memset(sums + i * sums_of_one, 0, (size_t)sums_of_one * sizeof *sums);
                memset(dy_tile + t.outputs * s.dy_plane, 0, /* what fills up the last block */
                       (size_t)(dy_floats - t.outputs * s.dy_plane) * sizeof *dy_tile);
                for (ptrdiff_t item = t.first; item < t.last; item++)
                    add_band(&s, &t, item, x_tile, dy_tile, sums + i * sums_of_one);
            }
        }
        for (ptrdiff_t i = 0; i < tasks; i++)
            add_sums(&s, find_task(&s, i), sums + i * sums_of_one, dw);
    }
    free(offset);
    free(tiles);
    free(sums);
    return status;
}

int mlp_f32_conv2d_weight_grad(const mlp_f32_geometry *q, const float *dy, const float *x, float *dw)
{
    mlp_conv_fill_fn *copy = mlp_conv_tiles_in_force(0)->from_floats;
    return contract(q, (operand){.at = (const char *)dy, .element = sizeof *dy, .fill = copy},
                    (operand){.at = (const char *)x, .element = sizeof *x, .fill = copy}, dw);
}

static operand coded(const mlp_codes *q)
{
    const mlp_conv_tiles *tier = mlp_conv_tiles_in_force(0);
    return (operand){q->codes, q->width, q->width == 1 ? tier->from_bytes : tier->from_words,
                     {q->table + q->top, (int32_t)q->top}};
}

int mlp_coded_conv2d_weight_grad(const mlp_f32_geometry *q, const mlp_codes *dy, const mlp_codes *x, float *dw)
{
    return mlp_codes_ok(dy) && mlp_codes_ok(x) ? contract(q, coded(dy), coded(x), dw) : MLP_BAD_ARGUMENT;
}
