/* MX contractions on records, with the bits of mx.h: one operand is spread over the lanes of vectors, the other is the
 * same for all lanes. A record is one block of the sum, the scale last.
 *
 *   dot    Integers of a byte, sums of a block below 2^22, by four products of bytes an instruction (VNNI).
 *          lanes: `length` vectors of 32-bit lanes, in each four neighbours along the sum as bytes, integer + bias;
 *          words: the first sum, `length` times four neighbours as signed bytes, the scale.
 *          The first sum is the bits of 1.5 2^23 less bias * (sum of the signed bytes). Why no bit changes is said in
 *          mls_dot.h: the sum of a block then is the float 1.5 2^23 + P, fma(that, s, -1.5 2^23 s) is P s, exact as s is
 *          a power of two, and fma(P s, s', total) rounds once, where the definition's float32 add does.
 *   wide   Integers that a float32 holds, sums of a block below 2^53, in double precision, so exact in any order.
 *          lanes: `length` vectors of float32 integers; words: `length` integers as doubles, the scale, nothing.
 *          P is rounded to float32 once, as the definition says; both products with a power of two are exact.
 *
 * What is padding has the scale 0: its term is a zero and changes no total, as none is -0.
 *
 *   mx_dot_records.c, mx_wide_records.c   codes to records
 *   mx_dot.c, mx_wide.c, mx_wide_lanes.h  the sums: totals of a few outputs over a list of terms
 *   mx_records.c                          what calls them: rows of images, and weight gradients */
#ifndef MINILP_MX_RECORDS_H
#define MINILP_MX_RECORDS_H
#include "mx.h"

enum { MLP_MX_MOST = 1024 };   /* elements of the longest block that records hold */

/* Where a term's records lie: bytes into the lanes, 32-bit words into the words. */
typedef struct {
    int64_t lanes, words;
} mlp_mx_place;

/* A list of terms for up to MLP_MX_FEATURES x MLP_MX_TAPS outputs. */
typedef struct {
    const char *lanes;
    const int32_t *words;
    int64_t step, feature;     /* between neighbours in bytes, between features in words */
    int64_t length, count;     /* of a record; of the list */
    const mlp_mx_place *at;
} mlp_mx_terms;

typedef struct {
    int64_t lanes;             /* of a vector of 32-bit numbers */
    int64_t word;              /* 32-bit words of one element, or four bytes, in words */
    /* total[f * steps + j] += the terms of feature f and neighbour j, each a vector; features are 1 or
     * MLP_MX_FEATURES, steps 1 ... MLP_MX_TAPS */
    void (*sum)(const mlp_mx_terms *t, int features, int steps, float *total);
    void (*put)(const float *total, double scale, int64_t valid, float *out, int past);   /* one vector, scaled */
} mlp_mx_kernel;

/* NULL where this tier has none. */
const mlp_mx_kernel *mlp_mx_dot_kernel(void);
const mlp_mx_kernel *mlp_mx_wide_kernel(void);

MLP_INLINE const mlp_mx_kernel *mlp_mx_records_kernel(int wide)
{
    return wide ? mlp_mx_wide_kernel() : mlp_mx_dot_kernel();
}

/* Bytes of a record of lanes, and 32-bit words of one of words. */
MLP_INLINE int64_t mlp_mx_lane_record(const mlp_mx_kernel *k, int64_t length) { return (length + 1) * k->lanes * 4; }
MLP_INLINE int64_t mlp_mx_word_record(const mlp_mx_kernel *k, int64_t length) { return length * k->word + 2; }

/* The row of the image under row y of the padded one, or -1. */
MLP_INLINE int64_t mlp_mx_image_row(const mlp_mx_records *g, int64_t y)
{
    y -= g->before[0];
    return y >= 0 && y < g->size[0] ? y : -1;
}

#endif
