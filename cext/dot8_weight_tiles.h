/* The int8 engine's weight gradient on tiles. Inside dot8_weight_tiles.c (the walk) and dot8_weight_amx.c (what it runs).
 */
#ifndef MINILP_DOT8_WEIGHT_TILES_H
#define MINILP_DOT8_WEIGHT_TILES_H
#include "dot8_products.h"

enum { MLP_DOT8_IMAGES = 64, MLP_DOT8_TILE = 1024 }; /* images of a row of a tile; bytes of a tile */
enum { MLP_DOT8_GROUP = 6 };                         /* tiles of sums that are in registers at once */

typedef struct {
    void (*on)(void);   /* before and after the rest, in each thread */
    void (*off)(void);
    /* A row of 64 images a channel. */
    mlp_dot8_pack_fn *rows;
    /* A tile for each block of 16 channels: [image / 4][channel][image % 4]. */
    mlp_dot8_pack_fn *turned;
    /* sum[i] += rows at x + offset[i], times turned tiles at dy, over blocks, rows and columns; distances in bytes. */
    void (*dots)(const int8_t *x, const ptrdiff_t x_step[3], const ptrdiff_t *offset, int count, const int8_t *dy,
                 const ptrdiff_t dy_step[3], const ptrdiff_t size[3], int32_t *sum);
    /* sum[i] += weight * from[i]; from[i] = 0. `count` is a multiple of 256. */
    void (*flush)(int32_t *from, int64_t weight, ptrdiff_t count, int64_t *sum);
} mlp_dot8_weight_tier;

const mlp_dot8_weight_tier *mlp_dot8_weight_amx(void);

/* dot8_weight_tiles.c: adds to call->out_int; no size is 0. */
int mlp_dot8_weight_tiles(const mlp_dot8 *call, const mlp_dot8_weight_tier *tier);

#endif
