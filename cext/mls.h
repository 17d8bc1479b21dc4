/* Contractions of MLS codes: integer MACs inside a group, shifts and one add for two group scales, float32 adds between
 * groups in ascending order. Twins in minilp/kernels/reference_mls.py.
 *
 *   mls_encode.c   real numbers to levels
 *   mls_lanes.h    the vector loops, one body for all tiers; instantiated by mls_tiers.c
 *   mls_rows.c     forward and input gradient: lanes are samples, a group is an input channel of the contraction
 *   mls_wgrad.c    weight gradient: a group is a sample, so lanes hold integer sums of 4 to 16 groups
 *
 * Codes become 16-bit integers once a tile, in pairs of neighbouring pixels: one instruction then multiplies two taps
 * and adds them up in 32 bits. Those multiplies are the emulated part; the group scales are applied by mlp_mls_shift_*,
 * which hold none. Significands arrive as bits: 1 + bit/2, so a product of two is 4, 6 or 9 quarters. */
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
    /* Vectors of pairs (pixel i, pixel i + distance), for i = 0, every, 2 every ... below `pixels`. */
    void (*pair)(const int16_t *values, int64_t pixels, int64_t every, int64_t distance, void *out);
    /* sums[r][i] = sum over p of tile[r * row_step + i * step + offset[p]] . weight[p]; steps in bytes. */
    void (*mac_rows)(const char *tile, const int64_t *offset, const int32_t *weight, int64_t pairs, int64_t rows,
                     int64_t row_step, int64_t columns, int64_t step, void *sums);
    /* sums[f * feature_step + t] = sum over rows and columns of error . act, for `features` (1 or 4) and `taps` (1 or
     * 3) neighbours; steps in bytes. */
    void (*mac_wgrad)(const char *error, int64_t error_feature, int64_t error_row, const char *act, int64_t act_row,
                      int64_t act_step, int64_t act_tap, int64_t rows, int64_t columns, int features, int taps,
                      int64_t feature_step, void *sums);
    /* total[i] += float(sums[i] * s) * 2^-e for n vectors; s and e a lane: e shifted left by 23, masks of the bits. */
    void (*shift_add)(const void *sums, int64_t n, const void *exponent, const void *both, const void *any,
                      void *total);
    /* One vector: its first `valid` lanes times the tensor scales, rounded once. */
    void (*store)(const void *total, int64_t valid, double scale, float *out);
} mlp_mls_lanes;

const mlp_mls_lanes *mlp_mls_for_tier(void);

#endif
