/* The vector loops of the MX contractions: one body, included once per tier with
 *   VECTOR_BYTES, TIER (portable, ...), TARGET (attributes of a function), JOBS (outputs that one walk sums; 4 or 8),
 *   MADD(sum, a, b): 16-bit products of pairs, added to a sum.
 * See mx.h. */
#define LANES ((int64_t)(VECTOR_BYTES / 4))
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(base) JOIN(base, TIER)
#define VECTOR NAME(mlp_mx_vector)
#define FLOATS NAME(mlp_mx_floats)
#define MLP_UNROLL _Pragma("GCC unroll 12")

typedef int32_t VECTOR __attribute__((vector_size(VECTOR_BYTES), aligned(4)));
typedef float FLOATS __attribute__((vector_size(VECTOR_BYTES), aligned(4)));

/* `jobs` neighbouring outputs of row y, phase f, from column x of the phase on; samples v ... v + LANES - 1. */
MLP_INLINE void NAME(mlp_mx_row_jobs)(const int jobs, const mlp_mx_rows *g, int64_t y, int64_t f, int64_t x, int64_t v)
{
    int64_t pixel = g->lanes, row = g->in_size[1] * pixel, plane = g->in_size[0] * row;
    int64_t in_step = (g->input_grad ? 1 : g->stride[1]) * pixel, out_step = g->input_grad ? g->stride[1] : 1;
    int64_t taps = g->kernel[0] * g->kernel[1], valid = mlp_min(LANES, g->batch - v);
    for (int64_t o = 0; o < g->out_channels; o++) {
        FLOATS total[8];
        MLP_UNROLL for (int j = 0; j < jobs; j++)
            total[j] = (FLOATS){0};
        for (int64_t k = 0; k < g->blocks; k++) {
            int64_t pairs = mlp_min(g->pairs, g->all_pairs - k * g->pairs);
            for (int64_t ky = 0; ky < g->kernel[0]; ky++) {
                int64_t iy = mlp_mx_at(g, 0, y, ky);
                for (int64_t kx = 0; iy >= 0 && kx < g->kernel[1]; kx++) {
                    int64_t ix = mlp_mx_at(g, 1, f, kx), tap = (o * g->blocks + k) * taps + ky * g->kernel[1] + kx;
                    if (ix < 0)
                        continue;
                    int64_t place = iy * row + ix * pixel + x * in_step + v;
                    const int32_t *at = g->input + k * g->pairs * plane + place, *weight = g->weight + tap * g->pairs;
                    const float *scale = g->scale_input + k * plane + place;
                    FLOATS more = (FLOATS){0} + g->scale_weight[tap];
                    VECTOR sum[8];
                    MLP_UNROLL for (int j = 0; j < jobs; j++)
                        sum[j] = (VECTOR){0};
                    for (int64_t p = 0; p < pairs; p++, at += plane) {
                        VECTOR w = (VECTOR){0} + weight[p];
                        MLP_UNROLL for (int j = 0; j < jobs; j++)
                            sum[j] = MADD(sum[j], *(const VECTOR *)(at + j * in_step), w);
                    }
                    MLP_UNROLL for (int j = 0; j < jobs; j++)
                        total[j] += __builtin_convertvector(sum[j], FLOATS) * *(const FLOATS *)(scale + j * in_step)
                                    * more;
                }
            }
        }
        float *out = g->out + ((o * g->out_size[0] + y) * g->out_size[1] + f) * g->batch + v;
        for (int j = 0; j < jobs; j++)
            for (int64_t i = 0; i < valid; i++)
                out[(x + j) * out_step * g->batch + i] = (float)((double)total[j][i] * g->scale);
    }
}

/* Row y of all output channels, for the samples of one vector. */
TARGET static void NAME(mlp_mx_row)(const mlp_mx_rows *g, int64_t y, int64_t v)
{
    int64_t phases = g->input_grad ? g->stride[1] : 1;
    for (int64_t f = 0; f < phases; f++) {
        int64_t x = 0, count = mlp_ceil_div(mlp_max(g->out_size[1] - f, 0), phases);
        for (; x + JOBS <= count; x += JOBS)
            NAME(mlp_mx_row_jobs)(JOBS, g, y, f, x, v);
        for (; x + 2 <= count; x += 2)
            NAME(mlp_mx_row_jobs)(2, g, y, f, x, v);
        for (; x < count; x++)
            NAME(mlp_mx_row_jobs)(1, g, y, f, x, v);
    }
}

/* `features` output channels from o on and `taps` neighbours from (ky, kx) on, for one vector of input channels. */
MLP_INLINE void NAME(mlp_mx_weight_jobs)(const int features, const int taps, const mlp_mx_wgrad *g, int64_t o,
                                         int64_t ky, int64_t kx, int64_t vector)
{
    int64_t feature = g->out_size[0] * g->out_size[1] * g->pairs, blocks = mlp_ceil_div(g->pairs, g->block_pairs);
    int64_t tap = g->dilation[1] * g->pairs * LANES, scale_tap = g->dilation[1] * blocks * LANES;
    int64_t scale_feature = g->out_size[0] * g->out_size[1] * blocks;
    FLOATS total[MLP_MX_FEATURES * MLP_MX_TAPS];
    MLP_UNROLL for (int i = 0; i < features * taps; i++)
        total[i] = (FLOATS){0};
    for (int64_t k = 0; k < blocks; k++) {
        int64_t first = k * g->block_pairs, pairs = mlp_min(g->block_pairs, g->pairs - first);
        for (int64_t y = 0; y < g->out_size[0]; y++)
            for (int64_t x = 0; x < g->out_size[1]; x++) {
                int64_t from = (o * g->out_size[0] + y) * g->out_size[1] + x;
                int64_t to = (vector * g->size[0] + y * g->stride[0] + ky * g->dilation[0]) * g->size[1]
                             + x * g->stride[1] + kx * g->dilation[1];
                const int32_t *e = g->error + from * g->pairs + first;
                const int32_t *a = g->act + (to * g->pairs + first) * LANES;
                VECTOR sum[MLP_MX_FEATURES * MLP_MX_TAPS];
                MLP_UNROLL for (int i = 0; i < features * taps; i++)
                    sum[i] = (VECTOR){0};
                for (int64_t p = 0; p < pairs; p++) {
                    VECTOR at[MLP_MX_TAPS];
                    MLP_UNROLL for (int t = 0; t < taps; t++)
                        at[t] = *(const VECTOR *)(a + p * LANES + t * tap);
                    MLP_UNROLL for (int f = 0; f < features; f++) {
                        VECTOR w = (VECTOR){0} + e[p + f * feature];
                        MLP_UNROLL for (int t = 0; t < taps; t++)
                            sum[f * taps + t] = MADD(sum[f * taps + t], at[t], w);
                    }
                }
                const float *se = g->scale_error + from * blocks + k, *sa = g->scale_act + (to * blocks + k) * LANES;
                MLP_UNROLL for (int f = 0; f < features; f++) {
                    FLOATS more = (FLOATS){0} + se[f * scale_feature];
                    MLP_UNROLL for (int t = 0; t < taps; t++)
                        total[f * taps + t] += __builtin_convertvector(sum[f * taps + t], FLOATS)
                                               * *(const FLOATS *)(sa + t * scale_tap) * more;
                }
            }
    }
    int64_t all = g->kernel[0] * g->kernel[1];
    MLP_UNROLL for (int f = 0; f < features; f++)
        MLP_UNROLL for (int t = 0; t < taps; t++)
            *(FLOATS *)(g->out + (((o + f) * all + ky * g->kernel[1] + kx + t) * g->vectors + vector) * LANES) =
                total[f * taps + t];
}

/* Output channels o ... o + features - 1 with one vector of input channels, all taps. */
TARGET static void NAME(mlp_mx_weight)(const mlp_mx_wgrad *g, int64_t o, int64_t features, int64_t vector)
{
    for (int64_t ky = 0; ky < g->kernel[0]; ky++)
        for (int64_t kx = 0, taps; kx < g->kernel[1]; kx += taps) {
            taps = g->kernel[1] - kx >= MLP_MX_TAPS ? MLP_MX_TAPS : 1;
            if (features == MLP_MX_FEATURES && taps == MLP_MX_TAPS)
                NAME(mlp_mx_weight_jobs)(MLP_MX_FEATURES, MLP_MX_TAPS, g, o, ky, kx, vector);
            else if (features == MLP_MX_FEATURES)
                NAME(mlp_mx_weight_jobs)(MLP_MX_FEATURES, 1, g, o, ky, kx, vector);
            else
                for (int64_t f = 0; f < features; f++)
                    for (int64_t t = 0; t < taps; t++)
                        NAME(mlp_mx_weight_jobs)(1, 1, g, o + f, ky, kx + t, vector);
        }
}

#undef LANES
#undef JOIN_
#undef JOIN
#undef NAME
#undef VECTOR
#undef FLOATS
#undef MLP_UNROLL
#undef VECTOR_BYTES
#undef TIER
#undef TARGET
#undef JOBS
#undef MADD
