/* The vector loops of the exponent-binned adds: one body, included once per instruction set and lane width with
 *   LANE (int16_t or int32_t), VECTOR_BYTES, TIER (portable, ...), WIDTH (i16, i32), TARGET (attributes of a function),
 *   STREAM where there is one (a line of floats past the caches), VALUES where codes become lanes in fewer steps,
 *   SHIFTS_VARY (1 where lanes of that width can be shifted by different amounts in one instruction),
 *   GRID where registers suffice for 16 sums.
 * See pot_bins.h. */
#define LANES ((int64_t)(VECTOR_BYTES / sizeof(LANE)))
#define JOIN_(a, b, c) a##_##b##_##c
#define JOIN(a, b, c) JOIN_(a, b, c)
#define NAME(base) JOIN(base, WIDTH, TIER)
#define VECTOR NAME(mlp_pot_vector)
#define CODES NAME(mlp_pot_codes)
#define WORDS NAME(mlp_pot_words)
#define MLP_UNROLL _Pragma("GCC unroll 16")

typedef LANE VECTOR __attribute__((vector_size(VECTOR_BYTES), aligned(VECTOR_BYTES)));
typedef int8_t CODES __attribute__((vector_size(VECTOR_BYTES / sizeof(LANE))));
typedef int16_t WORDS __attribute__((vector_size(2 * VECTOR_BYTES / sizeof(LANE))));

/* The inner loop: per term one address and, for each job, one vector add or subtract. Between two exponents each sum is
 * added to itself. `side` jobs each read neighbouring vectors. */
MLP_INLINE void NAME(mlp_pot_walk_body)(const int jobs, const int side, const char *const *base, const int32_t *terms,
                                        const int32_t *runs, int64_t n_runs, VECTOR *out)
{
    VECTOR sum[MLP_POT_GRID_JOBS];  /* unrolled, so that sums and rows live in registers */
    const char *row[MLP_POT_JOBS];
    MLP_UNROLL for (int j = 0; j < jobs; j++)
        sum[j] = (VECTOR){0};
    MLP_UNROLL for (int j = 0; j < jobs / side; j++)
        row[j] = base[j];
    for (int64_t r = 0; r < n_runs; r++) {
        MLP_UNROLL for (int j = 0; j < jobs; j++)
            sum[j] += sum[j];
        for (const int32_t *end = terms + runs[2 * r]; terms < end; terms++)
            MLP_UNROLL for (int j = 0; j < jobs; j++)
                sum[j] += ((const VECTOR *)(row[j / side] + *terms))[j % side];
        for (const int32_t *end = terms + runs[2 * r + 1]; terms < end; terms++)
            MLP_UNROLL for (int j = 0; j < jobs; j++)
                sum[j] -= ((const VECTOR *)(row[j / side] + *terms))[j % side];
    }
    MLP_UNROLL for (int j = 0; j < jobs; j++)
        out[j] = sum[j];
}

#define WALK(jobs, side)                                                                                               \
    TARGET void NAME(mlp_pot_shift_walk##jobs)(const char *const *base, const int32_t *terms, const int32_t *runs,     \
                                               int64_t n_runs, void *out)                                              \
    {                                                                                                                  \
        NAME(mlp_pot_walk_body)(jobs, side, base, terms, runs, n_runs, out);                                           \
    }
WALK(1, 1)
WALK(2, 1)
WALK(4, 1)
WALK(8, 1)
WALK(9, 1)
#ifdef GRID
WALK(16, 4)
#define WALK_GRID NAME(mlp_pot_shift_walk16)
#else
#define WALK_GRID NULL
#endif

#ifndef VALUES
/* 2^(size-1), and 0 for size 0 */
MLP_INLINE VECTOR NAME(mlp_pot_one_hot)(VECTOR size)
{
#if SHIFTS_VARY  /* each lane by an amount of its own */
    return (((VECTOR){0} + 1) << size) >> 1;
#else
    VECTOR hot = (size != 0) & 1, left = size - 1;
    for (int bit = 0; bit < 4; bit++) {  /* double by the bits of the amount: 1, 2, 4, 8 places */
        VECTOR wanted = -((left >> bit) & 1);
        hot ^= (hot ^ (hot << (1 << bit))) & wanted;
    }
    return hot;
#endif
}
#define VALUES(to, codes)                                                                                              \
    {   /* by way of 16 bits: GCC 12 takes bytes to words in one instruction, but bytes to 32 bits one by one */       \
        VECTOR code = __builtin_convertvector(__builtin_convertvector(codes, WORDS), VECTOR);                          \
        VECTOR sign = code >> 7, size = (code ^ sign) - sign;                                                          \
        to = (NAME(mlp_pot_one_hot)(size) ^ sign) - sign;                                                              \
    }
#endif

TARGET static void NAME(mlp_pot_expand)(const int8_t *codes, ptrdiff_t step, int64_t pixels, int64_t valid, void *out)
{
    VECTOR *lanes = out;
    for (; pixels > 0; pixels--, codes += step, lanes++) {
        CODES bytes = {0};
        if (valid == LANES)  /* the copy of constant size is one load */
            memcpy(&bytes, codes, sizeof bytes);
        else
            memcpy(&bytes, codes, (size_t)valid);
        VALUES(*lanes, bytes);
    }
}

TARGET static void NAME(mlp_pot_fold)(const void *sums, int64_t vectors, int shift, int64_t *total)
{
    const LANE *sum = sums;
    for (; vectors > 0; vectors--, sum += LANES, total += LANES)
        for (int64_t i = 0; i < LANES; i++)
            total[i] += (int64_t)((uint64_t)(int64_t)sum[i] << shift);
}

TARGET static void NAME(mlp_pot_fold_narrow)(const void *restrict sums, int64_t vectors, int shift, int first,
                                             int32_t *restrict total)
{
    const LANE *sum = sums;
    for (; vectors > 0; vectors--, sum += LANES, total += LANES)
        if (first)
            for (int64_t i = 0; i < LANES; i++)
                total[i] = (int32_t)((uint32_t)(int32_t)sum[i] << shift);
        else
            for (int64_t i = 0; i < LANES; i++)
                total[i] += (int32_t)((uint32_t)(int32_t)sum[i] << shift);
}

#ifdef STREAM
#define WRITE(out, line, past_cache)                                                                                   \
    for (int64_t i = 0; past_cache && i < LANES; i += 16)                                                              \
        STREAM(out + i, line + i);                                                                                     \
    if (!past_cache)                                                                                                   \
        memcpy(out, line, sizeof line)
#else
#define WRITE(out, line, past_cache) memcpy(out, line, sizeof line)
#endif

/* A full vector is the usual case, and of constant length: a few instructions. */
#define TO_FLOAT(kind, type)                                                                                           \
    TARGET static void NAME(mlp_pot_##kind##_to_float)(const type *restrict sums, int64_t n, int exponent,             \
                                                       int past_cache, float *restrict out)                            \
    {                                                                                                                  \
        float line[LANES] __attribute__((aligned(64)));                                                                \
        if (n == LANES) {                                                                                              \
            for (int64_t i = 0; i < LANES; i++)                                                                        \
                line[i] = mlp_add_exponent((float)sums[i], exponent);                                                  \
            WRITE(out, line, past_cache);                                                                              \
        } else {                                                                                                       \
            for (int64_t i = 0; i < n; i++)                                                                            \
                out[i] = mlp_add_exponent((float)sums[i], exponent);                                                   \
        }                                                                                                              \
    }
TO_FLOAT(narrow, int32_t)
TO_FLOAT(wide, int64_t)

const mlp_pot_lanes NAME(mlp_pot_lanes) = {
    LANES, VECTOR_BYTES,
    {NULL, NAME(mlp_pot_shift_walk1), NAME(mlp_pot_shift_walk2), NULL, NAME(mlp_pot_shift_walk4), NULL, NULL, NULL,
     NAME(mlp_pot_shift_walk8), NAME(mlp_pot_shift_walk9)},
    WALK_GRID, NAME(mlp_pot_expand), NAME(mlp_pot_fold), NAME(mlp_pot_fold_narrow), NAME(mlp_pot_narrow_to_float),
    NAME(mlp_pot_wide_to_float),
};

#undef LANES
#undef JOIN_
#undef JOIN
#undef NAME
#undef VECTOR
#undef CODES
#undef WORDS
#undef WALK
#undef WALK_GRID
#undef TO_FLOAT
#undef WRITE
#undef VALUES
#undef MLP_UNROLL
#undef LANE
#undef WIDTH
#undef SHIFTS_VARY
