/* How fast one core can be at most: the loops behind the shares of the peak in `minilp bench kernels`.
 *
 *     repeat: sum[i] = sum[i] + a * b            for a dozen independent sums that live in registers
 *
 * Nothing is loaded and no sum waits for another, so what is measured is the arithmetic units alone. Sums are of no
 * interest; integers wrap, in vector registers, where that is defined. The empty asm after each operation keeps the
 * compiler from seeing that all rounds are alike. There is no NumPy twin: a rate is not a result. */
#include "minilp_core.h"
#if defined(__x86_64__) && defined(__GNUC__) && (defined(MLP_HAVE_AVX2) || defined(MLP_HAVE_AVX512))
#include <immintrin.h>
#define SUMS 12 /* latency times units: at least 8 for a fused multiply-add */
#define KEEP(x) __asm__ volatile("" : "+v"(x))

/* One function: the same step for a dozen vectors of `type` in every round. Named, not an array: an array would live in
 * memory, and the loop would measure loads and stores. */
#define EACH(DO) DO(s0) DO(s1) DO(s2) DO(s3) DO(s4) DO(s5) DO(s6) DO(s7) DO(s8) DO(s9) DO(s10) DO(s11)
#define LOOP(name, target, type, zero, STEP)                                                                           \
    target static void name(int64_t rounds)                                                                            \
    {                                                                                                                  \
        type a = zero, b = zero;                                                                                       \
        KEEP(a);                                                                                                       \
        KEEP(b);                                                                                                       \
        type s0 = a, s1 = a, s2 = a, s3 = a, s4 = a, s5 = a, s6 = a, s7 = a, s8 = a, s9 = a, s10 = a, s11 = a;         \
        for (int64_t r = 0; r < rounds; r++) {                                                                         \
            EACH(STEP)                                                                                                 \
        }                                                                                                              \
    }
#define FLOAT_256(s) s = _mm256_fmadd_ps(a, b, s); KEEP(s);
#define FLOAT_512(s) s = _mm512_fmadd_ps(a, b, s); KEEP(s);
#define ADD_256(s) s = _mm256_add_epi16(s, a); KEEP(s);
#define ADD_512(s) s = _mm512_add_epi16(s, a); KEEP(s);
#define DOT_256(s) { __m256i pairs = _mm256_maddubs_epi16(a, b); KEEP(pairs); s = _mm256_add_epi16(s, pairs); KEEP(s); }
#define DOT_512(s) { __m512i pairs = _mm512_maddubs_epi16(a, b); KEEP(pairs); s = _mm512_add_epi16(s, pairs); KEEP(s); }
#define DOT_VNNI(s) s = _mm512_dpbusd_epi32(s, a, b); KEEP(s);

#ifdef MLP_HAVE_AVX2
LOOP(float_avx2, MLP_TARGET_AVX2, __m256, _mm256_setzero_ps(), FLOAT_256)
LOOP(add_avx2, MLP_TARGET_AVX2, __m256i, _mm256_setzero_si256(), ADD_256)
LOOP(dot_avx2, MLP_TARGET_AVX2, __m256i, _mm256_setzero_si256(), DOT_256)
#endif
#ifdef MLP_HAVE_AVX512
LOOP(float_avx512, MLP_TARGET_AVX512, __m512, _mm512_setzero_ps(), FLOAT_512)
LOOP(add_avx512, MLP_TARGET_AVX512, __m512i, _mm512_setzero_si512(), ADD_512)
LOOP(dot_avx512, MLP_TARGET_AVX512, __m512i, _mm512_setzero_si512(), DOT_512)
#endif
#ifdef MLP_HAVE_VNNI
LOOP(dot_vnni, MLP_TARGET_VNNI, __m512i, _mm512_setzero_si512(), DOT_VNNI)
#endif

#ifdef MLP_HAVE_AMX
/* Four sums of 16 x 16 int32, as 2 x 2 products of two tiles by two: what the eight tile registers hold. */
MLP_TARGET_AMX static void tiles_amx(int64_t rounds)
{
    struct {
        uint8_t palette, start, unused[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } __attribute__((aligned(64))) config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.bytes[i] = 64;
        config.rows[i] = 16;
    }
    __asm__ volatile("" : : "r"(&config) : "memory"); /* GCC 12 takes only the first 8 bytes of it for used below */
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (int64_t r = 0; r < rounds; r++) {
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
    }
    _tile_release();
}
#endif

int64_t mlp_bench_peak(int kind, int64_t rounds)
{
    enum { FLOAT32, ADD16, INT8 };
    const int tier = mlp_tier();
#ifdef MLP_HAVE_AMX
    if (tier == MLP_AMX && kind == INT8)
        return tiles_amx(rounds), 4 * 16 * 16 * 64;
#endif
#ifdef MLP_HAVE_VNNI
    if (tier >= MLP_VNNI && kind == INT8)
        return dot_vnni(rounds), SUMS * 64;
#endif
#ifdef MLP_HAVE_AVX512
    if (tier >= MLP_AVX512)
        switch (kind) {
        case FLOAT32: return float_avx512(rounds), SUMS * 16;
        case ADD16: return add_avx512(rounds), SUMS * 32;
        case INT8: return dot_avx512(rounds), SUMS * 64;
        }
#endif
#ifdef MLP_HAVE_AVX2
    if (tier >= MLP_AVX2)
        switch (kind) {
        case FLOAT32: return float_avx2(rounds), SUMS * 8;
        case ADD16: return add_avx2(rounds), SUMS * 16;
        case INT8: return dot_avx2(rounds), SUMS * 32;
        }
#endif
    return -1;
}
#else
int64_t mlp_bench_peak(int kind, int64_t rounds) { return -1; }
#endif
