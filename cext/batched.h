/* Batches of small matrix products (attention): what the drivers and the inner loops of each tier share. */
#ifndef MINILP_BATCHED_H
#define MINILP_BATCHED_H
#include "f32_common.h"

#define MLP_BATCHED_ROWS 4     /* rows of a tile that share a pass over the columns */
#define MLP_BATCHED_COLUMNS 16 /* columns of a tile; the packed second operand is filled up to whole tiles */

/* One number of a row that is not zero: where its row of the second operand begins, and by how much to shift it. */
typedef struct { int64_t offset, shift; } mlp_batched_power;

/* a is (rows, depth), rows a multiple of MLP_BATCHED_ROWS; b is (column tiles, depth, MLP_BATCHED_COLUMNS); out is
 * (rows, columns). `run`: the sums of so many products are finished one by one, then added. */
typedef struct {
    void (*exact)(const double *a, const double *b, int64_t rows, int64_t columns, int64_t depth, double *out);
    void (*runs)(const float *a, const float *b, int64_t rows, int64_t columns, int64_t depth, int64_t run, float *out);
    void (*shift)(const mlp_batched_power *positive, int64_t positives, const mlp_batched_power *negative,
                  int64_t negatives, const int64_t *b, int64_t *out);
} mlp_batched_tier;
extern const mlp_batched_tier mlp_batched_portable, mlp_batched_avx2, mlp_batched_avx512;

#endif
