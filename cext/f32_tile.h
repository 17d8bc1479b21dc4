/* The two inner loops of the float32 convolutions, written once and included by f32_tiles.c for each instruction set.
 * No include guard, on purpose. The includer defines:
 *   TIER(name)            the function's name in this tier        TARGET   its attributes
 *   VEC, VF               vector of VF floats                     LOAD, STORE, SPLAT, ZERO
 *   FMA(a, b, c)          a * b + c; fused where the tier can: float products are promised within a bound, not by bits
 *   REDUCE4(a, b, c, d)   the sums over the lanes of four vectors, as an mlp_v4
 *   GM, GV                register tile of gather: GM outputs times GV vectors
 *   DM, DK                register tile of dot: DM outputs (4) times DK taps */
#define UNROLL _Pragma("GCC unroll 32")

/* One pixel: GM outputs times `vectors` vectors, kept in registers over the whole sum. */
MLP_INLINE TARGET_BODY void TIER(pixel)(const float *x, const int32_t *offset, const float *panel, ptrdiff_t count,
                                        const int vectors, float *y, ptrdiff_t y_plane, int outputs, int lanes)
{
    VEC sum[GM][GV];
    UNROLL for (int m = 0; m < GM; m++)
        UNROLL for (int v = 0; v < vectors; v++)
            sum[m][v] = ZERO;
    for (ptrdiff_t k = 0; k < count; k++, panel += GM) {
        const float *from = x + offset[k];
        VEC in[GV];
        UNROLL for (int v = 0; v < vectors; v++)
            in[v] = LOAD(from + v * VF);
        UNROLL for (int m = 0; m < GM; m++) {
            VEC weight = SPLAT(panel[m]);
            UNROLL for (int v = 0; v < vectors; v++)
                sum[m][v] = FMA(weight, in[v], sum[m][v]);
        }
    }
    if (outputs == GM && lanes >= vectors * VF) {
        UNROLL for (int m = 0; m < GM; m++)
            UNROLL for (int v = 0; v < vectors; v++)
                STORE(y + m * y_plane + v * VF, sum[m][v]);
    } else {
        float row[GM][GV * VF];
        UNROLL for (int m = 0; m < GM; m++)
            UNROLL for (int v = 0; v < vectors; v++)
                STORE(&row[m][v * VF], sum[m][v]);
        for (int m = 0; m < outputs; m++)
            for (int i = 0; i < MLP_MIN(lanes, vectors * VF); i++)
                y[m * y_plane + i] = row[m][i];
    }
}

TARGET static void TIER(gather)(const float *x, const int32_t *offset, const float *panel, ptrdiff_t count,
                                ptrdiff_t pixels, ptrdiff_t x_step, float *y, ptrdiff_t y_plane, ptrdiff_t y_step,
                                int outputs, int lanes)
{
    for (int first = 0; first < lanes; first += GV * VF) {
        int left = lanes - first;
        for (ptrdiff_t p = 0; p < pixels; p++) {
            const float *from = x + p * x_step + first;
            float *to = y + p * y_step + first;
            if (left > VF)
                TIER(pixel)(from, offset, panel, count, GV, to, y_plane, outputs, left);
            else
                TIER(pixel)(from, offset, panel, count, 1, to, y_plane, outputs, left);
        }
    }
}

TARGET static void TIER(dot)(const float *dy, ptrdiff_t dy_plane, ptrdiff_t dy_row, const float *x,
                             const int32_t *offset, ptrdiff_t x_row, ptrdiff_t x_step, ptrdiff_t rows,
                             ptrdiff_t columns, ptrdiff_t pitch, ptrdiff_t lanes, float *sum)
{
    VEC part[DK][DM];
    UNROLL for (int k = 0; k < DK; k++)
        UNROLL for (int m = 0; m < DM; m++)
            part[k][m] = ZERO;
    const float *tap[DK];
    UNROLL for (int k = 0; k < DK; k++)
        tap[k] = x + offset[k];
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t p = 0; p < columns; p++) {
            const float *grad = dy + r * dy_row + p * pitch;
            ptrdiff_t at = r * x_row + p * x_step;
            for (ptrdiff_t i = 0; i < lanes; i += VF) {
                VEC g[DM];
                UNROLL for (int m = 0; m < DM; m++)
                    g[m] = LOAD(grad + m * dy_plane + i);
                UNROLL for (int k = 0; k < DK; k++) {
                    VEC in = LOAD(tap[k] + at + i);
                    UNROLL for (int m = 0; m < DM; m++)
                        part[k][m] = FMA(g[m], in, part[k][m]);
                }
            }
        }
    UNROLL for (int k = 0; k < DK; k++) {
        mlp_v4 four = REDUCE4(part[k][0], part[k][1], part[k][2], part[k][3]);
        UNROLL for (int m = 0; m < DM; m++)
            sum[k * DM + m] += four[m];
    }
}

/* `count` pixels of MLP_F32_LANES images, `step` floats apart, into consecutive ones. */
TARGET static void TIER(copy)(const float *from, ptrdiff_t step, ptrdiff_t count, float *to)
{
    for (ptrdiff_t p = 0; p < count; p++, from += step, to += MLP_F32_LANES)
        UNROLL for (int i = 0; i < MLP_F32_LANES; i += VF)
            STORE(to + i, LOAD(from + i));
}

#undef TIER
#undef TARGET
#undef TARGET_BODY
#undef VEC
#undef VF
#undef LOAD
#undef STORE
#undef SPLAT
#undef ZERO
#undef FMA
#undef REDUCE4
#undef GM
#undef GV
#undef DM
#undef DK
#undef UNROLL
