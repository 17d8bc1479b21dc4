/* The MAC of logarithmic numbers (lns_bins.h), written to be read: rows of two operands, product by product.
 *
 * These loops take any gamma, any number of octaves and any number of table entries; they check the fast contraction
 * and do what it does not: one count per exponent sum where 64 bits are too few, and the narrow accumulator. */
#include "lns_bins.h"
#include <stdlib.h>
#include <string.h>

/* Adds the products of one row pair to the bins. A bin belongs to the top bits of the remainder, r >> low. With low > 0
 * a product adds (gamma + the low bits of r) * 2^q, log2 gamma fractional bits: Mitchell's 1 + r_L / gamma. */
MLP_NOINLINE void mlp_lns_shift_row_bins(const int32_t *a, const int32_t *b, int64_t depth, int log_gamma, int low,
                                         int64_t *bins)
{
    int32_t gamma = (int32_t)1 << log_gamma, low_mask = ((int32_t)1 << low) - 1;
    for (int64_t k = 0; k < depth; k++) {
        if (a[k] == 0 || b[k] == 0)
            continue;
        int negative = (a[k] ^ b[k]) < 0;
        int32_t p = (a[k] < 0 ? -a[k] : a[k]) - 1 + (b[k] < 0 ? -b[k] : b[k]) - 1;
        int32_t r = p & (gamma - 1), q = p >> log_gamma;
        int64_t one = low ? gamma + (r & low_mask) : 1, product = (int64_t)((uint64_t)one << q);
        bins[r >> low] += negative ? -product : product;
    }
}

/* One signed count per exponent sum. */
MLP_NOINLINE void mlp_lns_shift_row_counts(const int32_t *a, const int32_t *b, int64_t depth, int32_t *counts)
{
    for (int64_t k = 0; k < depth; k++) {
        if (a[k] == 0 || b[k] == 0)
            continue;
        int32_t p = (a[k] < 0 ? -a[k] : a[k]) - 1 + (b[k] < 0 ? -b[k] : b[k]) - 1;
        counts[p] += (a[k] ^ b[k]) < 0 ? -1 : 1;
    }
}

static int bits_of(int number)   /* log2 of a power of two */
{
    int bits = 0;
    while (number >> (bits + 1))
        bits++;
    return bits;
}

/* Counts to the sum: each bin from its largest octave down, in float64 (f = f + f + count); bins in ascending order. */
static double close_counts(const mlp_lns_rows *g, const int32_t *counts)
{
    int low = g->gamma / g->lut;
    double sum = 0.0;
    for (int top = 0; top < g->lut; top++) {
        double bin = 0.0;
        for (int64_t q = g->sums / g->gamma - 1; q >= 0; q--) {
            int64_t whole = low == 1 ? counts[q * g->gamma + top] : 0;
            for (int s = 0; low > 1 && s < low; s++)
                whole += (int64_t)(g->gamma + s) * counts[q * g->gamma + top * low + s];
            bin = bin + bin + (double)whole;
        }
        sum += g->constants[top] * bin;
    }
    return sum;
}

int mlp_lns_rows_contract(const mlp_lns_rows *g)
{
    if (g->rows_a < 0 || g->rows_b < 0 || g->depth < 0 || g->depth > INT32_MAX || g->gamma < 1 || g->lut < 1)
        return MLP_BAD_ARGUMENT;
    int log_gamma = bits_of(g->gamma), low = bits_of(g->gamma / g->lut), failed = 0;
    MLP_PRAGMA(omp parallel reduction(| : failed) num_threads(mlp_threads()))
    {
        size_t size = g->sums ? (size_t)g->sums * sizeof(int32_t) : (size_t)g->lut * sizeof(int64_t);
        void *room = malloc(size);
        failed |= !room;
        MLP_PRAGMA(omp for schedule(static))
        for (int64_t j = 0; j < g->rows_b; j++)
            for (int64_t i = 0; room && i < g->rows_a; i++) {
                const int32_t *a = g->a + i * g->depth, *b = g->b + j * g->depth;
                double sum = 0.0;
                memset(room, 0, size);
                if (g->sums) {
                    mlp_lns_shift_row_counts(a, b, g->depth, room);
                    sum = close_counts(g, room);
                } else {
                    const int64_t *bins = room;
                    mlp_lns_shift_row_bins(a, b, g->depth, log_gamma, low, room);
                    for (int top = 0; top < g->lut; top++)
                        sum += g->constants[top] * (double)bins[top];
                }
                if (g->out_float)
                    g->out_float[i * g->rows_b + j] = (float)(sum * g->scale);
                else
                    g->out_double[i * g->rows_b + j] = sum;
            }
        free(room);
    }
    return failed ? MLP_NO_MEMORY : MLP_OK;
}

/* The narrow accumulator: exact sums of `vector` products, cut by `shift` bits (floor), added with saturation. */
int mlp_lns_narrow_contract(const mlp_lns_narrow *g, int64_t *overflows)
{
    if (g->rows_a < 0 || g->rows_b < 0 || g->depth < 0 || g->vector < 1 || g->bits < 2 || g->bits > 62)
        return MLP_BAD_ARGUMENT;
    int log_gamma = bits_of(g->gamma), low = bits_of(g->gamma / g->lut), failed = 0;
    int64_t highest = ((int64_t)1 << (g->bits - 1)) - 1, total = 0;
    MLP_PRAGMA(omp parallel reduction(| : failed) reduction(+ : total) num_threads(mlp_threads()))
    {
        int64_t *bins = malloc((size_t)g->lut * sizeof *bins);
        failed |= !bins;
        MLP_PRAGMA(omp for schedule(static))
        for (int64_t j = 0; j < g->rows_b; j++)
            for (int64_t i = 0; bins && i < g->rows_a; i++) {
                int64_t accumulator = 0;
                for (int64_t k = 0; k < g->depth; k += g->vector) {
                    int64_t n = g->depth - k < g->vector ? g->depth - k : g->vector, sum = 0;
                    memset(bins, 0, (size_t)g->lut * sizeof *bins);
                    mlp_lns_shift_row_bins(g->a + i * g->depth + k, g->b + j * g->depth + k, n, log_gamma, low, bins);
                    for (int top = 0; top < g->lut; top++)
                        sum += g->constants[top] * bins[top];
                    accumulator += sum >> g->shift;
                    int64_t held = accumulator > highest ? highest : accumulator < ~highest ? ~highest : accumulator;
                    total += held != accumulator;
                    accumulator = held;
                }
                g->out[i * g->rows_b + j] = accumulator;
            }
        free(bins);
    }
    *overflows += total;
    return failed ? MLP_NO_MEMORY : MLP_OK;
}
