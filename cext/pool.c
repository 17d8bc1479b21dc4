/* Max pooling over (C, H, W, N) storage: a pixel is a row of images, so the inner loop runs over the batch.
 *
 * Forward, taps are visited row by row; a later one wins if it is greater or NaN. Backward, windows are visited from
 * the last to the first, so that each pixel adds up its windows in the order of its taps, as the NumPy twin does. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>
#include "f32_common.h"

MLP_INLINE void compare_body(const float *restrict from, int64_t n, int tap, float *restrict best,
                             uint8_t *restrict index)
{
    for (int64_t i = 0; i < n; i++) {
        const int wins = (from[i] > best[i]) | (from[i] != from[i]);
        best[i] = wins ? from[i] : best[i];
        index[i] = wins ? (uint8_t)tap : index[i];
    }
}
MLP_INLINE void give_back_body(const float *restrict dy, const uint8_t *restrict index, int64_t n, int tap,
                               float *restrict dx)
{
    for (int64_t i = 0; i < n; i++) {
        const float grad = dy[i]; /* read in any case, so that the choice needs no branch */
        dx[i] += index[i] == tap ? grad : 0.0f;
    }
}

#define KERNELS(tier, target)                                                                                          \
    target static void compare_##tier(const float *from, int64_t n, int tap, float *best, uint8_t *index)              \
    {                                                                                                                  \
        compare_body(from, n, tap, best, index);                                                                       \
    }                                                                                                                  \
    target static void give_back_##tier(const float *dy, const uint8_t *index, int64_t n, int tap, float *dx)          \
    {                                                                                                                  \
        give_back_body(dy, index, n, tap, dx);                                                                         \
    }
KERNELS(portable, MLP_NOINLINE)
#ifdef MLP_HAVE_AVX2
KERNELS(avx2, MLP_TARGET_AVX2)
#else
#define compare_avx2 compare_portable
#define give_back_avx2 give_back_portable
#endif
#ifdef MLP_HAVE_AVX512
KERNELS(avx512, MLP_TARGET_AVX512)
#else
#define compare_avx512 compare_avx2
#define give_back_avx512 give_back_avx2
#endif

static void pool_plane(const mlp_f32_window *q, const float *x, float *y, uint8_t *index)
{
    void (*const compare[3])(const float *, int64_t, int, float *, uint8_t *) = {compare_portable, compare_avx2,
                                                                                  compare_avx512};
    const int tier = mlp_vector_tier();
    for (int64_t oy = 0; oy < q->out_height; oy++)
        for (int64_t ox = 0; ox < q->out_width; ox++, y += q->batch, index += q->batch) {
            const int64_t top = oy * q->stride_h - q->padding_h, left = ox * q->stride_w - q->padding_w;
            const int64_t ky0 = top < 0 ? -top : 0, kx0 = left < 0 ? -left : 0;
            for (int64_t i = 0; i < q->batch; i++)
                y[i] = -INFINITY;
            memset(index, (int)(ky0 * q->kernel_w + kx0), (size_t)q->batch);
            for (int64_t ky = ky0; ky < q->kernel_h && top + ky < q->height; ky++)
                for (int64_t kx = kx0; kx < q->kernel_w && left + kx < q->width; kx++)
                    compare[tier](x + ((top + ky) * q->width + left + kx) * q->batch, q->batch,
                                  (int)(ky * q->kernel_w + kx), y, index);
        }
}

static void pool_plane_backward(const mlp_f32_window *q, const float *dy, const uint8_t *index, float *dx)
{
    void (*const give_back[3])(const float *, const uint8_t *, int64_t, int, float *) = {
        give_back_portable, give_back_avx2, give_back_avx512};
    const int tier = mlp_vector_tier();
    memset(dx, 0, (size_t)(q->height * q->width * q->batch) * sizeof *dx);
    for (int64_t oy = q->out_height - 1; oy >= 0; oy--)
        for (int64_t ox = q->out_width - 1; ox >= 0; ox--) {
            const int64_t top = oy * q->stride_h - q->padding_h, left = ox * q->stride_w - q->padding_w;
            const int64_t at = (oy * q->out_width + ox) * q->batch;
            for (int64_t ky = top < 0 ? -top : 0; ky < q->kernel_h && top + ky < q->height; ky++)
                for (int64_t kx = left < 0 ? -left : 0; kx < q->kernel_w && left + kx < q->width; kx++)
                    give_back[tier](dy + at, index + at, q->batch, (int)(ky * q->kernel_w + kx),
                                    dx + ((top + ky) * q->width + left + kx) * q->batch);
        }
}

int mlp_f32_max_pool2d(const mlp_f32_window *q, const float *x, float *y, uint8_t *index)
{
    if (q->kernel_h * q->kernel_w > 256)
        return MLP_UNSUPPORTED;
    const int threads = mlp_workers(q->channels);
    const int64_t out = q->out_height * q->out_width * q->batch;
    atomic_llong next = 0;
    MLP_PARALLEL_FOR(threads)
    for (int thread = 0; thread < threads; thread++)
        for (int64_t c; (c = atomic_fetch_add(&next, 1)) < q->channels;)
            pool_plane(q, x + c * q->height * q->width * q->batch, y + c * out, index + c * out);
    return MLP_OK;
}

int mlp_f32_max_pool2d_backward(const mlp_f32_window *q, const float *dy, const uint8_t *index, float *dx)
{
    if (q->kernel_h * q->kernel_w > 256)
        return MLP_UNSUPPORTED;
    const int threads = mlp_workers(q->channels);
    const int64_t out = q->out_height * q->out_width * q->batch;
    atomic_llong next = 0;
    MLP_PARALLEL_FOR(threads)
    for (int thread = 0; thread < threads; thread++)
        for (int64_t c; (c = atomic_fetch_add(&next, 1)) < q->channels;)
            pool_plane_backward(q, dy + c * out, index + c * out, dx + c * q->height * q->width * q->batch);
    return MLP_OK;
}
