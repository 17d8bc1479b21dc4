/* The inner loops of the table kernel for each instruction set, and codes to the integers they stand for. */
#include <string.h>
#include "table.h"
#if defined(MLP_HAVE_AVX2) || defined(MLP_HAVE_AVX512)
#include <immintrin.h>
#endif

typedef int32_t pairs4 __attribute__((vector_size(16)));

/* Portable: vectors of four pairs; each half is sign-extended by shifts and multiplied in 32 bits. */
static inline pairs4 load_pairs4(const void *p)
{
    pairs4 v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void store_pairs4(int32_t *p, pairs4 v) { memcpy(p, &v, sizeof v); }
static inline pairs4 low4(pairs4 v)
{
    typedef uint32_t words4 __attribute__((vector_size(16)));
    return (pairs4)((words4)v << 16) >> 16;
}
static inline pairs4 madd4(pairs4 a, pairs4 b, pairs4 c) { return c + low4(a) * low4(b) + (a >> 16) * (b >> 16); }
static inline int32_t sum_pairs4(pairs4 v) { return v[0] + v[1] + v[2] + v[3]; }
#define TIER(name) portable_##name
#define TARGET MLP_NOINLINE
#define TARGET_BODY
#define VEC pairs4
#define VP 4
#define LOAD load_pairs4
#define STORE store_pairs4
#define SPLAT(i) ((pairs4){(i), (i), (i), (i)})
#define ZERO ((pairs4){0, 0, 0, 0})
#define MADD madd4
#define REDUCE sum_pairs4
#define GM 2
#define GV 2
#define DM 2
#define DK 2
#include "table_tile.h"

#ifdef MLP_HAVE_AVX2
__attribute__((target("avx2,fma"))) static inline int32_t sum256(__m256i v)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}
#define TIER(name) avx2_##name
#define TARGET MLP_TARGET_AVX2
#define TARGET_BODY __attribute__((target("avx2,fma")))
#define VEC __m256i
#define VP 8
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define STORE(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define SPLAT _mm256_set1_epi32
#define ZERO _mm256_setzero_si256()
#define MADD(a, b, c) _mm256_add_epi32(c, _mm256_madd_epi16(a, b))
#define REDUCE sum256
#define GM 4
#define GV 2
#define DM 4
#define DK 2
#include "table_tile.h"
#endif

#ifdef MLP_HAVE_AVX512
#define TIER(name) avx512_##name
#define TARGET MLP_TARGET_AVX512
#define TARGET_BODY __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define VEC __m512i
#define VP 16
#define LOAD _mm512_loadu_si512
#define STORE _mm512_storeu_si512
#define SPLAT _mm512_set1_epi32
#define ZERO _mm512_setzero_si512()
#define MADD(a, b, c) _mm512_add_epi32(c, _mm512_madd_epi16(a, b))
#define REDUCE _mm512_reduce_add_epi32
#define GM 8
#define GV 2
#define DM 4
#define DK 6
#include "table_tile.h"
#endif

const mlp_table_tiles *mlp_table_tiles_in_force(void)
{
    static const mlp_table_tiles portable = {2, 2, 2, portable_gather, portable_dot, portable_pair, portable_widen};
#ifdef MLP_HAVE_AVX512
    static const mlp_table_tiles avx512 = {8, 4, 6, avx512_gather, avx512_dot, avx512_pair, avx512_widen};
    if (mlp_vector_tier() == MLP_AVX512)
        return &avx512;
#endif
#ifdef MLP_HAVE_AVX2
    static const mlp_table_tiles avx2 = {4, 4, 2, avx2_gather, avx2_dot, avx2_pair, avx2_widen};
    if (mlp_vector_tier() >= MLP_AVX2)
        return &avx2;
#endif
    return &portable;
}

int mlp_table_values(const int8_t *codes, const int8_t *table, int64_t n, int8_t *values)
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
