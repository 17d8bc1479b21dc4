/* The inner loops of the int8 engine, written once and included by dot8_tiles.c for each instruction set. No include
 * guard, on purpose. The includer defines:
 *   TIER(name)            the function's name in this tier        TARGET, TARGET_BODY   attributes
 *   VEC, VP               vector of VP words, or of VP 32-bit sums
 *   LOAD, STORE, SPLAT, ZERO
 *   MADD(x, w, c)         c + all products of each word           REDUCE(v)   the sum of all lanes
 *   NUMBER, ONES          type of a number of `dot`, and a word of ones
 *   WIDE_PUT              whether mlp_dot8_put_floats (dot8_put.h) may run
 *   GM, GV                register tile of gather: GM outputs times GV vectors; WM, WV the same with two planes each
 *   DM, DK                register tile of dot: DM outputs times DK taps */
#define UNROLL _Pragma("GCC unroll 32")

/* One result from its sums, exact in double. */
MLP_INLINE TARGET_BODY double TIER(joined)(const int32_t *sum, const int sums, ptrdiff_t next)
{
    enum { B = MLP_DOT8_BASE };
    if (sums == 3)
        return (double)sum[0] * (1 + B) + (double)sum[next] * (B + B * B) - (double)sum[2 * next] * B;
    return sums == 1 ? sum[0] : sum[0] + (double)sum[next] * B;
}

/* Sums of one pixel to their place, sums[s][m][lane]; next: from s to s + 1, pitch: from m to m + 1. Rounds once. */
MLP_INLINE TARGET_BODY void TIER(put)(const int32_t *sum, const int sums, ptrdiff_t next, ptrdiff_t pitch,
                                      const mlp_dot8_target *to, ptrdiff_t at, ptrdiff_t first, int lanes)
{
    if (!to->floats) {
        for (int m = 0; m < to->outputs; m++)
            for (int i = 0; i < lanes; i++)
                to->ints[m * to->plane + at + i] = (int64_t)TIER(joined)(sum + m * pitch + i, sums, next);
    } else if (WIDE_PUT) {
        mlp_dot8_put_floats(sum, sums, next, pitch, to, at, first, lanes);
    } else {
        for (int m = 0; m < to->outputs; m++, sum += pitch) {
            float *restrict y = to->floats + m * to->plane + at;
            const double row = to->row[m], *restrict lane = to->lane + first;
            if (sums == 1 && to->power != 0) { /* the conversion rounds, the power of two does not */
                for (int i = 0; i < lanes; i++)
                    y[i] = (float)sum[i] * to->power;
            } else {
                for (int i = 0; i < lanes; i++)
                    y[i] = (float)(TIER(joined)(sum + i, sums, next) * (row * lane[i]));
            }
        }
    }
}

/* One pixel: `outputs` channels times `vectors` vectors, kept in registers over the whole sum. */
MLP_INLINE TARGET_BODY void TIER(pixel)(const int32_t *x, ptrdiff_t x_plane, const int32_t *offset,
                                        const int32_t *panel, const int32_t *start, ptrdiff_t count, const int planes_x,
                                        const int planes_w, const int outputs, const int vectors,
                                        const mlp_dot8_target *to, ptrdiff_t at, ptrdiff_t first)
{
    const int sums = MLP_MAX(planes_x, planes_w);
    VEC sum[MLP_DOT8_SUMS][GM][GV];
    UNROLL for (int s = 0; s < sums; s++)
        UNROLL for (int m = 0; m < outputs; m++)
            UNROLL for (int v = 0; v < vectors; v++)
                sum[s][m][v] = SPLAT(start[s * outputs + m]);
    for (ptrdiff_t k = 0; k < count; k++, panel += planes_w * outputs) {
        const int32_t *from = x + offset[k];
        VEC in[MLP_DOT8_PLANES][GV];
        UNROLL for (int d = 0; d < planes_x; d++)
            UNROLL for (int v = 0; v < vectors; v++)
                in[d][v] = LOAD(from + d * x_plane + v * VP);
        UNROLL for (int m = 0; m < outputs; m++)
            UNROLL for (int s = 0; s < sums; s++) {
                VEC weight = SPLAT(panel[(planes_w > 1 ? s : 0) * outputs + m]);
                UNROLL for (int v = 0; v < vectors; v++)
                    sum[s][m][v] = MADD(in[planes_x > 1 ? s : 0][v], weight, sum[s][m][v]);
            }
    }
    int32_t row[MLP_DOT8_SUMS][GM][GV * VP] __attribute__((aligned(64)));
    if (VP == 4)
        memset(row, 0, sizeof row); /* GCC 12 does not see that the portable STORE writes it whole, and warns */
    UNROLL for (int s = 0; s < sums; s++)
        UNROLL for (int m = 0; m < outputs; m++)
            UNROLL for (int v = 0; v < vectors; v++)
                STORE(&row[s][m][v * VP], sum[s][m][v]);
    const ptrdiff_t left = to->lanes - first;
    if (left >= vectors * VP)
        TIER(put)(row[0][0], sums, GM * GV * VP, GV * VP, to, at, first, vectors * VP);
    else
        TIER(put)(row[0][0], sums, GM * GV * VP, GV * VP, to, at, first, (int)left);
}

#define GATHER(name, planes_x, planes_w, outputs, vectors) \
    TARGET static void TIER(name)(const int32_t *x, ptrdiff_t x_plane, const int32_t *offset, const int32_t *panel, \
                                  const int32_t *start, ptrdiff_t count, ptrdiff_t pixels, ptrdiff_t x_step, \
                                  ptrdiff_t y_step, mlp_dot8_target to) \
    { \
        for (int first = 0; first < to.lanes; first += vectors * VP) \
            for (ptrdiff_t p = 0; p < pixels; p++) { \
                if (to.lanes - first > VP) \
                    TIER(pixel)(x + p * x_step + first, x_plane, offset, panel, start, count, planes_x, planes_w, \
                                outputs, vectors, &to, p * y_step + first, first); \
                else \
                    TIER(pixel)(x + p * x_step + first, x_plane, offset, panel, start, count, planes_x, planes_w, \
                                outputs, 1, &to, p * y_step + first, first); \
            } \
        if (WIDE_PUT) \
            mlp_dot8_put_done(); \
    }
GATHER(gather11, 1, 1, GM, GV)
GATHER(gather12, 1, 2, WM, WV)
GATHER(gather21, 2, 1, WM, WV)
GATHER(gather22, 3, 3, WM, WV)

TARGET static void TIER(dot)(const void *error, ptrdiff_t dy_plane, ptrdiff_t dy_row, const void *act,
                             const int32_t *offset, ptrdiff_t x_row, ptrdiff_t x_step, ptrdiff_t rows,
                             ptrdiff_t columns, ptrdiff_t pitch, int64_t weight, int64_t *sum)
{
    const NUMBER *dy = error, *x = act;
    VEC part[DK][DM];
    UNROLL for (int m = 0; m < DM; m++)
        UNROLL for (int k = 0; k < DK; k++)
            part[k][m] = ZERO;
    const NUMBER *tap[DK];
    UNROLL for (int k = 0; k < DK; k++)
        tap[k] = x + offset[k];
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t p = 0; p < columns; p++) {
            const NUMBER *grad = dy + r * dy_row + p * pitch;
            ptrdiff_t at = r * x_row + p * x_step;
            for (ptrdiff_t i = 0; i < pitch; i += VP * 4 / (ptrdiff_t)sizeof(NUMBER)) {
                VEC g[DM];
                UNROLL for (int m = 0; m < DM; m++)
                    g[m] = LOAD(grad + m * dy_plane + i);
                UNROLL for (int k = 0; k < DK; k++) {
                    VEC in = LOAD(tap[k] + at + i);
                    UNROLL for (int m = 0; m < DM; m++)
                        part[k][m] = MADD(in, g[m], part[k][m]);
                }
            }
        }
    UNROLL for (int k = 0; k < DK; k++)
        UNROLL for (int m = 0; m < DM; m++)
            sum[k * DM + m] += weight * (int64_t)REDUCE(part[k][m]);
}

TARGET static int64_t TIER(total)(const void *numbers, ptrdiff_t count)
{
    const NUMBER *from = numbers;
    VEC sum = ZERO;
    for (ptrdiff_t i = 0; i < count; i += VP * 4 / (ptrdiff_t)sizeof(NUMBER))
        sum = MADD(SPLAT(ONES), LOAD(from + i), sum);
    return REDUCE(sum);
}

#undef GATHER
#undef TIER
#undef TARGET
#undef TARGET_BODY
#undef VEC
#undef VP
#undef LOAD
#undef STORE
#undef SPLAT
#undef ZERO
#undef MADD
#undef REDUCE
#undef NUMBER
#undef ONES
#undef WIDE_PUT
#undef GM
#undef GV
#undef WM
#undef WV
#undef DM
#undef DK
#undef UNROLL
