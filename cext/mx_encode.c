/* Real numbers to MX levels and E8M0 scales, block by block. Twin: reference_mx.maxima, scale_codes and levels.
 *
 * The tensor is (outer, length, inner) in storage order; blocks lie along `length`. Where inner is 1 a block is a row of
 * neighbours, else the lanes are up to 64 neighbours of `inner`, each with a block of its own. */
#include "pot_bins.h"
#include <string.h>

enum { WIDTH = 64 };

MLP_INLINE float from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

MLP_INLINE uint32_t to_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* The scale code (exponent + 127) of a block with this largest magnitude. */
MLP_INLINE uint8_t scale_code(const mlp_mx_element *g, uint32_t maximum)
{
    if (!maximum)
        return 127;
    double value = from_bits(maximum);
    if (g->ceil)
        value /= g->largest;
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    int64_t exponent = (int64_t)(bits >> 52) - 1023;
    exponent += g->ceil ? (bits << 12) != 0 : -g->highest;
    return (uint8_t)(mlp_min(mlp_max(exponent, -127), 127 - g->highest) + 127);
}

/* 2^-exponent; 2^-127 is a subnormal number. */
MLP_INLINE float reciprocal(uint8_t code)
{
    return from_bits(code < 254 ? (254u - code) << 23 : 1u << 22);
}

MLP_INLINE int8_t level(const mlp_mx_element *g, float x, float scale, uint32_t draw, int stochastic)
{
    float size = from_bits(to_bits(x) & 0x7FFFFFFF) * scale, top = g->largest;
    size = size < top ? size : top;
    int32_t octave = (int32_t)(to_bits(size) >> 23) - 127;
    octave = octave > g->emin ? octave : g->emin;
    float steps = size * from_bits((uint32_t)(g->man + 127 - octave) << 23);   /* below 2^(man + 1) */
    int32_t whole;
    if (stochastic) {
        whole = (int32_t)steps;
        whole += (float)(int32_t)(draw >> 8) < (steps - (float)whole) * 16777216.0f;
    } else {
        whole = (int32_t)((steps + 12582912.0f) - 12582912.0f);   /* to nearest even */
    }
    whole += (octave - g->emin) << g->man;
    whole = whole < g->top ? whole : g->top;
    return (int8_t)(x < 0 ? -whole : whole);
}

/* One block of one row: n neighbours. Returns the largest magnitude's bits. */
MLP_INLINE uint32_t encode_row(const mlp_mx_element *g, const float *x, const uint32_t *draw, int64_t n, int8_t *codes,
                               uint8_t *scale)
{
    mlp_mx_element local = *g;
    uint32_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = to_bits(x[i]) & 0x7FFFFFFF;
        most = bits > most ? bits : most;
    }
    *scale = scale_code(&local, most);
    float factor = reciprocal(*scale);
    if (draw)
        for (int64_t i = 0; i < n; i++)
            codes[i] = level(&local, x[i], factor, draw[i], 1);
    else
        for (int64_t i = 0; i < n; i++)
            codes[i] = level(&local, x[i], factor, 0, 0);
    return most;
}

/* One block of each of `lanes` neighbours: rows are `step` apart. */
MLP_INLINE uint32_t encode_columns(const mlp_mx_element *g, const float *x, const uint32_t *draw, int64_t rows,
                                   int64_t step, int64_t lanes, int8_t *codes, uint8_t *scale)
{
    mlp_mx_element local = *g;
    uint32_t most[WIDTH] = {0}, all = 0;
    float factor[WIDTH];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < lanes; i++) {
            uint32_t bits = to_bits(x[r * step + i]) & 0x7FFFFFFF;
            most[i] = bits > most[i] ? bits : most[i];
        }
    for (int64_t i = 0; i < lanes; i++) {
        scale[i] = scale_code(&local, most[i]);
        factor[i] = reciprocal(scale[i]);
        all = most[i] > all ? most[i] : all;
    }
    for (int64_t r = 0; r < rows; r++)
        if (draw)
            for (int64_t i = 0; i < lanes; i++)
                codes[r * step + i] = level(&local, x[r * step + i], factor[i], draw[r * step + i], 1);
        else
            for (int64_t i = 0; i < lanes; i++)
                codes[r * step + i] = level(&local, x[r * step + i], factor[i], 0, 0);
    return all;
}

#define TIER(name, target)                                                                                             \
    target static uint32_t name(const mlp_mx_element *g, const float *x, const uint32_t *draw, int64_t rows,           \
                                int64_t step, int64_t lanes, int8_t *codes, uint8_t *scale)                            \
    {                                                                                                                  \
        if (step == 1)   /* 32 is what the specification says: a constant for the compiler */                          \
            return rows == 32 ? encode_row(g, x, draw, 32, codes, scale) : encode_row(g, x, draw, rows, codes, scale); \
        return encode_columns(g, x, draw, rows, step, lanes, codes, scale);                                            \
    }
TIER(encode_portable, MLP_NOINLINE)
#ifdef MLP_HAVE_AVX2
TIER(encode_avx2, MLP_TARGET_AVX2)
#endif
#ifdef MLP_HAVE_AVX512
TIER(encode_avx512, MLP_TARGET_AVX512)
#endif

int mlp_mx_encode(const mlp_mx_element *g, const float *x, const uint32_t *draw, int64_t outer, int64_t length,
                  int64_t inner, int64_t run, int64_t block, int8_t *codes, uint8_t *scales, uint32_t *largest)
{
    uint32_t (*encode)(const mlp_mx_element *, const float *, const uint32_t *, int64_t, int64_t, int64_t, int8_t *,
                       uint8_t *) = encode_portable;
#ifdef MLP_HAVE_AVX2
    if (mlp_vector_tier() == MLP_AVX2)
        encode = encode_avx2;
#endif
#ifdef MLP_HAVE_AVX512
    if (mlp_vector_tier() == MLP_AVX512)
        encode = encode_avx512;
#endif
    if (run < 1 || block < 1 || length % run)
        return MLP_BAD_ARGUMENT;
    int64_t each = mlp_ceil_div(run, block), blocks = length / run * each, parts = mlp_ceil_div(inner, WIDTH);
    const int64_t split = inner == 1 ? 1 : blocks;   /* short blocks of one row are one task */
    uint32_t most = 0;
    MLP_PRAGMA(omp parallel for schedule(static) reduction(max : most) num_threads(mlp_threads()))
    for (int64_t t = 0; t < outer * split * parts; t++) {
        int64_t i = t % parts * WIDTH, first = t / parts % split, o = t / parts / split, lanes = mlp_min(WIDTH, inner - i);
        for (int64_t k = first; k < (split == 1 ? blocks : first + 1); k++) {
            int64_t start = k / each * run + k % each * block, rows = mlp_min(block, run - k % each * block);
            int64_t at = (o * length + start) * inner + i;
            uint32_t here = encode(g, x + at, draw ? draw + at : NULL, rows, inner, lanes, codes + at,
                                   scales + (o * blocks + k) * inner + i);
            most = here > most ? here : most;
        }
    }
    *largest = most;
    return MLP_OK;
}
