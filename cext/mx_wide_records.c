/* MX codes to the records of integers that mx_wide.c multiplies; see mx_records.h. Nothing is computed, so there is no
 * NumPy twin: the contractions' twins read the codes themselves. */
#include "mx_records.h"
#include <string.h>

static int check(const mlp_mx_records *g)
{
    return g->block < 1 || g->length < 1 || g->length > MLP_MX_MOST ? MLP_BAD_ARGUMENT : MLP_OK;
}

int mlp_mx_wide_samples(const mlp_mx_records *g)
{
    if (check(g) != MLP_OK)
        return MLP_BAD_ARGUMENT;
    const mlp_mx_kernel *kernel = mlp_mx_wide_kernel();
    const int64_t lanes = kernel->lanes, width = g->size[1], plane = g->size[0] * width * g->batch;
    const int64_t record = mlp_mx_lane_record(kernel, g->length) / 4, vectors = mlp_ceil_div(g->batch, lanes);
    const int64_t pixel = vectors * g->blocks * record;
    MLP_PRAGMA(omp parallel for schedule(static) num_threads(mlp_threads()))
    for (int64_t row = 0; row < g->padded[0]; row++) {
        float *out = (float *)g->records + row * g->padded[1] * pixel;
        int64_t y = mlp_mx_image_row(g, row);
        memset(out, 0, (size_t)((y < 0 ? g->padded[1] : g->before[1]) * pixel) * sizeof *out);
        if (y < 0)
            continue;
        out += g->before[1] * pixel;
        for (int64_t t = 0; t < width * vectors * g->blocks; t++, out += record) {
            int64_t k = t % g->blocks, n = t / g->blocks % vectors * lanes, x = t / g->blocks / vectors;
            int64_t valid = mlp_min(lanes, g->batch - n), channels = mlp_min(g->block, g->channels - k * g->block);
            const int8_t *codes = g->codes + k * g->block * plane + (y * width + x) * g->batch + n;
            const float *scale = g->scale + ((k * g->size[0] + y) * width + x) * g->batch + n;
            memset(out, 0, (size_t)record * sizeof *out);
            for (int64_t c = 0; c < channels; c++)
                for (int64_t i = 0; i < valid; i++)
                    out[c * lanes + i] = g->values[(uint8_t)codes[c * plane + i]];
            memcpy(out + g->length * lanes, scale, (size_t)valid * sizeof *out);
        }
        memset(out, 0, (size_t)((g->padded[1] - g->before[1] - width) * pixel) * sizeof *out);
    }
    return MLP_OK;
}

int mlp_mx_wide_channels(const mlp_mx_records *g)
{
    if (check(g) != MLP_OK)
        return MLP_BAD_ARGUMENT;
    const mlp_mx_kernel *kernel = mlp_mx_wide_kernel();
    const int64_t lanes = kernel->lanes, width = g->size[1], plane = g->size[0] * width * g->batch;
    const int64_t record = mlp_mx_lane_record(kernel, g->length) / 4, vectors = mlp_ceil_div(g->channels, lanes);
    const int64_t pixel = g->blocks * record;
    MLP_PRAGMA(omp parallel for schedule(static) num_threads(mlp_threads()))
    for (int64_t t = 0; t < vectors * g->padded[0]; t++) {
        float *out = (float *)g->records + t * g->padded[1] * pixel;
        int64_t y = mlp_mx_image_row(g, t % g->padded[0]), first = t / g->padded[0] * lanes;
        int64_t channels = y < 0 ? 0 : mlp_min(lanes, g->channels - first);
        memset(out, 0, (size_t)(g->padded[1] * pixel) * sizeof *out);
        out += g->before[1] * pixel;
        for (int64_t job = 0; job < (channels ? width * g->blocks : 0); job++, out += record) {
            int64_t x = job / g->blocks, k = job % g->blocks, images = mlp_min(g->block, g->batch - k * g->block);
            for (int64_t lane = 0; lane < channels; lane++) {
                const int8_t *codes = g->codes + (first + lane) * plane + (y * width + x) * g->batch + k * g->block;
                for (int64_t n = 0; n < images; n++)
                    out[n * lanes + lane] = g->values[(uint8_t)codes[n]];
                out[g->length * lanes + lane] =
                    g->scale[(((first + lane) * g->size[0] + y) * width + x) * g->blocks + k];
            }
        }
    }
    return MLP_OK;
}

int mlp_mx_wide_words(const mlp_mx_records *g)
{
    if (check(g) != MLP_OK)
        return MLP_BAD_ARGUMENT;
    const int64_t record = g->length + 1, all = g->size[0] * g->size[1];
    MLP_PRAGMA(omp parallel for schedule(static) num_threads(mlp_threads()))
    for (int64_t c = 0; c < g->channels; c++)
        for (int64_t i = 0; i < all; i++)
            for (int64_t k = 0; k < g->blocks; k++) {
                double *out = (double *)g->records + ((c * g->blocks + k) * all + i) * record;
                const int8_t *codes = g->codes + (c * all + i) * g->batch + k * g->block;
                int64_t images = mlp_min(g->block, g->batch - k * g->block);
                for (int64_t n = 0; n < g->length; n++)
                    out[n] = n < images ? g->values[(uint8_t)codes[n]] : 0;
                memcpy(out + g->length, g->scale + (c * all + i) * g->blocks + k, sizeof(float));
            }
    return MLP_OK;
}
