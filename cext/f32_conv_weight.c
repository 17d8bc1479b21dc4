/* Float32 weight gradient of a convolution in (C, H, W, N) storage: a dot product over every position and image.
 *
 * The order of the sum is fixed by the shape alone. The work (blocks of images times bands of rows) is cut into at
 * most 8 chunks; each chunk adds up its share into sums of its own, and the chunks' sums are added in order. Threads
 * take whole chunks, so their number cannot change a bit. */
#include <stdatomic.h>
#include <string.h>
#include "f32_conv.h"

enum { CHUNKS = 8 };
enum { TILE_BYTES = 1100 << 10 };     /* both tiles of a band: within a core's second-level cache */
enum { VISIT_BYTES = 8 << 10 };       /* one channel's gradient in one visit of the inner loop: first-level cache */

typedef struct {
    const mlp_f32_geometry *q;
    const mlp_f32_tiles *tier;
    const float *dy, *x;
    ptrdiff_t cg, og, oh, ow, count, out_blocks, tap_blocks; /* per group; count = cg * taps */
    ptrdiff_t pitch, lane_blocks, band, bands, visit;        /* lanes a pixel; rows of a band and of a visit */
    ptrdiff_t tile_rows, tile_columns, x_plane, dy_plane;
    const int32_t *offset;
} plan;

/* Add one band of one block of images to the sums [block of outputs][block of taps][tap][output]. */
static void add_band(const plan *s, ptrdiff_t group, ptrdiff_t item, float *x_tile, float *dy_tile, float *sums)
{
    const mlp_f32_geometry *q = s->q;
    const ptrdiff_t n0 = item / s->bands * s->pitch, y0 = item % s->bands * s->band;
    const ptrdiff_t lanes = MLP_MIN(s->pitch, q->batch - n0), rows = MLP_MIN(s->band, s->oh - y0);
    const int dm = s->tier->dot_outputs, dk = s->tier->dot_taps;
    mlp_f32_pack(s->x + group * s->cg * q->height * q->width * q->batch, q->height, q->width, q->batch, s->cg,
                 y0 * q->stride_h - q->padding_h, -q->padding_w,
                 (rows - 1) * q->stride_h + (q->kernel_h - 1) * q->dilation_h + 1, s->tile_columns, n0, lanes,
                 s->pitch, s->x_plane, x_tile);
    mlp_f32_pack(s->dy + group * s->og * s->oh * s->ow * q->batch, s->oh, s->ow, q->batch, s->og, y0, 0, rows, s->ow,
                 n0, lanes, s->pitch, s->dy_plane, dy_tile);
    for (ptrdiff_t r = 0; r < rows; r += s->visit)
        for (ptrdiff_t b = 0; b < s->out_blocks; b++)
            for (ptrdiff_t k = 0; k < s->tap_blocks; k++)
                s->tier->dot(dy_tile + b * dm * s->dy_plane + r * s->ow * s->pitch, s->dy_plane, s->ow * s->pitch,
                             x_tile + r * q->stride_h * s->tile_columns * s->pitch, s->offset + k * dk,
                             q->stride_h * s->tile_columns * s->pitch, q->stride_w * s->pitch,
                             MLP_MIN(s->visit, rows - r), s->ow, s->pitch, lanes,
                             sums + (b * s->tap_blocks + k) * dm * dk);
}

int mlp_f32_conv2d_weight_grad(const mlp_f32_geometry *q, const float *dy, const float *x, float *dw)
{
    const ptrdiff_t taps = q->kernel_h * q->kernel_w;
    plan s = {.q = q, .tier = mlp_f32_tiles_in_force(), .dy = dy, .x = x,
              .cg = q->channels / q->groups, .og = q->outputs / q->groups,
              .oh = mlp_f32_positions(q->height, q->kernel_h, q->stride_h, q->padding_h, q->dilation_h),
              .ow = mlp_f32_positions(q->width, q->kernel_w, q->stride_w, q->padding_w, q->dilation_w)};
    s.count = s.cg * taps;
    memset(dw, 0, (size_t)(q->outputs * s.count) * sizeof *dw);
    if (!q->batch || !s.oh || !s.ow || !q->outputs || !s.count)
        return MLP_OK;
    const int dm = s.tier->dot_outputs, dk = s.tier->dot_taps;
    s.out_blocks = mlp_f32_ceil(s.og, dm), s.tap_blocks = mlp_f32_ceil(s.count, dk);
    /* Small planes: more images a tile, so that a visit of the inner loop is long enough to pay for its end. */
    s.pitch = MLP_F32_LANES;
    while (s.pitch < 128 && s.pitch < q->batch && s.oh * s.ow * s.pitch * 4 < VISIT_BYTES)
        s.pitch *= 2;
    s.lane_blocks = mlp_f32_ceil(q->batch, s.pitch);
    s.tile_columns = (s.ow - 1) * q->stride_w + (q->kernel_w - 1) * q->dilation_w + 1;
    const ptrdiff_t span = (q->kernel_h - 1) * q->dilation_h + 1, padded_og = s.out_blocks * dm;
    const ptrdiff_t fixed = s.cg * (span - q->stride_h) * s.tile_columns * s.pitch * 4;
    const ptrdiff_t each = (s.cg * q->stride_h * s.tile_columns + padded_og * s.ow) * s.pitch * 4;
    s.band = MLP_MIN(s.oh, MLP_MAX(1, (TILE_BYTES - fixed) / each));
    s.bands = mlp_f32_ceil(s.oh, s.band), s.band = mlp_f32_ceil(s.oh, s.bands);
    s.visit = MLP_MIN(s.band, MLP_MAX(1, VISIT_BYTES / (s.ow * s.pitch * 4)));
    s.tile_rows = (s.band - 1) * q->stride_h + span;
    s.x_plane = s.tile_rows * s.tile_columns * s.pitch, s.dy_plane = s.band * s.ow * s.pitch;
    const ptrdiff_t x_floats = mlp_f32_ceil(s.cg * s.x_plane + 16, 16) * 16;
    const ptrdiff_t dy_floats = mlp_f32_ceil(padded_og * s.dy_plane + 16, 16) * 16;
    if (x_floats > INT32_MAX)
        return MLP_UNSUPPORTED;

    const ptrdiff_t items = s.lane_blocks * s.bands, chunks = MLP_MIN(items, CHUNKS), tasks = chunks * q->groups;
    const ptrdiff_t sums_of_one = mlp_f32_ceil(s.out_blocks * s.tap_blocks * dm * dk, 16) * 16;
    const int threads = mlp_workers(tasks);
    int32_t *offset = mlp_f32_alloc((size_t)(s.tap_blocks * dk), sizeof *offset);
    float *tiles = mlp_f32_alloc((size_t)(threads * (x_floats + dy_floats)), sizeof *tiles);
    float *sums = mlp_f32_alloc((size_t)(tasks * sums_of_one), sizeof *sums);
    int status = offset && tiles && sums ? MLP_OK : MLP_NO_MEMORY;
    if (status == MLP_OK) {
        for (ptrdiff_t k = 0; k < s.tap_blocks * dk; k++) /* taps that fill up the last block repeat the first one */
            offset[k] = k >= s.count ? 0 : (int32_t)(k / taps * s.x_plane
                + (k % taps / q->kernel_w * q->dilation_h * s.tile_columns + k % q->kernel_w * q->dilation_w) * s.pitch);
        s.offset = offset;
        atomic_long next = 0;
        MLP_PARALLEL_FOR(threads)
        for (int thread = 0; thread < threads; thread++) {
            float *x_tile = tiles + thread * (x_floats + dy_floats), *dy_tile = x_tile + x_floats;
            memset(dy_tile, 0, (size_t)dy_floats * sizeof *dy_tile); /* channels that fill up the last block are zero */
            for (ptrdiff_t task; (task = atomic_fetch_add(&next, 1)) < tasks;) {
                const ptrdiff_t group = task / chunks, chunk = task % chunks;
                memset(sums + task * sums_of_one, 0, (size_t)sums_of_one * sizeof *sums);
                for (ptrdiff_t item = chunk * items / chunks; item < (chunk + 1) * items / chunks; item++)
                    add_band(&s, group, item, x_tile, dy_tile, sums + task * sums_of_one);
            }
        }
        for (ptrdiff_t task = 0; task < tasks; task++)
            for (ptrdiff_t o = 0; o < s.og; o++)
                for (ptrdiff_t k = 0; k < s.count; k++)
                    dw[(task / chunks * s.og + o) * s.count + k] +=
                        sums[task * sums_of_one + ((o / dm * s.tap_blocks + k / dk) * dk + k % dk) * dm + o % dm];
    }
    free(offset);
    free(tiles);
    free(sums);
    return status;
}
