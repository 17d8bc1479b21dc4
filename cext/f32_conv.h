/* Inside the float32 convolutions: tiles, the inner loops of each instruction set, and small helpers.
 *
 * Activations are stored (C, H, W, N). A tile is a copy of a few rows of all channels for a block of neighbouring
 * images ("lanes"), with the zero padding written out: [channel][row][column][lane]. Copying costs little beside the
 * products, and it removes two troubles at once: the borders, and the power-of-two distances between the planes of
 * real networks, which would map every channel to the same few cache sets. */
#ifndef MINILP_F32_CONV_H
#define MINILP_F32_CONV_H
#include <stdlib.h>
#include "f32_common.h"

/* Images in one tile of the gathering kernels (forward and input gradient): two AVX-512 vectors. */
enum { MLP_F32_LANES = 32 };

/* Forward and input gradient. For every pixel of one row and `outputs` channels:
 *     y[m][pixel][lane] = sum over k, in order, of panel[k][m] * x[offset[k] + pixel * x_step + lane].
 * x: the tile, MLP_F32_LANES lanes a pixel; panel: `count` rows of the tier's `gather_outputs` weights; y: first
 * output, channels y_plane apart, pixels y_step apart, of whose lanes only the first `lanes` exist. */
typedef void mlp_f32_gather_fn(const float *x, const int32_t *offset, const float *panel, ptrdiff_t count,
                               ptrdiff_t pixels, ptrdiff_t x_step, float *y, ptrdiff_t y_plane, ptrdiff_t y_step,
                               int outputs, int lanes);

/* Weight gradient. For the tier's `dot_outputs` channels m and `dot_taps` taps k:
 *     sum[k][m] += sum over rows, columns and lanes of dy[m * dy_plane + ...] * x[offset[k] + ...]. */
typedef void mlp_f32_dot_fn(const float *dy, ptrdiff_t dy_plane, ptrdiff_t dy_row, const float *x,
                            const int32_t *offset, ptrdiff_t x_row, ptrdiff_t x_step, ptrdiff_t rows,
                            ptrdiff_t columns, ptrdiff_t pitch, ptrdiff_t lanes, float *sum);

/* `count` pixels of MLP_F32_LANES images each, `step` floats apart, into consecutive ones. */
typedef void mlp_f32_copy_fn(const float *from, ptrdiff_t step, ptrdiff_t count, float *to);

typedef struct {
    int gather_outputs, dot_outputs, dot_taps;
    mlp_f32_gather_fn *gather;
    mlp_f32_dot_fn *dot;
    mlp_f32_copy_fn *copy;
} mlp_f32_tiles;

const mlp_f32_tiles *mlp_f32_tiles_in_force(void);

/* What a tile is cut from, `channels` planes of a (C, H, W, N) array, and where: rows y0, y0 + y_step, ... and columns
 * x0, x0 + x_step, ..., which may lie outside, where zeros are written. */
typedef struct { const float *x; ptrdiff_t channels, h, w, n; } mlp_f32_picture;
typedef struct { ptrdiff_t y0, x0, y_step, x_step, rows, columns; } mlp_f32_cut;

/* Copy images n0 .. n0 + lanes - 1, followed by zeros up to `pitch`. Channels of the tile lie `plane` floats apart. */
void mlp_f32_pack(const mlp_f32_picture *from, const mlp_f32_cut *cut, ptrdiff_t n0, ptrdiff_t lanes, ptrdiff_t pitch,
                  ptrdiff_t plane, float *tile);

/* Cache-line aligned scratch of `count` elements of `size` bytes; NULL if there is no memory. Free with free(). */
static inline void *mlp_f32_alloc(size_t count, size_t size)
{
    size_t bytes = count * size;
    if (size && count > (SIZE_MAX - 128) / size)
        return NULL;
    return aligned_alloc(64, (bytes + 64) / 64 * 64);
}

/* Output positions of a convolution in one direction. */
static inline ptrdiff_t mlp_f32_positions(ptrdiff_t size, ptrdiff_t kernel, ptrdiff_t stride, ptrdiff_t padding,
                                          ptrdiff_t dilation)
{
    ptrdiff_t room = size + 2 * padding - dilation * (kernel - 1) - 1;
    return room < 0 ? 0 : room / stride + 1;
}

static inline ptrdiff_t mlp_f32_ceil(ptrdiff_t a, ptrdiff_t b) { return (a + b - 1) / b; }

#endif
