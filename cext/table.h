/* Inside the table kernel: contractions of small integers, |t| <= 127, for every format whose codes stand for such.
 *
 * The products are made in pairs: two 16-bit numbers of one operand times two of the other, added into one 32-bit lane
 * (pmaddwd). Forward and for the input gradient, a pair is two neighbouring channels of one image; for the weight
 * gradient, two neighbouring images. Tiles are cut as in f32_conv.h. These kernels multiply: they give the integers of
 * a narrow format fast, and claim nothing about multiplier-free hardware. */
#ifndef MINILP_TABLE_H
#define MINILP_TABLE_H
#include "f32_conv.h"

/* 127^2 this many times is below 2^31: no sum of so many products leaves int32, in any order. */
enum { MLP_TABLE_TERMS = 133144 };
enum { MLP_TABLE_LANES = 32 };

/* Where one pixel of up to `outputs` channels goes; floats take (double)sum * (row[m] * lane[i]), rounded to float. */
typedef struct {
    float *floats;      /* NULL: `ints` takes the sums */
    int32_t *ints;
    ptrdiff_t plane;    /* from channel to channel */
    const double *row, *lane;
    int outputs, lanes;
} mlp_table_target;

/* For every pixel of one row: sums over k of the pairs panel[k][m] * x[offset[k] + pixel * x_step + lane]. */
typedef void mlp_table_gather_fn(const int32_t *x, const int32_t *offset, const int32_t *panel, ptrdiff_t count,
                                 ptrdiff_t pixels, ptrdiff_t x_step, ptrdiff_t y_step, mlp_table_target to);

/* sum[k][m] += sum over rows, columns and lanes of dy[m * dy_plane + ...] * x[offset[k] + ...]; at most
 * MLP_TABLE_TERMS products each. */
typedef void mlp_table_dot_fn(const int16_t *dy, ptrdiff_t dy_plane, ptrdiff_t dy_row, const int16_t *x,
                              const int32_t *offset, ptrdiff_t x_row, ptrdiff_t x_step, ptrdiff_t rows,
                              ptrdiff_t columns, ptrdiff_t pitch, int64_t *sum);

/* `lanes` images of `count` pixels, `step` apart, as pairs of two channels (`odd` NULL: zeros) or as 16-bit numbers;
 * zeros fill up to the pitch. */
typedef void mlp_table_pair_fn(const int8_t *even, const int8_t *odd, ptrdiff_t step, ptrdiff_t count, ptrdiff_t lanes,
                               int32_t *to);
typedef void mlp_table_widen_fn(const int8_t *from, ptrdiff_t step, ptrdiff_t count, ptrdiff_t lanes, ptrdiff_t pitch,
                                int16_t *to);

typedef struct {
    int gather_outputs, dot_outputs, dot_taps;
    mlp_table_gather_fn *gather;
    mlp_table_dot_fn *dot;
    mlp_table_pair_fn *pair;
    mlp_table_widen_fn *widen;
} mlp_table_tiles;

const mlp_table_tiles *mlp_table_tiles_in_force(void);

/* One direction of a cut that may lie outside the picture: which of its positions, low to high - 1, lie inside. */
static inline void mlp_table_inside(ptrdiff_t start, ptrdiff_t step, ptrdiff_t count, ptrdiff_t size, ptrdiff_t *low,
                                    ptrdiff_t *high)
{
    *low = start >= 0 ? 0 : MLP_MIN(count, mlp_f32_ceil(-start, step));
    *high = MLP_MAX(*low, MLP_MIN(count, size <= start ? 0 : mlp_f32_ceil(size - start, step)));
}

#endif
