/* Inside the int8 engine: contractions of integers of magnitude at most 127, and of pairs of such digits.
 *
 * One 32-bit lane holds a word of neighbouring channels of one image: two 16-bit numbers where the tier multiplies and
 * adds pairs (pmaddwd), four bytes where it has a dot product of four (vpdpbusd). For the weight gradient a word holds
 * neighbouring images. Tiles are cut as in f32_conv.h.
 *
 * Operands have one digit or two: a number is digit[0] + 130 * digit[1]. Both digits of a power of two up to 2^14 are
 * bytes, since 2^7 = 130 - 2, and so is their difference: three products do the work of four (dot8_products.h). Planes of
 * an operand are its digits, and their difference where both operands have two.
 *
 * These kernels multiply. They give exact integers fast on a CPU, and claim nothing about multiplier-free hardware. */
#ifndef MINILP_DOT8_H
#define MINILP_DOT8_H
#include "f32_conv.h"

/* A digit is at most 127, and so is a difference of two, so this many products of them stay below 2^31. */
enum { MLP_DOT8_TERMS = 131072 };
enum { MLP_DOT8_VISIT = 65536 };      /* the same where one side is a byte of up to 255 */
enum { MLP_DOT8_LANES = 32, MLP_DOT8_BASE = 130, MLP_DOT8_DIGITS = 2, MLP_DOT8_PLANES = 3, MLP_DOT8_SUMS = 3 };

/* Where one pixel of up to `outputs` channels goes; floats take (double)sum * (row[m] * lane[i]), rounded to float. */
typedef struct {
    float *floats;      /* NULL: `ints` takes the sums */
    int64_t *ints;
    ptrdiff_t plane;    /* from channel to channel */
    const double *row, *lane;
    float power;        /* row * lane, where that is the same power of two everywhere, small enough; else 0 */
    int outputs, lanes;
} mlp_dot8_target;

/* For every pixel of one row: sums over `count` steps k and the words j of a step of
 *     panel[k][weight plane][m][j] * x[offset[k] + j * MLP_DOT8_LANES + pixel * x_step + lane].
 * The planes of x lie x_plane apart. For tiles a word has 16 lanes, and the other 16 lie half a plane behind. Product i
 * has plane i of each side, or plane 0 of a side that has one. start[sum][m] is where a sum begins. */
typedef void mlp_dot8_gather_fn(const int32_t *x, ptrdiff_t x_plane, const int32_t *offset, const int32_t *panel,
                                const int32_t *start, ptrdiff_t count, ptrdiff_t pixels, ptrdiff_t x_step,
                                ptrdiff_t y_step, mlp_dot8_target to);

/* sum[k][m] += weight * sum over rows, columns and lanes of dy[m * dy_plane + ...] * x[offset[k] + ...]; at most
 * MLP_DOT8_VISIT products each. Distances and `pitch`, the lanes of a pixel, are in numbers. */
typedef void mlp_dot8_dot_fn(const void *dy, ptrdiff_t dy_plane, ptrdiff_t dy_row, const void *x, const int32_t *offset,
                             ptrdiff_t x_row, ptrdiff_t x_step, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t pitch,
                             int64_t weight, int64_t *sum);

/* The sum of `count` numbers, less than 2^24 and a multiple of the pitch. */
typedef int64_t mlp_dot8_total_fn(const void *numbers, ptrdiff_t count);

/* dot8_pack.c. Codes to digits: `count` pixels, `step` codes apart, of `width` images each (a multiple of 32), of which
 * the first `lanes` exist; no others are read. Pixel p goes to to[p * to_step + image]: digit[|code|] with the sign of the
 * code, or the code itself if `digit` is NULL; xor `flip`. Absent images are 0 ^ flip. `largest` keeps the largest |code|
 * that was looked up, as the largest of its numbers; what a code beyond 15 turns into means nothing.
 * Digits to words: `rows` holds the digits of 2 channels, `row` apart, 32 a pixel; pixel p goes to
 * to[p * to_step + image].
 * Digits to the 16-bit numbers of `dot`: pixel p goes to to[p * to_step + image]. */
typedef struct { uint8_t each[64]; } mlp_dot8_largest; /* as many as a vector has */
typedef void mlp_dot8_digits_fn(const int8_t *from, ptrdiff_t step, ptrdiff_t count, ptrdiff_t lanes,
                                const int8_t *digit, int flip, int8_t *to, ptrdiff_t to_step, ptrdiff_t width,
                                mlp_dot8_largest *largest);
/* Codes of `channels` channels at `count` pixels, distances in codes, of which `lanes` images exist. A pixel goes to
 * to + p * to_pixel, each plane to_plane behind the one before; distances in bytes. `largest` as above. */
typedef struct {
    const int8_t *from;
    ptrdiff_t channel, channels, pixel, count, lanes;
    const int8_t (*digits)[16];         /* of each plane; NULL: codes are the integers */
    int planes, flip;
    int8_t *to;
    ptrdiff_t to_pixel, to_plane;
    ptrdiff_t to_word, to_half;         /* between words, and between their halves of 16 lanes */
    mlp_dot8_largest *largest;
} mlp_dot8_pack;
typedef void mlp_dot8_pack_fn(const mlp_dot8_pack *p);
typedef void mlp_dot8_words_fn(const int8_t *rows, ptrdiff_t row, ptrdiff_t count, int32_t *to, ptrdiff_t to_step);
typedef void mlp_dot8_widen_fn(const int8_t *digits, ptrdiff_t count, int16_t *to, ptrdiff_t to_step);

typedef struct {
    int word;           /* channels in a word: 2 or 4 */
    int bytes;          /* of one number inside a word */
    int depth;          /* words in a step of a gather: 1, or 16 for tiles */
    int lanes;          /* of a word: 32, or 16 for tiles */
    int flip;           /* what the bytes of x are xored with: 0, or 128 where they are unsigned and 128 too large */
    int dot_flip;       /* the same for the weight gradient */
    int outputs[MLP_DOT8_DIGITS][MLP_DOT8_DIGITS];                      /* of a gather, by digits of x and weight */
    mlp_dot8_gather_fn *gather[MLP_DOT8_DIGITS][MLP_DOT8_DIGITS];
    int dot_outputs, dot_taps;
    mlp_dot8_dot_fn *dot;
    mlp_dot8_total_fn *total;
    mlp_dot8_digits_fn *digits;
    mlp_dot8_words_fn *words;
    mlp_dot8_widen_fn *widen;
    mlp_dot8_pack_fn *quads; /* codes to words of four channels in all planes; NULL: by `digits` and `words` */
} mlp_dot8_tiles;

const mlp_dot8_tiles *mlp_dot8_tiles_in_force(void);

void mlp_dot8_digits_portable(const int8_t *from, ptrdiff_t step, ptrdiff_t count, ptrdiff_t lanes, const int8_t *digit,
                              int flip, int8_t *to, ptrdiff_t to_step, ptrdiff_t width, mlp_dot8_largest *largest);
void mlp_dot8_digits_avx2(const int8_t *from, ptrdiff_t step, ptrdiff_t count, ptrdiff_t lanes, const int8_t *digit,
                          int flip, int8_t *to, ptrdiff_t to_step, ptrdiff_t width, mlp_dot8_largest *largest);
void mlp_dot8_digits_avx512(const int8_t *from, ptrdiff_t step, ptrdiff_t count, ptrdiff_t lanes, const int8_t *digit,
                            int flip, int8_t *to, ptrdiff_t to_step, ptrdiff_t width, mlp_dot8_largest *largest);
void mlp_dot8_pairs_portable(const int8_t *rows, ptrdiff_t row, ptrdiff_t count, int32_t *to, ptrdiff_t to_step);
void mlp_dot8_pairs_avx2(const int8_t *rows, ptrdiff_t row, ptrdiff_t count, int32_t *to, ptrdiff_t to_step);
void mlp_dot8_quads_avx512(const mlp_dot8_pack *p);
void mlp_dot8_widen_portable(const int8_t *digits, ptrdiff_t count, int16_t *to, ptrdiff_t to_step);
void mlp_dot8_widen_avx2(const int8_t *digits, ptrdiff_t count, int16_t *to, ptrdiff_t to_step);

/* One digit of one code; `largest` as in mlp_dot8_digits_fn. */
static inline int8_t mlp_dot8_digit(int8_t code, const int8_t *digit, mlp_dot8_largest *largest)
{
    if (!digit)
        return code;
    const int magnitude = code < 0 ? -code : code;
    largest->each[0] = (uint8_t)MLP_MAX(largest->each[0], magnitude);
    return code < 0 ? (int8_t)-digit[magnitude & 15] : digit[magnitude & 15];
}

/* Whether no code was larger than `top`. */
static inline int mlp_dot8_within(const mlp_dot8_largest *largest, int top)
{
    int most = 0;
    for (int i = 0; i < 64; i++)
        most = MLP_MAX(most, largest->each[i]);
    return most <= top;
}

/* One direction of a cut that may lie outside the picture: which of its positions, low to high - 1, lie inside. */
static inline void mlp_dot8_inside(ptrdiff_t start, ptrdiff_t step, ptrdiff_t count, ptrdiff_t size, ptrdiff_t *low,
                                   ptrdiff_t *high)
{
    *low = start >= 0 ? 0 : MLP_MIN(count, mlp_f32_ceil(-start, step));
    *high = MLP_MAX(*low, MLP_MIN(count, size <= start ? 0 : mlp_f32_ceil(size - start, step)));
}

#endif
