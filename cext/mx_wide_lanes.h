/* The sums of MX contractions on records of floats, in double precision: one body, included once per tier with
 *   VECTOR_BYTES, TIER, TARGET; STEPS (neighbours that one walk sums); MULADD(a, b, c) in doubles; PAST(out, v): a store
 *   past the caches, for vectors of a whole line.
 * A vector of floats is two halves, each as many doubles as a vector holds. See mx_records.h. */
#define LANES (VECTOR_BYTES / 4)
#define HALF (VECTOR_BYTES / 8)
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(base) JOIN(base, TIER)
#define FLOATS NAME(mlp_mx_half)
#define DOUBLES NAME(mlp_mx_doubles)
#define MLP_UNROLL _Pragma("GCC unroll 12")

typedef float FLOATS __attribute__((vector_size(VECTOR_BYTES / 2), aligned(4)));
typedef double DOUBLES __attribute__((vector_size(VECTOR_BYTES), aligned(4)));
#define WIDEN(from) __builtin_convertvector(*(const FLOATS *)(from), DOUBLES)

MLP_INLINE void NAME(mlp_mx_wide_block)(const mlp_mx_terms *t, const int features, const int steps, const int every,
                                        float *totals)
{
    const int64_t step = t->step, feature = t->feature / 2, length = t->length;
    for (int64_t i = 0; i < t->count; i++) {
        const char *x = t->lanes + t->at[i].lanes;
        const double *w = (const double *)(t->words + t->at[i].words);
        DOUBLES low[MLP_MX_FEATURES * MLP_MX_TAPS], high[MLP_MX_FEATURES * MLP_MX_TAPS];
        MLP_UNROLL for (int j = 0; j < features * steps; j++)
            low[j] = high[j] = (DOUBLES){0};
        for (int64_t e = 0; e < length; e++) {
            DOUBLES left[MLP_MX_TAPS], right[MLP_MX_TAPS];
            MLP_UNROLL for (int j = 0; j < steps; j++) {
                left[j] = WIDEN(x + j * step + e * VECTOR_BYTES);
                right[j] = WIDEN(x + j * step + e * VECTOR_BYTES + VECTOR_BYTES / 2);
            }
            MLP_UNROLL for (int f = 0; f < features; f++) {
                const DOUBLES all = (DOUBLES){0} + w[f * feature + e];
                MLP_UNROLL for (int j = 0; j < steps; j++) {
                    low[f * steps + j] = MULADD(left[j], all, low[f * steps + j]);
                    high[f * steps + j] = MULADD(right[j], all, high[f * steps + j]);
                }
            }
        }
        MLP_UNROLL for (int f = 0; f < features; f++) {
            float more;
            memcpy(&more, w + f * feature + length, sizeof more);
            MLP_UNROLL for (int j = 0; j < steps; j++) {
                const char *scale = x + j * step + length * VECTOR_BYTES;
                FLOATS *total = (FLOATS *)(totals + (f * every + j) * LANES);
                total[0] += __builtin_convertvector(low[f * steps + j], FLOATS) * *(const FLOATS *)scale * more;
                total[1] += __builtin_convertvector(high[f * steps + j], FLOATS)
                            * *(const FLOATS *)(scale + VECTOR_BYTES / 2) * more;
            }
        }
    }
}

TARGET static void NAME(mlp_mx_wide_sum)(const mlp_mx_terms *t, int features, int steps, float *total)
{
    mlp_mx_terms here = *t;
    for (int j = 0; j < steps; j += STEPS, here.lanes += STEPS * t->step, total += STEPS * LANES) {
        if (steps - j < STEPS) {
            for (; j < steps; j++, here.lanes += t->step, total += LANES)
                if (features == MLP_MX_FEATURES)
                    NAME(mlp_mx_wide_block)(&here, MLP_MX_FEATURES, 1, steps, total);
                else
                    NAME(mlp_mx_wide_block)(&here, 1, 1, steps, total);
            return;
        }
        if (features == MLP_MX_FEATURES)
            NAME(mlp_mx_wide_block)(&here, MLP_MX_FEATURES, STEPS, steps, total);
        else
            NAME(mlp_mx_wide_block)(&here, 1, STEPS, steps, total);
    }
}

TARGET static void NAME(mlp_mx_wide_put)(const float *total, double scale, int64_t valid, float *out, int past)
{
    float scaled[LANES] __attribute__((aligned(64)));
    for (int h = 0; h < LANES; h += HALF)
        *(FLOATS *)(scaled + h) = __builtin_convertvector(WIDEN(total + h) * scale, FLOATS);
    if (past)
        PAST(out, scaled);
    else
        memcpy(out, scaled, (size_t)valid * sizeof *out);
}

static const mlp_mx_kernel NAME(mlp_mx_wide) = {LANES, 2, NAME(mlp_mx_wide_sum), NAME(mlp_mx_wide_put)};

#undef LANES
#undef HALF
#undef JOIN_
#undef JOIN
#undef NAME
#undef FLOATS
#undef DOUBLES
#undef MLP_UNROLL
#undef WIDEN
#undef VECTOR_BYTES
#undef TIER
#undef TARGET
#undef STEPS
#undef MULADD
#undef PAST
