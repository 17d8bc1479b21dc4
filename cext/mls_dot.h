/* Emulated MLS contractions: the same float32 bits as mls.h by the CPU's own multipliers.
 *
 *   for every output, groups q ascending:   P = sum of x w inside the group (integers);   sum += float32(P m) 2^-e
 *
 * with m 2^-e the product of two group scales, s_x s_w. Why the shortcuts below change no bit:
 *
 *   P        Four products of bytes an instruction, exact. x is made unsigned by adding a bias b; sums start at
 *            -b (sum of the w), which takes it away again.
 *   float    A sum starts at the bits of 1.5 2^23, too: for |P| < 2^22 its bits then are the float 1.5 2^23 + P, and
 *            fma(that, s_x, -1.5 2^23 s_x) is P s_x, which 24 bits hold, so nothing is rounded.
 *   rows     |P m| <= 2^24 is demanded: P s_x s_w is a float32 number, the term itself. fma(P s_x, s_w, sum) then
 *            rounds once, where the one float32 add of the definition rounds.
 *   wgrad    |P| <= 2^24 is demanded: float(P) is exact, s_x s_w too (m is 1 to 9), and their product is P m 2^-e
 *            rounded once, to nearest even, as float32(P m) is. A float32 add follows.
 *
 * All of it as long as no term is subnormal: exponents of at most 118 in sum, as mls.h has it too. The wrapper checks
 * the bounds, and runs the kernels of mls.h where they do not hold.
 *
 *   mls_dot_lanes.h   the vector loops, one body for all tiers; instantiated by mls_dot_tiers.c
 *   mls_dot_rows.c    forward and input gradient: lanes are samples
 *   mls_dot_wgrad.c   weight gradient: lanes are input channels, so that samples are added in order, whole vectors each
 *   mls_dot_amx.c     its inner loop on tiles; P needs no bias there
 *   mls_product.h     linear layers, whose groups are rows of tokens
 *
 * Tiers without the four-product instruction add pairs of products in 16 bits, which only small integers allow. */
#ifndef MINILP_MLS_DOT_H
#define MINILP_MLS_DOT_H
#include "minilp_core.h"
#include "pot_bins.h"

enum { MLP_MLS_MAGIC = 0x4B400000, MLP_MLS_MOST_CHUNKS = 8 };

/* |code| to integers in tables of 16; the sign of the code is put back and the bias added. Where no code is beyond 7,
 * `few`, the lower four bits tell codes of both signs apart: a table of these does all at once. */
typedef struct {
    int8_t table[MLP_MLS_MOST_CHUNKS][16], by_bits[16];
    int chunks, few;
    int bias;
} mlp_mls_decode;

/* `features` x `pixels` neighbouring outputs, over all groups. Steps of tile and offsets in bytes. */
typedef struct {
    const char *tile;
    int64_t channel, pixel, channels, quads;
    const int64_t *offset;               /* of each quad */
    int64_t row, step;                   /* step > 0: offsets are `row` apart, pixels `step` rows */
    const int32_t *weight;               /* (features, channels, quads + 2): first sum, quads, bits of s_w */
    int64_t feature;                     /* from one feature to the next */
    const float *scales;                 /* (channels, 2) vectors: s_x and -1.5 2^23 s_x */
    float *out;
    int64_t out_feature, out_pixel, valid;
    int past;                            /* vectors, whole lines, go past the caches */
    double scale;
} mlp_mls_dot_block;

/* Errors of some features against the activations of one vector of channels, for one sample and one row of taps. */
typedef struct {
    const char *act, *error;             /* (taps, rows, quads) vectors; (features, rows, quads) 32-bit quads */
    int64_t act_row, act_tap, error_row, error_feature;
    int64_t rows, quads, limit;          /* limit: rows whose sums fit 16 bits */
    const int32_t *first;                /* a feature: its first sum */
    const float *scale_error, *scale_act;   /* a feature; a vector */
    float *totals;                       /* (features, feature / lanes) vectors */
    int64_t feature;
} mlp_mls_dot_wgrad;

typedef struct {
    int64_t lanes, bytes, features;      /* features: of a block of the rows; a block of the weight gradient has */
    int64_t wgrad_features;              /* these */
    int pairs;                           /* sums are pairs of 16-bit numbers, which start without the magic number */
    /* Codes of `pixels` pixels, `step` bytes apart, to biased integers in whole vectors of samples; there, a pixel and
     * a vector are so many bytes apart. */
    void (*decode)(const mlp_mls_decode *d, const int8_t *codes, ptrdiff_t step, int64_t pixels, int64_t samples,
                   uint8_t *values, ptrdiff_t pixel, ptrdiff_t vector);
    /* Quads of n channels from four pixels that are `pixel` bytes apart; or from those of the pixel before and one. */
    void (*gather)(const uint8_t *values, ptrdiff_t pixel, int64_t n, char *out);
    void (*slide)(const uint8_t *values, int64_t n, char *out);
    /* out[i] = values 4 i, 4 i + 1, 4 i + 2, 4 i + 3, each `spacing` vectors from the next, as bytes of a lane */
    void (*quads)(const uint8_t *values, int64_t n, int64_t spacing, char *out);
    /* A row of pixels of up to 16 channels and samples to biased integers, channels innermost: those after the lanes of
     * one vector go `half` bytes on (nowhere if 0). All steps in bytes. */
    void (*turn)(const mlp_mls_decode *d, const int8_t *codes, ptrdiff_t channel, int64_t channels, ptrdiff_t step,
                 int64_t pixels, int64_t samples, uint8_t *out, int64_t sample, int64_t half);
    void (*rows)(const mlp_mls_dot_block *b, int features, int pixels);
    void (*wgrad)(const mlp_mls_dot_wgrad *w, int features, int taps);
} mlp_mls_dots;

const mlp_mls_dots *mlp_mls_dots_for_tier(void);   /* NULL: this tier has none */

/* The weight gradient of 16 features and one vector of channels for one sample, on tiles (AMX): all taps. A run is so
 * many chunks of quads that lie next to each other; the errors of what is no pixel are 0. */
typedef struct {
    const char *act, *error;
    const int64_t *tap;                  /* bytes to where each tap starts */
    int64_t taps, runs, chunks, chunk;   /* quads of a chunk, up to 16: as mlp_mls_amx_on was told */
    int64_t act_run, error_run, error_feature;
    int64_t features;                    /* how many of the 16 there are */
    const float *scale_error, *scale_act;
    float *totals;
    int64_t feature;
} mlp_mls_amx_wgrad;

int mlp_mls_amx(void);                 /* whether this tier has tiles; a thread switches them on and off */
void mlp_mls_amx_on(int64_t chunk);
void mlp_mls_amx_off(void);
void mlp_mls_amx_block(const mlp_mls_amx_wgrad *w);

/* Fills d from table[0 .. 127], the integers of the codes that are not negative. */
void mlp_mls_plan_decode(mlp_mls_decode *d, const int16_t *table);

/* (1 + bit / 2) 2^-exponent, for exponents up to 126. */
MLP_INLINE float mlp_mls_group_scale(int32_t exponent, int32_t bit)
{
    union { int32_t bits; float value; } s = {(127 - exponent) << 23 | bit << 22};
    return s.value;
}

#endif
