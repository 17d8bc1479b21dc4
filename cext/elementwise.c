/* ReLU, the residual addition, both in one, and SGD's step, over flat float32 memory.
 *
 *     y = a + b;  y = y <= 0 ? 0 : y;  bit = y > 0        forward (relu: without b; add: without the rest)
 *     dx = bit ? dy : 0                                   backward
 *
 * Every element stands alone, with one rounding an operation, so vectors give what the loop gives. Bound by memory:
 * two threads are what counts, that backward reads a bit an element and not a byte or a float, and that a big result is
 * written past the caches, which would otherwise first read the memory that is about to be written. */
#include "elementwise.h"
#if defined(MLP_HAVE_AVX2) || defined(MLP_HAVE_AVX512)
#include <immintrin.h>
#endif

enum { SMALL = 1 << 15 };   /* fewer elements than this are not worth waking a thread */

#define TIER(name) portable_##name
#define TARGET MLP_NOINLINE
#define BYTES 16
#define SIGNS(v) (((v)[0] > 0.0f) | ((v)[1] > 0.0f) << 1 | ((v)[2] > 0.0f) << 2 | ((v)[3] > 0.0f) << 3)
#define MAX(v, w) (((v) & ((v) > (w))) | ((w) & ~((v) > (w))))
#define PUT_PAST(p, v) __builtin_memcpy(p, &(v), BYTES)
#include "elementwise_lanes.h"
#ifdef MLP_HAVE_AVX2
#define TIER(name) avx2_##name
#define TARGET MLP_TARGET_AVX2
#define BYTES 32
#define SIGNS(v) _mm256_movemask_ps(_mm256_cmp_ps((__m256)(v), _mm256_setzero_ps(), _CMP_GT_OQ))
#define MAX(v, w) (avx2_ints)_mm256_max_epi32((__m256i)(v), (__m256i)(w))
#define PUT_PAST(p, v) _mm256_stream_ps(p, (__m256)(v))
#include "elementwise_lanes.h"
#endif
#ifdef MLP_HAVE_AVX512
#define TIER(name) avx512_##name
#define TARGET MLP_TARGET_AVX512
#define BYTES 64
#define SIGNS(v) _mm512_cmp_ps_mask((__m512)(v), _mm512_setzero_ps(), _CMP_GT_OQ)
#define MAX(v, w) (avx512_ints)_mm512_max_epi32((__m512i)(v), (__m512i)(w))
#define PUT_PAST(p, v) _mm512_stream_ps(p, (__m512)(v))
#include "elementwise_lanes.h"
#endif

const mlp_flat_kernels *mlp_flat_in_force(void)
{
    return MLP_FOR_TIER(&portable_kernels, &avx2_kernels, &avx512_kernels);
}

int mlp_flat_past(const float *out, int64_t n)
{
    return n >= MLP_PAST_CACHES && (uintptr_t)out % 64 == 0;
}

void mlp_flat_settle(const mlp_flat *t)
{
#if defined(MLP_HAVE_AVX2) || defined(MLP_HAVE_AVX512)
    if (t->past)
        _mm_sfence();
#endif
}

/* Each thread takes one stretch, cut at a multiple of 64 elements, so that none shares a byte of bits. */
static int spread(mlp_flat_loop *run, const mlp_flat *t, int64_t n, uint32_t *largest)
{
    if (n < 0)
        return MLP_BAD_ARGUMENT;
    const int threads = n < SMALL ? 1 : mlp_threads();
    const int64_t share = (n / threads + 63) / 64 * 64;
    uint32_t found = 0;
    MLP_PARALLEL_MAX(threads, found)
    for (int i = 0; i < threads; i++) {
        const int64_t start = i * share < n ? i * share : n;
        const uint32_t here = run(t, start, i + 1 == threads || start + share > n ? n : start + share);
        found = here > found ? here : found;
        mlp_flat_settle(t);
    }
    if (largest)
        *largest = found;
    return MLP_OK;
}

int mlp_f32_relu(const float *x, int64_t n, float *y, uint8_t *positive, uint32_t *largest)
{
    return mlp_f32_add_relu(x, NULL, n, y, positive, largest);
}

int mlp_f32_add_relu(const float *a, const float *b, int64_t n, float *y, uint8_t *positive, uint32_t *largest)
{
    const mlp_flat t = {.a = a, .b = b, .out = y, .positive = positive, .relu = 1, .past = mlp_flat_past(y, n)};
    return spread(mlp_flat_in_force()->finish, &t, n, largest);
}

int mlp_f32_relu_backward(const float *dy, const uint8_t *positive, int64_t n, float *dx)
{
    const mlp_flat t = {.a = dy, .positive = (uint8_t *)positive, .out = dx};
    return spread(mlp_flat_in_force()->relu_backward, &t, n, NULL);
}

int mlp_f32_add(const float *a, const float *b, int64_t n, float *out)
{
    const mlp_flat t = {.a = a, .b = b, .out = out};
    return spread(mlp_flat_in_force()->add, &t, n, NULL);
}

int mlp_f32_sgd(const mlp_f32_sgd_part *parts, int64_t count, float lr, float momentum, float undamped, int nesterov)
{
    for (int64_t i = 0; i < count; i++) {
        const mlp_f32_sgd_part *part = parts + i;
        const mlp_flat t = {.a = part->grad, .out = part->p, .buffer = part->buffer, .lr = lr, .momentum = momentum,
                            .undamped = undamped, .weight_decay = part->weight_decay, .nesterov = nesterov,
                            .first = part->first};
        const int status = spread(mlp_flat_in_force()->sgd, &t, part->n, NULL);
        if (status != MLP_OK)
            return status;
    }
    return MLP_OK;
}
