/* Inside the kernels of small floats: tiles of decoded numbers, and the inner loops of each instruction set.
 *
 * A code is a signed level, its magnitude the bits of exponent and mantissa. It is decoded in steps of the smallest
 * subnormal, so every number is an integer of few significant bits and every product is exact; it does not matter
 * whether a tier fuses multiply and add. Two kinds of numbers carry the sums, by the same loops:
 *   double: all integers stay below 2^53, so sums are exact in any order;
 *   float:  sums of 32 products in ascending order, added in ascending order. Vectors run across results: every result
 *           is one chain of additions, whatever the tier and the number of threads. No sum is ever -0, so products of
 *           zero (padding) change no bit. */
#ifndef MINILP_MINIFLOAT_H
#define MINILP_MINIFLOAT_H
#include <string.h>
#include "f32_conv.h"

enum { MLP_MINIFLOAT_CHUNK = 32 };
enum { MLP_MINIFLOAT_BYTES = 128 };   /* one pixel of a tile: 32 images as floats or 16 as doubles */
enum { MLP_MINIFLOAT_CHANNELS = 64 }; /* of one operand of a weight gradient, at most, in one part of the result */

/* total[k][o] += for each pixel in turn: the sum over lanes of dy[pixel][lane][o] * x[offset[k] + pixel * x_step +
 * lane]; `pitch` numbers from lane to lane of dy and from k to k of total. */
typedef void mlp_minifloat_dot_fn(const void *dy, ptrdiff_t pitch, const void *x, const int32_t *offset,
                                  ptrdiff_t x_step, ptrdiff_t pixels, int lanes, ptrdiff_t outputs, void *total);

/* Codes of `count` pixels, `step` apart, as numbers; zeros fill up the lanes of the tile. */
typedef void mlp_minifloat_decode_fn(const int8_t *codes, ptrdiff_t step, ptrdiff_t count, ptrdiff_t lanes, int man,
                                     void *to);

/* Codes of one pixel of `outputs` channels, `plane` apart, as numbers [lane][output]; zeros up to `pitch`. */
typedef void mlp_minifloat_turn_fn(const int8_t *codes, ptrdiff_t plane, ptrdiff_t outputs, ptrdiff_t lanes,
                                   ptrdiff_t pitch, int man, void *to);

typedef struct {
    int size, lanes, dot_taps; /* bytes of a number; images in a tile */
    mlp_minifloat_dot_fn *dot;
    mlp_minifloat_decode_fn *decode;
    mlp_minifloat_turn_fn *turn;
} mlp_minifloat_tiles;

const mlp_minifloat_tiles *mlp_minifloat_tiles_in_force(int exact); /* doubles or floats */

/* The number of a code in steps of the smallest subnormal: an integer of man + 1 bits, its octave by exponent add. */
MLP_INLINE float mlp_minifloat_value(int32_t code, int32_t man)
{
    const int32_t sign = code >> 31, level = (code ^ sign) - sign;
    int32_t octave = (level >> man) - 1;
    octave = octave > 0 ? octave : 0;
    const float integer = (float)(level - (octave << man));
    uint32_t word;
    memcpy(&word, &integer, sizeof word);
    word = (word + ((uint32_t)octave << 23)) | ((uint32_t)sign & 0x80000000u);
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

/* One direction of a cut that may lie outside the picture: which of its positions, low to high - 1, lie inside. */
static inline void mlp_minifloat_inside(ptrdiff_t start, ptrdiff_t step, ptrdiff_t count, ptrdiff_t size,
                                        ptrdiff_t *low, ptrdiff_t *high)
{
    *low = start >= 0 ? 0 : MLP_MIN(count, mlp_f32_ceil(-start, step));
    *high = MLP_MAX(*low, MLP_MIN(count, size <= start ? 0 : mlp_f32_ceil(size - start, step)));
}

/* What a tile is cut from, and where (it may lie outside: zeros are written). */
typedef struct { const int8_t *codes; ptrdiff_t channels, h, w, n; int man; } mlp_minifloat_picture;
typedef struct { ptrdiff_t y0, x0, y_step, x_step, rows, columns; } mlp_minifloat_cut;

/* Decode images n0 .. n0 + lanes - 1 into [channel][row][column][lane]; channels lie `plane` numbers apart. */
void mlp_minifloat_pack(const mlp_minifloat_tiles *tier, const mlp_minifloat_picture *from,
                        const mlp_minifloat_cut *cut, ptrdiff_t n0, ptrdiff_t lanes, ptrdiff_t plane, char *tile);

#endif
