/* The vector loops of the MLS contractions: one body, included once per tier with
 *   VECTOR_BYTES, TIER (portable, ...), TARGET (attributes of a function), MADD(a, b): 16-bit products of pairs, added;
 *   COUNTS: every lane can be shifted by a count of its own.
 * See mls.h. */
#define LANES ((int64_t)(VECTOR_BYTES / 4))
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(base) JOIN(base, TIER)
#define VECTOR NAME(mlp_mls_vector)
#define FLOATS NAME(mlp_mls_floats)
#define SHORTS NAME(mlp_mls_shorts)
#define MLP_UNROLL _Pragma("GCC unroll 12")

typedef int32_t VECTOR __attribute__((vector_size(VECTOR_BYTES), aligned(VECTOR_BYTES)));
typedef float FLOATS __attribute__((vector_size(VECTOR_BYTES), aligned(VECTOR_BYTES)));
typedef int16_t SHORTS __attribute__((vector_size(VECTOR_BYTES / 2), aligned(VECTOR_BYTES / 2)));

TARGET static void NAME(mlp_mls_expand)(const int8_t *codes, ptrdiff_t step, int64_t pixels, int64_t valid,
                                        const int16_t *table, int16_t *values)
{
    for (int64_t i = 0; i < pixels; i++, codes += step, values += LANES) {
        if (valid == LANES) {
            for (int j = 0; j < LANES; j++)
                values[j] = table[(uint8_t)codes[j]];
        } else {
            for (int j = 0; j < LANES; j++)
                values[j] = j < valid ? table[(uint8_t)codes[j]] : 0;
        }
    }
}

TARGET static void NAME(mlp_mls_pair)(const int16_t *values, int64_t pixels, int64_t count, int64_t every,
                                      int64_t distance, void *out)
{
    const SHORTS *value = (const SHORTS *)values;
    VECTOR *pairs = out;
    for (int64_t i = 0; i < count; i += every, pairs++) {
        VECTOR low = __builtin_convertvector(value[i], VECTOR) & 0xFFFF, high = {0};
        if (i + distance < pixels)
            high = __builtin_convertvector(value[i + distance], VECTOR);
        *pairs = low | (high << 16);
    }
}

/* The MACs of one group for `jobs` neighbouring outputs. */
MLP_INLINE void NAME(mlp_mls_mac_jobs)(const int jobs, const char *tile, const int64_t *offset, const int32_t *weight,
                                       int64_t pairs, int64_t step, VECTOR *sums)
{
    VECTOR sum[8];
    MLP_UNROLL for (int j = 0; j < jobs; j++)
        sum[j] = (VECTOR){0};
    for (int64_t p = 0; p < pairs; p++) {
        const char *at = tile + offset[p];
        VECTOR w = (VECTOR){0} + weight[p];
        MLP_UNROLL for (int j = 0; j < jobs; j++)
            sum[j] += MADD(*(const VECTOR *)(at + j * step), w);
    }
    MLP_UNROLL for (int j = 0; j < jobs; j++)
        sums[j] = sum[j];
}

TARGET static void NAME(mlp_mls_mac_rows)(const char *tile, const int64_t *offset, const int32_t *weight, int64_t pairs,
                                          int64_t rows, int64_t row_step, int64_t columns, int64_t step, void *sums)
{
    VECTOR *out = sums;
    for (int64_t r = 0; r < rows; r++, tile += row_step) {
        int64_t i = 0;
        for (; i + 8 <= columns; i += 8, out += 8)
            NAME(mlp_mls_mac_jobs)(8, tile + i * step, offset, weight, pairs, step, out);
        for (; i + 2 <= columns; i += 2, out += 2)
            NAME(mlp_mls_mac_jobs)(2, tile + i * step, offset, weight, pairs, step, out);
        for (; i < columns; i++, out++)
            NAME(mlp_mls_mac_jobs)(1, tile + i * step, offset, weight, pairs, step, out);
    }
}

MLP_INLINE void NAME(mlp_mls_mac_block)(const int features, const int taps, const char *error, int64_t error_feature,
                                        int64_t error_row, const char *act, int64_t act_row, int64_t act_step,
                                        int64_t act_tap, int64_t rows, int64_t columns, int64_t feature_step,
                                        VECTOR *sums)
{
    VECTOR sum[MLP_MLS_FEATURES * MLP_MLS_TAPS];
    MLP_UNROLL for (int i = 0; i < features * taps; i++)
        sum[i] = (VECTOR){0};
    for (int64_t r = 0; r < rows; r++, error += error_row, act += act_row) {
        const char *e = error, *a = act;
        for (int64_t i = 0; i < columns; i++, e += VECTOR_BYTES, a += act_step) {
            VECTOR x[MLP_MLS_TAPS];
            MLP_UNROLL for (int t = 0; t < taps; t++)
                x[t] = *(const VECTOR *)(a + t * act_tap);
            MLP_UNROLL for (int f = 0; f < features; f++) {
                VECTOR y = *(const VECTOR *)(e + f * error_feature);
                MLP_UNROLL for (int t = 0; t < taps; t++)
                    sum[f * taps + t] += MADD(x[t], y);
            }
        }
    }
    MLP_UNROLL for (int f = 0; f < features; f++)
        MLP_UNROLL for (int t = 0; t < taps; t++)
            sums[f * feature_step + t] = sum[f * taps + t];
}

TARGET static void NAME(mlp_mls_mac_wgrad)(const char *error, int64_t error_feature, int64_t error_row, const char *act,
                                           int64_t act_row, int64_t act_step, int64_t act_tap, int64_t rows,
                                           int64_t columns, int features, int taps, int64_t feature_step, void *sums)
{
#define BLOCK(f, t) NAME(mlp_mls_mac_block)(f, t, error, error_feature, error_row, act, act_row, act_step, act_tap,    \
                                            rows, columns, feature_step, sums)
    if (features == MLP_MLS_FEATURES && taps == MLP_MLS_TAPS)
        BLOCK(MLP_MLS_FEATURES, MLP_MLS_TAPS);
    else if (features == MLP_MLS_FEATURES)
        BLOCK(MLP_MLS_FEATURES, 1);
    else if (taps == MLP_MLS_TAPS)
        BLOCK(1, MLP_MLS_TAPS);
    else
        BLOCK(1, 1);
#undef BLOCK
}

TARGET static void NAME(mlp_mls_mac_each)(const char *tile, int64_t step, const int32_t *weight, int64_t n,
                                          void *products)
{
    VECTOR *out = products;
    for (int64_t i = 0; i < n; i++)
        out[i] = MADD(*(const VECTOR *)(tile + i * step), (VECTOR){0} + weight[i]);
}

TARGET static void NAME(mlp_mls_widen)(const void *sums, int64_t n, int64_t *totals)
{
    const int32_t *sum = sums;
    for (int64_t i = 0; i < n * LANES; i++)
        totals[i] += sum[i];
}

TARGET static void NAME(mlp_mls_reduce)(const void *sums, int64_t n, int64_t *totals)
{
    const int32_t *sum = sums;
    for (int64_t i = 0; i < n; i++, sum += LANES) {
        int64_t total = 0;
        for (int j = 0; j < LANES; j++)
            total += sum[j];
        totals[i] += total;
    }
}

/* P * (4, 6 or 9) by two shifts and one add: (P << 1) + (P << 1), (P << 2) + (P << 1), (P << 3) + P. The masks say which:
 * none, any, both. Without shifts by a count a lane, masks choose among shifts by constants. */
#define SIGNIFICAND(p, both, any) (((p) << (1 - (any) - (both))) + ((p) << (1 + (both))))
#ifdef COUNTS
#define SIGNIFICAND_LANES SIGNIFICAND
#else
#define SIGNIFICAND_LANES(p, both, any) \
    ((((p) << 2) ^ ((((p) << 2) ^ ((p) << 3)) & (both))) + ((((p) << 1) ^ ((((p) << 1) ^ (p)) & (both))) & (any)))
#endif

/* The significands by shifts and one add, to float32 (nearest even), the power of two by exponent add, one float32
 * add. No multiply in any of these. */
TARGET void NAME(mlp_mls_shift_add)(const void *sums, int64_t n, const void *exponent, const void *both,
                                    const void *any, void *total)
{
    const VECTOR *sum = sums, e = *(const VECTOR *)exponent << 23, b = *(const VECTOR *)both, o = *(const VECTOR *)any;
    FLOATS *out = total;
    for (int64_t i = 0; i < n; i++) {
        VECTOR p = sum[i], t = SIGNIFICAND_LANES(p, b, o);
        FLOATS term = __builtin_convertvector(t, FLOATS);
        out[i] += (FLOATS)(((VECTOR)term - e) & (t != 0));
    }
}

/* The exponent is added in float64, whose range holds every term; the last rounding is exact for normal numbers. */
TARGET void NAME(mlp_mls_shift_wide)(const int64_t *sums, int64_t n, const int32_t *exponent, const int32_t *both,
                                     const int32_t *any, float *total)
{
    for (int64_t i = 0; i < n; i++, sums += LANES, total += LANES)
        for (int j = 0; j < LANES; j++) {
            uint64_t p = (uint64_t)sums[j];
            int64_t t = (int64_t)SIGNIFICAND(p, both[j], any[j]);
            union { double value; int64_t bits; } term = {(float)t};
            term.bits -= t ? (int64_t)exponent[j] << 52 : 0;
            total[j] += (float)term.value;
        }
}

TARGET void NAME(mlp_mls_shift_chain)(const void *products, int64_t n, const void *exponent, const void *bit,
                                      const int32_t *more, const int32_t *mask, void *total)
{
    const VECTOR *product = products, *exponents = exponent, *bits = bit;
    FLOATS sum = *(FLOATS *)total;
    for (int64_t i = 0; i < n; i++) {
        VECTOR p = product[i], b = bits[i], w = (VECTOR){0} + mask[i], t = SIGNIFICAND_LANES(p, b & w, b | w);
        FLOATS term = __builtin_convertvector(t, FLOATS);
        sum += (FLOATS)(((VECTOR)term - ((exponents[i] + more[i]) << 23)) & (t != 0));
    }
    *(FLOATS *)total = sum;
}

TARGET static void NAME(mlp_mls_store)(const void *total, int64_t valid, double scale, float *out)
{
    const float *sum = total;
    if (valid == LANES)  /* a constant count is a few whole vectors */
        for (int j = 0; j < LANES; j++)
            out[j] = (float)((double)sum[j] * scale);
    else
        for (int64_t j = 0; j < valid; j++)
            out[j] = (float)((double)sum[j] * scale);
}

static const mlp_mls_lanes NAME(mlp_mls_lanes) = {
    LANES, VECTOR_BYTES, NAME(mlp_mls_expand), NAME(mlp_mls_pair), NAME(mlp_mls_mac_rows), NAME(mlp_mls_mac_wgrad),
    NAME(mlp_mls_mac_each), NAME(mlp_mls_widen), NAME(mlp_mls_reduce), NAME(mlp_mls_shift_add),
    NAME(mlp_mls_shift_wide), NAME(mlp_mls_shift_chain), NAME(mlp_mls_store)};

#undef LANES
#undef JOIN_
#undef JOIN
#undef NAME
#undef VECTOR
#undef FLOATS
#undef SHORTS
#undef MLP_UNROLL
#undef SIGNIFICAND
#undef SIGNIFICAND_LANES
#undef COUNTS
#undef VECTOR_BYTES
#undef TIER
#undef TARGET
#undef MADD
