/* Batches of small matrix products on codes: attention's scores and contexts.
 *
 * A matrix is unpacked once, through a table of 256 values, into tiles that stay in the caches; strides say how it lies,
 * so every transposition is the same to the inner loops (batched_lanes.h). Threads share the matrices. Three kinds:
 * exact sums of integers in double, float32 sums of runs in ascending order, and shifts and additions of powers of two
 * in 64-bit integers. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "batched.h"

static const mlp_batched_tier *tier(void)
{
    return MLP_FOR_TIER(&mlp_batched_portable, &mlp_batched_avx2, &mlp_batched_avx512);
}

static int64_t up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

/* What one thread unpacks into: rows of the first operand, tiles of the second, results. 8 bytes a number. */
typedef struct { int64_t rows, columns; char *a, *b, *out; mlp_batched_power *powers; } room;

static int room_for(const mlp_batched *q, int powers, room *r)
{
    r->rows = up(q->m, MLP_BATCHED_ROWS);
    r->columns = up(q->n, MLP_BATCHED_COLUMNS);
    r->a = calloc((size_t)(r->rows * q->k + 1), 8);
    r->b = calloc((size_t)(r->columns * q->k + 1), 8);
    r->out = calloc((size_t)(r->rows * r->columns), 8);
    r->powers = powers ? calloc((size_t)(2 * q->k + 1), sizeof *r->powers) : NULL;
    return r->a && r->b && r->out && (r->powers || !powers);
}

static void leave(room *r)
{
    free(r->a);
    free(r->b);
    free(r->out);
    free(r->powers);
}

/* Numbers of matrix `batch` of an operand: `outer` rows along step[1], each of depth k along step[2]; (i, k) goes to its
 * `place`. Behind the table they are multiplied by the scale of their run, of `run` numbers, if there are scales. */
#define UNPACK(type, codes, step, table, scale, scale_step, run, outer, place)                                         \
    for (int64_t i = 0; i < (outer); i++) {                                                                            \
        const int8_t *from = (codes) + batch * (step)[0] + i * (step)[1];                                              \
        const float *by = (scale) ? (scale) + batch * (scale_step)[0] + i * (scale_step)[1] : NULL;                    \
        if (by && (run) == 1) {                                                                                        \
            for (int64_t k = 0; k < q->k; k++)                                                                         \
                place = ((const type *)(table))[(uint8_t)from[k * (step)[2]]] * by[k * (scale_step)[2]];               \
            continue;                                                                                                  \
        }                                                                                                              \
        for (int64_t first = 0; first < q->k; first += (run)) {                                                        \
            const type factor = by ? *by : 1;                                                                          \
            by = by ? by + (scale_step)[2] : NULL;                                                                     \
            for (int64_t k = first; k < MLP_MIN(first + (run), q->k); k++)                                             \
                place = ((const type *)(table))[(uint8_t)from[k * (step)[2]]] * factor;                                \
        }                                                                                                              \
    }
#define TILE(b) (b)[(i / MLP_BATCHED_COLUMNS * q->k + k) * MLP_BATCHED_COLUMNS + i % MLP_BATCHED_COLUMNS]

/* Sums (rows, columns) of one matrix, as double or float, times both scales to their place. */
#define FINISH(type, sums)                                                                                             \
    for (int64_t i = 0; i < q->m; i++)                                                                                 \
        for (int64_t j = 0; j < q->n; j++)                                                                             \
            q->out[(batch * q->m + i) * q->n + j] =                                                                    \
                (float)((double)((const type *)(sums))[i * r->columns + j]                                             \
                        * (q->row_scale[batch * q->m + i] * q->column_scale[batch * q->n + j]));

static void exact_matrix(const mlp_batched *q, int64_t batch, room *r)
{
    const float *none = NULL;
    double *a = (double *)r->a, *b = (double *)r->b;
    UNPACK(double, q->a, q->step_a, q->values_a, none, q->step_a, q->k, q->m, a[i * q->k + k])
    UNPACK(double, q->b, q->step_b, q->values_b, none, q->step_b, q->k, q->n, TILE(b))
    tier()->exact(a, b, r->rows, r->columns, q->k, (double *)r->out);
    FINISH(double, r->out)
}

static void runs_matrix(const mlp_batched *q, int64_t batch, room *r)
{
    float *a = (float *)r->a, *b = (float *)r->b;
    /* One scale that all runs share is that of one run. Sums begin with 0, so runs of one product each are added as the
     * products of a single run are: bit for bit. */
    const int64_t run_a = q->scale_step_a[2] ? q->run : q->k, run_b = q->scale_step_b[2] ? q->run : q->k;
    UNPACK(float, q->a, q->step_a, q->values_a, q->scale_a, q->scale_step_a, run_a, q->m, a[i * q->k + k])
    UNPACK(float, q->b, q->step_b, q->values_b, q->scale_b, q->scale_step_b, run_b, q->n, TILE(b))
    tier()->runs(a, b, r->rows, r->columns, q->k, q->run > 1 ? q->run : MLP_MAX(q->k, 1), (float *)r->out);
    FINISH(float, r->out)
}

static void shift_matrix(const mlp_batched *q, int64_t batch, room *r)
{
    int64_t *b = (int64_t *)r->b, *out = (int64_t *)r->out;
    for (int64_t i = 0; i < q->n; i++)
        for (int64_t k = 0; k < q->k; k++) {
            const int code = q->b[batch * q->step_b[0] + i * q->step_b[1] + k * q->step_b[2]];
            const int64_t power = code ? (int64_t)1 << ((code < 0 ? -code : code) - 1) : 0;
            TILE(b) = code < 0 ? -power : power;
        }
    mlp_batched_power *positive = r->powers, *negative = r->powers + q->k;
    for (int64_t i = 0; i < q->m; i++) {
        int64_t positives = 0, negatives = 0;
        for (int64_t k = 0; k < q->k; k++) {
            const int code = q->a[batch * q->step_a[0] + i * q->step_a[1] + k * q->step_a[2]];
            if (code > 0)
                positive[positives++] = (mlp_batched_power){k * MLP_BATCHED_COLUMNS, code - 1};
            else if (code < 0)
                negative[negatives++] = (mlp_batched_power){k * MLP_BATCHED_COLUMNS, -code - 1};
        }
        for (int64_t j = 0; j < r->columns; j += MLP_BATCHED_COLUMNS)
            tier()->shift(positive, positives, negative, negatives, b + j * q->k, out + i * r->columns + j);
    }
    FINISH(int64_t, out)
}

static int each_matrix(const mlp_batched *q, void (*work)(const mlp_batched *, int64_t, room *), int powers)
{
    if (q->batch < 0 || q->m < 0 || q->n < 0 || q->k < 0 || q->run < 1)
        return MLP_BAD_ARGUMENT;
    if (!q->batch || !q->m || !q->n)
        return MLP_OK;
    const int threads = mlp_workers(q->batch);
    atomic_llong next = 0;
    atomic_int failed = 0;
    MLP_PARALLEL_FOR(threads)
    for (int thread = 0; thread < threads; thread++) {
        room r;
        if (room_for(q, powers, &r))
            for (int64_t batch; (batch = atomic_fetch_add(&next, 1)) < q->batch;)
                work(q, batch, &r);
        else
            failed = 1;
        leave(&r);
    }
    return failed ? MLP_NO_MEMORY : MLP_OK;
}

int mlp_batched_exact(const mlp_batched *q) { return each_matrix(q, exact_matrix, 0); }
int mlp_batched_runs(const mlp_batched *q) { return each_matrix(q, runs_matrix, 0); }
int mlp_batched_shift(const mlp_batched *q) { return each_matrix(q, shift_matrix, 1); }
