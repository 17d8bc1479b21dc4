/* The inner loops of the int8 engine's weight gradient on tiles (AMX).
 *
 *     for i < 16: for o < 16: for n < 64: sum[i][o] += x[i][n] * dy[o][n];
 *
 * is one tile product, of signed bytes into 32 bits, exact and without saturation. Row i is a channel of x at some
 * pixel, 64 images as they lie in memory; the tile of dy is turned, so that four images of an output are a 32-bit word
 * and the words of 16 outputs a row. The sums are exact integers, so their order makes no difference. */
#include "dot8_weight_tiles.h"
#if defined(MLP_HAVE_AVX512) && defined(MLP_HAVE_VNNI) && defined(MLP_HAVE_AMX)
#include <immintrin.h>
#include "dot8_amx_config.h"
#include "dot8_digits.h"
#define INLINE_TARGET MLP_AMX_ATTRIBUTE
#define UNROLL _Pragma("GCC unroll 16")

/* out[j] has the words j of all sixteen vectors. */
MLP_INLINE INLINE_TARGET void turn(__m512i v[16])
{
    __m512i w[16];
    UNROLL for (int i = 0; i < 16; i += 2) {
        w[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        w[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4)
        UNROLL for (int h = 0; h < 2; h++) {
            v[i + 2 * h] = _mm512_unpacklo_epi64(w[i + h], w[i + 2 + h]);
            v[i + 2 * h + 1] = _mm512_unpackhi_epi64(w[i + h], w[i + 2 + h]);
        }
    /* v[4 b + k] holds in its quarter q the words 4 q + k of vectors 4 b ... 4 b + 3 */
    UNROLL for (int k = 0; k < 4; k++) {
        const __m512i even_a = _mm512_shuffle_i32x4(v[k], v[4 + k], 0x88);
        const __m512i odd_a = _mm512_shuffle_i32x4(v[k], v[4 + k], 0xdd);
        const __m512i even_b = _mm512_shuffle_i32x4(v[8 + k], v[12 + k], 0x88);
        const __m512i odd_b = _mm512_shuffle_i32x4(v[8 + k], v[12 + k], 0xdd);
        w[k] = _mm512_shuffle_i32x4(even_a, even_b, 0x88), w[8 + k] = _mm512_shuffle_i32x4(even_a, even_b, 0xdd);
        w[4 + k] = _mm512_shuffle_i32x4(odd_a, odd_b, 0x88), w[12 + k] = _mm512_shuffle_i32x4(odd_a, odd_b, 0xdd);
    }
    UNROLL for (int i = 0; i < 16; i++)
        v[i] = w[i];
}

MLP_INLINE INLINE_TARGET void pack(const mlp_dot8_pack *p, const int planes, const int turned)
{
    const __mmask64 there = p->lanes >= MLP_DOT8_IMAGES ? ~0ULL : (1ULL << p->lanes) - 1;
    mlp_dot8_lookup t = mlp_dot8_look_up(p, planes);
    for (ptrdiff_t pixel = 0; pixel < p->count; pixel++) {
        const int8_t *from = p->from + pixel * p->pixel;
        int8_t *to = p->to + pixel * p->to_pixel;
        if (!turned) {
            for (ptrdiff_t c = 0; c < p->channels; c++, from += p->channel, to += MLP_DOT8_IMAGES)
                mlp_dot8_put_digits(_mm512_maskz_loadu_epi8(there, from), &t, planes, to, p->to_plane);
            continue;
        }
        for (ptrdiff_t c = 0; c < p->channels; c += 16, from += 16 * p->channel, to += MLP_DOT8_TILE) {
            __m512i v[16];
            const ptrdiff_t some = p->channels - c;
            UNROLL for (int i = 0; i < 16; i++)
                v[i] = i < some ? _mm512_maskz_loadu_epi8(there, from + i * p->channel) : _mm512_setzero_si512();
            turn(v);
            UNROLL for (int i = 0; i < 16; i++)
                mlp_dot8_put_digits(v[i], &t, planes, to + i * MLP_DOT8_IMAGES, p->to_plane);
        }
    }
    _mm512_storeu_si512(p->largest->each, t.largest);
}

#define PACK(name, planes, turned) \
    MLP_TARGET_AMX static void name(const mlp_dot8_pack *p) { pack(p, planes, turned); }
PACK(mlp_dot8_rows0_amx, 0, 0)
PACK(mlp_dot8_rows1_amx, 1, 0)
PACK(mlp_dot8_rows2_amx, 2, 0)
PACK(mlp_dot8_rows3_amx, 3, 0)
PACK(mlp_dot8_turned0_amx, 0, 1)
PACK(mlp_dot8_turned1_amx, 1, 1)
PACK(mlp_dot8_turned2_amx, 2, 1)
PACK(mlp_dot8_turned3_amx, 3, 1)

static void mlp_dot8_rows_amx(const mlp_dot8_pack *p)
{
    static mlp_dot8_pack_fn *const by_planes[] = {mlp_dot8_rows0_amx, mlp_dot8_rows1_amx, mlp_dot8_rows2_amx,
                                         mlp_dot8_rows3_amx};
    by_planes[p->digits ? p->planes : 0](p);
}

static void mlp_dot8_turned_amx(const mlp_dot8_pack *p)
{
    static mlp_dot8_pack_fn *const by_planes[] = {mlp_dot8_turned0_amx, mlp_dot8_turned1_amx, mlp_dot8_turned2_amx,
                                         mlp_dot8_turned3_amx};
    by_planes[p->digits ? p->planes : 0](p);
}

#define EACH(what) what(0) what(1) what(2) what(3) what(4) what(5)
#define SUM_IN(i) if (i < count) _tile_loadd(i, sum + i * (MLP_DOT8_TILE / 4), 64);
#define SUM_OUT(i) if (i < count) _tile_stored(i, sum + i * (MLP_DOT8_TILE / 4), 64);
#define STEP(i) \
    if (i < count) { \
        _tile_loadd(6, x + offset[i], MLP_DOT8_IMAGES); \
        _tile_dpbssd(i, 6, 7); \
    }
MLP_INLINE INLINE_TARGET void dots(const int8_t *x, const ptrdiff_t x_step[3], const ptrdiff_t *offset, const int count,
                                   const int8_t *dy, const ptrdiff_t dy_step[3], const ptrdiff_t size[3], int32_t *sum)
{
    __asm__ volatile("" ::: "memory"); /* tile loads do not tell the compiler that they read memory */
    EACH(SUM_IN)
    for (ptrdiff_t b = 0; b < size[0]; b++)
        for (ptrdiff_t r = 0; r < size[1]; r++) {
            const int8_t *grad = dy + b * dy_step[0] + r * dy_step[1], *act = x + b * x_step[0] + r * x_step[1];
            for (ptrdiff_t p = 0; p < size[2]; p++, grad += dy_step[2], act += x_step[2]) {
                const int8_t *x = act;
                _tile_loadd(7, grad, MLP_DOT8_IMAGES);
                EACH(STEP)
            }
        }
    EACH(SUM_OUT)
    __asm__ volatile("" ::: "memory");
}

#define DOTS(count) \
    MLP_TARGET_AMX static void mlp_dot8_dots##count##_amx( \
        const int8_t *x, const ptrdiff_t x_step[3], const ptrdiff_t *offset, const int8_t *dy, \
        const ptrdiff_t dy_step[3], const ptrdiff_t size[3], int32_t *sum) \
    { \
        dots(x, x_step, offset, count, dy, dy_step, size, sum); \
    }
DOTS(1)
DOTS(2)
DOTS(3)
DOTS(4)
DOTS(5)
DOTS(6)

static void mlp_dot8_dots_amx(const int8_t *x, const ptrdiff_t x_step[3], const ptrdiff_t *offset, int count,
                              const int8_t *dy, const ptrdiff_t dy_step[3], const ptrdiff_t size[3], int32_t *sum)
{
    static void (*const by_count[])(const int8_t *, const ptrdiff_t *, const ptrdiff_t *, const int8_t *,
                                    const ptrdiff_t *, const ptrdiff_t *, int32_t *) = {
        mlp_dot8_dots1_amx, mlp_dot8_dots2_amx, mlp_dot8_dots3_amx,
        mlp_dot8_dots4_amx, mlp_dot8_dots5_amx, mlp_dot8_dots6_amx};
    by_count[count - 1](x, x_step, offset, dy, dy_step, size, sum);
}

MLP_TARGET_AMX static void mlp_dot8_flush_amx(int32_t *from, int64_t weight, ptrdiff_t count, int64_t *sum)
{
    const __m512i factor = _mm512_set1_epi64(weight);
    for (ptrdiff_t i = 0; i < count; i += 8) {
        const __m512i wide = _mm512_cvtepi32_epi64(_mm256_load_si256((const __m256i *)(from + i)));
        _mm512_store_si512(sum + i, _mm512_add_epi64(_mm512_load_si512(sum + i), _mm512_mullo_epi64(wide, factor)));
        _mm256_store_si256((__m256i *)(from + i), _mm256_setzero_si256());
    }
}

MLP_TARGET_AMX static void mlp_dot8_on_amx(void) { mlp_dot8_tiles_on(); }
MLP_TARGET_AMX static void mlp_dot8_off_amx(void) { _tile_release(); }

const mlp_dot8_weight_tier *mlp_dot8_weight_amx(void)
{
    static const mlp_dot8_weight_tier amx = {mlp_dot8_on_amx,     mlp_dot8_off_amx,  mlp_dot8_rows_amx,
                                             mlp_dot8_turned_amx, mlp_dot8_dots_amx, mlp_dot8_flush_amx};
    return mlp_tier() >= MLP_AMX ? &amx : NULL;
}
#else
const mlp_dot8_weight_tier *mlp_dot8_weight_amx(void) { return NULL; }
#endif
