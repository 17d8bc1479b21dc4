/* The loops over a channel's plane, once for each instruction set; see norm.c. No include guard, on purpose. The
 * includer defines TIER(name), TARGET, BYTES, the width of a vector register, and WIDEN(v): half a register of floats
 * to one of doubles.
 *
 * The order of the float64 sums (the NumPy twin, reference_norm.ordered_sum, does the same): the plane is cut into
 * blocks of 64 rows of 16 neighbours; in a block each of the 16 columns is summed from top to bottom, starting at +0.0;
 * the blocks' 16 sums are added block after block, starting at +0.0; last, the 16 become 8, 4, 2 and 1 by adding the
 * upper half to the lower half. A last, shorter block counts as filled up with zeros, which change nothing. */
#define WIDE (BYTES / 8)        /* doubles in a register */
#define PARTS (16 / WIDE)
typedef double TIER(wide) __attribute__((vector_size(BYTES)));
typedef float TIER(narrow) __attribute__((vector_size(BYTES / 2)));

MLP_INLINE TIER(narrow) TIER(load)(const float *p)
{
    TIER(narrow) v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

/* Add a block of n <= BLOCK floats to both totals: to the first the sum of b, or of a without one; to the second that
 * of b (a - mean), or of (a - mean)^2. `want` says which are wanted: 1 first, 2 second, 3 both. */
MLP_INLINE void TIER(add_block)(const float *a, const float *b, double mean, ptrdiff_t n, const int want,
                                double total[2][16])
{
    TIER(wide) first[PARTS], second[PARTS];
    for (int p = 0; p < PARTS; p++)
        first[p] = second[p] = (TIER(wide)){0};
    ptrdiff_t at = 0;
    for (; at + 16 <= n; at += 16)
        _Pragma("GCC unroll 8") for (int p = 0; p < PARTS; p++) {
            const TIER(wide) left = WIDEN(TIER(load)(a + at + p * WIDE));
            const TIER(wide) right = b ? WIDEN(TIER(load)(b + at + p * WIDE)) : left;
            if (want & 1)
                first[p] += right;
            if (want & 2) {
                const TIER(wide) apart = left - mean;
                second[p] += b ? right * apart : apart * apart;
            }
        }
    double column[2][16];
    __builtin_memcpy(column[0], first, sizeof column[0]);
    __builtin_memcpy(column[1], second, sizeof column[1]);
    for (int j = 0; at < n; at++, j++) { /* an unfinished last row */
        const double apart = a[at] - mean, right = b ? b[at] : a[at];
        column[0][j] += right;
        column[1][j] += b ? right * apart : apart * apart;
    }
    for (int j = 0; j < 16; j++)
        total[0][j] += column[0][j], total[1][j] += column[1][j];
}

/* The 16 of a total become one. */
MLP_INLINE double TIER(fold)(double total[16])
{
    for (int half = 8; half; half /= 2)
        for (int j = 0; j < half; j++)
            total[j] += total[j + half];
    return total[0];
}

TARGET static double TIER(sum)(const float *x, ptrdiff_t length)
{
    double total[2][16] = {{0}};
    FOR_BLOCKS(start, n, length)
        TIER(add_block)(x + start, NULL, 0.0, n, 1, total);
    return TIER(fold)(total[0]);
}

TARGET static double TIER(sum_squares)(const float *x, double mean, ptrdiff_t length)
{
    double total[2][16] = {{0}};
    FOR_BLOCKS(start, n, length)
        TIER(add_block)(x + start, NULL, mean, n, 2, total);
    return TIER(fold)(total[1]);
}

/* y of forward, one rounding an operation, from left to right */
#define AFFINE(x, f) (((x) - (f).mean) * (f).invstd * (f).weight + (f).bias)

/* The sums of g and of g (x - mean). With the ReLU, g is first written: dy where forward's result is above 0. */
TARGET static void TIER(sum_products)(const float *x, const float *dy, const affine *forward, ptrdiff_t length,
                                      float *g, double result[2])
{
    const affine f = *forward;
    double total[2][16] = {{0}};
    FOR_BLOCKS(start, n, length) {
        const float *from = x + start, *grad = dy + start;
        if (f.relu) {
            float *to = g + start;
            _Pragma("GCC ivdep") /* g may be dy */
            for (ptrdiff_t i = 0; i < n; i++) {
                const float here = grad[i]; /* read in any case, so that the choice needs no branch */
                to[i] = AFFINE(from[i], f) > 0.0f ? here : 0.0f;
            }
            grad = to;
        }
        TIER(add_block)(from, grad, f.mean, n, 3, total);
    }
    result[0] = TIER(fold)(total[0]), result[1] = TIER(fold)(total[1]);
}

/* The larger of `largest` and the magnitude's bits of every number written; read again while they are in the
 * first-level cache, since as a part of the loops below the compiler makes no vectors of it. */
MLP_INLINE uint32_t TIER(largest_of)(const float *written, ptrdiff_t n, uint32_t largest)
{
    for (ptrdiff_t i = 0; i < n; i++)
        largest = mlp_larger(largest, written[i]);
    return largest;
}

TARGET static uint32_t TIER(normalise)(const float *restrict x, const affine *forward, ptrdiff_t length,
                                       float *restrict y)
{
    const affine f = *forward;
    uint32_t largest = 0;
    FOR_BLOCKS(start, n, length) {
        const float *restrict from = x + start;
        float *restrict to = y + start;
        if (f.relu)
            for (ptrdiff_t i = 0; i < n; i++) {
                const float z = AFFINE(from[i], f);
                to[i] = z <= 0.0f ? 0.0f : z; /* NaN stays, -0.0 becomes +0.0 */
            }
        else
            for (ptrdiff_t i = 0; i < n; i++)
                to[i] = AFFINE(from[i], f);
        largest = TIER(largest_of)(to, n, largest);
    }
    return largest;
}

/* dx = ((g - c1) - (x - mean) * c2) * (invstd * weight); dx may be g */
TARGET static uint32_t TIER(spread)(const float *g, const float *x, const affine *forward, float c1, float c2,
                                    ptrdiff_t length, float *dx)
{
    const affine f = *forward;
    const float scale = f.invstd * f.weight;
    uint32_t largest = 0;
    FOR_BLOCKS(start, n, length) {
        const float *grad = g + start, *from = x + start;
        float *to = dx + start;
        _Pragma("GCC ivdep")
        for (ptrdiff_t i = 0; i < n; i++)
            to[i] = ((grad[i] - c1) - (from[i] - f.mean) * c2) * scale;
        largest = TIER(largest_of)(to, n, largest);
    }
    return largest;
}

static const plane_kernels TIER(kernels) = {TIER(sum), TIER(sum_squares), TIER(sum_products), TIER(normalise),
                                            TIER(spread)};
#undef AFFINE
#undef WIDE
#undef WIDEN
#undef PARTS
#undef TIER
#undef TARGET
#undef BYTES
