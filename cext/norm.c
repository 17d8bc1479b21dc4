/* Batch norm in training, forward and backward, alone or with the ReLU behind it, over (C, H, W, N) storage: a channel
 * is one contiguous plane.
 *
 *     y = (x - mean) * invstd * weight + bias (+ residual);    with ReLU: y <= 0 becomes +0.0
 *     g = dy;                                                  with ReLU: 0 where that y is not above 0
 *     dx = ((g - sum(g) / L) - (x - mean) * sum(g (x - mean)) invstd^2 / L) * (invstd * weight)
 *
 * g is the residual's gradient too. Backward reads x anyway, so it computes y's sign again instead of reading a saved
 * one: the same float operations on the same numbers give the same sign, and nothing has to be kept for the ReLU. Only
 * behind an addition a bit an element is kept, which costs less than the other operand.
 *
 * Statistics are float64 sums in a written order, everything else float32 in a written order without fused operations:
 * the same bits in every tier, for any thread count and in the NumPy twin (kernels/reference_norm.py). A plane of the
 * usual networks fits the second-level cache, so only its first reading comes from memory; what is written goes through
 * a block in the first-level cache to the loop that ends ReLU and addition everywhere (elementwise.c), which also finds
 * the largest magnitudes, for who quantises the result next. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>
#include "elementwise.h"
#include "f32_common.h"
#if defined(MLP_HAVE_AVX2) || defined(MLP_HAVE_AVX512)
#include <immintrin.h>
#endif

typedef struct { /* of one channel */
    float mean, invstd, weight, bias;
} affine;

typedef struct {
    void (*sum)(const float *x, ptrdiff_t n, double total[2][16]);
    void (*squares)(const float *x, double mean, ptrdiff_t n, double total[2][16]);
    void (*products)(const float *g, const float *x, double mean, ptrdiff_t n, double total[2][16]);
    void (*normalise)(const float *x, const affine *forward, ptrdiff_t n, float *y);
    void (*mask)(const float *dy, const float *x, const affine *forward, ptrdiff_t n, float *g);
    void (*spread)(const float *g, const float *x, const affine *forward, float c1, float c2, ptrdiff_t n, float *dx);
} block_kernels;

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
#define WIDEN(v) (avx512_wide)_mm512_cvtps_pd((__m256)(v)) /* GCC 12 makes four instructions of convertvector here */
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#include "norm_sums.h"
#pragma GCC pop_options
#endif

static const block_kernels *in_force(void)
{
    return MLP_FOR_TIER(&portable_kernels, &avx2_kernels, &avx512_kernels);
}

/* A plane block by block: n elements from `start` on. */
enum { BLOCK = 1024 };
#define FOR_BLOCKS(start, n, length)                                                                                   \
    for (ptrdiff_t start = 0, n = (length) < BLOCK ? (length) : BLOCK; start < (length);                               \
         start += n, n = (length) - start < BLOCK ? (length) - start : BLOCK)

/* The 16 columns of a total become one number. */
static double fold(double total[16])
{
    for (int half = 8; half; half /= 2)
        for (int j = 0; j < half; j++)
            total[j] += total[j + half];
    return total[0];
}

static double mean_of(const block_kernels *k, const float *x, ptrdiff_t length)
{
    double total[2][16] = {{0}};
    FOR_BLOCKS(start, n, length)
        k->sum(x + start, n, total);
    return fold(total[0]) / (double)length;
}

static double variance_of(const block_kernels *k, const float *x, double mean, ptrdiff_t length)
{
    double total[2][16] = {{0}};
    FOR_BLOCKS(start, n, length)
        k->squares(x + start, mean, n, total);
    return fold(total[1]) / (double)length;
}

/* What is left of dy goes to masked, where there is one; the sums of that, g, and of g (x - mean). */
static void sums_of(const block_kernels *k, const float *dy, const float *x, const uint8_t *positive,
                    const affine *forward, ptrdiff_t length, float *masked, double sums[2])
{
    double total[2][16] = {{0}};
    FOR_BLOCKS(start, n, length) {
        if (positive) {
            const mlp_flat bits = {.a = dy + start, .positive = (uint8_t *)positive + start / 8, .out = masked + start};
            mlp_flat_in_force()->relu_backward(&bits, 0, n);
        } else if (masked) {
            k->mask(dy + start, x + start, forward, n, masked + start);
        }
        k->products((masked ? masked : dy) + start, x + start, forward->mean, n, total);
    }
    sums[0] = fold(total[0]), sums[1] = fold(total[1]);
}

/* A block z, `start` elements into its plane, ends as `end` says for the plane. Returns the largest magnitude's bits,
 * where no maxima are wanted. */
static uint32_t finish(const float *z, mlp_flat end, ptrdiff_t start, ptrdiff_t n)
{
    end.a = z, end.out += start;
    if (end.b)
        end.b += start;
    if (end.positive)
        end.positive += start / 8;
    if (end.maxima)
        end.column = start % end.columns;
    return mlp_flat_in_force()->finish(&end, 0, n);
}

/* The largest magnitude of a plane: what its blocks returned, or the largest of its maxima. */
static uint32_t largest_of(const mlp_flat *end, uint32_t largest)
{
    for (int64_t i = 0; end->maxima && i < end->columns; i++)
        largest = end->maxima[i] > largest ? end->maxima[i] : largest;
    return largest;
}

static uint32_t normalise(const block_kernels *k, const float *x, const affine *forward, ptrdiff_t length,
                          const mlp_flat *end)
{
    float z[BLOCK] __attribute__((aligned(64)));
    uint32_t largest = 0;
    FOR_BLOCKS(start, n, length) {
        k->normalise(x + start, forward, n, z);
        const uint32_t here = finish(z, *end, start, n);
        largest = here > largest ? here : largest;
    }
    mlp_flat_settle(end);
    return largest_of(end, largest);
}

static uint32_t spread(const block_kernels *k, const float *g, const float *x, const affine *forward, float c1,
                       float c2, ptrdiff_t length, const mlp_flat *end)
{
    float z[BLOCK] __attribute__((aligned(64)));
    uint32_t largest = 0;
    FOR_BLOCKS(start, n, length) {
        k->spread(g + start, x + start, forward, c1, c2, n, z);
        const uint32_t here = finish(z, *end, start, n);
        largest = here > largest ? here : largest;
    }
    mlp_flat_settle(end);
    return largest_of(end, largest);
}

/* Whether maxima of each sample can be found, if they are wanted; they start at 0. */
static int maxima_ok(int64_t length, int64_t channels, int64_t samples, uint32_t *maxima)
{
    if (!maxima)
        return 1;
    if (samples < 16 || samples % 16 || length % samples)
        return 0;
    memset(maxima, 0, (size_t)(channels * samples) * sizeof *maxima);
    return 1;
}

int mlp_f32_batch_norm(const float *x, const float *residual, int64_t channels, int64_t length, const float *weight,
                       const float *bias, double eps, int relu, float *y, uint8_t *positive, float *mean, float *var,
                       float *invstd, uint32_t *largest, int64_t samples, uint32_t *maxima)
{
    if (length < 1 || channels < 0 || !maxima_ok(length, channels, samples, maxima))
        return MLP_BAD_ARGUMENT;
    const block_kernels *k = in_force();
    const int threads = mlp_workers(channels), past = length % 16 == 0 && mlp_flat_past(y, channels * length);
    atomic_llong next = 0;
    uint32_t found = 0;
    MLP_PARALLEL_MAX(threads, found)
    for (int thread = 0; thread < threads; thread++)
        for (int64_t c; (c = atomic_fetch_add(&next, 1)) < channels;) {
            const float *plane = x + c * length;
            const double m = mean_of(k, plane, length), v = variance_of(k, plane, m, length);
            const affine forward = {(float)m, (float)(1.0 / sqrt(v + eps)), weight[c], bias[c]};
            mean[c] = forward.mean;
            var[c] = (float)v;
            invstd[c] = forward.invstd;
            const mlp_flat end = {.b = residual ? residual + c * length : NULL, .relu = relu, .out = y + c * length,
                                  .positive = positive ? positive + c * ((length + 7) / 8) : NULL, .past = past,
                                  .maxima = maxima ? maxima + c * samples : NULL, .columns = samples};
            const uint32_t here = normalise(k, plane, &forward, length, &end);
            found = here > found ? here : found;
        }
    *largest = found;
    return MLP_OK;
}

int mlp_f32_batch_norm_backward(const float *dy, const float *x, const uint8_t *positive, int64_t channels,
                                int64_t length, const float *mean, const float *invstd, const float *weight,
                                const float *bias, float *masked, float *dx, float *dweight, float *dbias,
                                uint32_t *largest, int64_t samples, uint32_t *maxima)
{
    if (length < 1 || channels < 0 || (positive && !masked) || !maxima_ok(length, channels, samples, maxima))
        return MLP_BAD_ARGUMENT;
    const block_kernels *k = in_force();
    const int threads = mlp_workers(channels);
    const int past = dx != dy && dx != masked && length % 16 == 0 && mlp_flat_past(dx, channels * length);
    atomic_llong next = 0;
    uint32_t found = 0;
    MLP_PARALLEL_MAX(threads, found)
    for (int thread = 0; thread < threads; thread++)
        for (int64_t c; (c = atomic_fetch_add(&next, 1)) < channels;) {
            const affine forward = {mean[c], invstd[c], weight[c], bias[c]};
            const float *plane = x + c * length, *grad = dy + c * length;
            float *left = masked ? masked + c * length : NULL;
            double sums[2];
            sums_of(k, grad, plane, positive ? positive + c * ((length + 7) / 8) : NULL, &forward, length, left, sums);
            const double scale = invstd[c], products = sums[1] * scale;
            dbias[c] = (float)sums[0];
            dweight[c] = (float)products;
            const mlp_flat end = {.out = dx + c * length, .past = past,
                                  .maxima = maxima ? maxima + c * samples : NULL, .columns = samples};
            const uint32_t here = spread(k, left ? left : grad, plane, &forward, (float)(sums[0] / (double)length),
                                         (float)(products * scale / (double)length), length, &end);
            found = here > found ? here : found;
        }
    *largest = found;
    return MLP_OK;
}
