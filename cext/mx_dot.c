/* The sums of MX contractions on records; see mx_dot.h. */
#include "mx_dot.h"
#include "elementwise.h"
#include <stdlib.h>

/* Where a term's records lie: bytes into the lanes, words into the words. */
typedef struct {
    int64_t lanes, words;
} place;

#if defined(MLP_HAVE_AVX512) && defined(MLP_HAVE_VNNI)
#include <immintrin.h>
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")
#define MLP_UNROLL _Pragma("GCC unroll 12")

/* Totals of `features` x `steps` outputs over n terms: features are `feature` words apart, steps `step` bytes. */
MLP_INLINE void terms(const int features, const int steps, const char *lanes, int64_t step, const int32_t *words,
                      int64_t feature, int64_t quads, const place *at, int64_t n, __m512 *total)
{
    const __m512 minus = _mm512_set1_ps(-12582912.0f);
    for (int64_t i = 0; i < n; i++) {
        const char *x = lanes + at[i].lanes;
        const int32_t *w = words + at[i].words;
        __m512i sum[MLP_MX_FEATURES * MLP_MX_TAPS];
        MLP_UNROLL for (int f = 0; f < features; f++)
            MLP_UNROLL for (int j = 0; j < steps; j++)
                sum[f * steps + j] = _mm512_set1_epi32(w[f * feature]);
        for (int64_t q = 0; q < quads; q++) {
            __m512i four[MLP_MX_TAPS];
            MLP_UNROLL for (int j = 0; j < steps; j++)
                four[j] = _mm512_loadu_si512(x + j * step + q * 64);
            MLP_UNROLL for (int f = 0; f < features; f++) {
                const __m512i all = _mm512_set1_epi32(w[f * feature + 1 + q]);
                MLP_UNROLL for (int j = 0; j < steps; j++)
                    sum[f * steps + j] = _mm512_dpbusd_epi32(sum[f * steps + j], four[j], all);
            }
        }
        __m512 scale[MLP_MX_TAPS], less[MLP_MX_TAPS];
        MLP_UNROLL for (int j = 0; j < steps; j++) {
            scale[j] = _mm512_loadu_ps(x + j * step + quads * 64);
            less[j] = _mm512_mul_ps(scale[j], minus);
        }
        MLP_UNROLL for (int f = 0; f < features; f++) {
            const __m512 more = _mm512_castsi512_ps(_mm512_set1_epi32(w[f * feature + 1 + quads]));
            MLP_UNROLL for (int j = 0; j < steps; j++) {
                const __m512 scaled = _mm512_fmadd_ps(_mm512_castsi512_ps(sum[f * steps + j]), scale[j], less[j]);
                total[f * steps + j] = _mm512_fmadd_ps(scaled, more, total[f * steps + j]);
            }
        }
    }
}

/* Samples v ... v + 15 of `features` x `steps` outputs: channels from o on, neighbours of one row. */
MLP_INLINE void row_block(const int features, const int steps, const mlp_mx_rows *g, const char *lanes, int64_t step,
                          int64_t o, const place *at, int64_t n, float *out, int64_t out_step, int64_t v, int past)
{
    const int64_t feature = g->blocks * g->kernel[0] * g->kernel[1] * mlp_mx_word_record(g->pairs);
    const __mmask16 valid = (__mmask16)((1u << mlp_min(MLP_MX_LANES, g->batch - v)) - 1);
    const __m512d scale = _mm512_set1_pd(g->scale);
    __m512 total[MLP_MX_FEATURES * MLP_MX_TAPS];
    MLP_UNROLL for (int i = 0; i < features * steps; i++)
        total[i] = _mm512_setzero_ps();
    terms(features, steps, lanes, step, g->weight + o * feature, feature, g->pairs, at, n, total);
    MLP_UNROLL for (int f = 0; f < features; f++)
        MLP_UNROLL for (int j = 0; j < steps; j++) {
            const __m512 sum = total[f * steps + j];
            const __m256 low = _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(sum)), scale));
            const __m256 high = _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_cvtps_pd(_mm512_extractf32x8_ps(sum, 1)), scale));
            float *to = out + (o + f) * g->out_size[0] * g->out_size[1] * g->batch + j * out_step;
            const __m512 both = _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
            if (past)
                _mm512_stream_ps(to, both);
            else
                _mm512_mask_storeu_ps(to, valid, both);
        }
}

/* `count` neighbours of a row, all output channels: the terms are those of the first, moved on. */
static void row_phase_vnni(const mlp_mx_rows *g, const char *lanes, int64_t step, int64_t count, const place *at,
                           int64_t n, float *out, int64_t out_step, int64_t v, int past)
{
    for (int64_t x = 0, steps; x < count; x += steps, lanes += steps * step, out += steps * out_step) {
        steps = mlp_min(MLP_MX_TAPS, count - x);
        int64_t o = 0;
        for (; o + MLP_MX_FEATURES <= g->out_channels; o += MLP_MX_FEATURES)
            switch (steps) {
            case 3: row_block(MLP_MX_FEATURES, 3, g, lanes, step, o, at, n, out, out_step, v, past); break;
            case 2: row_block(MLP_MX_FEATURES, 2, g, lanes, step, o, at, n, out, out_step, v, past); break;
            default: row_block(MLP_MX_FEATURES, 1, g, lanes, step, o, at, n, out, out_step, v, past);
            }
        for (; o < g->out_channels; o++)
            for (int64_t j = 0; j < steps; j++)
                row_block(1, 1, g, lanes + j * step, step, o, at, n, out + j * out_step, out_step, v, past);
    }
}

/* One row of outputs added to the totals of `features` x `taps`, which lie at `out`. */
MLP_INLINE void weight_block(const int features, const int taps, const char *lanes, int64_t step, const int32_t *words,
                             int64_t feature, int64_t quads, const place *at, int64_t n, float *out,
                             int64_t out_feature, int64_t out_tap)
{
    __m512 total[MLP_MX_FEATURES * MLP_MX_TAPS];
    MLP_UNROLL for (int i = 0; i < features * taps; i++)
        total[i] = _mm512_loadu_ps(out + i / taps * out_feature + i % taps * out_tap);
    terms(features, taps, lanes, step, words, feature, quads, at, n, total);
    MLP_UNROLL for (int i = 0; i < features * taps; i++)
        _mm512_storeu_ps(out + i / taps * out_feature + i % taps * out_tap, total[i]);
}

/* Row y of outputs and block k, for `features` channels from o on and one vector of input channels: all taps. */
static void weight_row_vnni(const mlp_mx_wgrad *g, int64_t o, int64_t features, int64_t vector, int64_t k, int64_t y,
                            const place *at)
{
    const int64_t quads = g->block_pairs, record = mlp_mx_lane_record(quads), pixel = g->pairs * record;
    const int64_t row = g->out_size[1] * mlp_mx_word_record(quads), feature = g->pairs * g->out_size[0] * row;
    const int64_t step = g->dilation[1] * pixel, out_tap = g->vectors * MLP_MX_LANES;
    const int64_t out_feature = g->kernel[0] * g->kernel[1] * out_tap;
    const int32_t *words = g->error + o * feature + (k * g->out_size[0] + y) * row;
    float *out = g->out + o * out_feature + vector * MLP_MX_LANES;
    for (int64_t ky = 0; ky < g->kernel[0]; ky++) {
        int64_t in_row = vector * g->size[0] + y * g->stride[0] + ky * g->dilation[0];
        const char *lanes = (const char *)g->act + in_row * g->size[1] * pixel + k * record;
        for (int64_t kx = 0, taps; kx < g->kernel[1]; kx += taps, lanes += taps * step, out += taps * out_tap) {
            taps = g->kernel[1] - kx >= MLP_MX_TAPS ? MLP_MX_TAPS : 1;
            if (features == MLP_MX_FEATURES && taps == MLP_MX_TAPS)
                weight_block(MLP_MX_FEATURES, MLP_MX_TAPS, lanes, step, words, feature, quads, at, g->out_size[1], out,
                             out_feature, out_tap);
            else if (features == MLP_MX_FEATURES)
                weight_block(MLP_MX_FEATURES, 1, lanes, step, words, feature, quads, at, g->out_size[1], out,
                             out_feature, out_tap);
            else
                for (int64_t i = 0; i < features * taps; i++)
                    weight_block(1, 1, lanes + i % taps * step, step, words + i / taps * feature, feature, quads, at,
                                 g->out_size[1], out + i / taps * out_feature + i % taps * out_tap, out_feature,
                                 out_tap);
        }
    }
}

#pragma GCC pop_options

int64_t mlp_mx_dot(void) { return mlp_tier() >= MLP_VNNI; }

/* The terms of the first output of phase f in row y, in their order. */
static int64_t list_terms(const mlp_mx_rows *g, int64_t y, int64_t f, int64_t pixel, place *at)
{
    int64_t n = 0, word = mlp_mx_word_record(g->pairs);
    for (int64_t k = 0; k < g->blocks; k++)
        for (int64_t ky = 0; ky < g->kernel[0]; ky++)
            for (int64_t kx = 0; kx < g->kernel[1]; kx++) {
                int64_t iy = mlp_mx_at(g, 0, y, ky), ix = mlp_mx_at(g, 1, f, kx);
                if (iy >= 0 && ix >= 0)
                    at[n++] = (place){(iy * g->in_size[1] + ix) * pixel + k * mlp_mx_lane_record(g->pairs),
                                      ((k * g->kernel[0] + ky) * g->kernel[1] + kx) * word};
            }
    return n;
}

int mlp_mx_rows_dot(const mlp_mx_rows *g)
{
    const int64_t phases = g->input_grad ? g->stride[1] : 1, most = g->blocks * g->kernel[0] * g->kernel[1];
    const int64_t vectors = mlp_ceil_div(g->batch, MLP_MX_LANES), lane = g->blocks * mlp_mx_lane_record(g->pairs);
    const int64_t rows = g->out_size[0], pixel = vectors * lane, step = (g->input_grad ? 1 : g->stride[1]) * pixel;
    const int past = g->batch % MLP_MX_LANES == 0   /* vectors, whole lines, go past the caches */
                     && mlp_flat_past(g->out, g->out_channels * rows * g->out_size[1] * g->batch);
    if (!mlp_mx_dot() || 4 * g->pairs > MLP_MX_MOST)
        return MLP_UNSUPPORTED;
    place *places = malloc((size_t)(rows * phases * most) * sizeof *places);
    int64_t *counts = malloc((size_t)(rows * phases) * sizeof *counts);
    int status = places && counts ? MLP_OK : MLP_NO_MEMORY;
    for (int64_t i = 0; status == MLP_OK && i < rows * phases; i++)
        counts[i] = list_terms(g, i / phases, i % phases, pixel, places + i * most);
    if (status == MLP_OK) {
        MLP_PRAGMA(omp parallel num_threads(mlp_threads()))
        {
            MLP_PRAGMA(omp for schedule(dynamic))
            for (int64_t t = 0; t < rows * vectors; t++) {
                int64_t y = t / vectors, v = t % vectors;
                for (int64_t f = 0; f < phases; f++) {
                    int64_t count = mlp_ceil_div(mlp_max(g->out_size[1] - f, 0), phases), i = y * phases + f;
                    row_phase_vnni(g, (const char *)g->input + v * lane, step, count, places + i * most, counts[i],
                                   g->out + (y * g->out_size[1] + f) * g->batch + v * MLP_MX_LANES, phases * g->batch,
                                   v * MLP_MX_LANES, past);
                }
            }
            mlp_flat_settle(&(mlp_flat){.past = past});
        }
    }
    free(places);
    free(counts);
    return status;
}

int mlp_mx_wgrad_dot(const mlp_mx_wgrad *g)
{
    const int64_t parts = mlp_ceil_div(g->features, MLP_MX_FEATURES), quads = g->block_pairs;
    if (!mlp_mx_dot() || 4 * quads > MLP_MX_MOST)
        return MLP_UNSUPPORTED;
    place *at = malloc((size_t)g->out_size[1] * sizeof *at);
    if (!at)
        return MLP_NO_MEMORY;
    for (int64_t x = 0; x < g->out_size[1]; x++)
        at[x] = (place){x * g->stride[1] * g->pairs * mlp_mx_lane_record(quads), x * mlp_mx_word_record(quads)};
    MLP_PRAGMA(omp parallel for schedule(dynamic) num_threads(mlp_threads()))
    for (int64_t t = 0; t < g->vectors * parts; t++) {
        int64_t o = t % parts * MLP_MX_FEATURES, features = mlp_min(MLP_MX_FEATURES, g->features - o);
        for (int64_t k = 0; k < g->pairs; k++)
            for (int64_t y = 0; y < g->out_size[0]; y++)
                weight_row_vnni(g, o, features, t / parts, k, y, at);
    }
    free(at);
    return MLP_OK;
}
#else
int64_t mlp_mx_dot(void) { return 0; }
int mlp_mx_rows_dot(const mlp_mx_rows *g) { (void)g; return MLP_UNSUPPORTED; }
int mlp_mx_wgrad_dot(const mlp_mx_wgrad *g) { (void)g; return MLP_UNSUPPORTED; }
#endif
