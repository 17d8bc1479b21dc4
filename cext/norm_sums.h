/* Sums over a channel's plane in float64 in the written order, once for each instruction set; see norm.c.
 * No include guard, on purpose. The includer defines TIER(name), TARGET and BYTES, the width of a vector register.
 *
 * The order (the NumPy twin, reference_norm.ordered_sum, does the same): the plane is cut into blocks of 64 rows of 16
 * neighbours; in a block each of the 16 columns is summed from top to bottom, starting at +0.0; the blocks' 16 sums
 * are added block after block, starting at +0.0; last, the 16 become 8, 4, 2 and 1 by adding the upper half to the
 * lower half. A last, shorter block counts as filled up with zeros, which change nothing. */
#define WIDE (BYTES / 8)        /* doubles in a register */
#define PARTS (16 / WIDE)
typedef double TIER(wide) __attribute__((vector_size(BYTES)));
typedef float TIER(narrow) __attribute__((vector_size(BYTES / 2)));
typedef int32_t TIER(bits) __attribute__((vector_size(BYTES / 2)));

MLP_INLINE TIER(narrow) TIER(load)(const float *p)
{
    TIER(narrow) v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

/* y of forward, one rounding an operation, from left to right */
#define AFFINE(x, f) (((x) - (f)->mean) * (f)->invstd * (f)->weight + (f)->bias)

/* Sums over `length` floats: first sum of a; second sum of (a - mean)^2, or of b (a - mean) if there is a b. With a
 * b, the first sum is that of b; with a `forward` too, b counts as 0 where forward's result of a is not above 0. `want`
 * says which are wanted: 1 first, 2 second, 3 both. */
MLP_INLINE void TIER(walk)(const float *a, const float *b, double mean, const affine *forward, ptrdiff_t length,
                           const int want, double result[2])
{
    double total[2][16] = {{0}};
    for (ptrdiff_t start = 0; start < length; start += 1024) {
        const ptrdiff_t rows = (length - start < 1024 ? length - start : 1024) / 16;
        TIER(wide) first[PARTS], second[PARTS];
        for (int p = 0; p < PARTS; p++)
            first[p] = second[p] = (TIER(wide)){0};
        for (ptrdiff_t row = 0; row < rows; row++)
            _Pragma("GCC unroll 8") for (int p = 0; p < PARTS; p++) {
                const ptrdiff_t at = start + row * 16 + p * WIDE;
                TIER(narrow) number = TIER(load)(a + at), other = b ? TIER(load)(b + at) : number;
                if (forward)
                    other = (TIER(narrow))((TIER(bits))other & (AFFINE(number, forward) > 0.0f));
                TIER(wide) left = __builtin_convertvector(number, TIER(wide));
                TIER(wide) right = __builtin_convertvector(other, TIER(wide));
                if (want & 1)
                    first[p] += right;
                if (want & 2) {
                    TIER(wide) apart = left - mean;
                    second[p] += b ? right * apart : apart * apart;
                }
            }
        double column[2][16];
        __builtin_memcpy(column[0], first, sizeof column[0]);
        __builtin_memcpy(column[1], second, sizeof column[1]);
        for (ptrdiff_t i = start + rows * 16; i < length && i < start + 1024; i++) { /* an unfinished last row */
            double apart = a[i] - mean, other = b ? b[i] : a[i];
            if (forward && !(AFFINE(a[i], forward) > 0.0f))
                other = 0.0;
            column[0][i % 16] += other;
            column[1][i % 16] += b ? other * apart : apart * apart;
        }
        for (int j = 0; j < 16; j++)
            total[0][j] += column[0][j], total[1][j] += column[1][j];
    }
    for (int half = 8; half; half /= 2)
        for (int j = 0; j < half; j++)
            total[0][j] += total[0][j + half], total[1][j] += total[1][j + half];
    result[0] = total[0][0], result[1] = total[1][0];
}

TARGET static void TIER(sum)(const float *a, ptrdiff_t length, double result[2])
{
    TIER(walk)(a, NULL, 0.0, NULL, length, 1, result);
}

TARGET static void TIER(sum_squares)(const float *a, double mean, ptrdiff_t length, double result[2])
{
    TIER(walk)(a, NULL, mean, NULL, length, 2, result);
}

TARGET static void TIER(sum_products)(const float *x, const float *dy, const affine *forward, ptrdiff_t length,
                                      double result[2])
{
    const affine f = *forward;
    if (f.relu)
        TIER(walk)(x, dy, f.mean, &f, length, 3, result);
    else
        TIER(walk)(x, dy, f.mean, NULL, length, 3, result);
}

/* The larger of `largest` and the magnitude's bits of every number written; read again while they are in the first-level
 * cache, since as a part of the loops above them the compiler makes no vectors of it. */
MLP_INLINE uint32_t TIER(largest_of)(const float *written, ptrdiff_t length, uint32_t largest)
{
    for (ptrdiff_t i = 0; i < length; i++)
        largest = mlp_larger(largest, written[i]);
    return largest;
}

TARGET static uint32_t TIER(normalise)(const float *restrict x, const affine *forward, ptrdiff_t length,
                                       float *restrict y)
{
    const affine f = *forward;
    uint32_t largest = 0;
    for (ptrdiff_t start = 0; start < length; start += 1024) {
        const ptrdiff_t end = start + 1024 < length ? start + 1024 : length;
        if (f.relu)
            for (ptrdiff_t i = start; i < end; i++) {
                const float z = AFFINE(x[i], &f);
                y[i] = z <= 0.0f ? 0.0f : z; /* NaN stays, -0.0 becomes +0.0 */
            }
        else
            for (ptrdiff_t i = start; i < end; i++)
                y[i] = AFFINE(x[i], &f);
        largest = TIER(largest_of)(y + start, end - start, largest);
    }
    return largest;
}

/* dx = ((g - c1) - (x - mean) * c2) * (invstd * weight) */
TARGET static uint32_t TIER(spread)(const float *restrict dy, const float *restrict x, const affine *forward, float c1,
                                    float c2, ptrdiff_t length, float *restrict dx)
{
    const affine f = *forward;
    const float scale = f.invstd * f.weight;
    uint32_t largest = 0;
    for (ptrdiff_t start = 0; start < length; start += 1024) {
        const ptrdiff_t end = start + 1024 < length ? start + 1024 : length;
        if (f.relu)
            for (ptrdiff_t i = start; i < end; i++) {
                const float grad = dy[i]; /* read in any case, so that the choice needs no branch */
                dx[i] = (((AFFINE(x[i], &f) > 0.0f ? grad : 0.0f) - c1) - (x[i] - f.mean) * c2) * scale;
            }
        else
            for (ptrdiff_t i = start; i < end; i++)
                dx[i] = ((dy[i] - c1) - (x[i] - f.mean) * c2) * scale;
        largest = TIER(largest_of)(dx + start, end - start, largest);
    }
    return largest;
}

static const plane_kernels TIER(kernels) = {TIER(sum), TIER(sum_squares), TIER(sum_products), TIER(normalise),
                                            TIER(spread)};
#undef AFFINE
#undef WIDE
#undef PARTS
#undef TIER
#undef TARGET
#undef BYTES
