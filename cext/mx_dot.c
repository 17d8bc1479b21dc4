/* The sums of MX contractions on records of bytes; see mx_records.h. */
#include "mx_records.h"
#include "mls_dot.h"

#if defined(MLP_HAVE_AVX512) && defined(MLP_HAVE_VNNI)
#include <immintrin.h>
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")
#define MLP_UNROLL _Pragma("GCC unroll 12")

MLP_INLINE void sum_block(const mlp_mx_terms *t, const int features, const int steps, float *totals)
{
    const __m512 minus = _mm512_set1_ps(-12582912.0f);
    const int64_t step = t->step, feature = t->feature, length = t->length;
    __m512 total[MLP_MX_FEATURES * MLP_MX_TAPS];
    MLP_UNROLL for (int i = 0; i < features * steps; i++)
        total[i] = _mm512_load_ps(totals + i * 16);
    for (int64_t i = 0; i < t->count; i++) {
        const char *x = t->lanes + t->at[i].lanes;
        const int32_t *w = t->words + t->at[i].words;
        __m512i sum[MLP_MX_FEATURES * MLP_MX_TAPS];
        MLP_UNROLL for (int f = 0; f < features; f++)
            MLP_UNROLL for (int j = 0; j < steps; j++)
                sum[f * steps + j] = _mm512_set1_epi32(w[f * feature]);
        for (int64_t q = 0; q < length; q++) {
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
            scale[j] = _mm512_loadu_ps(x + j * step + length * 64);
            less[j] = _mm512_mul_ps(scale[j], minus);
        }
        MLP_UNROLL for (int f = 0; f < features; f++) {
            const __m512 more = _mm512_castsi512_ps(_mm512_set1_epi32(w[f * feature + 1 + length]));
            MLP_UNROLL for (int j = 0; j < steps; j++) {
                const __m512 scaled = _mm512_fmadd_ps(_mm512_castsi512_ps(sum[f * steps + j]), scale[j], less[j]);
                total[f * steps + j] = _mm512_fmadd_ps(scaled, more, total[f * steps + j]);
            }
        }
    }
    MLP_UNROLL for (int i = 0; i < features * steps; i++)
        _mm512_store_ps(totals + i * 16, total[i]);
}

static void sum_vnni(const mlp_mx_terms *t, int features, int steps, float *total)
{
    switch (features * 4 + steps) {
    case 4 * MLP_MX_FEATURES + 3: sum_block(t, MLP_MX_FEATURES, 3, total); break;
    case 4 * MLP_MX_FEATURES + 2: sum_block(t, MLP_MX_FEATURES, 2, total); break;
    case 4 * MLP_MX_FEATURES + 1: sum_block(t, MLP_MX_FEATURES, 1, total); break;
    case 4 + 3: sum_block(t, 1, 3, total); break;
    case 4 + 2: sum_block(t, 1, 2, total); break;
    default: sum_block(t, 1, 1, total);
    }
}

static void put_vnni(const float *total, double scale, int64_t valid, float *out, int past)
{
    const __m512d both = _mm512_set1_pd(scale);
    const __m256 low = _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_cvtps_pd(_mm256_load_ps(total)), both));
    const __m256 high = _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_cvtps_pd(_mm256_load_ps(total + 8)), both));
    const __m512 scaled = _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
    if (past)
        _mm512_stream_ps(out, scaled);
    else
        _mm512_mask_storeu_ps(out, (__mmask16)((1u << valid) - 1), scaled);
}
#pragma GCC pop_options

const mlp_mx_kernel *mlp_mx_dot_kernel(void)
{
    static const mlp_mx_kernel kernel = {16, 1, sum_vnni, put_vnni};
    return mlp_tier() >= MLP_VNNI ? &kernel : NULL;
}
#else
const mlp_mx_kernel *mlp_mx_dot_kernel(void) { return NULL; }
#endif
