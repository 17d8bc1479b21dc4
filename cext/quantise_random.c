/* The words of a random stream, written out: what the stochastic kernels draw one by one. */
#include "quantise.h"

typedef struct {
    uint32_t *out;
    const uint32_t *key;
} random_task;

MLP_INLINE uint32_t random_run(const void *task, const mlp_run *run)
{
    const random_task *t = task;
    uint32_t *out = t->out + run->position;
    uint32_t key = t->key[0], run_key = mlp_run_key(t->key, run->index), index = (uint32_t)run->index;
    for (int64_t j = 0; j < run->n; j++)
        out[j] = mlp_draw(key, run_key, index + (uint32_t)j);
    return 0;
}

MLP_RUN_TIERS(random_run)

int mlp_random_bits(uint32_t *out, int64_t n, const uint32_t *key, uint64_t offset)
{
    static const int64_t no_step = 0, one_step = 1;
    mlp_layout layout = {1, &n, &no_step, &one_step, offset};
    if (!mlp_layout_ok(&layout))
        return MLP_BAD_ARGUMENT;
    random_task task = {out, key};
    mlp_walk(&layout, random_run_for_tier(), &task, mlp_walk_threads(n));
    return MLP_OK;
}
