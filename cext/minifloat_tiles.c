/* The inner loop of the weight gradient of small floats for each instruction set, and the copy that feeds them. */
#include "minifloat.h"
#define LOOPS "minifloat_tile.h"
#include "real_vectors.h"

const mlp_minifloat_tiles *mlp_minifloat_tiles_in_force(int exact)
{
    return MLP_FOR_TIER(exact ? &portable_double_tiles : &portable_float_tiles,
                        exact ? &avx2_double_tiles : &avx2_float_tiles,
                        exact ? &avx512_double_tiles : &avx512_float_tiles);
}

void mlp_minifloat_pack(const mlp_minifloat_tiles *tier, const mlp_minifloat_picture *from,
                        const mlp_minifloat_cut *cut, ptrdiff_t n0, ptrdiff_t lanes, ptrdiff_t plane, char *tile)
{
    const ptrdiff_t pixel = MLP_MINIFLOAT_BYTES, row = cut->columns * pixel;
    ptrdiff_t low, high;
    mlp_minifloat_inside(cut->x0, cut->x_step, cut->columns, from->w, &low, &high);
    for (ptrdiff_t c = 0; c < from->channels; c++)
        for (ptrdiff_t r = 0; r < cut->rows; r++) {
            char *to = tile + c * plane * tier->size + r * row;
            const ptrdiff_t y = cut->y0 + r * cut->y_step;
            if (y < 0 || y >= from->h || high <= low) {
                memset(to, 0, (size_t)row);
                continue;
            }
            memset(to, 0, (size_t)(low * pixel));
            tier->decode(from->codes + ((c * from->h + y) * from->w + cut->x0 + low * cut->x_step) * from->n + n0,
                         cut->x_step * from->n, high - low, lanes, from->man, to + low * pixel);
            memset(to + high * pixel, 0, (size_t)((cut->columns - high) * pixel));
        }
}
