/* Codes to digits, 64 at a time, for the packing of the tiers that have AVX-512. */
#ifndef MINILP_DOT8_DIGITS_H
#define MINILP_DOT8_DIGITS_H
#include <immintrin.h>
#include "dot8.h"
#define MLP_DIGITS_ATTRIBUTE __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))

typedef struct { __m512i table[MLP_DOT8_DIGITS], largest, flip; } mlp_dot8_lookup;

MLP_INLINE MLP_DIGITS_ATTRIBUTE mlp_dot8_lookup mlp_dot8_look_up(const mlp_dot8_pack *p, const int planes)
{
    mlp_dot8_lookup t = {.largest = _mm512_loadu_si512(p->largest->each), .flip = _mm512_set1_epi8((char)p->flip)};
    for (int e = 0; e < MLP_MIN(planes, MLP_DOT8_DIGITS); e++)
        t.table[e] = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)p->digits[e]));
    return t;
}

/* Codes to the digits of `planes` planes; 0 planes: codes are the integers. A magnitude looks its digit up, and its
 * sign turns it. */
MLP_INLINE MLP_DIGITS_ATTRIBUTE void mlp_dot8_put_digits(__m512i v, mlp_dot8_lookup *t, const int planes, int8_t *to,
                                                         ptrdiff_t to_plane)
{
    if (planes == 0) {
        _mm512_store_si512(to, _mm512_xor_si512(v, t->flip));
        return;
    }
    const __m512i magnitude = _mm512_abs_epi8(v), zero = _mm512_setzero_si512();
    const __mmask64 negative = _mm512_movepi8_mask(v);
    t->largest = _mm512_max_epu8(t->largest, magnitude);
    __m512i low = _mm512_shuffle_epi8(t->table[0], magnitude);
    low = _mm512_mask_sub_epi8(low, negative, zero, low);
    _mm512_store_si512(to, _mm512_xor_si512(low, t->flip));
    if (planes == 1)
        return;
    __m512i high = _mm512_shuffle_epi8(t->table[1], magnitude);
    high = _mm512_mask_sub_epi8(high, negative, zero, high);
    _mm512_store_si512(to + to_plane, _mm512_xor_si512(high, t->flip));
    if (planes == 3)
        _mm512_store_si512(to + 2 * to_plane, _mm512_xor_si512(_mm512_sub_epi8(low, high), t->flip));
}

#endif
