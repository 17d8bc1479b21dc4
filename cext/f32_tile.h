/* The inner loop of the float32 weight gradient, written once and included by f32_tiles.c for each instruction set.
 * No include guard, on purpose. The includer defines:
 *   TIER(name)            the function's name in this tier        TARGET   its attributes
 *   VEC, VF               vector of VF floats                     LOAD, ZERO
 *   FMA(a, b, c)          a * b + c; fused where the tier can: float products are promised within a bound, not by bits
 *   REDUCE4(a, b, c, d)   the sums over the lanes of four vectors, as an mlp_v4
 *   DM, DK                register tile of dot: DM outputs (4) times DK taps */
#define UNROLL _Pragma("GCC unroll 32")

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

#undef TIER
#undef TARGET
#undef TARGET_BODY
#undef VEC
#undef VF
#undef LOAD
#undef ZERO
#undef FMA
#undef REDUCE4
#undef DM
#undef DK
#undef UNROLL
