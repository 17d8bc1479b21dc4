/* The int8 engine's forward loops on tiles (AMX). Included by dot8_tiles.c, behind the loops of the vnni tier.
 *
 *     for m < 16: for lane < 16: for j < 16: for b < 4: sum[m][lane] += w[m][4 j + b] * x[j][lane][b];
 *
 * is one tile product, of signed bytes into 32 bits, exact and without saturation. A step holds 16 words of neighbouring
 * channels and taps (fewer are filled up with weights of 0): the tile of activations has them as rows of 16 lanes, and
 * the other 16 lanes of an item lie half a plane behind; the tile of weights has an output a row. */
#include "dot8_amx_config.h"
#define TARGET_TILES MLP_AMX_ATTRIBUTE

enum { TILE_WORDS = 256, ROW = 64, SUM_ROW = MLP_DOT8_LANES * 4, HALF = MLP_DOT8_LANES / 2 };

typedef int32_t mlp_dot8_sums[MLP_DOT8_SUMS][16][MLP_DOT8_LANES];

#define TILES_OUT(a, b, c, d) \
    _tile_stored(0, a, SUM_ROW); \
    _tile_stored(1, b, SUM_ROW); \
    _tile_stored(2, c, SUM_ROW); \
    _tile_stored(3, d, SUM_ROW)

/* One tile of weights a step, the next `next` words on, times four of activations; their sums are in registers 0 to 3. */
MLP_INLINE TARGET_TILES void mlp_dot8_one_by_four(const int32_t *a, const int32_t *b, const int32_t *c,
                                                  const int32_t *d, const int32_t *offset, const int32_t *panel,
                                                  const ptrdiff_t next, ptrdiff_t count)
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (ptrdiff_t k = 0; k < count; k++, panel += next) {
        _tile_loadd(4, panel, 64);
        _tile_loadd(5, a + offset[k], ROW);
        _tile_dpbssd(0, 4, 5);
        _tile_loadd(6, b + offset[k], ROW);
        _tile_dpbssd(1, 4, 6);
        _tile_loadd(7, c + offset[k], ROW);
        _tile_dpbssd(2, 4, 7);
        _tile_loadd(5, d + offset[k], ROW);
        _tile_dpbssd(3, 4, 5);
    }
}

/* Two tiles of weights a step, low digits and high ones, times two of activations: low a, low b, high a, high b. */
MLP_INLINE TARGET_TILES void mlp_dot8_two_by_two(const int32_t *a, const int32_t *b, const int32_t *offset,
                                                 const int32_t *panel, ptrdiff_t count)
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (ptrdiff_t k = 0; k < count; k++, panel += 2 * TILE_WORDS) {
        _tile_loadd(4, panel, 64);
        _tile_loadd(6, a + offset[k], ROW);
        _tile_loadd(5, panel + TILE_WORDS, 64);
        _tile_loadd(7, b + offset[k], ROW);
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
    }
}

MLP_INLINE TARGET_TILES void mlp_dot8_put_tiles(mlp_dot8_sums sum, const int sums, const mlp_dot8_target *to,
                                                ptrdiff_t at)
{
    mlp_dot8_put_vnni(sum[0][0], sums, 16 * MLP_DOT8_LANES, MLP_DOT8_LANES, to, at, 0, to->lanes);
}

#define ARGUMENTS \
    const int32_t *x, ptrdiff_t x_plane, const int32_t *offset, const int32_t *panel, const int32_t *start, \
        ptrdiff_t count, ptrdiff_t pixels, ptrdiff_t x_step, ptrdiff_t y_step, mlp_dot8_target to

MLP_TARGET_AMX static void mlp_dot8_gather11_amx(ARGUMENTS)
{
    mlp_dot8_sums sum[2] __attribute__((aligned(64)));
    mlp_dot8_tiles_on();
    for (ptrdiff_t p = 0; p < pixels; p += 2) {
        const int32_t *a = x + p * x_step, *b = p + 1 < pixels ? a + x_step : a;
        mlp_dot8_one_by_four(a, a + x_plane / 2, b, b + x_plane / 2, offset, panel, TILE_WORDS, count);
        TILES_OUT(sum[0][0][0], sum[0][0][0] + HALF, sum[1][0][0], sum[1][0][0] + HALF);
        mlp_dot8_put_tiles(sum[0], 1, &to, p * y_step);
        if (p + 1 < pixels)
            mlp_dot8_put_tiles(sum[1], 1, &to, (p + 1) * y_step);
    }
    _tile_release();
    mlp_dot8_put_done();
}

MLP_TARGET_AMX static void mlp_dot8_gather21_amx(ARGUMENTS)
{
    mlp_dot8_sums sum __attribute__((aligned(64)));
    mlp_dot8_tiles_on();
    for (ptrdiff_t p = 0; p < pixels; p++, x += x_step) {
        mlp_dot8_one_by_four(x, x + x_plane / 2, x + x_plane, x + x_plane / 2 * 3, offset, panel, TILE_WORDS,
                             count);
        TILES_OUT(sum[0][0], sum[0][0] + HALF, sum[1][0], sum[1][0] + HALF);
        mlp_dot8_put_tiles(sum, 2, &to, p * y_step);
    }
    _tile_release();
    mlp_dot8_put_done();
}

MLP_TARGET_AMX static void mlp_dot8_gather12_amx(ARGUMENTS)
{
    mlp_dot8_sums sum __attribute__((aligned(64)));
    mlp_dot8_tiles_on();
    for (ptrdiff_t p = 0; p < pixels; p++, x += x_step) {
        mlp_dot8_two_by_two(x, x + x_plane / 2, offset, panel, count);
        TILES_OUT(sum[0][0], sum[0][0] + HALF, sum[1][0], sum[1][0] + HALF);
        mlp_dot8_put_tiles(sum, 2, &to, p * y_step);
    }
    _tile_release();
    mlp_dot8_put_done();
}

/* One plane of two pixels at a time: what their products read lies in the first-level cache together. */
MLP_TARGET_AMX static void mlp_dot8_gather22_amx(ARGUMENTS)
{
    mlp_dot8_sums sum[2] __attribute__((aligned(64)));
    mlp_dot8_tiles_on();
    for (ptrdiff_t p = 0; p < pixels; p += 2) {
        const int32_t *a = x + p * x_step, *b = p + 1 < pixels ? a + x_step : a;
        for (int i = 0; i < MLP_DOT8_PLANES; i++, a += x_plane, b += x_plane) {
            mlp_dot8_one_by_four(a, a + x_plane / 2, b, b + x_plane / 2, offset, panel + i * TILE_WORDS,
                                 MLP_DOT8_PLANES * TILE_WORDS, count);
            TILES_OUT(sum[0][i][0], sum[0][i][0] + HALF, sum[1][i][0], sum[1][i][0] + HALF);
        }
        mlp_dot8_put_tiles(sum[0], MLP_DOT8_SUMS, &to, p * y_step);
        if (p + 1 < pixels)
            mlp_dot8_put_tiles(sum[1], MLP_DOT8_SUMS, &to, (p + 1) * y_step);
    }
    _tile_release();
    mlp_dot8_put_done();
}
#undef ARGUMENTS
#undef TILES_OUT
