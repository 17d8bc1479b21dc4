/* Products of small floats in the written order: float32 sums of 32 products in ascending order, added in ascending
 * order. The products are exact, so it does not matter whether a tier fuses multiply and add. Vectors run across the
 * columns; every result is one chain of additions, whatever the tier and the number of threads. */
#include <string.h>
#include "f32_common.h"

enum { CHUNK = 32, LANES = 16, ROWS = 4 };
typedef float lanes __attribute__((vector_size(4 * LANES)));

/* ROWS rows of `a` times LANES columns of `b` (panel: depth x LANES). */
MLP_INLINE void block(const float *a, const float *panel, int64_t depth, float *out, int64_t columns, int rows, int width)
{
    lanes total[ROWS];
    for (int r = 0; r < ROWS; r++)
        total[r] = (lanes){0};
    for (int64_t start = 0; start < depth; start += CHUNK) {
        lanes sum[ROWS];
        for (int r = 0; r < ROWS; r++)
            sum[r] = (lanes){0};
        const int64_t end = MLP_MIN(depth, start + CHUNK);
        for (int64_t k = start; k < end; k++) {
            lanes x;
            memcpy(&x, panel + k * LANES, sizeof x);
            for (int r = 0; r < ROWS; r++)
                sum[r] += a[MLP_MIN(r, rows - 1) * depth + k] * x;
        }
        for (int r = 0; r < ROWS; r++)
            total[r] += sum[r];
    }
    for (int r = 0; r < rows; r++)
        memcpy(out + r * columns, &total[r], sizeof(float) * (size_t)width);
}

/* One block of columns: copied together once, then met by all rows. */
MLP_INLINE void strip(const float *a, const float *b, int64_t rows, int64_t depth, int64_t columns, int64_t first,
                      float *panel, float *out)
{
    const int width = (int)MLP_MIN(LANES, columns - first);
    for (int64_t k = 0; k < depth; k++)
        for (int i = 0; i < LANES; i++)
            panel[k * LANES + i] = i < width ? b[k * columns + first + i] : 0.0f;
    for (int64_t r = 0; r < rows; r += ROWS)
        block(a + r * depth, panel, depth, out + r * columns + first, columns, (int)MLP_MIN(ROWS, rows - r), width);
}

typedef void strip_function(const float *, const float *, int64_t, int64_t, int64_t, int64_t, float *, float *);
#define STRIP(name, attributes) \
    attributes static void name(const float *a, const float *b, int64_t rows, int64_t depth, int64_t columns, \
                                int64_t first, float *panel, float *out) \
    { strip(a, b, rows, depth, columns, first, panel, out); }

STRIP(strip_portable, MLP_NOINLINE)
#ifdef MLP_HAVE_AVX2
STRIP(strip_avx2, MLP_TARGET_AVX2)
#endif
#ifdef MLP_HAVE_AVX512
STRIP(strip_avx512, MLP_TARGET_AVX512)
#endif

int mlp_minifloat_rows(const float *a, const float *b, int64_t rows, int64_t depth, int64_t columns, float *scratch,
                       int threads, float *out)
{
    strip_function *work = strip_portable;
#ifdef MLP_HAVE_AVX2
    work = mlp_tier() >= MLP_AVX2 ? strip_avx2 : work;
#endif
#ifdef MLP_HAVE_AVX512
    work = mlp_tier() == MLP_AVX512 ? strip_avx512 : work;
#endif
    const int64_t strips = (columns + LANES - 1) / LANES;
    MLP_PARALLEL_FOR(threads)
    for (int thread = 0; thread < threads; thread++)
        for (int64_t s = thread; s < strips; s += threads)
            work(a, b, rows, depth, columns, s * LANES, scratch + thread * depth * LANES, out);
    return MLP_OK;
}
