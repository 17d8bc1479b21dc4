/* What is done to a block of a channel's plane, once for each instruction set; see norm.c. No include guard, on
 * purpose. The includer defines TIER(name), TARGET, BYTES, the width of a vector register, and WIDEN(v): half a register
 * of floats to one of doubles.
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

/* To the first total the sum of b, or of a without one; to the second that of b (a - mean), or of (a - mean)^2. `want`
 * says which are wanted: 1 first, 2 second, 3 both. */
MLP_INLINE void TIER(add)(const float *a, const float *b, double mean, ptrdiff_t n, const int want,
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

TARGET static void TIER(sum)(const float *x, ptrdiff_t n, double total[2][16])
{
    TIER(add)(x, NULL, 0.0, n, 1, total);
}

TARGET static void TIER(squares)(const float *x, double mean, ptrdiff_t n, double total[2][16])
{
    TIER(add)(x, NULL, mean, n, 2, total);
}

TARGET static void TIER(products)(const float *g, const float *x, double mean, ptrdiff_t n, double total[2][16])
{
    TIER(add)(x, g, mean, n, 3, total);
}

/* y of forward, one rounding an operation, from left to right */
#define AFFINE(x) (((x) - f.mean) * f.invstd * f.weight + f.bias)

TARGET static void TIER(normalise)(const float *restrict x, const affine *forward, ptrdiff_t n, float *restrict y)
{
    const affine f = *forward;
    for (ptrdiff_t i = 0; i < n; i++)
        y[i] = AFFINE(x[i]);
}

/* dy where the result of forward is above 0, else 0; g may be dy. */
TARGET static void TIER(mask)(const float *dy, const float *x, const affine *forward, ptrdiff_t n, float *g)
{
    const affine f = *forward;
    _Pragma("GCC ivdep")
    for (ptrdiff_t i = 0; i < n; i++) {
        const float grad = dy[i]; /* read in any case, so that the choice needs no branch */
        g[i] = AFFINE(x[i]) > 0.0f ? grad : 0.0f;
    }
}

/* ((g - c1) - (x - mean) * c2) * (invstd * weight) */
TARGET static void TIER(spread)(const float *restrict g, const float *restrict x, const affine *forward, float c1,
                                float c2, ptrdiff_t n, float *restrict dx)
{
    const float mean = forward->mean, scale = forward->invstd * forward->weight;
    for (ptrdiff_t i = 0; i < n; i++)
        dx[i] = ((g[i] - c1) - (x[i] - mean) * c2) * scale;
}

static const block_kernels TIER(kernels) = {TIER(sum), TIER(squares), TIER(products), TIER(normalise), TIER(mask),
                                            TIER(spread)};
#undef AFFINE
#undef WIDE
#undef WIDEN
#undef PARTS
#undef TIER
#undef TARGET
#undef BYTES
