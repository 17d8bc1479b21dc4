/* Logarithmic numbers, contracted as integers: an exponent add, a sign XOR, one integer accumulator per remainder.
 *
 * A code c is 0 for zero, else sign(c) * 2^(e / gamma) with e = |c| - 1. A product has the exponent sum p = q gamma + r;
 * it adds sign * 2^q to bin r. Only the finished bins meet the constants 2^(r / gamma).
 *
 *   lns_bins_mac.c     the loop as one reads it, on rows: bins, one count per exponent sum, the narrow accumulator
 *   lns_bins_list.c    sorts one operand by exponent
 *   lns_bins_lanes.h   the vector loops, one body for all tiers; instantiated by lns_bins_tiers.c
 *   lns_bins_planes.c  the fast contraction
 *
 * The fast contraction splits the operand in the lanes into gamma planes, one per remainder: plane s holds sign * 2^q
 * where the remainder is s, else 0. Against a term of the sorted operand with remainder f, plane s adds to bin
 * (s + f) mod gamma: gamma vector adds, and nothing is routed lane by lane. AVX-512 keeps the signed powers and the
 * remainders themselves, and adds under the mask of the remainders that are s: the same sums, a quarter of the memory.
 * The list runs from the largest exponent down. One step down moves the binary point of one bin alone, so one bin is
 * added to itself (Horner in 2^(1/gamma)). Bins are int32 in the loop; the list is cut into segments that provably fit,
 * and folded into int64 with one shift. */
#ifndef MINILP_LNS_BINS_H
#define MINILP_LNS_BINS_H
#include "minilp_core.h"

enum {
    MLP_LNS_SPAN = 22,             /* most octaves of the operand in the lanes: leaves 2^7 terms a segment */
    MLP_LNS_TILE_BYTES = 640 << 10 /* of one block: long lists pay, so within a second-level cache */
};

/* Terms terms[first_term ..], `octaves` times gamma pairs of counts runs[first_run ..]; worth 2^shift. */
typedef struct {
    int32_t first_term, first_run, octaves, shift;
} mlp_lns_segment;

/* Sorts n codes by exponent (at most `top`) and sign, from the largest exponent down. runs: (top / gamma + 1) octaves of
 * gamma pairs (terms added, terms subtracted). A term is its index times `step`. Within a segment the sum over terms of
 * 2^(octave - last octave) is at most `limit`, which is at least n. Returns the number of segments. */
int32_t mlp_lns_list(const int16_t *codes, int64_t n, int gamma, int top, int64_t limit, int32_t step, int32_t *terms,
                     int32_t *runs, mlp_lns_segment *segments);

typedef struct {
    int64_t lanes;                 /* int32 lanes that one walk carries, per bin */
    int64_t rows;                  /* of `lanes` int32 for one term of a tile: gamma planes, or powers and remainders */
    /* `valid` codes to the rows of a term. */
    void (*expand)(const int16_t *codes, int64_t valid, int32_t *out);
    /* One segment of a list over a tile of planes. out: gamma rows of `lanes` int32. */
    void (*walk)(const char *tile, const int32_t *terms, const int32_t *runs, int64_t octaves, int32_t *out);
    void (*fold)(const int32_t *sums, int shift, int64_t *bins);                       /* bins += sums * 2^shift */
    void (*close)(const int64_t *bins, const double *constants, int lut, double *out);   /* one value a lane */
} mlp_lns_lanes;

const mlp_lns_lanes *mlp_lns_for_tier(int gamma);   /* NULL: gamma is not 1, 2, 4, 8 or 16 */

#endif
