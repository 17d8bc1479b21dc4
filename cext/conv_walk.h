/* Forward and input gradient of convolutions whose numbers are float or double, in (C, H, W, N) storage: one walk for
 * float32, for small floats and for logarithmic codes, which differ in how a tile is filled and where results go.
 *
 * A tile is a copy of a few rows of a block of neighbouring images, with the zero padding written out and codes turned
 * into numbers: [part][row][column][channel][lane], where the lanes of a part fill one cache line. So every output
 * pixel reads a few straight runs of lines, whatever the distances between the planes of the real array. The rows are
 * those that one row of outputs reads; for the next one, the new ones take the places of the oldest. */
#ifndef MINILP_CONV_WALK_H
#define MINILP_CONV_WALK_H
#include "f32_conv.h"

enum { MLP_LINE = 64 }; /* bytes of one channel of one pixel of one part */

/* For every pixel of one row, `outputs` channels m and `lanes` images i:
 *     y[m][pixel][i] = sum over k of panel[k][m] * x[offset[k] + pixel * x_step][i],
 * the panel in blocks of the tier's `outputs` channels, the images in the parts of a tile. The sum is cut into chunks,
 * each of which is added up in order; chunk c ends before k = ends[c]. With scales, a result is
 * (double)sum * (row[m] * lane[i]), rounded to float. */
typedef struct {
    const void *x, *panel;
    const int32_t *offset, *ends;       /* all distances in numbers, not bytes */
    ptrdiff_t chunks, pixels, x_step;
    ptrdiff_t part, block;              /* from part to part of x, from block to block of the panel */
    float *y;
    ptrdiff_t y_plane, y_step;          /* from channel to channel, from pixel to pixel */
    const double *row, *lane;           /* NULL: no scales */
    ptrdiff_t outputs, lanes;
} mlp_conv_row;
typedef void mlp_conv_row_fn(const mlp_conv_row *row);

/* `count` pixels of `lanes` images, elements `step` apart, into a tile, as numbers; `from` has elements of any kind.
 * Pixels of the tile lie `pixel` bytes apart, parts `part` bytes; zeros fill up the last part. */
typedef void mlp_conv_fill_fn(const void *from, ptrdiff_t step, ptrdiff_t count, ptrdiff_t lanes, const void *how,
                              char *to, ptrdiff_t pixel, ptrdiff_t part);

/* What codes stand for: middle[code], -top <= code <= top. A code beyond reads as the nearest of these. */
typedef struct { const float *middle; int32_t top; } mlp_conv_table;

typedef struct {
    int size, outputs;                  /* bytes of a number; weights in a row of the panel */
    mlp_conv_row_fn *row;
    mlp_conv_fill_fn *from_floats, *from_levels; /* float32; levels of small floats, `how` their mantissa bits (int) */
    mlp_conv_fill_fn *from_bytes, *from_words;   /* int8, int16 codes; `how` an mlp_conv_table; floats only */
} mlp_conv_tiles;

const mlp_conv_tiles *mlp_conv_tiles_in_force(int doubles);

static inline int mlp_codes_ok(const mlp_codes *q)
{
    return (q->width == 1 || q->width == 2) && q->top >= 1 && q->top < INT16_MAX;
}

typedef struct {
    const mlp_conv_tiles *tier;
    mlp_conv_fill_fn *fill;
    const void *in, *how;
    int element;                        /* bytes of one element of `in` */
    const float *weight;                /* as numbers, (O, C / groups, KH, KW) */
    int chunk;                          /* products of a chunk, by ascending (channel, tap); 0: one sum in any order */
    const double *row_scale, *lane_scale;
    float *out;
} mlp_conv_job;

int mlp_conv_forward(const mlp_f32_geometry *q, const mlp_conv_job *job);
int mlp_conv_input_grad(const mlp_f32_geometry *q, const mlp_conv_job *job);

#endif
