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
    const uint32_t step = (uint32_t)run->index_step;
    for (int64_t j = 0; j < run->n; j++)
        out[j] = mlp_draw(key, run_key, index + (uint32_t)j * step);
    return 0;
}

MLP_RUN_TIERS(random_run)

int mlp_random_bits(uint32_t *out, int ndim, const int64_t *shape, const int64_t *scale_steps,
                    const int64_t *index_steps, const uint32_t *key, uint64_t offset)
{
    mlp_layout layout = {ndim, shape, scale_steps, index_steps, offset};
    if (!mlp_layout_ok(&layout))
        return MLP_BAD_ARGUMENT;
    random_task task = {out, key};
    mlp_walk(&layout, random_run_for_tier(), &task, mlp_walk_threads(mlp_layout_size(&layout)));
    return MLP_OK;
}
