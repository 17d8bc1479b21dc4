/* The walk that every quantising kernel shares: pieces of a fixed size, cut into runs along the last axis. The pieces
 * do not depend on the number of threads, and what comes back is a maximum, so neither do the results. */
#include "quantise.h"

int mlp_layout_ok(const mlp_layout *layout)
{
    if (layout->ndim < 1 || layout->ndim > MLP_MAX_AXES)
        return 0;
    for (int axis = 0; axis < layout->ndim; axis++)
        if (layout->shape[axis] < 1)
            return 0;
    return 1;
}

int64_t mlp_layout_size(const mlp_layout *layout)
{
    int64_t size = 1;
    for (int axis = 0; axis < layout->ndim; axis++)
        size *= layout->shape[axis];
    return size;
}

int mlp_walk_threads(int64_t elements)
{
    int64_t pieces = (elements + MLP_PIECE - 1) / MLP_PIECE;
    int threads = mlp_threads();
    return pieces < threads ? (int)pieces : threads;
}

/* How many of the n elements from `index` on stay below the next multiple of 2^32. */
static int64_t until_next_high_word(uint64_t index, uint64_t step, int64_t n)
{
    if (step == 0 || (index >> 32) == ((index + step * (uint64_t)(n - 1)) >> 32))
        return n;
    uint64_t room = (((index >> 32) + 1) << 32) - index;
    return (int64_t)((room + step - 1) / step);
}

static uint32_t walk_piece(const mlp_layout *layout, mlp_run_function function, const void *task, int64_t begin,
                           int64_t end, int slot)
{
    int last = layout->ndim - 1;
    int64_t place[MLP_MAX_AXES], rest = begin;
    for (int axis = last; axis >= 0; axis--) {
        place[axis] = rest % layout->shape[axis];
        rest /= layout->shape[axis];
    }
    uint32_t largest = 0;
    for (int64_t position = begin; position < end;) {
        mlp_run run = {.position = position, .n = layout->shape[last] - place[last], .slot = slot,
                       .index = layout->index, .scale_step = layout->scale_steps[last],
                       .index_step = (uint64_t)layout->index_steps[last]};
        if (run.n > end - position)
            run.n = end - position;
        for (int axis = 0; axis <= last; axis++) {
            run.scale += place[axis] * layout->scale_steps[axis];
            run.index += (uint64_t)(place[axis] * layout->index_steps[axis]);
        }
        run.n = until_next_high_word(run.index, run.index_step, run.n);
        uint32_t found = function(task, &run);
        largest = found > largest ? found : largest;
        position += run.n;
        place[last] += run.n;
        for (int axis = last; axis > 0 && place[axis] == layout->shape[axis]; axis--) {
            place[axis] = 0;
            place[axis - 1]++;
        }
    }
    return largest;
}

uint32_t mlp_walk(const mlp_layout *layout, mlp_run_function function, const void *task, int threads)
{
    int64_t size = mlp_layout_size(layout);
    int64_t pieces = (size + MLP_PIECE - 1) / MLP_PIECE;
    uint32_t largest = 0;
    (void)threads;
    MLP_PRAGMA(omp parallel for schedule(static) num_threads(threads) reduction(max : largest))
    for (int64_t piece = 0; piece < pieces; piece++) {
#ifdef MLP_HAVE_OPENMP
        int slot = omp_get_thread_num();
#else
        int slot = 0;
#endif
        int64_t begin = piece * MLP_PIECE, end = begin + MLP_PIECE < size ? begin + MLP_PIECE : size;
        uint32_t found = walk_piece(layout, function, task, begin, end, slot);
        largest = found > largest ? found : largest;
    }
    return largest;
}
