/* Exponent-binned adds: a power-of-two contraction with neither a multiply nor a shift in its inner loop.
 *
 *     y = sum_k w_k x_k,   w_k = +-2^e_k   =   sum_e 2^e (sum of +-x_k over the k with e_k = e)
 *
 * One operand is sorted by exponent and sign; its zeros are not in the list at all. The other is expanded to integer
 * lanes once. Walking the list from the largest exponent down, a vector of lanes is added or subtracted per term, and
 * between two exponents the running sum is doubled by one add to itself (Horner). The list is cut into segments: as
 * many terms as a lane can provably hold. A segment's sum is folded with one shift into int32 where every total fits
 * for certain (2^(e_a + e_b) times the number of terms is at most 2^30), else into int64.
 *
 *   pot_bins_plan.c    taps by phase, choice of lanes
 *   pot_bins_list.c    sorts and cuts
 *   pot_bins_lanes.h   the vector loops, one body for all tiers; instantiated by pot_bins_{portable,avx2,avx512}.c
 *   pot_bins_rows.c    forward and input gradient: weights sorted, lanes are samples
 *   pot_bins_wgrad.c   weight gradient: activations sorted, lanes are output channels */
#ifndef MINILP_POT_BINS_H
#define MINILP_POT_BINS_H
#include "minilp_core.h"
#include <string.h>

enum {
    MLP_POT_JOBS = 9,        /* most sums with a place of their own that one walk over a list carries along */
    MLP_POT_GRID_JOBS = 16,  /* ... and those that lie in a square of 4 x 4 neighbours */
    MLP_POT_SPARE = 64,      /* elements that vector stores may touch beyond the end of a list */
    MLP_POT_SHIFTS = 31,     /* a segment is worth at most 2^30 */
    MLP_POT_L1_BYTES = 36 << 10,
    MLP_POT_L2_BYTES = 1 << 20,
    MLP_POT_STREAM_BYTES = 4 << 20   /* results of that size go past the caches */
};

/* Terms terms[first_term ..] in runs[first_run ..]: per exponent the number of added and of subtracted terms. The sum
 * is worth 2^shift. */
typedef struct {
    int32_t first_term, first_run, runs, shift;
} mlp_pot_segment;

typedef struct {
    int64_t terms, runs, segments;  /* room that n terms can need, in elements */
} mlp_pot_room;

/* Of `count` codes `step` bytes apart, picks those that are not zero, and where each is: where[i] + base. Returns how
 * many. Reads up to MLP_POT_SPARE elements past the end of `where`, and writes so many past the last one kept. */
int64_t mlp_pot_keep(const int8_t *row, int64_t step, int64_t count, const int32_t *where, int32_t base,
                     int8_t *restrict codes, int32_t *restrict offsets);
int64_t mlp_pot_keep_avx512(const int8_t *row, int64_t step, int64_t count, const int32_t *where, int32_t base,
                            int8_t *restrict codes, int32_t *restrict offsets);
/* Sorts n offsets by code: levels, -levels, levels-1 ... -1, and in the order given where codes are equal or in any
 * other; zeros are left out. count[code & 63] receives the number of each but 0. Both operands and the result have
 * MLP_POT_SPARE elements to spare, which may be written. */
void mlp_pot_sort_avx512(int8_t *codes, const int32_t *offsets, int64_t n, int levels, int32_t *terms, int32_t *count);

mlp_pot_room mlp_pot_list_room(int64_t n, int64_t limit, int levels);
/* Sorts n terms by code (-levels .. levels) into the three arrays; a lane holds `limit` times the largest lane value.
 * Returns the number of segments. */
int mlp_pot_list(int8_t *codes, const int32_t *offsets, int64_t n, int64_t limit, int levels, int32_t *terms,
                 int32_t *runs, mlp_pot_segment *segments);

/* Adds up one segment for `jobs` sums at once: sum j reads its vectors at base[j] + term. out: jobs vectors. */
typedef void (*mlp_pot_walk)(const char *const *base, const int32_t *terms, const int32_t *runs, int64_t n_runs,
                             void *out);

typedef struct {
    int64_t lanes, bytes;    /* lanes in a vector, bytes of a vector */
    mlp_pot_walk walk[MLP_POT_JOBS + 1];   /* by the number of jobs: 1, 2, 4, 8 and 9 exist */
    mlp_pot_walk walk_grid;  /* sum 4 i + j reads vector j of those at base[i] + term; NULL where registers are short */
    /* Codes to lanes: `pixels` vectors from codes `step` bytes apart, of which the first `valid` lanes are filled. */
    void (*expand)(const int8_t *codes, ptrdiff_t step, int64_t pixels, int64_t valid, void *out);
    /* total += sums * 2^shift; the narrow one, for totals proven to fit, writes the first one. */
    void (*fold)(const void *sums, int64_t vectors, int shift, int64_t *total);
    void (*fold_narrow)(const void *sums, int64_t vectors, int shift, int first, int32_t *total);
    /* sums * 2^exponent, normal results only. past_cache: a whole vector goes past the caches where the tier can, to an
     * `out` on a cache line; whoever reads it in another thread needs a fence between. */
    void (*narrow_to_float)(const int32_t *sums, int64_t n, int exponent, int past_cache, float *out);
    void (*wide_to_float)(const int64_t *sums, int64_t n, int exponent, int past_cache, float *out);
} mlp_pot_lanes;

extern const mlp_pot_lanes mlp_pot_lanes_i16_portable, mlp_pot_lanes_i32_portable;
extern const mlp_pot_lanes mlp_pot_lanes_i16_avx2, mlp_pot_lanes_i32_avx2;
extern const mlp_pot_lanes mlp_pot_lanes_i16_avx512, mlp_pot_lanes_i32_avx512;

/* The lanes for an operand of codes -levels .. levels when `count` of them are wanted; *limit receives how many times
 * the largest value fits one lane. NULL if there are none (above 16 levels). */
const mlp_pot_lanes *mlp_pot_choose_lanes(int levels, int64_t count, int64_t *limit);

/* One axis of a convolution whose outputs are visited by phase. Position a of phase f is output origin + a * out_step,
 * and reads the inputs a * in_step + offset, one offset for each tap that counts in this phase. Forward: a single phase
 * and in_step = stride. Input gradient: the outputs fall into `stride` phases, each with the taps that reach it, and
 * in_step = 1; the weight gradient uses the same phases for its activations. */
typedef struct {
    int64_t taps, *tap, *offset, count, origin;   /* a = 0 .. count-1 */
} mlp_pot_phase;

typedef struct {
    int64_t phases, in_step, out_step, low, high;   /* the offsets of all phases lie within low .. high */
    mlp_pot_phase *phase;
    int64_t *store;
} mlp_pot_axis;

int mlp_pot_plan_axis(mlp_pot_axis *axis, int input_grad, int64_t kernel, int64_t stride, int64_t padding,
                      int64_t dilation, int64_t out_size);   /* 0: no memory. mlp_pot_free_axis in any case */
void mlp_pot_free_axis(mlp_pot_axis *axis);

/* Whether sums of `terms` products of codes up to these levels are at most 2^30. */
MLP_INLINE int mlp_pot_fits_int32(int levels_a, int levels_b, int64_t terms)
{
    int spare = 30 - (levels_a - 1) - (levels_b - 1);
    return spare >= 0 && terms <= (int64_t)1 << spare;
}

/* Whether none of n codes is beyond -top .. top. */
int mlp_pot_within(const int8_t *codes, int64_t n, int top);

/* Largest number of jobs that exists and is at most n. */
MLP_INLINE int mlp_pot_jobs(int64_t n) { return n >= 9 ? 9 : n == 8 ? 8 : n >= 4 ? 4 : n >= 2 ? 2 : 1; }

MLP_INLINE int64_t mlp_min(int64_t a, int64_t b) { return a < b ? a : b; }
MLP_INLINE int64_t mlp_max(int64_t a, int64_t b) { return a > b ? a : b; }
MLP_INLINE int64_t mlp_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
/* Division and remainder that round towards minus infinity. */
MLP_INLINE int64_t mlp_floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }
MLP_INLINE int64_t mlp_floor_mod(int64_t a, int64_t b) { return a - mlp_floor_div(a, b) * b; }

#endif
