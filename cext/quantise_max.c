/* The largest magnitude, as bits: for non-negative floats the order of the bits is the order of the numbers, and
 * infinity and NaN come out on top, so one pass finds the maximum and everything that must not be encoded. */
#include "quantise.h"

typedef struct {
    const uint32_t *x;
    uint32_t *maxima; /* one row of `count` words a thread; NULL where one maximum is asked for */
    int64_t count;
} max_task;

MLP_INLINE uint32_t max_run(const void *task, const mlp_run *run)
{
    const max_task *t = task;
    const uint32_t *x = t->x + run->position;
    uint32_t largest = 0;
    if (run->scale_step == 0) {
        for (int64_t j = 0; j < run->n; j++) {
            uint32_t magnitude = x[j] & MLP_ABS_MASK;
            largest = magnitude > largest ? magnitude : largest;
        }
        if (t->maxima) {
            uint32_t *out = t->maxima + run->slot * t->count + run->scale;
            *out = largest > *out ? largest : *out;
        }
        return largest;
    }
    uint32_t *restrict out = t->maxima + run->slot * t->count + run->scale;
    if (run->scale_step == 1) { /* neighbours have scales of their own, as samples in the lanes do: whole vectors */
        for (int64_t j = 0; j < run->n; j++) {
            uint32_t magnitude = x[j] & MLP_ABS_MASK;
            out[j] = magnitude > out[j] ? magnitude : out[j];
        }
        return 0;
    }
    for (int64_t j = 0; j < run->n; j++) {
        uint32_t magnitude = x[j] & MLP_ABS_MASK, *here = out + j * run->scale_step;
        *here = magnitude > *here ? magnitude : *here;
    }
    return 0;
}

MLP_RUN_TIERS(max_run)

int mlp_absmax(const uint32_t *x, int ndim, const int64_t *shape, const int64_t *scale_steps, int64_t threads,
               int64_t count, uint32_t *maxima)
{
    mlp_layout layout = {ndim, shape, scale_steps, scale_steps, 0};
    if (!mlp_layout_ok(&layout) || threads < 1 || count < 1)
        return MLP_BAD_ARGUMENT;
    max_task task = {x, count > 1 ? maxima : NULL, count};
    uint32_t largest = mlp_walk(&layout, max_run_for_tier(), &task, (int)threads);
    if (count == 1)
        maxima[0] = largest;
    return MLP_OK;
}

/* Where |x| > limit, as bits (NaN is nowhere): count piece by piece, then list the positions of the pieces with any. */
typedef struct {
    const uint32_t *x;
    uint32_t limit;
    int64_t *counts;
} scan_task;

MLP_INLINE uint32_t scan_run(const void *task, const mlp_run *run)
{
    const scan_task *t = task;
    const uint32_t *x = t->x + run->position, limit = t->limit;
    int32_t found = 0;
    for (int64_t j = 0, n = run->n; j < n; j++)
        found += mlp_beyond(x[j], limit);
    t->counts[run->position / MLP_PIECE] += found;
    return 0;
}

MLP_RUN_TIERS(scan_run)

int mlp_outside_count(const uint32_t *x, int64_t n, uint32_t limit, int64_t *counts)
{
    static const int64_t no_step = 0;
    mlp_layout layout = {1, &n, &no_step, &no_step, 0};
    if (!mlp_layout_ok(&layout))
        return MLP_BAD_ARGUMENT;
    scan_task task = {x, limit, counts};
    mlp_walk(&layout, scan_run_for_tier(), &task, mlp_walk_threads(n));
    return MLP_OK;
}

int mlp_outside_list(const uint32_t *x, int64_t n, uint32_t limit, const int64_t *counts, int64_t *positions)
{
    if (n < 1)
        return MLP_BAD_ARGUMENT;
    for (int64_t begin = 0; begin < n; begin += MLP_PIECE) {
        int64_t end = begin + MLP_PIECE < n ? begin + MLP_PIECE : n;
        if (counts[begin / MLP_PIECE] == 0)
            continue;
        for (int64_t j = begin; j < end; j++)
            if (mlp_beyond(x[j], limit))
                *positions++ = j;
    }
    return MLP_OK;
}
