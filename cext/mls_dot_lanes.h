/* The vector loops of the emulated MLS contractions: one body, included once per tier with
 *   VECTOR_BYTES, TIER, TARGET; ROWS_FEATURES, WGRAD_FEATURES: features of a block, as registers allow;
 *   WIDEN(bytes), TOP(bytes): bytes to the lowest and to the highest byte of lanes, zeros elsewhere; TURN4(bytes): byte
 *   i of lane j is byte i LANES + j; DOT(sum, x, w): four products of unsigned by signed bytes a lane, added to a
 *   sum; SUM(sum): the sums as 32-bit integers; PAIRS: whether those are not simply the same; MULADD(a, b, c): one
 *   rounding; PAST(out, v): a store past the caches.
 * See mls_dot.h. */
#define LANES (VECTOR_BYTES / 4)
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(base) JOIN(base, TIER)
#define VECTOR NAME(mlp_mls_dot_vector)
#define UNSIGNED NAME(mlp_mls_dot_unsigned)
#define FLOATS NAME(mlp_mls_dot_floats)
#define MLP_UNROLL _Pragma("GCC unroll 12")

typedef int32_t VECTOR __attribute__((vector_size(VECTOR_BYTES), aligned(VECTOR_BYTES)));
typedef uint32_t UNSIGNED __attribute__((vector_size(VECTOR_BYTES), aligned(VECTOR_BYTES)));
typedef float FLOATS __attribute__((vector_size(VECTOR_BYTES), aligned(VECTOR_BYTES)));

/* The lower three bytes of each lane make room for one on top. */
#define DOWN(quad) ((VECTOR)((UNSIGNED)(quad) >> 8))

MLP_INLINE __m128i NAME(mlp_mls_dot_decode_16)(const mlp_mls_decode *d, __m128i code)
{
    const __m128i bias = _mm_set1_epi8((char)d->bias), low = _mm_set1_epi8(0x70), chunk = _mm_set1_epi8(16);
    if (d->few)
        return _mm_add_epi8(_mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)d->by_bits),
                                             _mm_and_si128(code, _mm_set1_epi8(15))), bias);
    __m128i level = _mm_abs_epi8(code), whole = _mm_setzero_si128();
    for (int k = 0; k < d->chunks; k++) {   /* an index with its top bit set picks a zero */
        __m128i index = _mm_adds_epu8(level, low), table = _mm_loadu_si128((const __m128i *)d->table[k]);
        whole = _mm_or_si128(whole, _mm_shuffle_epi8(table, index));
        level = _mm_sub_epi8(level, chunk);
    }
    return _mm_add_epi8(_mm_sign_epi8(whole, code), bias);
}

TARGET static void NAME(mlp_mls_dot_decode)(const mlp_mls_decode *d, const int8_t *codes, ptrdiff_t step,
                                            int64_t pixels, int64_t samples, uint8_t *values, ptrdiff_t pixel,
                                            ptrdiff_t vector)
{
    for (int64_t i = 0; i < pixels; i++, codes += step, values += pixel) {
        uint8_t *out = values;
        for (int64_t n = 0; n < samples; n += LANES, out += vector) {
            char some[16] = {0};
            const void *from = codes + n;
            if (n + LANES > samples)
                from = memcpy(some, from, (size_t)(samples - n));
            __m128i code = LANES == 16 ? _mm_loadu_si128(from) : _mm_loadl_epi64(from);
            code = NAME(mlp_mls_dot_decode_16)(d, code);
            if (LANES == 16)
                _mm_store_si128((__m128i *)out, code);
            else
                _mm_storel_epi64((__m128i *)out, code);
        }
    }
}

TARGET static void NAME(mlp_mls_dot_gather)(const uint8_t *values, ptrdiff_t pixel, int64_t n, char *out)
{
    VECTOR *quad = (VECTOR *)out;
    for (int64_t i = 0; i < n; i++, values += LANES)
        quad[i] = WIDEN(values) | WIDEN(values + pixel) << 8 | WIDEN(values + 2 * pixel) << 16
                  | WIDEN(values + 3 * pixel) << 24;
}

TARGET static void NAME(mlp_mls_dot_slide)(const uint8_t *values, int64_t n, char *out)
{
    VECTOR *quad = (VECTOR *)out;
    for (int64_t i = 0; i < n; i++, values += LANES)
        quad[i] = DOWN(quad[i]) | TOP(values);
}

MLP_INLINE void NAME(mlp_mls_dot_each_quad)(const uint8_t *values, int64_t n, ptrdiff_t pixel, VECTOR *quad)
{
    for (int64_t i = 0; i < n; i++, values += 4 * pixel)
        quad[i] = WIDEN(values) | WIDEN(values + pixel) << 8 | WIDEN(values + 2 * pixel) << 16
                  | WIDEN(values + 3 * pixel) << 24;
}

TARGET static void NAME(mlp_mls_dot_quads)(const uint8_t *values, int64_t n, int64_t spacing, char *out)
{
    VECTOR *quad = (VECTOR *)out;
    if (spacing == 1)   /* the four lie next to each other: a vector */
        for (int64_t i = 0; i < n; i++)
            quad[i] = TURN4(values + 4 * i * LANES);
    else
        NAME(mlp_mls_dot_each_quad)(values, n, spacing * LANES, quad);
}

TARGET static void NAME(mlp_mls_dot_turn)(const mlp_mls_decode *d, const int8_t *codes, ptrdiff_t channel,
                                          int64_t channels, ptrdiff_t step, int64_t pixels, int64_t samples,
                                          uint8_t *out, int64_t sample, int64_t half)
{
    for (int64_t i = 0; i < pixels; i++, codes += step, out += LANES) {
        __m128i row[16], next[16];
        for (int c = 0; c < 16; c++) {
            char some[16] = {0};
            const void *from = codes + c * channel;
            if (c >= channels)
                from = some;
            else if (samples < 16)
                from = memcpy(some, from, (size_t)samples);
            row[c] = NAME(mlp_mls_dot_decode_16)(d, _mm_loadu_si128(from));
        }
        for (int round = 0; round < 4; round++) {   /* four shuffles of the two halves turn a square of 16 */
            MLP_UNROLL for (int c = 0; c < 8; c++) {
                next[2 * c] = _mm_unpacklo_epi8(row[c], row[c + 8]);
                next[2 * c + 1] = _mm_unpackhi_epi8(row[c], row[c + 8]);
            }
            memcpy(row, next, sizeof row);
        }
        for (int64_t n = 0; n < samples; n++) {
            if (LANES == 16) {
                _mm_storeu_si128((__m128i *)(out + n * sample), row[n]);
            } else {
                _mm_storel_epi64((__m128i *)(out + n * sample), row[n]);
                if (half)
                    _mm_storel_epi64((__m128i *)(out + n * sample + half), _mm_unpackhi_epi64(row[n], row[n]));
            }
        }
    }
}

/* The sums of one channel are those of neighbouring rows of quads: output row i and quad q meet in row i step + q. Each
 * row is loaded once and kept (the empty asm: GCC would rather load it again); with step 0 they lie anywhere. */
MLP_INLINE void NAME(mlp_mls_dot_sums)(const mlp_mls_dot_block *b, const char *tile, const int32_t *weight,
                                       const int features, const int pixels, const int64_t quads, const int step,
                                       VECTOR *sum)
{
    if (step == 0) {
        for (int64_t q = 0; q < quads; q++)
            MLP_UNROLL for (int i = 0; i < pixels; i++) {
                VECTOR x = *(const VECTOR *)(tile + b->offset[q] + i * b->pixel);
                MLP_UNROLL for (int f = 0; f < features; f++)
                    sum[f * pixels + i] = DOT(sum[f * pixels + i], x, (VECTOR){0} + weight[f * b->feature + 1 + q]);
            }
        return;
    }
    VECTOR w[ROWS_FEATURES * 3];
    MLP_UNROLL for (int f = 0; f < features; f++)
        MLP_UNROLL for (int q = 0; q < quads; q++)
            w[f * 3 + q] = (VECTOR){0} + weight[f * b->feature + 1 + q];
    MLP_UNROLL for (int r = 0; r < (pixels - 1) * step + quads; r++) {
        VECTOR x = *(const VECTOR *)(tile + r * b->row);
        __asm__("" : "+v"(x));
        MLP_UNROLL for (int q = 0; q < quads; q++) {
            const int i = (r - q) / step;
            if (r >= q && i < pixels && i * step + q == r)
                MLP_UNROLL for (int f = 0; f < features; f++)
                    sum[f * pixels + i] = DOT(sum[f * pixels + i], x, w[f * 3 + q]);
        }
    }
}

MLP_INLINE void NAME(mlp_mls_dot_block)(const mlp_mls_dot_block *b, const int features, const int pixels,
                                        const int64_t quads, const int step)
{
    FLOATS total[ROWS_FEATURES * 4];
    MLP_UNROLL for (int i = 0; i < features * pixels; i++)
        total[i] = (FLOATS){0};
    const char *tile = b->tile + (step ? b->offset[0] : 0);
    const int32_t *weight = b->weight;
    const FLOATS *scales = (const FLOATS *)b->scales;
    for (int64_t c = 0; c < b->channels; c++, tile += b->channel, weight += quads + 2, scales += 2) {
        VECTOR sum[ROWS_FEATURES * 4];
        MLP_UNROLL for (int f = 0; f < features; f++)
            MLP_UNROLL for (int i = 0; i < pixels; i++)
                sum[f * pixels + i] = (VECTOR){0} + weight[f * b->feature];
        NAME(mlp_mls_dot_sums)(b, tile, weight, features, pixels, quads, step, sum);
        MLP_UNROLL for (int f = 0; f < features; f++) {
            FLOATS scale = (FLOATS)((VECTOR){0} + weight[f * b->feature + 1 + quads]);
            MLP_UNROLL for (int i = 0; i < pixels; i++) {
                VECTOR bits = SUM(sum[f * pixels + i]) + (PAIRS ? MLP_MLS_MAGIC : 0);
                total[f * pixels + i] = MULADD(MULADD((FLOATS)bits, scales[0], scales[1]), scale,
                                               total[f * pixels + i]);
            }
        }
    }
    MLP_UNROLL for (int f = 0; f < features; f++)
        MLP_UNROLL for (int i = 0; i < pixels; i++) {
            float *out = b->out + f * b->out_feature + i * b->out_pixel, some[LANES] __attribute__((aligned(64)));
            for (int j = 0; j < LANES; j++)
                some[j] = (float)((double)total[f * pixels + i][j] * b->scale);
            if (b->past)
                PAST(out, *(const FLOATS *)some);
            else
                memcpy(out, some, (size_t)b->valid * sizeof *out);
        }
}

TARGET static void NAME(mlp_mls_dot_rows)(const mlp_mls_dot_block *b, int features, int pixels)
{
    const int many = features == ROWS_FEATURES;
    if (pixels != 4)
        many ? NAME(mlp_mls_dot_block)(b, ROWS_FEATURES, 1, b->quads, 0) : NAME(mlp_mls_dot_block)(b, 1, 1, b->quads, 0);
    else if (!many)
        NAME(mlp_mls_dot_block)(b, 1, 4, b->quads, 0);
    else if (b->step == 1 && b->quads == 3)
        NAME(mlp_mls_dot_block)(b, ROWS_FEATURES, 4, 3, 1);
    else if (b->step == 1 && b->quads == 2)
        NAME(mlp_mls_dot_block)(b, ROWS_FEATURES, 4, 2, 1);
    else if (b->step == 1 && b->quads == 1)
        NAME(mlp_mls_dot_block)(b, ROWS_FEATURES, 4, 1, 1);
    else if (b->step == 2 && b->quads == 3)
        NAME(mlp_mls_dot_block)(b, ROWS_FEATURES, 4, 3, 2);
    else
        NAME(mlp_mls_dot_block)(b, ROWS_FEATURES, 4, b->quads, 0);
}

MLP_INLINE void NAME(mlp_mls_dot_wgrad_block)(const mlp_mls_dot_wgrad *w, const int features, const int taps)
{
    VECTOR total[WGRAD_FEATURES * 3], sum[WGRAD_FEATURES * 3];
    MLP_UNROLL for (int i = 0; i < features * taps; i++)
        total[i] = (VECTOR){0} + w->first[i / taps];
    const char *act = w->act, *error = w->error;
    for (int64_t r = 0, rows; r < w->rows; r += rows) {
        rows = mlp_min(w->limit, w->rows - r);
        MLP_UNROLL for (int i = 0; i < features * taps; i++)
            sum[i] = PAIRS ? (VECTOR){0} : total[i];
        for (int64_t y = 0; y < rows; y++, act += w->act_row, error += w->error_row) {
            const char *a = act;
            for (int64_t q = 0; q < w->quads; q++, a += VECTOR_BYTES) {
                VECTOR x[3];
                MLP_UNROLL for (int t = 0; t < taps; t++)
                    x[t] = *(const VECTOR *)(a + t * w->act_tap);
                MLP_UNROLL for (int f = 0; f < features; f++) {
                    VECTOR e = (VECTOR){0} + *(const int32_t *)(error + f * w->error_feature + q * 4);
                    MLP_UNROLL for (int t = 0; t < taps; t++)
                        sum[f * taps + t] = DOT(sum[f * taps + t], x[t], e);
                }
            }
        }
        MLP_UNROLL for (int i = 0; i < features * taps; i++)
            total[i] = PAIRS ? total[i] + SUM(sum[i]) : sum[i];
    }
    FLOATS scale = *(const FLOATS *)w->scale_act;
    MLP_UNROLL for (int f = 0; f < features; f++) {
        FLOATS both = scale * w->scale_error[f], *out = (FLOATS *)(w->totals + f * w->feature);
        MLP_UNROLL for (int t = 0; t < taps; t++)
            out[t] += __builtin_convertvector(total[f * taps + t], FLOATS) * both;
    }
}

TARGET static void NAME(mlp_mls_dot_wgrad)(const mlp_mls_dot_wgrad *w, int features, int taps)
{
    if (features == WGRAD_FEATURES && taps == 3)
        NAME(mlp_mls_dot_wgrad_block)(w, WGRAD_FEATURES, 3);
    else if (features == WGRAD_FEATURES)
        NAME(mlp_mls_dot_wgrad_block)(w, WGRAD_FEATURES, 1);
    else if (taps == 3)
        NAME(mlp_mls_dot_wgrad_block)(w, 1, 3);
    else
        NAME(mlp_mls_dot_wgrad_block)(w, 1, 1);
}

static const mlp_mls_dots NAME(mlp_mls_dots) = {
    LANES, VECTOR_BYTES, ROWS_FEATURES, WGRAD_FEATURES, PAIRS, NAME(mlp_mls_dot_decode), NAME(mlp_mls_dot_gather),
    NAME(mlp_mls_dot_slide), NAME(mlp_mls_dot_quads), NAME(mlp_mls_dot_turn), NAME(mlp_mls_dot_rows),
    NAME(mlp_mls_dot_wgrad)};

#undef LANES
#undef JOIN_
#undef JOIN
#undef NAME
#undef VECTOR
#undef FLOATS
#undef UNSIGNED
#undef DOWN
#undef MLP_UNROLL
#undef VECTOR_BYTES
#undef TIER
#undef TARGET
#undef ROWS_FEATURES
#undef WGRAD_FEATURES
#undef DOT
#undef WIDEN
#undef TOP
#undef TURN4
#undef SUM
#undef PAIRS
#undef MULADD
#undef PAST
