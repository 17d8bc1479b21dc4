/* The vector loops of the exponent-binned adds: one body, included once per instruction set and lane width with
 *   LANE (int16_t or int32_t), VECTOR_BYTES, TIER (portable, ...), WIDTH (i16, i32), TARGET (attributes of a function),
 *   KEEP and SORT (pot_bins_list.c's or their equals), STREAM where there is one (a line of floats past the caches),
 *   SHIFTS_VARY (1 where lanes of that width can be shifted by different amounts in one instruction).
 * See pot_bins.h. */
#define LANES ((int64_t)(VECTOR_BYTES / sizeof(LANE)))
#define JOIN_(a, b, c) a##_##b##_##c
#define JOIN(a, b, c) JOIN_(a, b, c)
#define NAME(base) JOIN(base, WIDTH, TIER)
#define VECTOR NAME(mlp_pot_vector)
#define CODES NAME(mlp_pot_codes)
#define WORDS NAME(mlp_pot_words)
#define MLP_UNROLL _Pragma("GCC unroll 9")

typedef LANE VECTOR __attribute__((vector_size(VECTOR_BYTES), aligned(VECTOR_BYTES)));
typedef int8_t CODES __attribute__((vector_size(VECTOR_BYTES / sizeof(LANE))));
typedef int16_t WORDS __attribute__((vector_size(2 * VECTOR_BYTES / sizeof(LANE))));

/* The inner loop: per term one address and, for each job, one vector add or subtract. Between two exponents each sum is
 * added to itself. */
MLP_INLINE void NAME(mlp_pot_walk_body)(const int jobs, const char *const *base, const int32_t *terms,
                                        const int32_t *runs, int64_t n_runs, VECTOR *out)
{
    VECTOR sum[MLP_POT_JOBS];  /* unrolled, so that sums and rows live in registers */
    const char *row[MLP_POT_JOBS];
    MLP_UNROLL for (int j = 0; j < jobs; j++) {
        sum[j] = (VECTOR){0};
        row[j] = base[j];
    }
    for (int64_t r = 0; r < n_runs; r++) {
        MLP_UNROLL for (int j = 0; j < jobs; j++)
            sum[j] += sum[j];
        for (const int32_t *end = terms + runs[2 * r]; terms < end; terms++)
            MLP_UNROLL for (int j = 0; j < jobs; j++)
                sum[j] += *(const VECTOR *)(row[j] + *terms);
        for (const int32_t *end = terms + runs[2 * r + 1]; terms < end; terms++)
            MLP_UNROLL for (int j = 0; j < jobs; j++)
                sum[j] -= *(const VECTOR *)(row[j] + *terms);
    }
    MLP_UNROLL for (int j = 0; j < jobs; j++)
        out[j] = sum[j];
}

#define WALK(jobs)                                                                                                     \
    TARGET void NAME(mlp_pot_shift_walk##jobs)(const char *const *base, const int32_t *terms, const int32_t *runs,     \
                                               int64_t n_runs, void *out)                                              \
    {                                                                                                                  \
        NAME(mlp_pot_walk_body)(jobs, base, terms, runs, n_runs, out);                                                 \
    }
WALK(1)
WALK(2)
WALK(4)
WALK(8)
WALK(9)

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

TARGET static void NAME(mlp_pot_expand)(const int8_t *codes, ptrdiff_t step, int64_t pixels, int64_t valid, void *out)
{
    VECTOR *lanes = out;
    for (; pixels > 0; pixels--, codes += step, lanes++) {
        CODES bytes = {0};
        if (valid == LANES)  /* the copy of constant size is one load */
            memcpy(&bytes, codes, sizeof bytes);
        else
            memcpy(&bytes, codes, (size_t)valid);
        /* by way of 16 bits: GCC 12 takes bytes to words in one instruction, but bytes to 32 bits one by one */
        VECTOR code = __builtin_convertvector(__builtin_convertvector(bytes, WORDS), VECTOR);
        VECTOR sign = code >> 7, size = (code ^ sign) - sign;
        *lanes = (NAME(mlp_pot_one_hot)(size) ^ sign) - sign;
    }
}

TARGET static void NAME(mlp_pot_fold)(const void *sums, int64_t vectors, int shift, int64_t *total)
{
    const LANE *sum = sums;
    for (; vectors > 0; vectors--, sum += LANES, total += LANES)
        for (int64_t i = 0; i < LANES; i++)
            total[i] += (int64_t)((uint64_t)(int64_t)sum[i] << shift);
}

/* A full vector is the usual case, and of constant length: a few instructions. */
MLP_INLINE void NAME(mlp_pot_vector_to_float)(const void *sums, int exponent, float *out)
{
    const LANE *sum = sums;
    for (int64_t i = 0; i < LANES; i++)
        out[i] = mlp_add_exponent((float)sum[i], exponent);
}

TARGET static void NAME(mlp_pot_narrow_to_float)(const void *sums, int64_t n, int exponent, float *out)
{
    const LANE *sum = sums;
    if (n == LANES)
        NAME(mlp_pot_vector_to_float)(sums, exponent, out);
    else
        for (int64_t i = 0; i < n; i++)
            out[i] = mlp_add_exponent((float)sum[i], exponent);
}

TARGET static void NAME(mlp_pot_wide_to_float)(const int64_t *sums, int64_t n, int exponent, float *out)
{
    if (n == LANES)
        for (int64_t i = 0; i < LANES; i++)
            out[i] = mlp_add_exponent((float)sums[i], exponent);
    else
        for (int64_t i = 0; i < n; i++)
            out[i] = mlp_add_exponent((float)sums[i], exponent);
}

#ifdef STREAM
TARGET static void NAME(mlp_pot_narrow_past_cache)(const void *sums, int exponent, float *out)
{
    float line[LANES] __attribute__((aligned(64)));
    NAME(mlp_pot_vector_to_float)(sums, exponent, line);
    for (int64_t i = 0; i < LANES; i += 16)
        STREAM(out + i, line + i);
}
#define PAST_CACHE NAME(mlp_pot_narrow_past_cache)
#else
#define PAST_CACHE NULL
#endif

const mlp_pot_lanes NAME(mlp_pot_lanes) = {
    LANES, VECTOR_BYTES,
    {NULL, NAME(mlp_pot_shift_walk1), NAME(mlp_pot_shift_walk2), NULL, NAME(mlp_pot_shift_walk4), NULL, NULL, NULL,
     NAME(mlp_pot_shift_walk8), NAME(mlp_pot_shift_walk9)},
    NAME(mlp_pot_expand), KEEP, SORT, NAME(mlp_pot_fold), NAME(mlp_pot_narrow_to_float), NAME(mlp_pot_wide_to_float),
    PAST_CACHE,
};

#undef LANES
#undef JOIN_
#undef JOIN
#undef NAME
#undef VECTOR
#undef CODES
#undef WORDS
#undef WALK
#undef PAST_CACHE
#undef MLP_UNROLL
#undef LANE
#undef WIDTH
#undef SHIFTS_VARY
