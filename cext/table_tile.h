/* The inner loops of the table kernel, written once and included by table_tiles.c for each instruction set. No include
 * guard, on purpose. The includer defines:
 *   TIER(name)            the function's name in this tier        TARGET, TARGET_BODY   attributes
 *   VEC, VP               vector of VP pairs of 16-bit numbers, or of VP 32-bit sums
 *   LOAD, STORE, SPLAT, ZERO
 *   MADD(a, b, c)         c + both products of each pair          REDUCE(v)   the sum of all lanes
 *   GM, GV                register tile of gather: GM outputs times GV vectors
 *   DM, DK                register tile of dot: DM outputs times DK taps */
#define UNROLL _Pragma("GCC unroll 32")

/* Sums of one pixel to their place: the only rounding. */
MLP_INLINE TARGET_BODY void TIER(put)(const int32_t *sum, ptrdiff_t pitch, const mlp_table_target *to, ptrdiff_t at,
                                      ptrdiff_t first, int lanes)
{
    for (int m = 0; m < to->outputs; m++, sum += pitch) {
        if (to->floats) {
            float *restrict y = to->floats + m * to->plane + at;
            const double row = to->row[m], *restrict lane = to->lane + first;
            for (int i = 0; i < lanes; i++)
                y[i] = (float)((double)sum[i] * (row * lane[i]));
        } else {
            for (int i = 0; i < lanes; i++)
                to->ints[m * to->plane + at + i] = sum[i];
        }
    }
}

/* One pixel: GM outputs times `vectors` vectors, kept in registers over the whole sum. */
MLP_INLINE TARGET_BODY void TIER(pixel)(const int32_t *x, const int32_t *offset, const int32_t *panel, ptrdiff_t count,
                                        const int vectors, const mlp_table_target *to, ptrdiff_t at, ptrdiff_t first)
{
    VEC sum[GM][GV];
    UNROLL for (int m = 0; m < GM; m++)
        UNROLL for (int v = 0; v < vectors; v++)
            sum[m][v] = ZERO;
    for (ptrdiff_t k = 0; k < count; k++, panel += GM) {
        const int32_t *from = x + offset[k];
        VEC in[GV];
        UNROLL for (int v = 0; v < vectors; v++)
            in[v] = LOAD(from + v * VP);
        UNROLL for (int m = 0; m < GM; m++) {
            VEC weight = SPLAT(panel[m]);
            UNROLL for (int v = 0; v < vectors; v++)
                sum[m][v] = MADD(weight, in[v], sum[m][v]);
        }
    }
    int32_t row[GM][GV * VP] __attribute__((aligned(64)));
    UNROLL for (int m = 0; m < GM; m++)
        UNROLL for (int v = 0; v < vectors; v++)
            STORE(&row[m][v * VP], sum[m][v]);
    const ptrdiff_t left = to->lanes - first;
    if (left >= vectors * VP)
        TIER(put)(row[0], GV * VP, to, at, first, vectors * VP);
    else
        TIER(put)(row[0], GV * VP, to, at, first, (int)left);
}

TARGET static void TIER(gather)(const int32_t *x, const int32_t *offset, const int32_t *panel, ptrdiff_t count,
                                ptrdiff_t pixels, ptrdiff_t x_step, ptrdiff_t y_step, mlp_table_target to)
{
    for (int first = 0; first < to.lanes; first += GV * VP)
        for (ptrdiff_t p = 0; p < pixels; p++) {
            if (to.lanes - first > VP)
                TIER(pixel)(x + p * x_step + first, offset, panel, count, GV, &to, p * y_step + first, first);
            else
                TIER(pixel)(x + p * x_step + first, offset, panel, count, 1, &to, p * y_step + first, first);
        }
}

TARGET static void TIER(dot)(const int16_t *dy, ptrdiff_t dy_plane, ptrdiff_t dy_row, const int16_t *x,
                             const int32_t *offset, ptrdiff_t x_row, ptrdiff_t x_step, ptrdiff_t rows,
                             ptrdiff_t columns, ptrdiff_t pitch, int64_t *sum)
{
    VEC part[DK][DM];
    UNROLL for (int k = 0; k < DK; k++)
        UNROLL for (int m = 0; m < DM; m++)
            part[k][m] = ZERO;
    const int16_t *tap[DK];
    UNROLL for (int k = 0; k < DK; k++)
        tap[k] = x + offset[k];
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t p = 0; p < columns; p++) {
            const int16_t *grad = dy + r * dy_row + p * pitch;
            ptrdiff_t at = r * x_row + p * x_step;
            for (ptrdiff_t i = 0; i < pitch; i += 2 * VP) {
                VEC g[DM];
                UNROLL for (int m = 0; m < DM; m++)
                    g[m] = LOAD(grad + m * dy_plane + i);
                UNROLL for (int k = 0; k < DK; k++) {
                    VEC in = LOAD(tap[k] + at + i);
                    UNROLL for (int m = 0; m < DM; m++)
                        part[k][m] = MADD(g[m], in, part[k][m]);
                }
            }
        }
    UNROLL for (int k = 0; k < DK; k++)
        UNROLL for (int m = 0; m < DM; m++)
            sum[k * DM + m] += REDUCE(part[k][m]);
}

TARGET static void TIER(pair)(const int8_t *even, const int8_t *odd, ptrdiff_t step, ptrdiff_t count, ptrdiff_t lanes,
                              int32_t *restrict to)
{
    for (ptrdiff_t p = 0; p < count; p++, even += step, odd += odd ? step : 0, to += MLP_TABLE_LANES) {
        if (odd && lanes == MLP_TABLE_LANES) {
            for (int i = 0; i < MLP_TABLE_LANES; i++)
                to[i] = (int32_t)((uint32_t)(uint16_t)even[i] | (uint32_t)odd[i] << 16);
            continue;
        }
        for (ptrdiff_t i = 0; i < MLP_TABLE_LANES; i++)
            to[i] = i >= lanes ? 0 : (int32_t)((uint32_t)(uint16_t)even[i] | (odd ? (uint32_t)odd[i] << 16 : 0));
    }
}

TARGET static void TIER(widen)(const int8_t *from, ptrdiff_t step, ptrdiff_t count, ptrdiff_t lanes, ptrdiff_t pitch,
                               int16_t *restrict to)
{
    for (ptrdiff_t p = 0; p < count; p++, from += step, to += pitch) {
        for (ptrdiff_t i = 0; i < lanes; i++)
            to[i] = from[i];
        for (ptrdiff_t i = lanes; i < pitch; i++)
            to[i] = 0;
    }
}

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
#undef GM
#undef GV
#undef DM
#undef DK
#undef UNROLL
