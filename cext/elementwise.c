/* ReLU and the residual addition over flat float32 memory: bound by memory, so two threads are what counts. */
#include "minilp_core.h"

enum { SMALL = 1 << 15 };   /* fewer elements than this are not worth waking a thread */

MLP_INLINE void relu_body(const float *restrict x, int64_t n, float *restrict y)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] <= 0.0f ? 0.0f : x[i]; /* NaN stays, -0.0 becomes +0.0 */
}
MLP_INLINE void relu_backward_body(const float *restrict dy, const float *restrict y, int64_t n, float *restrict dx)
{
    for (int64_t i = 0; i < n; i++) {
        const float grad = dy[i]; /* read in any case, so that the choice needs no branch */
        dx[i] = y[i] > 0.0f ? grad : 0.0f;
    }
}
MLP_INLINE void add_body(const float *restrict a, const float *restrict b, int64_t n, float *restrict out)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = a[i] + b[i];
}

#define KERNELS(tier, target)                                                                                          \
    target static void relu_##tier(const float *x, const float *unused, int64_t n, float *y) { relu_body(x, n, y); }   \
    target static void relu_backward_##tier(const float *dy, const float *y, int64_t n, float *dx)                     \
    {                                                                                                                  \
        relu_backward_body(dy, y, n, dx);                                                                              \
    }                                                                                                                  \
    target static void add_##tier(const float *a, const float *b, int64_t n, float *out) { add_body(a, b, n, out); }
KERNELS(portable, MLP_NOINLINE)
#ifdef MLP_HAVE_AVX2
KERNELS(avx2, MLP_TARGET_AVX2)
#else
#define relu_avx2 relu_portable
#define relu_backward_avx2 relu_backward_portable
#define add_avx2 add_portable
#endif
#ifdef MLP_HAVE_AVX512
KERNELS(avx512, MLP_TARGET_AVX512)
#else
#define relu_avx512 relu_avx2
#define relu_backward_avx512 relu_backward_avx2
#define add_avx512 add_avx2
#endif

typedef void kernel(const float *a, const float *b, int64_t n, float *out);

/* Each thread takes one stretch, cut at a multiple of 16 elements. */
static int spread(kernel *const tiers[3], const float *a, const float *b, int64_t n, float *out)
{
    if (n < 0)
        return MLP_BAD_ARGUMENT;
    kernel *run = tiers[mlp_vector_tier()];
    const int threads = n < SMALL ? 1 : mlp_threads();
    const int64_t share = (n / threads + 15) / 16 * 16;
    MLP_PARALLEL_FOR(threads)
    for (int t = 0; t < threads; t++) {
        const int64_t start = t * share < n ? t * share : n;
        const int64_t count = t + 1 == threads || start + share > n ? n - start : share;
        run(a + start, b ? b + start : b, count, out + start);
    }
    return MLP_OK;
}

int mlp_f32_relu(const float *x, int64_t n, float *y)
{
    static kernel *const tiers[3] = {relu_portable, relu_avx2, relu_avx512};
    return spread(tiers, x, NULL, n, y);
}

int mlp_f32_relu_backward(const float *dy, const float *y, int64_t n, float *dx)
{
    static kernel *const tiers[3] = {relu_backward_portable, relu_backward_avx2, relu_backward_avx512};
    return spread(tiers, dy, y, n, dx);
}

int mlp_f32_add(const float *a, const float *b, int64_t n, float *out)
{
    static kernel *const tiers[3] = {add_portable, add_avx2, add_avx512};
    return spread(tiers, a, b, n, out);
}
