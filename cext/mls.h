/* Contractions of MLS codes: integer MACs inside a group, shifts and one add for two group scales, float32 adds between
 * groups in ascending order. Where no group scale varies along the sum, the whole sum is one group: a single integer.
 * Twins in minilp/kernels/reference_mls.py.
 *
 *   mls_scales.c   group maxima to scales
 *   mls_encode.c   real numbers to levels
 *   mls_lanes.h    the vector loops, one body for all tiers; instantiated by mls_tiers.c
 *   mls_rows.c     forward and input gradient: lanes are samples, a group is an input channel of the contraction
 *   mls_wgrad.c    weight gradient: a group is a sample, so lanes hold integer sums of 4 to 16 groups
 *
 * Codes become 16-bit integers once a tile, in pairs of neighbouring pixels (of neighbouring channels where all of them
 * are one group): one instruction then multiplies two taps and adds them up in 32 bits. Those multiplies are the
 * emulated part; the group scales are applied by mlp_mls_shift_*, which hold none. Significands arrive as bits:
 * 1 + bit/2, so a product of two is 4, 6 or 9 quarters.
 *
 * A sum that may leave 31 bits (`wide`) is made in segments that cannot, and added up in 64. */
#ifndef MINILP_MLS_H
#define MINILP_MLS_H
#include "minilp_core.h"
#include "pot_bins.h"

enum { MLP_MLS_TAPS = 3, MLP_MLS_FEATURES = 4, MLP_MLS_MOST_LANES = 16 };

typedef struct {
    int64_t lanes, bytes;   /* int32 lanes of a vector, its bytes */
    /* Codes of `pixels` pixels, `step` bytes apart, to 16-bit integers; the first `valid` lanes of each are filled. */
    void (*expand)(const int8_t *codes, ptrdiff_t step, int64_t pixels, int64_t valid, const int16_t *table,
                   int16_t *values);
    /* Vectors of pairs (pixel i, pixel i + distance), for i = 0, every, 2 every ... below `count`; what lies past the
     * `pixels` that there are is zero. */
    void (*pair)(const int16_t *values, int64_t pixels, int64_t count, int64_t every, int64_t distance, void *out);
    /* sums[r][i] = sum over p of tile[r * row_step + i * step + offset[p]] . weight[p]; steps in bytes. */
    void (*mac_rows)(const char *tile, const int64_t *offset, const int32_t *weight, int64_t pairs, int64_t rows,
                     int64_t row_step, int64_t columns, int64_t step, void *sums);
    /* sums[f * feature_step + t] = sum over rows and columns of error . act, for `features` (1 or 4) and `taps` (1 or
     * 3) neighbours; steps in bytes. */
    void (*mac_wgrad)(const char *error, int64_t error_feature, int64_t error_row, const char *act, int64_t act_row,
                      int64_t act_step, int64_t act_tap, int64_t rows, int64_t columns, int features, int taps,
                      int64_t feature_step, void *sums);
    /* products[i] = tile[i * step] . weight[i], step in bytes. */
    void (*mac_each)(const char *tile, int64_t step, const int32_t *weight, int64_t n, void *products);
    /* totals[i] += sums[i] for n vectors of sums; the sum of a whole vector for `reduce`. */
    void (*widen)(const void *sums, int64_t n, int64_t *totals);
    void (*reduce)(const void *sums, int64_t n, int64_t *totals);
    /* total[i] += float(sums[i] * s) * 2^-e for n vectors; s (as masks of the bits) and e a lane. */
    void (*shift_add)(const void *sums, int64_t n, const void *exponent, const void *both, const void *any,
                      void *total);
    /* The same of 64-bit sums, for any exponents up to 900. */
    void (*shift_wide)(const int64_t *sums, int64_t n, const int32_t *exponent, const int32_t *both, const int32_t *any,
                       float *total);
    /* n groups of one product each, added up in order: exponents and masks a group and lane, and a group. */
    void (*shift_chain)(const void *products, int64_t n, const void *exponent, const void *bit, const int32_t *more,
                        const int32_t *mask, void *total);
    /* One vector: its first `valid` lanes times the tensor scales, rounded once. */
    void (*store)(const void *total, int64_t valid, double scale, float *out);
} mlp_mls_lanes;

const mlp_mls_lanes *mlp_mls_for_tier(void);

#endif
