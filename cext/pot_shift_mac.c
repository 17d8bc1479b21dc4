/* The multiplication-free MAC of power-of-two numbers, written to be read.
 *
 * A code c is a signed level: 0 is zero, else the number is sign(c) * 2^(|c|-1) in units of the tensor's smallest
 * power. One MAC is then: XOR of the two signs, an integer add of the two exponents, a one-hot shift to the left, one
 * wide add. Zero is an explicit gate: no exponent stands for it. Nothing is ever shifted to the right, so nothing is
 * floored.
 *
 * These loops run over operand rows that the wrapper has unfolded: a is (rows_a, depth), b is (rows_b, depth), the
 * result is (rows_a, rows_b). They model the INT32 accumulator, count per exponent where int64 is too narrow, and check
 * the fast kernels of pot_bins.h. */
#include "minilp_core.h"
#include "pot_round.h"

/* Sum of one row pair in int64. The wrapper has proven that it cannot overflow. */
MLP_NOINLINE int64_t mlp_pot_shift_row_int64(const int8_t *a, const int8_t *b, int64_t depth)
{
    int64_t sum = 0;
    for (int64_t k = 0; k < depth; k++) {
        if (a[k] == 0 || b[k] == 0)
            continue;
        int negative = (a[k] ^ b[k]) < 0;
        int shift = (a[k] < 0 ? -a[k] : a[k]) - 1 + (b[k] < 0 ? -b[k] : b[k]) - 1;
        int64_t product = (int64_t)1 << shift;
        sum += negative ? -product : product;
    }
    return sum;
}

/* The same in the paper's INT32 accumulator: two's complement, ascending k. Every addition whose true result leaves
 * int32 counts as an overflow, then wraps. */
MLP_NOINLINE int32_t mlp_pot_shift_row_int32(const int8_t *a, const int8_t *b, int64_t depth, int64_t *overflows)
{
    int32_t sum = 0;
    for (int64_t k = 0; k < depth; k++) {
        if (a[k] == 0 || b[k] == 0)
            continue;
        int negative = (a[k] ^ b[k]) < 0;
        int shift = (a[k] < 0 ? -a[k] : a[k]) - 1 + (b[k] < 0 ? -b[k] : b[k]) - 1;
        int64_t product = (int64_t)1 << shift;
        int64_t exact = sum + (negative ? -product : product);
        sum = (int32_t)(uint32_t)exact;
        *overflows += exact != sum;
    }
    return sum;
}

/* One signed count per exponent sum: products of equal size are counted, only the closing sum needs wide integers. */
MLP_NOINLINE void mlp_pot_shift_row_counts(const int8_t *a, const int8_t *b, int64_t depth, int32_t *counts)
{
    for (int64_t k = 0; k < depth; k++) {
        if (a[k] == 0 || b[k] == 0)
            continue;
        int exponent = (a[k] < 0 ? -a[k] : a[k]) - 1 + (b[k] < 0 ? -b[k] : b[k]) - 1;
        counts[exponent] += (a[k] ^ b[k]) < 0 ? -1 : 1;
    }
}

int mlp_pot_rows_int64(const int8_t *a, const int8_t *b, int64_t rows_a, int64_t rows_b, int64_t depth, int64_t *out)
{
    if (rows_a < 0 || rows_b < 0 || depth < 0)
        return MLP_BAD_ARGUMENT;
    MLP_PARALLEL_FOR(mlp_threads())
    for (int64_t j = 0; j < rows_b; j++)
        for (int64_t i = 0; i < rows_a; i++)
            out[i * rows_b + j] = mlp_pot_shift_row_int64(a + i * depth, b + j * depth, depth);
    return MLP_OK;
}

int mlp_pot_rows_int32(const int8_t *a, const int8_t *b, int64_t rows_a, int64_t rows_b, int64_t depth, int64_t *out,
                       int64_t *overflows)
{
    if (rows_a < 0 || rows_b < 0 || depth < 0)
        return MLP_BAD_ARGUMENT;
    int64_t total = 0;
    MLP_PRAGMA(omp parallel for schedule(static) reduction(+ : total) num_threads(mlp_threads()))
    for (int64_t j = 0; j < rows_b; j++)
        for (int64_t i = 0; i < rows_a; i++)
            out[i * rows_b + j] = mlp_pot_shift_row_int32(a + i * depth, b + j * depth, depth, &total);
    *overflows += total;
    return MLP_OK;
}

int mlp_pot_rows_counts(const int8_t *a, const int8_t *b, int64_t rows_a, int64_t rows_b, int64_t depth,
                        int64_t exponent, float *out_float, int64_t *out_int)
{
    if (rows_a < 0 || rows_b < 0 || depth < 0 || depth > INT32_MAX)
        return MLP_BAD_ARGUMENT;
    int64_t failed = 0;
    MLP_PRAGMA(omp parallel for schedule(static) reduction(+ : failed) num_threads(mlp_threads()))
    for (int64_t j = 0; j < rows_b; j++)
        for (int64_t i = 0; i < rows_a; i++) {
            int32_t counts[MLP_POT_SUMS] = {0};
            mlp_pot_shift_row_counts(a + i * depth, b + j * depth, depth, counts);
            __int128 sum = 0;
            for (int e = MLP_POT_SUMS - 1; e >= 0; e--)
                sum = sum + sum + counts[e];
            if (out_float)
                failed += mlp_round_to_float(sum, exponent, &out_float[i * rows_b + j]);
            else if (sum > INT64_MAX || sum < INT64_MIN)
                failed++;
            else
                out_int[i * rows_b + j] = (int64_t)sum;
        }
    return failed ? MLP_OVERFLOW : MLP_OK;
}

int mlp_pot_scale(const int64_t *sums, int64_t n, int64_t exponent, float *out)
{
    if (n < 0)
        return MLP_BAD_ARGUMENT;
    int64_t failed = 0;
    if (exponent >= MLP_NORMAL_LOW && exponent <= MLP_NORMAL_HIGH) {
        for (int64_t i = 0; i < n; i++)
            out[i] = mlp_add_exponent((float)sums[i], (int32_t)exponent);
        return MLP_OK;
    }
    MLP_PRAGMA(omp parallel for schedule(static) reduction(+ : failed) num_threads(mlp_threads()))
    for (int64_t i = 0; i < n; i++)
        failed += mlp_round_to_float(sums[i], exponent, &out[i]);
    return failed ? MLP_OVERFLOW : MLP_OK;
}

int mlp_pot_join(const int64_t *low, const int64_t *high, int width, int64_t n, int64_t exponent, float *out)
{
    if (n < 0 || width < 0 || width > 60)
        return MLP_BAD_ARGUMENT;
    int normal = exponent >= MLP_NORMAL_LOW && exponent <= MLP_NORMAL_HIGH;
    int64_t failed = 0, narrow = (int64_t)1 << (61 - width), edge = (int64_t)1 << 62;
    MLP_PRAGMA(omp parallel for schedule(static) reduction(+ : failed) num_threads(mlp_threads()))
    for (int64_t i = 0; i < n; i++) {
        if (normal && high[i] < narrow && high[i] > -narrow && low[i] <= edge && low[i] >= -edge)  /* fits int64 */
            out[i] = mlp_add_exponent((float)(low[i] + (int64_t)((uint64_t)high[i] << width)), (int32_t)exponent);
        else
            failed += mlp_round_to_float(low[i] + (__int128)high[i] * ((__int128)1 << width), exponent, &out[i]);
    }
    return failed ? MLP_OVERFLOW : MLP_OK;
}
