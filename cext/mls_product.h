/* Emulated matrix products of MLS codes, out (m, n) = a (m, k) b (k, n): linear layers, whose rows are tokens.
 *
 * Where group scales vary along the sum every product is a group of its own, and the definition is a float32 sum of
 * terms float32(P m) 2^-e in ascending k. Here a number is its integer times its own group scale, which float32 holds;
 * |P m| <= 2^24 is demanded, so a product of two such numbers is the term, exactly. fma(a, b, sum) then rounds once,
 * where the one float32 add of the definition rounds.
 *
 * Where they do not, the sum is one integer: of bytes, four products an instruction, in 32 bits; or of floats, which
 * hold every partial sum below 2^24. Then come the two group scales, in double, and the one rounding of float32(P m),
 * which a power of two does not change: exponents sum up to at most 118, as for the convolutions (mls_dot.h).
 *
 *   mls_product.c         codes to bytes, bytes to panels, and the walk over tiles
 *   mls_product_lanes.h   the vector loops, one body for all tiers; instantiated by mls_product_tiers.c */
#ifndef MINILP_MLS_PRODUCT_H
#define MINILP_MLS_PRODUCT_H
#include "mls_dot.h"

enum { MLP_MLS_DEPTH = 256, MLP_MLS_MOST_ROWS = 16, MLP_MLS_MOST_COLUMNS = 32 };

/* A tile is (rows, columns). Its sums run over units of the depth: a float, or a quad of four bytes; a row of `a` has
 * MLP_MLS_DEPTH units, one of `b` has `columns`. */
typedef struct {
    int64_t rows, columns;
    void (*floats)(const float *a, const float *b, int64_t units, float *tile);
    void (*quads)(const int32_t *a, const int32_t *b, int64_t units, int32_t *tile);   /* a: unsigned. NULL: none */
    /* n biased bytes to numbers, times factor and scale[i] (or 1 if that is NULL) */
    void (*number)(const uint8_t *bytes, int bias, float factor, const float *scale, int64_t n, float *out);
    /* The first rows and columns of a tile to their place; whole sums (of either kind) get their two group scales. */
    void (*finish)(const float *tile, int64_t rows, int64_t columns, double scale, float *out, int64_t out_row);
    void (*finish_floats)(const float *tile, const float *row, const float *column, int64_t rows, int64_t columns,
                          double scale, float *out, int64_t out_row);
    void (*finish_quads)(const int32_t *tile, const float *row, const float *column, int64_t rows, int64_t columns,
                         double scale, float *out, int64_t out_row);
} mlp_mls_products;

const mlp_mls_products *mlp_mls_products_for_tier(void);   /* NULL: this tier has none */

#endif
