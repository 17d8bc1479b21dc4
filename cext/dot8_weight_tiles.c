/* The int8 engine's weight gradient, the walk for tiers with tiles:
 *
 *     for each output pixel, for each image: sum[output][channel][tap] += dy[output][pixel] * x[channel][pixel + tap];
 *
 * A tile product sums over 64 images at one pixel, 16 outputs by 16 rows of x (dot8_weight_amx.c). A piece of the picture
 * is decoded once, every plane of digits: x as [row][column][channel][image], so that the channels of neighbouring taps
 * are neighbouring rows and any 16 of them make a tile; dy turned, as [row][column][output / 16][a tile]. Each tile of dy
 * meets the tiles of x of every tap.
 *
 * Sums run in int32 while they have at most MLP_DOT8_TERMS terms, then are added to int64 sums: nothing can overflow, and
 * no order matters. */
#include <stdatomic.h>
#include "dot8_weight_tiles.h"

enum { CHANNELS = 64 };           /* of x and of dy in one part of the output */
enum { CHUNKS = 8 };              /* of one part, if there is only one and several threads: enough for all of them */
enum { PIECE_BYTES = 800 << 10 }; /* of the planes of a piece: within a core's second-level cache */
enum { PIECE_PIXELS = 64 };       /* of small pictures so many images are taken together */
enum { VISIT = MLP_DOT8_TERMS / MLP_DOT8_IMAGES };

typedef struct {
    const mlp_dot8 *call;
    const mlp_f32_geometry *q;
    const mlp_dot8_weight_tier *tier;
    mlp_dot8_products products;
    ptrdiff_t cg, og, oh, ow, taps;                   /* channels of one group */
    ptrdiff_t c_parts, o_parts, channels, outputs, o_blocks; /* of one part */
    ptrdiff_t chunks, blocks, rows, columns;          /* of a piece: blocks of images, output pixels */
    ptrdiff_t n_pieces, y_pieces, x_pieces;
    ptrdiff_t skip_y, skip_x, step_y, step_x;         /* from piece row to row of x; from output to output in a piece */
    ptrdiff_t x_rows, x_columns, planes_x, planes_dy;
    ptrdiff_t x_step[3], dy_step[3], x_plane, dy_plane; /* bytes from block, row, pixel and plane to the next */
    ptrdiff_t tiles;                                  /* of x, so that every channel of every tap is a row of one */
    ptrdiff_t *offset, *place;                        /* of a tile; where a row of it goes in dw, or -1 */
} plan;

typedef struct { ptrdiff_t group, o0, c0, outputs, channels; } part;
typedef struct { int8_t *x, *dy; int32_t *sum; int64_t *total; mlp_dot8_largest largest[2]; } scratch;

/* Bytes of a piece of `rows` x `columns` output pixels for one block of images. */
static ptrdiff_t piece_bytes(const plan *s, ptrdiff_t rows, ptrdiff_t columns)
{
    const ptrdiff_t high = (rows - 1) * s->step_y + (s->q->kernel_h - 1) * s->q->dilation_h + 1;
    const ptrdiff_t wide = (columns - 1) * s->step_x + (s->q->kernel_w - 1) * s->q->dilation_w + 1;
    return high * wide * s->channels * MLP_DOT8_IMAGES * s->planes_x
           + rows * columns * s->o_blocks * MLP_DOT8_TILE * s->planes_dy;
}

/* The length of a part of `size`, if no part is longer than `most` and all are about alike. */
static ptrdiff_t even(ptrdiff_t size, ptrdiff_t most) { return mlp_f32_ceil(size, mlp_f32_ceil(size, most)); }

static void make_plan(plan *s)
{
    const mlp_f32_geometry *q = s->q;
    s->c_parts = mlp_f32_ceil(s->cg, CHANNELS), s->o_parts = mlp_f32_ceil(s->og, CHANNELS);
    s->channels = mlp_f32_ceil(s->cg, s->c_parts), s->outputs = MLP_MIN(s->og, CHANNELS);
    s->o_blocks = mlp_f32_ceil(s->outputs, 16);
    s->planes_dy = s->products.planes_a, s->planes_x = s->products.planes_b;
    s->skip_y = q->kernel_h == 1 ? q->stride_h : 1, s->skip_x = q->kernel_w == 1 ? q->stride_w : 1;
    s->step_y = q->stride_h / s->skip_y, s->step_x = q->stride_w / s->skip_x;
    s->columns = MLP_MIN(s->ow, VISIT);
    while (s->columns > 1 && piece_bytes(s, MLP_MIN(s->oh, 4), s->columns) > PIECE_BYTES)
        s->columns = (s->columns + 1) / 2;
    s->columns = even(s->ow, s->columns);
    s->rows = MLP_MIN(s->oh, MLP_MAX(1, VISIT / s->columns));
    while (s->rows > 1 && piece_bytes(s, s->rows, s->columns) > PIECE_BYTES)
        s->rows--;
    s->rows = even(s->oh, s->rows);
    const ptrdiff_t all = mlp_f32_ceil(q->batch, MLP_DOT8_IMAGES), one = piece_bytes(s, s->rows, s->columns);
    s->blocks = MLP_MAX(1, MLP_MIN(MLP_MIN(all, PIECE_PIXELS / (s->rows * s->columns)), PIECE_BYTES / one));
    s->n_pieces = mlp_f32_ceil(all, s->blocks), s->y_pieces = mlp_f32_ceil(s->oh, s->rows);
    s->x_pieces = mlp_f32_ceil(s->ow, s->columns);
    s->x_rows = (s->rows - 1) * s->step_y + (q->kernel_h - 1) * q->dilation_h + 1;
    s->x_columns = (s->columns - 1) * s->step_x + (q->kernel_w - 1) * q->dilation_w + 1;
    const ptrdiff_t pixel = s->channels * MLP_DOT8_IMAGES, tiles = s->o_blocks * MLP_DOT8_TILE;
    s->x_step[2] = s->step_x * pixel, s->x_step[1] = s->step_y * s->x_columns * pixel;
    s->x_step[0] = s->x_rows * s->x_columns * pixel;
    s->dy_step[2] = tiles, s->dy_step[1] = s->columns * tiles, s->dy_step[0] = s->rows * s->columns * tiles;
    s->x_plane = s->blocks * s->x_step[0] + MLP_DOT8_TILE, s->dy_plane = s->blocks * s->dy_step[0];
}

/* Cover the rows that taps need, those of each row of the kernel by themselves, with tiles of 16. Tiles that meet the
 * same memory at neighbouring pixels come one after the other, so that it is in the first-level cache. */
static int find_tiles(plan *s)
{
    const mlp_f32_geometry *q = s->q;
    const ptrdiff_t most = s->taps * (s->channels / 16 + 1), period = s->step_x * s->channels;
    s->offset = mlp_f32_alloc((size_t)most, sizeof *s->offset);
    s->place = mlp_f32_alloc((size_t)(16 * most), sizeof *s->place);
    ptrdiff_t *start = mlp_f32_alloc((size_t)most, sizeof *start);
    if (!s->offset || !s->place || !start) {
        free(start);
        return MLP_NO_MEMORY;
    }
    ptrdiff_t many = 0;
    for (ptrdiff_t k = 0; k < q->kernel_w * s->channels; k++) {
        const ptrdiff_t row = k / s->channels * q->dilation_w * s->channels + k % s->channels;
        if (!many || row >= start[many - 1] + 16)
            start[many++] = row;
    }
    for (ptrdiff_t i = 1; i < many; i++) /* sorted by where they lie within a pixel's step */
        for (ptrdiff_t j = i; j > 0 && start[j - 1] % period > start[j] % period; j--) {
            const ptrdiff_t other = start[j];
            start[j] = start[j - 1], start[j - 1] = other;
        }
    for (ptrdiff_t i = 0, next; i < many; i = next) {
        for (next = i; next < many && start[next] % period == start[i] % period;)
            next++;
        for (ptrdiff_t ky = 0; ky < q->kernel_h; ky++)
            for (ptrdiff_t j = i; j < next; j++, s->tiles++) {
                s->offset[s->tiles] = (ky * q->dilation_h * s->x_columns * s->channels + start[j]) * MLP_DOT8_IMAGES;
                for (ptrdiff_t r = start[j]; r < start[j] + 16; r++) {
                    const ptrdiff_t at = r / s->channels, kx = at / q->dilation_w;
                    s->place[16 * s->tiles + r - start[j]] = at % q->dilation_w || kx >= q->kernel_w
                        ? -1 : r % s->channels * s->taps + ky * q->kernel_w + kx;
                }
            }
    }
    free(start);
    return MLP_OK;
}

typedef struct { const int8_t *from; ptrdiff_t channels, h, w; } picture; /* planes of a (C, H, W, N) array */
typedef struct { ptrdiff_t y0, x0, y_step, x_step, rows, columns; } cut;  /* may lie outside: zeros */

/* One block of images of one operand, from n0 on; `p` has what remains the same. */
static void pack(const plan *s, mlp_dot8_pack p, mlp_dot8_pack_fn *run, const picture *in, const cut *c,
                 ptrdiff_t n0)
{
    ptrdiff_t low, high;
    const ptrdiff_t batch = s->q->batch, row = c->columns * p.to_pixel;
    mlp_dot8_inside(c->x0, c->x_step, c->columns, in->w, &low, &high);
    p.channel = in->h * in->w * batch, p.channels = in->channels;
    p.pixel = c->x_step * batch, p.count = high - low, p.lanes = batch - n0;
    int8_t *to = p.to;
    for (ptrdiff_t r = 0; r < c->rows; r++, to += row) {
        const ptrdiff_t y = c->y0 + r * c->y_step;
        const int there = y >= 0 && y < in->h && high > low;
        for (int plane = 0; plane < p.planes; plane++) {
            int8_t *at = to + plane * p.to_plane;
            memset(at, 0, (size_t)((there ? low : c->columns) * p.to_pixel));
            if (there)
                memset(at + high * p.to_pixel, 0, (size_t)((c->columns - high) * p.to_pixel));
        }
        if (!there)
            continue;
        p.from = in->from + (y * in->w + c->x0 + low * c->x_step) * batch + n0, p.to = to + low * p.to_pixel;
        run(&p);
    }
}

static void add_piece(const plan *s, const part *t, ptrdiff_t piece, ptrdiff_t *terms, scratch *to)
{
    const mlp_f32_geometry *q = s->q;
    const mlp_dot8 *call = s->call;
    const ptrdiff_t x0 = piece % s->x_pieces * s->columns, y0 = piece / s->x_pieces % s->y_pieces * s->rows;
    const ptrdiff_t n0 = piece / s->x_pieces / s->y_pieces * s->blocks * MLP_DOT8_IMAGES;
    const ptrdiff_t blocks = MLP_MIN(s->blocks, mlp_f32_ceil(q->batch - n0, MLP_DOT8_IMAGES));
    const ptrdiff_t size[3] = {blocks, MLP_MIN(s->rows, s->oh - y0), MLP_MIN(s->columns, s->ow - x0)};
    const picture x = {call->b + (t->group * s->cg + t->c0) * q->height * q->width * q->batch, t->channels, q->height,
                       q->width};
    const picture dy = {call->a + (t->group * s->og + t->o0) * s->oh * s->ow * q->batch, t->outputs, s->oh, s->ow};
    const cut x_cut = {y0 * q->stride_h - q->padding_h, x0 * q->stride_w - q->padding_w, s->skip_y, s->skip_x,
                       s->x_rows - (s->rows - size[1]) * s->step_y, s->x_columns};
    const cut dy_cut = {y0, x0, 1, 1, size[1], s->columns};
    for (ptrdiff_t b = 0; b < blocks; b++) {
        const ptrdiff_t image = n0 + b * MLP_DOT8_IMAGES;
        pack(s, (mlp_dot8_pack){.digits = call->digits_b ? s->products.digits_b : NULL, .planes = (int)s->planes_x,
                                .to = to->x + b * s->x_step[0], .to_pixel = s->channels * MLP_DOT8_IMAGES,
                                .to_plane = s->x_plane, .largest = &to->largest[1]},
             s->tier->rows, &x, &x_cut, image);
        pack(s, (mlp_dot8_pack){.digits = call->digits_a ? s->products.digits_a : NULL, .planes = (int)s->planes_dy,
                                .to = to->dy + b * s->dy_step[0], .to_pixel = s->dy_step[2], .to_plane = s->dy_plane,
                                .largest = &to->largest[0]},
             s->tier->turned, &dy, &dy_cut, image);
    }
    const ptrdiff_t each = s->tiles * (MLP_DOT8_TILE / 4), all = s->o_blocks * each;
    if ((*terms += size[0] * size[1] * size[2]) > VISIT) {
        for (int i = 0; i < s->products.many; i++)
            s->tier->flush(to->sum + i * all, s->products.product[i].weight, all, to->total);
        *terms = size[0] * size[1] * size[2];
    }
    for (int i = 0; i < s->products.many; i++) {
        const int8_t *act = to->x + s->products.product[i].b * s->x_plane;
        const int8_t *grad = to->dy + s->products.product[i].a * s->dy_plane;
        for (ptrdiff_t o = 0; o < mlp_f32_ceil(t->outputs, 16); o++)
            for (ptrdiff_t k = 0; k < s->tiles; k += MLP_DOT8_GROUP)
                s->tier->dots(act, s->x_step, s->offset + k, (int)MLP_MIN(MLP_DOT8_GROUP, s->tiles - k),
                              grad + o * MLP_DOT8_TILE, s->dy_step, size,
                              to->sum + i * all + o * each + k * (MLP_DOT8_TILE / 4));
    }
}

/* The sums of one chunk of a part into dw; integers, so no order matters. */
static void add_part(const plan *s, const part *t, const int64_t *total)
{
    for (ptrdiff_t o = 0; o < t->outputs; o++) {
        int64_t *dw = s->call->out_int + ((t->group * s->og + t->o0 + o) * s->cg + t->c0) * s->taps;
        for (ptrdiff_t k = 0; k < 16 * s->tiles; k++)
            if (s->place[k] >= 0 && s->place[k] < t->channels * s->taps)
                dw[s->place[k]] += total[(o / 16 * s->tiles * 16 + k) * 16 + o % 16];
    }
}

static void run_task(const plan *s, ptrdiff_t number, scratch *to)
{
    const ptrdiff_t chunk = number % s->chunks, at = number / s->chunks, c0 = at % s->c_parts * s->channels;
    const ptrdiff_t o0 = at / s->c_parts % s->o_parts * CHANNELS, pieces = s->n_pieces * s->y_pieces * s->x_pieces;
    const part t = {at / s->c_parts / s->o_parts, o0, c0, MLP_MIN(CHANNELS, s->og - o0),
                    MLP_MIN(s->channels, s->cg - c0)};
    const ptrdiff_t all = s->o_blocks * s->tiles * (MLP_DOT8_TILE / 4);
    ptrdiff_t terms = 0;
    if (t.channels <= 0)
        return;
    memset(to->sum, 0, (size_t)(s->products.many * all) * sizeof *to->sum);
    memset(to->total, 0, (size_t)all * sizeof *to->total);
    for (ptrdiff_t piece = chunk * pieces / s->chunks; piece < (chunk + 1) * pieces / s->chunks; piece++)
        add_piece(s, &t, piece, &terms, to);
    for (int i = 0; i < s->products.many; i++)
        s->tier->flush(to->sum + i * all, s->products.product[i].weight, all, to->total);
    MLP_PRAGMA(omp critical(mlp_dot8_weight_grad))
    add_part(s, &t, to->total);
}

static int run(plan *s)
{
    const ptrdiff_t parts = s->q->groups * s->o_parts * s->c_parts, pieces = s->n_pieces * s->y_pieces * s->x_pieces;
    s->chunks = MLP_MIN(pieces, mlp_f32_ceil(mlp_threads() == 1 ? 1 : CHUNKS, parts));
    const ptrdiff_t tasks = parts * s->chunks, all = s->o_blocks * s->tiles * (MLP_DOT8_TILE / 4);
    const int threads = mlp_workers(tasks);
    const ptrdiff_t room[4] = {s->planes_x * s->x_plane, s->planes_dy * s->dy_plane,
                               s->products.many * all * (ptrdiff_t)sizeof(int32_t), all * (ptrdiff_t)sizeof(int64_t)};
    const ptrdiff_t each = room[0] + room[1] + room[2] + room[3];
    int8_t *memory = mlp_f32_alloc((size_t)threads * (size_t)each, 1);
    if (!memory)
        return MLP_NO_MEMORY;
    atomic_llong next = 0;
    atomic_int out_of_range = 0;
    MLP_PARALLEL_FOR(threads)
    for (int thread = 0; thread < threads; thread++) {
        int8_t *x = memory + thread * each, *dy = x + room[0];
        scratch mine = {x, dy, (int32_t *)(dy + room[1]), (int64_t *)(dy + room[1] + room[2]), {{{0}}}};
        s->tier->on();
        for (ptrdiff_t i; (i = atomic_fetch_add(&next, 1)) < tasks;)
            run_task(s, i, &mine);
        s->tier->off();
        if (!mlp_dot8_within(&mine.largest[0], s->call->top_a)
            || !mlp_dot8_within(&mine.largest[1], s->call->top_b))
            atomic_store(&out_of_range, 1);
    }
    free(memory);
    return out_of_range ? MLP_BAD_CODE : MLP_OK;
}

int mlp_dot8_weight_tiles(const mlp_dot8 *call, const mlp_dot8_weight_tier *tier)
{
    const mlp_f32_geometry *q = &call->size;
    plan s = {.call = call, .q = q, .tier = tier, .taps = q->kernel_h * q->kernel_w, .cg = q->channels / q->groups,
              .og = q->outputs / q->groups,
              .oh = mlp_f32_positions(q->height, q->kernel_h, q->stride_h, q->padding_h, q->dilation_h),
              .ow = mlp_f32_positions(q->width, q->kernel_w, q->stride_w, q->padding_w, q->dilation_w)};
    if (!mlp_dot8_find_products(call, &s.products))
        return MLP_BAD_ARGUMENT;
    make_plan(&s);
    int status = find_tiles(&s);
    if (status == MLP_OK)
        status = run(&s);
    free(s.offset);
    free(s.place);
    return status;
}
