/* The inner loops of batched.c for one tier, in GCC's generic vectors: the same operations on every instruction set.
 * Included once for each tier, with TIER (a suffix) and TARGET (a function attribute). No include guard. */
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

typedef double JOIN(doubles, TIER) __attribute__((vector_size(64), aligned(8)));
typedef float JOIN(floats, TIER) __attribute__((vector_size(64), aligned(4)));
typedef int64_t JOIN(longs, TIER) __attribute__((vector_size(64), aligned(8)));

/* Sums that are exact, in whatever order: products of integers below 2^53 in all. */
TARGET static void JOIN(exact, TIER)(const double *a, const double *b, int64_t rows, int64_t columns, int64_t depth,
                                     double *out)
{
    typedef JOIN(doubles, TIER) vector;
    for (int64_t j = 0; j < columns; j += MLP_BATCHED_COLUMNS, b += depth * MLP_BATCHED_COLUMNS)
        for (int64_t i = 0; i < rows; i += MLP_BATCHED_ROWS) {
            const double *a0 = a + i * depth, *a1 = a0 + depth, *a2 = a1 + depth, *a3 = a2 + depth;
            vector s00 = {0}, s01 = {0}, s10 = {0}, s11 = {0}, s20 = {0}, s21 = {0}, s30 = {0}, s31 = {0};
            for (int64_t k = 0; k < depth; k++) {
                const vector left = *(const vector *)(b + k * MLP_BATCHED_COLUMNS);
                const vector right = *(const vector *)(b + k * MLP_BATCHED_COLUMNS + 8);
                s00 += a0[k] * left;
                s01 += a0[k] * right;
                s10 += a1[k] * left;
                s11 += a1[k] * right;
                s20 += a2[k] * left;
                s21 += a2[k] * right;
                s30 += a3[k] * left;
                s31 += a3[k] * right;
            }
            double *y = out + i * columns + j;
            *(vector *)y = s00;
            *(vector *)(y + 8) = s01;
            *(vector *)(y + columns) = s10;
            *(vector *)(y + columns + 8) = s11;
            *(vector *)(y + 2 * columns) = s20;
            *(vector *)(y + 2 * columns + 8) = s21;
            *(vector *)(y + 3 * columns) = s30;
            *(vector *)(y + 3 * columns + 8) = s31;
        }
}

/* Sums in float32, `run` products at a time in ascending order, and the sums of runs in ascending order. */
TARGET static void JOIN(runs, TIER)(const float *a, const float *b, int64_t rows, int64_t columns, int64_t depth,
                                    int64_t run, float *out)
{
    typedef JOIN(floats, TIER) vector;
    for (int64_t j = 0; j < columns; j += MLP_BATCHED_COLUMNS, b += depth * MLP_BATCHED_COLUMNS)
        for (int64_t i = 0; i < rows; i += MLP_BATCHED_ROWS) {
            const float *a0 = a + i * depth, *a1 = a0 + depth, *a2 = a1 + depth, *a3 = a2 + depth;
            vector t0 = {0}, t1 = {0}, t2 = {0}, t3 = {0};
            for (int64_t first = 0; first < depth; first += run) {
                const int64_t last = MLP_MIN(first + run, depth);
                vector s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
                for (int64_t k = first; k < last; k++) {
                    const vector x = *(const vector *)(b + k * MLP_BATCHED_COLUMNS);
                    s0 += a0[k] * x;
                    s1 += a1[k] * x;
                    s2 += a2[k] * x;
                    s3 += a3[k] * x;
                }
                t0 += s0;
                t1 += s1;
                t2 += s2;
                t3 += s3;
            }
            float *y = out + i * columns + j;
            *(vector *)y = t0;
            *(vector *)(y + columns) = t1;
            *(vector *)(y + 2 * columns) = t2;
            *(vector *)(y + 3 * columns) = t3;
        }
}

/* One row of a product of powers of two, for one tile of columns: a shift and an addition for each number of the row
 * that is not zero. No multiply. */
TARGET void JOIN(mlp_pot_shift_batch, TIER)(const mlp_batched_power *positive, int64_t positives,
                                            const mlp_batched_power *negative, int64_t negatives, const int64_t *b,
                                            int64_t *out)
{
    typedef JOIN(longs, TIER) vector;
    vector left = {0}, right = {0};
    for (const mlp_batched_power *end = positive + positives; positive < end; positive++) {
        const vector *x = (const vector *)(b + positive->offset);
        left += x[0] << positive->shift;
        right += x[1] << positive->shift;
    }
    for (const mlp_batched_power *end = negative + negatives; negative < end; negative++) {
        const vector *x = (const vector *)(b + negative->offset);
        left -= x[0] << negative->shift;
        right -= x[1] << negative->shift;
    }
    *(vector *)out = left;
    *(vector *)(out + 8) = right;
}

const mlp_batched_tier JOIN(mlp_batched, TIER) = {JOIN(exact, TIER), JOIN(runs, TIER),
                                                  JOIN(mlp_pot_shift_batch, TIER)};
#undef JOIN
#undef JOIN_
#undef TIER
#undef TARGET
