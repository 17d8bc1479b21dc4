/* MX codes to the pairs of 16-bit integers that mx_lanes.h multiplies, with the padding around images.
 *
 *   out[pair] = integer(first) | integer(second) << 16      for neighbours along the sum, block by block
 *
 * A block of odd length ends with a pair whose second integer is 0. What is padding, in an image or behind the last lane,
 * is 0 too. Nothing is computed, so there is no NumPy twin: the contractions' twins read the codes themselves. */
#include "mx.h"
#include <string.h>

/* `second` is NULL where a block ends with the first. */
MLP_INLINE void pair_run(const int8_t *first, const int8_t *second, int64_t n, const int32_t *table, int32_t *out)
{
    if (!second)
        for (int64_t j = 0; j < n; j++)
            out[j] = table[(uint8_t)first[j]] & 0xFFFF;
    else
        for (int64_t j = 0; j < n; j++)
            out[j] = (int32_t)(((uint32_t)table[(uint8_t)first[j]] & 0xFFFFu)
                               | (uint32_t)table[(uint8_t)second[j]] << 16);
}

MLP_NOINLINE static void pair_run_portable(const int8_t *a, const int8_t *b, int64_t n, const int32_t *t, int32_t *out)
{
    pair_run(a, b, n, t, out);
}
#ifdef MLP_HAVE_AVX2
MLP_TARGET_AVX2 static void pair_run_avx2(const int8_t *a, const int8_t *b, int64_t n, const int32_t *t, int32_t *out)
{
    pair_run(a, b, n, t, out);
}
#endif
#ifdef MLP_HAVE_AVX512
MLP_TARGET_AVX512 static void pair_run_avx512(const int8_t *a, const int8_t *b, int64_t n, const int32_t *t,
                                              int32_t *out)
{
    pair_run(a, b, n, t, out);
}
#endif

/* The row of the image under row y of the padded one, or -1. */
MLP_INLINE int64_t image_row(const mlp_mx_pairs *g, int64_t y)
{
    y -= g->before[0];
    return y < g->size[0] ? mlp_max(y, -1) : -1;
}

int mlp_mx_pair_channels(const mlp_mx_pairs *g)
{
    void (*run)(const int8_t *, const int8_t *, int64_t, const int32_t *, int32_t *) =
        MLP_FOR_TIER(pair_run_portable, pair_run_avx2, pair_run_avx512);
    const int64_t in_block = (g->block + 1) / 2, plane = g->size[0] * g->size[1] * g->batch, width = g->padded[1];
    MLP_PRAGMA(omp parallel for schedule(static) num_threads(mlp_threads()))
    for (int64_t t = 0; t < g->pairs * g->padded[0]; t++) {
        int64_t p = t / g->padded[0], y = image_row(g, t % g->padded[0]), c = p / in_block * g->block + p % in_block * 2;
        int32_t *out = g->out + t * width * g->lanes;
        if (y < 0) {
            memset(out, 0, (size_t)(width * g->lanes) * sizeof *out);
            continue;
        }
        const int8_t *codes = g->codes + c * plane + y * g->size[1] * g->batch;
        int more = c % g->block + 1 < g->block && c + 1 < g->channels;
        for (int64_t x = -g->before[1]; x < width - g->before[1]; x++, out += g->lanes) {
            int64_t valid = x >= 0 && x < g->size[1] ? g->batch : 0;
            const int8_t *first = codes + (valid ? x * g->batch : 0);
            run(first, more ? first + plane : NULL, valid, g->table, out);
            memset(out + valid, 0, (size_t)(g->lanes - valid) * sizeof *out);
        }
    }
    return MLP_OK;
}

int mlp_mx_pair_images(const mlp_mx_pairs *g)
{
    const int64_t vectors = mlp_ceil_div(g->channels, g->lanes), plane = g->size[0] * g->size[1] * g->batch;
    const int64_t pixel = g->pairs * g->lanes, width = g->padded[1];
    MLP_PRAGMA(omp parallel for schedule(static) num_threads(mlp_threads()))
    for (int64_t t = 0; t < vectors * g->padded[0]; t++) {
        int64_t y = image_row(g, t % g->padded[0]), c = t / g->padded[0] * g->lanes;
        int64_t channels = y < 0 ? 0 : mlp_min(g->lanes, g->channels - c);
        if (channels < g->lanes || width > g->size[1])
            memset(g->out + t * width * pixel, 0, (size_t)(width * pixel) * sizeof *g->out);
        for (int64_t x = 0; x < g->size[1]; x++)
            for (int64_t lane = 0; lane < channels; lane++) {
                const int8_t *codes = g->codes + (c + lane) * plane + (y * g->size[1] + x) * g->batch;
                int32_t *out = g->out + (t * width + g->before[1] + x) * pixel + lane;
                for (int64_t start = 0; start < g->batch; start += g->block)
                    for (int64_t n = start, end = mlp_min(start + g->block, g->batch); n < end; n += 2, out += g->lanes)
                        *out = (int32_t)(((uint32_t)g->table[(uint8_t)codes[n]] & 0xFFFFu)
                                         | (n + 1 < end ? (uint32_t)g->table[(uint8_t)codes[n + 1]] << 16 : 0));
            }
    }
    return MLP_OK;
}
