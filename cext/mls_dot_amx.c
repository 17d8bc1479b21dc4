/* The inner loop of the emulated MLS weight gradient on tiles (AMX); see mls_dot_wgrad.c.
 *
 *     for f < 16: for c < 16: for i < 64: sum[f][c] += error[f][i] * act[i][c];
 *
 * is one tile product of signed bytes into 32 bits, exact: the P of one tap, 16 features and 16 channels, over 64
 * pixels of one sample. Tiles hold the sums of six taps; what follows per sum is what the vector loops do. */
#include "mls_dot.h"
#if defined(MLP_HAVE_AVX512) && defined(MLP_HAVE_VNNI) && defined(MLP_HAVE_AMX)
#include <immintrin.h>
#include "dot8_amx_config.h"

enum { TILES = 6, ROWS = 16, WORDS = 16 * 16 };

int mlp_mls_amx(void) { return mlp_tier() >= MLP_AMX; }

MLP_TARGET_AMX void mlp_mls_amx_on(int64_t chunk)
{
    struct { uint8_t palette, start, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; } config = {.palette = 1};
    for (int i = 0; i < 8; i++)
        config.bytes[i] = 64, config.rows[i] = ROWS;
    config.rows[6] = (uint8_t)chunk;          /* activations: a quad a row */
    config.bytes[7] = (uint16_t)(4 * chunk);  /* errors */
    __asm__ volatile("" ::: "memory"); /* the load below does not tell the compiler that it reads memory */
    _tile_loadconfig(&config);
}

MLP_TARGET_AMX void mlp_mls_amx_off(void) { _tile_release(); }

#define EACH(what) what(0) what(1) what(2) what(3) what(4) what(5)
#define ZERO(i) if (i < count) _tile_zero(i);
#define OUT(i) if (i < count) _tile_stored(i, sum + i * WORDS, 64);
#define STEP(i)                                                                                                        \
    if (i < count) {                                                                                                   \
        _tile_loadd(6, act + tap[i], 64);                                                                              \
        _tile_dpbssd(i, 7, 6);                                                                                         \
    }

MLP_INLINE MLP_AMX_ATTRIBUTE void sums(const mlp_mls_amx_wgrad *w, const int64_t *tap, const int count, int32_t *sum)
{
    __asm__ volatile("" ::: "memory"); /* tile loads do not tell the compiler that they read memory */
    EACH(ZERO)
    for (int64_t r = 0; r < w->runs; r++) {
        const char *act = w->act + r * w->act_run, *error = w->error + r * w->error_run;
        for (int64_t i = 0; i < w->chunks; i++, act += w->chunk * 64, error += w->chunk * 4) {
            _tile_loadd(7, error, w->error_feature);
            EACH(STEP)
        }
    }
    EACH(OUT)
    __asm__ volatile("" ::: "memory");
}

MLP_TARGET_AMX static void sums_amx(const mlp_mls_amx_wgrad *w, const int64_t *tap, int count, int32_t *sum)
{
    switch (count) {
    case 1: sums(w, tap, 1, sum); break;
    case 2: sums(w, tap, 2, sum); break;
    case 3: sums(w, tap, 3, sum); break;
    case 4: sums(w, tap, 4, sum); break;
    case 5: sums(w, tap, 5, sum); break;
    default: sums(w, tap, 6, sum);
    }
}

MLP_TARGET_AMX void mlp_mls_amx_block(const mlp_mls_amx_wgrad *w)
{
    int32_t sum[TILES * WORDS] __attribute__((aligned(64)));
    const __m512 scale = _mm512_load_ps(w->scale_act);
    for (int64_t t = 0; t < w->taps; t += TILES) {
        const int count = (int)mlp_min(TILES, w->taps - t);
        sums_amx(w, w->tap + t, count, sum);
        for (int64_t f = 0; f < w->features; f++) {
            const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(w->scale_error[f]));
            float *out = w->totals + f * w->feature + t * ROWS;
            for (int i = 0; i < count; i++, out += ROWS) {
                const __m512 whole = _mm512_cvtepi32_ps(_mm512_load_si512(sum + i * WORDS + f * ROWS));
                _mm512_store_ps(out, _mm512_add_ps(_mm512_load_ps(out), _mm512_mul_ps(whole, both)));
            }
        }
    }
}
#else
int mlp_mls_amx(void) { return 0; }
void mlp_mls_amx_on(int64_t chunk) { (void)chunk; }
void mlp_mls_amx_off(void) {}
void mlp_mls_amx_block(const mlp_mls_amx_wgrad *w) { (void)w; }
#endif
