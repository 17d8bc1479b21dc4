/* The int8 engine's results to their place, 512 bits at a time: dot8_tile.h's `put` for the tiers that have AVX-512. */

/* Sixteen sums as floats: one conversion and an exact power of two, or an exact double, scaled and rounded. */
MLP_INLINE __attribute__((target(AVX512))) __m512 mlp_dot8_scaled(const int32_t *sum, const int sums, ptrdiff_t next,
                                                                  double row, const double *lane, float power)
{
    if (sums == 1 && power != 0)
        return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(sum)), _mm512_set1_ps(power));
    __m256 half[2];
    for (int h = 0; h < 2; h++, sum += 8, lane += 8) {
        enum { B = MLP_DOT8_BASE };
        static const double weights[][MLP_DOT8_SUMS] = {{1}, {1, B}, {1 + B, B + B * B, -B}};
        __m512d total = _mm512_setzero_pd();
        for (int s = 0; s < sums; s++)
            total = _mm512_fmadd_pd(_mm512_cvtepi32_pd(_mm256_loadu_si256((const __m256i *)(sum + s * next))),
                                    _mm512_set1_pd(weights[sums - 1][s]), total);
        const __m512d scale = power != 0 ? _mm512_set1_pd(power)
                                         : _mm512_mul_pd(_mm512_set1_pd(row), _mm512_loadu_pd(lane));
        half[h] = _mm512_cvtpd_ps(_mm512_mul_pd(total, scale));
    }
    return _mm512_insertf32x8(_mm512_castps256_ps512(half[0]), half[1], 1);
}

/* Lines that lie whole in the output are written past the caches, which would otherwise read them first. */
MLP_INLINE __attribute__((target(AVX512))) void mlp_dot8_put_floats(const int32_t *sum, const int sums, ptrdiff_t next,
                                                                    ptrdiff_t pitch, const mlp_dot8_target *to,
                                                                    ptrdiff_t at, ptrdiff_t first, int lanes)
{
    const int whole = (((uintptr_t)(to->floats + at) | (uintptr_t)to->plane * sizeof(float)) & 63) == 0;
    for (int m = 0; m < to->outputs; m++, sum += pitch)
        for (int i = 0; i < lanes; i += 16) {
            float *y = to->floats + m * to->plane + at + i;
            const __m512 v = mlp_dot8_scaled(sum + i, sums, next, to->row[m], to->lane + first + i, to->power);
            if (lanes - i < 16)
                _mm512_mask_storeu_ps(y, (__mmask16)((1u << (lanes - i)) - 1), v);
            else if (whole)
                _mm512_stream_ps(y, v);
            else
                _mm512_storeu_ps(y, v);
        }
}

/* Stores past the caches are not ordered with those that tell other threads that a result is there. */
MLP_INLINE __attribute__((target(AVX512))) void mlp_dot8_put_done(void) { _mm_sfence(); }
