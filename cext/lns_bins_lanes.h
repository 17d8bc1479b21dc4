/* The vector loops of lns_bins.h. Defined by the includer: TIER, VECTOR_BYTES, JOBS(gamma) vectors a walk carries per
 * bin, TARGET (attributes of the functions), and how a code lies in a tile:
 *   MASKED             0: gamma planes; 1: values, and remainders (-1 for zero), for tiers that add where a mask is set
 *   ADD, SUB(acc, row, i, jobs)   acc plus or minus vector i of the code's planes, i / jobs being the plane
 * None of the functions called mlp_lns_shift_* multiplies. */
#define NAME2(what, gamma, tier) mlp_lns_##what##_g##gamma##_##tier
#define NAME1(what, gamma, tier) NAME2(what, gamma, tier)
#define NAME(what, gamma) NAME1(what, gamma, TIER)
#define VECTOR1(tier) mlp_lns_vector_##tier
#define VECTOR0(tier) VECTOR1(tier)
#define VECTOR VECTOR0(TIER)

typedef int32_t VECTOR __attribute__((vector_size(VECTOR_BYTES)));

/* The terms of one exponent with remainder `f`. Bins from f on stand for this octave, those below for the next. */
#define STEP(G, f)                                                                                                     \
    do {                                                                                                               \
        for (int j = 0; j < JOBS(G); j++)                                                                              \
            acc[(f) * JOBS(G) + j] += acc[(f) * JOBS(G) + j];                                                          \
        for (int32_t n = *runs++; n > 0; n--) {                                                                        \
            const VECTOR *row = (const VECTOR *)(tile + *terms++);                                                     \
            _Pragma("GCC unroll 32")                                                                                   \
            for (int i = 0; i < (G) * JOBS(G); i++) {                                                                  \
                const int at = (i + (f) * JOBS(G)) % ((G) * JOBS(G));                                                  \
                acc[at] = ADD(acc[at], row, i, JOBS(G));                                                               \
            }                                                                                                          \
        }                                                                                                              \
        for (int32_t n = *runs++; n > 0; n--) {                                                                        \
            const VECTOR *row = (const VECTOR *)(tile + *terms++);                                                     \
            _Pragma("GCC unroll 32")                                                                                   \
            for (int i = 0; i < (G) * JOBS(G); i++) {                                                                  \
                const int at = (i + (f) * JOBS(G)) % ((G) * JOBS(G));                                                  \
                acc[at] = SUB(acc[at], row, i, JOBS(G));                                                               \
            }                                                                                                          \
        }                                                                                                              \
    } while (0)
#define STEPS1(G) STEP(G, 0)
#define STEPS2(G) STEP(G, 1); STEPS1(G)
#define STEPS4(G) STEP(G, 3); STEP(G, 2); STEPS2(G)
#define STEPS8(G) STEP(G, 7); STEP(G, 6); STEP(G, 5); STEP(G, 4); STEPS4(G)
#define STEPS16(G)                                                                                                     \
    STEP(G, 15); STEP(G, 14); STEP(G, 13); STEP(G, 12); STEP(G, 11); STEP(G, 10); STEP(G, 9); STEP(G, 8); STEPS8(G)

#define LOOPS(G)                                                                                                       \
    TARGET static void NAME(shift_walk, G)(const char *tile, const int32_t *terms, const int32_t *runs,                \
                                           int64_t octaves, int32_t *out)                                              \
    {                                                                                                                  \
        VECTOR acc[(G) * JOBS(G)], *to = (VECTOR *)out;                                                                \
        _Pragma("GCC unroll 32")                                                                                       \
        for (int i = 0; i < (G) * JOBS(G); i++)                                                                        \
            acc[i] = (VECTOR){0};                                                                                      \
        while (octaves-- > 0) {                                                                                        \
            STEPS##G(G);                                                                                               \
        }                                                                                                              \
        _Pragma("GCC unroll 32")                                                                                       \
        for (int i = 0; i < (G) * JOBS(G); i++)                                                                        \
            to[i] = acc[i];                                                                                            \
    }                                                                                                                  \
    enum { NAME(lanes, G) = JOBS(G) * VECTOR_BYTES / 4 };                                                              \
    TARGET static void NAME(shift_expand, G)(const int16_t *codes, int64_t valid, int32_t *out)                        \
    {                                                                                                                  \
        int16_t copy[NAME(lanes, G)] = {0};                                                                            \
        int32_t rest[NAME(lanes, G)], value[NAME(lanes, G)];                                                           \
        if (valid == NAME(lanes, G))                                                                                   \
            memcpy(copy, codes, sizeof copy);                                                                          \
        else                                                                                                           \
            memcpy(copy, codes, (size_t)valid * sizeof *codes);                                                        \
        for (int i = 0; i < NAME(lanes, G); i++) {                                                                     \
            int32_t code = copy[i], sign = code >> 31, e = ((code ^ sign) - sign) - 1;                                 \
            rest[i] = code ? e & ((G) - 1) : -1;                                                                       \
            int32_t power = (int32_t)1 << (((uint32_t)e / (G)) & 31);                                                  \
            value[i] = (power ^ sign) - sign;                                                                          \
        }                                                                                                              \
        if (MASKED) {                                                                                                  \
            memcpy(out, value, sizeof value);                                                                          \
            memcpy(out + NAME(lanes, G), rest, sizeof rest);                                                           \
            return;                                                                                                    \
        }                                                                                                              \
        for (int s = 0; s < (G); s++)                                                                                  \
            for (int i = 0; i < NAME(lanes, G); i++)                                                                   \
                out[s * NAME(lanes, G) + i] = rest[i] == s ? value[i] : 0;                                             \
    }                                                                                                                  \
    TARGET static void NAME(shift_fold, G)(const int32_t *sums, int shift, int64_t *bins)                              \
    {                                                                                                                  \
        for (int i = 0; i < (G) * NAME(lanes, G); i++)                                                                 \
            bins[i] = (int64_t)((uint64_t)bins[i] + ((uint64_t)(int64_t)sums[i] << shift));                            \
    }                                                                                                                  \
    TARGET static void NAME(close, G)(const int64_t *bins, const double *constants, int lut, double *out)              \
    {                                                                                                                  \
        const int lanes = NAME(lanes, G), low = (G) / lut;                                                             \
        int64_t whole[NAME(lanes, G)];                                                                                 \
        for (int i = 0; i < lanes; i++)                                                                                \
            out[i] = 0.0;                                                                                              \
        for (int top = 0; top < lut; top++) {                                                                          \
            const int64_t *bin = bins + top * low * lanes;                                                             \
            for (int i = 0; i < lanes; i++)                                                                            \
                whole[i] = low == 1 ? bin[i] : 0;                                                                      \
            for (int s = 0; low > 1 && s < low; s++)                                                                   \
                for (int i = 0; i < lanes; i++)                                                                        \
                    whole[i] += ((G) + s) * bin[s * lanes + i];                                                        \
            for (int i = 0; i < lanes; i++)                                                                            \
                out[i] += constants[top] * (double)whole[i];                                                           \
        }                                                                                                              \
    }                                                                                                                  \
    static const mlp_lns_lanes NAME(table, G) = {NAME(lanes, G), MASKED ? 2 : (G), NAME(shift_expand, G),              \
                                                 NAME(shift_walk, G), NAME(shift_fold, G), NAME(close, G)};

LOOPS(1)
LOOPS(2)
LOOPS(4)
LOOPS(8)
LOOPS(16)

static const mlp_lns_lanes *const NAME1(tables, all, TIER)[] = {&NAME(table, 1), &NAME(table, 2), &NAME(table, 4),
                                                                &NAME(table, 8), &NAME(table, 16)};

#undef TIER
#undef VECTOR_BYTES
#undef JOBS
#undef TARGET
#undef MASKED
#undef ADD
#undef SUB
#undef NAME2
#undef NAME1
#undef NAME
#undef VECTOR1
#undef VECTOR0
#undef VECTOR
#undef STEP
#undef STEPS1
#undef STEPS2
#undef STEPS4
#undef STEPS8
#undef STEPS16
#undef LOOPS
