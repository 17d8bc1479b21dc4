/* Inside the float32 weight gradient: tiles, the inner loop of each instruction set; small helpers of all walks.
 *
 * Activations are stored (C, H, W, N). A tile is a copy of a few rows of all channels for a block of neighbouring
 * images ("lanes"), with the zero padding written out: [channel][row][column][lane]. Copying costs little beside the
 * products, and it removes two troubles at once: the borders, and the power-of-two distances between the planes of
 * real networks, which would map every channel to the same few cache sets. */
#ifndef MINILP_F32_CONV_H
#define MINILP_F32_CONV_H
#include <stdlib.h>
#include "f32_common.h"

/* Weight gradient. For the tier's `dot_outputs` channels m and `dot_taps` taps k:
 *     sum[k][m] += sum over rows, columns and lanes of dy[m * dy_plane + ...] * x[offset[k] + ...]. */
typedef void mlp_f32_dot_fn(const float *dy, ptrdiff_t dy_plane, ptrdiff_t dy_row, const float *x,
                            const int32_t *offset, ptrdiff_t x_row, ptrdiff_t x_step, ptrdiff_t rows,
                            ptrdiff_t columns, ptrdiff_t pitch, ptrdiff_t lanes, float *sum);

typedef struct {
    int dot_outputs, dot_taps;
    mlp_f32_dot_fn *dot;
} mlp_f32_tiles;

const mlp_f32_tiles *mlp_f32_tiles_in_force(void);

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
