/* Packing for the int8 engine: codes to digits, and digits of neighbouring channels to words of one lane.
 *
 *     for each pixel, for each image: word = channel 0 | channel 1 << 8 | channel 2 << 16 | channel 3 << 24
 *
 * (or two channels of 16 bits). The vector versions look digits up by vpshufb, for all lanes at once, and interleave whole
 * rows; every byte ends up where the loop puts it. Words of four channels are interleaved as codes, before the look-up,
 * which then gives every plane of digits from one reading. */
#include <string.h>
#include "dot8.h"
#ifdef MLP_HAVE_AVX2
#include <immintrin.h>
#endif
#ifdef MLP_HAVE_AVX512
#include "dot8_digits.h"
#endif

void mlp_dot8_digits_portable(const int8_t *from, ptrdiff_t step, ptrdiff_t count, ptrdiff_t lanes, const int8_t *digit,
                              int flip, int8_t *restrict to, ptrdiff_t to_step, ptrdiff_t width,
                              mlp_dot8_largest *largest)
{
    for (ptrdiff_t p = 0; p < count; p++, from += step, to += to_step)
        for (ptrdiff_t i = 0; i < width; i++)
            to[i] = (int8_t)((i < lanes ? mlp_dot8_digit(from[i], digit, largest) : 0) ^ flip);
}

void mlp_dot8_pairs_portable(const int8_t *rows, ptrdiff_t row, ptrdiff_t count, int32_t *restrict to, ptrdiff_t to_step)
{
    for (ptrdiff_t p = 0; p < count; p++, rows += MLP_DOT8_LANES, to += to_step)
        for (int i = 0; i < MLP_DOT8_LANES; i++)
            to[i] = (int32_t)((uint32_t)(uint16_t)rows[i] | (uint32_t)rows[row + i] << 16);
}

void mlp_dot8_widen_portable(const int8_t *digits, ptrdiff_t count, int16_t *restrict to, ptrdiff_t to_step)
{
    for (ptrdiff_t p = 0; p < count; p++, digits += MLP_DOT8_LANES, to += to_step)
        for (int i = 0; i < MLP_DOT8_LANES; i++)
            to[i] = digits[i];
}

#ifdef MLP_HAVE_AVX2
MLP_TARGET_AVX2 void mlp_dot8_digits_avx2(const int8_t *from, ptrdiff_t step, ptrdiff_t count, ptrdiff_t lanes,
                                          const int8_t *digit, int flip, int8_t *restrict to,
                                          ptrdiff_t to_step, ptrdiff_t width, mlp_dot8_largest *largest)
{
    __m256i most = _mm256_loadu_si256((const __m256i *)largest->each);
    const __m256i flips = _mm256_set1_epi8((char)flip), zero = _mm256_setzero_si256();
    const __m256i table = digit ? _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)digit)) : zero;
    const __m256i negative = _mm256_sub_epi8(zero, table);
    for (ptrdiff_t p = 0; p < count; p++, from += step, to += to_step)
        for (ptrdiff_t i = 0; i < width; i += MLP_DOT8_LANES) {
            int8_t part[MLP_DOT8_LANES] = {0};
            const int8_t *source = from + i;
            if (lanes - i < MLP_DOT8_LANES) {
                if (lanes > i)
                    memcpy(part, source, (size_t)(lanes - i));
                source = part;
            }
            __m256i v = _mm256_loadu_si256((const __m256i *)source);
            if (digit) { /* a byte with the top bit set looks up 0: each code is found in exactly one of the two tables */
                most = _mm256_max_epu8(most, _mm256_abs_epi8(v));
                v = _mm256_or_si256(_mm256_shuffle_epi8(table, v),
                                    _mm256_shuffle_epi8(negative, _mm256_sub_epi8(zero, v)));
            }
            _mm256_storeu_si256((__m256i *)(to + i), _mm256_xor_si256(v, flips));
        }
    _mm256_storeu_si256((__m256i *)largest->each, most);
}

MLP_TARGET_AVX2 void mlp_dot8_pairs_avx2(const int8_t *rows, ptrdiff_t row, ptrdiff_t count, int32_t *restrict to,
                                         ptrdiff_t to_step)
{
    const __m256i low = _mm256_set1_epi32(0xffff);
    for (ptrdiff_t p = 0; p < count; p++, rows += MLP_DOT8_LANES, to += to_step)
        for (int i = 0; i < MLP_DOT8_LANES; i += 8) {
            const __m256i even = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(rows + i)));
            const __m256i odd = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(rows + row + i)));
            _mm256_storeu_si256((__m256i *)(to + i),
                                _mm256_or_si256(_mm256_and_si256(even, low), _mm256_slli_epi32(odd, 16)));
        }
}

MLP_TARGET_AVX2 void mlp_dot8_widen_avx2(const int8_t *digits, ptrdiff_t count, int16_t *restrict to, ptrdiff_t to_step)
{
    for (ptrdiff_t p = 0; p < count; p++, digits += MLP_DOT8_LANES, to += to_step)
        for (int i = 0; i < MLP_DOT8_LANES; i += 16)
            _mm256_storeu_si256((__m256i *)(to + i),
                                _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(digits + i))));
}
#endif

#ifdef MLP_HAVE_AVX512
MLP_TARGET_AVX512 void mlp_dot8_digits_avx512(const int8_t *from, ptrdiff_t step, ptrdiff_t count, ptrdiff_t lanes,
                                              const int8_t *digit, int flip, int8_t *restrict to, ptrdiff_t to_step,
                                              ptrdiff_t width, mlp_dot8_largest *largest)
{
    __m512i most = _mm512_loadu_si512(largest->each);
    const __m512i flips = _mm512_set1_epi8((char)flip), zero = _mm512_setzero_si512();
    const __m512i table = digit ? _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)digit)) : zero;
    for (ptrdiff_t i = 0; i < width; i += 64) {
        const ptrdiff_t some = lanes - i;
        const __mmask64 there = some <= 0 ? 0 : some >= 64 ? ~0ULL : (1ULL << some) - 1;
        const __mmask64 room = width - i >= 64 ? ~0ULL : (1ULL << (width - i)) - 1;
        for (ptrdiff_t p = 0; p < count; p++) {
            __m512i v = _mm512_maskz_loadu_epi8(there, from + p * step + i);
            if (digit) { /* a magnitude looks its digit up, and its sign turns it */
                const __m512i magnitude = _mm512_abs_epi8(v), found = _mm512_shuffle_epi8(table, magnitude);
                most = _mm512_max_epu8(most, magnitude);
                v = _mm512_mask_sub_epi8(found, _mm512_movepi8_mask(v), zero, found);
            }
            _mm512_mask_storeu_epi8(to + p * to_step + i, room, _mm512_xor_si512(v, flips));
        }
    }
    _mm512_storeu_si512(largest->each, most);
}

/* Four channels of 32 images to 32 words, interleaved as codes, then looked up 64 at a time. */
MLP_INLINE MLP_DIGITS_ATTRIBUTE void quads(const mlp_dot8_pack *p, const int planes)
{
    const __mmask32 there = p->lanes >= MLP_DOT8_LANES ? ~0U : (1U << p->lanes) - 1;
    mlp_dot8_lookup t = mlp_dot8_look_up(p, planes);
    for (ptrdiff_t pixel = 0; pixel < p->count; pixel++) {
        const int8_t *from = p->from + pixel * p->pixel;
        int8_t *to = p->to + pixel * p->to_pixel;
        for (ptrdiff_t c = 0; c < p->channels; c += 4, from += 4 * p->channel, to += p->to_word) {
            __m256i in[4], pair[4], quad[4];
            for (int i = 0; i < 4; i++)
                in[i] = _mm256_maskz_loadu_epi8(c + i < p->channels ? there : 0, from + i * p->channel);
            for (int i = 0; i < 4; i += 2) { /* images 0-7 and 16-23, then 8-15 and 24-31, of two channels */
                pair[i] = _mm256_unpacklo_epi8(in[i], in[i + 1]);
                pair[i + 1] = _mm256_unpackhi_epi8(in[i], in[i + 1]);
            }
            for (int h = 0; h < 2; h++) { /* images 8 h to 8 h + 3 and 16 more, then the next four */
                quad[2 * h] = _mm256_unpacklo_epi16(pair[h], pair[2 + h]);
                quad[2 * h + 1] = _mm256_unpackhi_epi16(pair[h], pair[2 + h]);
            }
            const __m512i first = _mm512_inserti64x4(_mm512_castsi256_si512(quad[0]), quad[1], 1);
            const __m512i second = _mm512_inserti64x4(_mm512_castsi256_si512(quad[2]), quad[3], 1);
            mlp_dot8_put_digits(_mm512_shuffle_i32x4(first, second, 0x88), &t, planes, to, p->to_plane);
            mlp_dot8_put_digits(_mm512_shuffle_i32x4(first, second, 0xdd), &t, planes, to + p->to_half, p->to_plane);
        }
    }
    _mm512_storeu_si512(p->largest->each, t.largest);
}

#define QUADS(planes) MLP_TARGET_AVX512 static void quads##planes##_avx512(const mlp_dot8_pack *p) { quads(p, planes); }
QUADS(0)
QUADS(1)
QUADS(2)
QUADS(3)

void mlp_dot8_quads_avx512(const mlp_dot8_pack *p)
{
    static mlp_dot8_pack_fn *const by_planes[] = {quads0_avx512, quads1_avx512, quads2_avx512, quads3_avx512};
    by_planes[p->digits ? p->planes : 0](p);
}
#endif

int mlp_dot8_values(const int8_t *codes, const int8_t *table, int64_t n, int8_t *values)
{
    enum { PIECE = 16384 };
    const int64_t pieces = (n + PIECE - 1) / PIECE;
    MLP_PARALLEL_FOR(mlp_workers(pieces))
    for (int64_t piece = 0; piece < pieces; piece++) {
        const int64_t end = MLP_MIN(n, (piece + 1) * PIECE);
        for (int64_t i = piece * PIECE; i < end; i++)
            values[i] = table[(uint8_t)codes[i]];
    }
    return MLP_OK;
}
