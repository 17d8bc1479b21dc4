/* What both drivers of the exponent-binned adds do alike: look at the codes, list taps by phase, choose lanes. See
 * pot_bins.h. */
#include "pot_bins.h"
#include <stdlib.h>

int mlp_pot_plan_axis(mlp_pot_axis *axis, int input_grad, int64_t kernel, int64_t stride, int64_t padding,
                      int64_t dilation, int64_t out_size)
{
    axis->phases = input_grad ? stride : 1;
    axis->in_step = input_grad ? 1 : stride;
    axis->out_step = input_grad ? stride : 1;
    axis->phase = calloc((size_t)axis->phases, sizeof *axis->phase);
    axis->store = malloc((size_t)(2 * kernel * axis->phases) * sizeof(int64_t));
    if (!axis->phase || !axis->store)
        return 0;
    int64_t *free_room = axis->store;
    axis->low = INT64_MAX;
    axis->high = INT64_MIN;
    for (int64_t f = 0; f < axis->phases; f++) {
        mlp_pot_phase *p = &axis->phase[f];
        p->origin = f;
        p->count = out_size > f ? mlp_ceil_div(out_size - f, axis->out_step) : 0;
        p->tap = free_room;
        p->offset = free_room + kernel;
        free_room += 2 * kernel;
        for (int64_t k = 0; k < kernel; k++) {
            int64_t offset = k * dilation - padding;
            if (input_grad) {
                if (mlp_floor_mod(f - offset, stride))
                    continue;
                offset = mlp_floor_div(f - offset, stride);
            }
            p->tap[p->taps] = k;
            p->offset[p->taps++] = offset;
            axis->low = offset < axis->low ? offset : axis->low;
            axis->high = offset > axis->high ? offset : axis->high;
        }
    }
    return 1;
}

void mlp_pot_free_axis(mlp_pot_axis *axis)
{
    free(axis->phase);
    free(axis->store);
}

int mlp_pot_within(const int8_t *codes, int64_t n, int top)
{
    enum { PIECE = 1 << 15 };
    const int8_t low = (int8_t)-top, high = (int8_t)top;
    int outside = 0;
    MLP_PRAGMA(omp parallel for schedule(static) reduction(| : outside) num_threads(n > PIECE ? mlp_threads() : 1))
    for (int64_t first = 0; first < n; first += PIECE) {
        int8_t found = 0;  /* as narrow as the codes: the compiler then compares a vector of them at once */
        for (int64_t i = first; i < mlp_min(first + PIECE, n); i++)
            found |= (codes[i] > high) | (codes[i] < low);
        outside |= found;
    }
    return !outside;
}

const mlp_pot_lanes *mlp_pot_choose_lanes(int levels, int64_t count, int64_t *limit)
{
    static const mlp_pot_lanes *const narrow[] = {&mlp_pot_lanes_i16_portable,
#ifdef MLP_HAVE_AVX2
                                                  &mlp_pot_lanes_i16_avx2,
#else
                                                  &mlp_pot_lanes_i16_portable,
#endif
#ifdef MLP_HAVE_AVX512
                                                  &mlp_pot_lanes_i16_avx512
#endif
    }, *const wide[] = {&mlp_pot_lanes_i32_portable,
#ifdef MLP_HAVE_AVX2
                        &mlp_pot_lanes_i32_avx2,
#else
                        &mlp_pot_lanes_i32_portable,
#endif
#ifdef MLP_HAVE_AVX512
                        &mlp_pot_lanes_i32_avx512
#endif
    };
    const mlp_pot_lanes *best = NULL;
    int64_t fewest = 0;
    if (levels > 16)
        return NULL;
    /* The fewest vectors that cover the lanes that are wanted, and of those the shortest: a small batch fills it, it is
     * not slower than a long one, and it leaves more room in the cache. */
    for (int tier = mlp_vector_tier(); tier >= 0; tier--)
        for (int small = levels <= 7; small >= 0; small--) {
            const mlp_pot_lanes *lanes = (small ? narrow : wide)[tier];
            int64_t vectors = mlp_ceil_div(count, lanes->lanes);
            if (!best || vectors < fewest || (vectors == fewest && lanes->bytes < best->bytes)) {
                best = lanes;
                fewest = vectors;
                *limit = (small ? INT16_MAX : INT32_MAX) >> (levels - 1);
            }
        }
    return best;
}
