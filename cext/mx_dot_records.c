/* MX codes to the records of bytes that mx_dot.c multiplies; see mx_records.h. Nothing is computed but the first sums,
 * so there is no NumPy twin: the contractions' twins read the codes themselves. */
#include "mx_records.h"
#include "mls_dot.h"
#include <string.h>

enum { BUFFER = 32768, LANES = 16 };

/* Pixels whose blocks of decoded bytes the buffer holds, `bytes` each. */
static int64_t at_once(int64_t bytes) { return mlp_max(1, BUFFER / bytes); }

static int plan(const mlp_mx_records *g, mlp_mls_decode *decode, const mlp_mls_dots **dots)
{
    *dots = mlp_mls_dots_for_tier();
    mlp_mls_plan_decode(decode, g->table);
    if (!*dots || !mlp_mx_dot_kernel())
        return MLP_UNSUPPORTED;
    return g->block < 1 || g->length < 1 || 4 * g->length > MLP_MX_MOST ? MLP_BAD_ARGUMENT : MLP_OK;
}

int mlp_mx_dot_samples(const mlp_mx_records *g)
{
    mlp_mls_decode decode;
    const mlp_mls_dots *dots;
    int status = plan(g, &decode, &dots);
    if (status != MLP_OK)
        return status;
    const int64_t width = g->size[1], plane = g->size[0] * width * g->batch;
    const int64_t record = mlp_mx_lane_record(mlp_mx_dot_kernel(), g->length);
    const int64_t vectors = mlp_ceil_div(g->batch, LANES), pixel = vectors * g->blocks * record;
    const int64_t bytes = g->length * 64, pixels = at_once(bytes);
    MLP_PRAGMA(omp parallel for schedule(static) num_threads(mlp_threads()))
    for (int64_t row = 0; row < g->padded[0]; row++) {
        uint8_t values[BUFFER] __attribute__((aligned(64)));
        char *out = (char *)g->records + row * g->padded[1] * pixel;
        int64_t y = mlp_mx_image_row(g, row);
        if (y < 0) {
            memset(out, 0, (size_t)(g->padded[1] * pixel));
            continue;
        }
        memset(values, 0, sizeof values);
        memset(out, 0, (size_t)(g->before[1] * pixel));
        out += g->before[1] * pixel;
        for (int64_t t = 0; t < vectors * g->blocks; t++) {
            int64_t n = t / g->blocks * LANES, k = t % g->blocks, some = mlp_min(LANES, g->batch - n);
            for (int64_t x = 0, count; x < width; x += count) {
                count = mlp_min(pixels, width - x);
                for (int64_t c = k * g->block; c < mlp_min((k + 1) * g->block, g->channels); c++)
                    dots->decode(&decode, g->codes + c * plane + (y * width + x) * g->batch + n, g->batch, count, some,
                                 values + (c - k * g->block) * LANES, bytes, 0);
                for (int64_t i = 0; i < count; i++) {
                    char *to = out + (x + i) * pixel + t * record;
                    float scales[LANES] = {0};
                    dots->quads(values + i * bytes, g->length, 1, to);
                    memcpy(scales, g->scale + ((k * g->size[0] + y) * width + x + i) * g->batch + n,
                           (size_t)some * sizeof *scales);
                    memcpy(to + bytes, scales, sizeof scales);
                }
            }
        }
        memset(out + width * pixel, 0, (size_t)((g->padded[1] - g->before[1] - width) * pixel));
    }
    return MLP_OK;
}

int mlp_mx_dot_channels(const mlp_mx_records *g)
{
    mlp_mls_decode decode;
    const mlp_mls_dots *dots;
    int status = plan(g, &decode, &dots);
    if (status != MLP_OK)
        return status;
    const int64_t width = g->size[1], plane = g->size[0] * width * g->batch;
    const int64_t record = mlp_mx_lane_record(mlp_mx_dot_kernel(), g->length);
    const int64_t vectors = mlp_ceil_div(g->channels, LANES), pixel = g->blocks * record;
    const int64_t bytes = mlp_ceil_div(g->length, 4) * 16, pixels = at_once(bytes);
    MLP_PRAGMA(omp parallel for schedule(static) num_threads(mlp_threads()))
    for (int64_t t = 0; t < vectors * g->padded[0]; t++) {
        uint8_t values[BUFFER] __attribute__((aligned(64)));
        char *out = (char *)g->records + t * g->padded[1] * pixel;
        int64_t y = mlp_mx_image_row(g, t % g->padded[0]), c = t / g->padded[0] * LANES;
        int64_t channels = y < 0 ? 0 : mlp_min(LANES, g->channels - c);
        if (channels < LANES || g->padded[1] > width)
            memset(out, 0, (size_t)(g->padded[1] * pixel));
        out += g->before[1] * pixel;
        for (int64_t job = 0; job < channels * g->blocks; job++) {
            int64_t lane = job % channels, k = job / channels, n = mlp_min(g->block, g->batch - k * g->block);
            for (int64_t x = 0, count; x < width; x += count) {
                count = mlp_min(pixels, width - x);
                const int64_t first = (c + lane) * plane + (y * width + x) * g->batch;
                const float *scale = g->scale + ((c + lane) * g->size[0] + y) * width * g->blocks + k;
                dots->decode(&decode, g->codes + first + k * g->block, g->batch, count, n, values, bytes, 16);
                for (int64_t i = 0; i < count; i++) {
                    int32_t *to = (int32_t *)(out + (x + i) * pixel + k * record) + lane;
                    for (int64_t q = 0; 4 * q < n; q++)
                        memcpy(to + q * LANES, values + i * bytes + 4 * q, 4);
                    for (int64_t q = mlp_ceil_div(n, 4); q < g->length; q++)
                        to[q * LANES] = 0;
                    memcpy(to + g->length * LANES, scale + (x + i) * g->blocks, 4);
                }
            }
        }
    }
    return MLP_OK;
}

int mlp_mx_dot_words(const mlp_mx_records *g)
{
    mlp_mls_decode decode;
    const mlp_mls_dots *dots;
    int status = plan(g, &decode, &dots);
    if (status != MLP_OK)
        return status;
    decode.bias = 0;
    const int64_t record = mlp_mx_word_record(mlp_mx_dot_kernel(), g->length), all = g->size[0] * g->size[1];
    MLP_PRAGMA(omp parallel for schedule(static) num_threads(mlp_threads()))
    for (int64_t c = 0; c < g->channels; c++)
        for (int64_t i = 0; i < all; i++)
            for (int64_t k = 0; k < g->blocks; k++) {
                int8_t values[MLP_MX_MOST] __attribute__((aligned(64)));
                int64_t n = mlp_min(g->block, g->batch - k * g->block);
                dots->decode(&decode, g->codes + (c * all + i) * g->batch + k * g->block, 0, 1, n, (uint8_t *)values, 0,
                             16);
                int32_t sum = 0;
                for (int64_t j = 0; j < n; j++)
                    sum += values[j];
                for (int64_t j = n; j < 4 * g->length; j++)
                    values[j] = 0;
                int32_t *out = g->records + ((c * g->blocks + k) * all + i) * record;
                out[0] = MLP_MLS_MAGIC - (int32_t)g->bias * sum;
                memcpy(out + 1, values, (size_t)(4 * g->length));
                memcpy(out + 1 + g->length, g->scale + (c * all + i) * g->blocks + k, 4);
            }
    return MLP_OK;
}
