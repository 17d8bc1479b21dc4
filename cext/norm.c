/* Batch norm in training, forward and backward, alone or with the ReLU behind it, over (C, H, W, N) storage: a channel
 * is one contiguous plane.
 *
 *     y = (x - mean) * invstd * weight + bias;    with ReLU: y <= 0 becomes +0.0
 *     g = dy;                                     with ReLU: 0 where that y is not above 0
 *     dx = ((g - sum(g) / L) - (x - mean) * sum(g (x - mean)) invstd^2 / L) * (invstd * weight)
 *
 * Backward reads x anyway, so it computes y's sign again instead of reading a saved one: the same float operations on
 * the same numbers give the same sign, and nothing has to be kept for the ReLU. Its first pass over the plane sums, and
 * with the ReLU leaves g where dx will stand; the second makes dx of it.
 *
 * Statistics are float64 sums in a written order, everything else float32 in a written order without fused operations:
 * the same bits in every tier, for any thread count and in the NumPy twin (kernels/reference_norm.py). A plane of the
 * usual networks fits the second-level cache, so only its first reading comes from memory. The loops that write also
 * find the largest magnitude, for who quantises the result next. */
#include <math.h>
#include <stdatomic.h>
#include "f32_common.h"
#if defined(MLP_HAVE_AVX2) || defined(MLP_HAVE_AVX512)
#include <immintrin.h>
#endif

typedef struct { /* of one channel */
    float mean, invstd, weight, bias;
    int relu;
} affine;

typedef struct {
    double (*sum)(const float *x, ptrdiff_t length);
    double (*sum_squares)(const float *x, double mean, ptrdiff_t length);
    void (*sum_products)(const float *x, const float *dy, const affine *forward, ptrdiff_t length, float *g,
                         double result[2]);
    uint32_t (*normalise)(const float *x, const affine *forward, ptrdiff_t length, float *y);
    uint32_t (*spread)(const float *g, const float *x, const affine *forward, float c1, float c2, ptrdiff_t length,
                       float *dx);
} plane_kernels;

/* The plane block by block, `n` elements from `start` on. */
enum { BLOCK = 1024 };
#define FOR_BLOCKS(start, n, length)                                                                                   \
    for (ptrdiff_t start = 0, n = (length) < BLOCK ? (length) : BLOCK; start < (length);                               \
         start += n, n = (length) - start < BLOCK ? (length) - start : BLOCK)

#define TIER(name) portable_##name
#define TARGET MLP_NOINLINE
#define BYTES 16
#define WIDEN(v) __builtin_convertvector(v, portable_wide)
#include "norm_sums.h"
#ifdef MLP_HAVE_AVX2
#define TIER(name) avx2_##name
#define TARGET MLP_TARGET_AVX2
#define BYTES 32
#define WIDEN(v) (avx2_wide)_mm256_cvtps_pd((__m128)(v))
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#include "norm_sums.h"
#pragma GCC pop_options
#endif
#ifdef MLP_HAVE_AVX512
#define TIER(name) avx512_##name
#define TARGET MLP_TARGET_AVX512
#define BYTES 64
#define WIDEN(v) (avx512_wide)_mm512_cvtps_pd((__m256)(v)) /* GCC 12 makes three instructions of convertvector here */
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#include "norm_sums.h"
#pragma GCC pop_options
#endif

static const plane_kernels *in_force(void)
{
    return MLP_FOR_TIER(&portable_kernels, &avx2_kernels, &avx512_kernels);
}

int mlp_f32_batch_norm(const float *x, int64_t channels, int64_t length, const float *weight, const float *bias,
                       double eps, int relu, float *y, float *mean, float *var, float *invstd,
                       uint32_t *largest)
{
    if (length < 1 || channels < 0)
        return MLP_BAD_ARGUMENT;
    const plane_kernels *k = in_force();
    const int threads = mlp_workers(channels);
    atomic_llong next = 0;
    uint32_t found = 0;
    MLP_PARALLEL_MAX(threads, found)
    for (int thread = 0; thread < threads; thread++)
        for (int64_t c; (c = atomic_fetch_add(&next, 1)) < channels;) {
            const float *plane = x + c * length;
            const double m = k->sum(plane, length) / (double)length;
            const double v = k->sum_squares(plane, m, length) / (double)length;
            const affine forward = {(float)m, (float)(1.0 / sqrt(v + eps)), weight[c], bias[c], relu};
            mean[c] = forward.mean;
            var[c] = (float)v;
            invstd[c] = forward.invstd;
            const uint32_t here = k->normalise(plane, &forward, length, y + c * length);
            found = here > found ? here : found;
        }
    *largest = found;
    return MLP_OK;
}

int mlp_f32_batch_norm_backward(const float *dy, const float *x, int64_t channels, int64_t length, const float *mean,
                                const float *invstd, const float *weight, const float *bias, int relu, float *dx,
                                float *dweight, float *dbias, uint32_t *largest)
{
    if (length < 1 || channels < 0)
        return MLP_BAD_ARGUMENT;
    const plane_kernels *k = in_force();
    const int threads = mlp_workers(channels);
    atomic_llong next = 0;
    uint32_t found = 0;
    MLP_PARALLEL_MAX(threads, found)
    for (int thread = 0; thread < threads; thread++)
        for (int64_t c; (c = atomic_fetch_add(&next, 1)) < channels;) {
            const affine forward = {mean[c], invstd[c], weight[c], bias[c], relu};
            const float *plane = x + c * length, *grad = dy + c * length;
            float *out = dx + c * length;
            double sums[2];
            k->sum_products(plane, grad, &forward, length, out, sums);
            const double scale = invstd[c], products = sums[1] * scale;
            dbias[c] = (float)sums[0];
            dweight[c] = (float)products;
            const uint32_t here = k->spread(relu ? out : grad, plane, &forward, (float)(sums[0] / (double)length),
                                            (float)(products * scale / (double)length), length, out);
            found = here > found ? here : found;
        }
    *largest = found;
    return MLP_OK;
}
