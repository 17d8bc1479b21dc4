/* The inner loops of the convolutions for each instruction set and each kind of number. */
#include "conv_walk.h"
#include "minifloat.h"
#define LOOPS "conv_tile.h"
#include "real_vectors.h"

const mlp_conv_tiles *mlp_conv_tiles_in_force(int doubles)
{
    return MLP_FOR_TIER(doubles ? &portable_double_tiles : &portable_float_tiles,
                        doubles ? &avx2_double_tiles : &avx2_float_tiles,
                        doubles ? &avx512_double_tiles : &avx512_float_tiles);
}
