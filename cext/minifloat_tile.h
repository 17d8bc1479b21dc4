/* The inner loop of the weight gradient of small floats; real_vectors.h compiles it for each instruction set and each
 * kind of number. No include guard, on purpose. Products are exact, so a fused FMA is the same. */
#define DJ (VECTOR_BYTES == 64 ? 8 : VECTOR_BYTES == 32 ? 6 : 4) /* register tile: DJ taps times DV vectors of outputs */
#define DV 2
#define LANES (MLP_MINIFLOAT_BYTES / (int)sizeof(REAL))

/* DJ taps times `vectors` vectors of outputs: one chunk is the images of one pixel. */
MLP_INLINE TARGET_BODY void TIER(pixels)(const REAL *dy, ptrdiff_t pitch, const REAL *const *tap, ptrdiff_t x_step,
                                         ptrdiff_t pixels, int lanes, const int vectors, REAL *total)
{
    for (ptrdiff_t p = 0; p < pixels; p++) {
        const REAL *grad = dy + p * LANES * pitch;
        VEC part[DJ][DV];
        UNROLL for (int j = 0; j < DJ; j++)
            UNROLL for (int v = 0; v < vectors; v++)
                part[j][v] = ZERO;
        for (ptrdiff_t i = p * x_step, end = i + lanes; i < end; i++, grad += pitch) {
            VEC g[DV];
            UNROLL for (int v = 0; v < vectors; v++)
                g[v] = LOAD(grad + v * VF);
            UNROLL for (int j = 0; j < DJ; j++) {
                const VEC in = SPLAT(tap[j][i]);
                UNROLL for (int v = 0; v < vectors; v++)
                    part[j][v] = FMA(in, g[v], part[j][v]);
            }
        }
        UNROLL for (int j = 0; j < DJ; j++)
            UNROLL for (int v = 0; v < vectors; v++)
                STORE(total + j * pitch + v * VF, LOAD(total + j * pitch + v * VF) + part[j][v]);
    }
}

TARGET static void TIER(dot)(const void *turned, ptrdiff_t pitch, const void *tile, const int32_t *offset,
                             ptrdiff_t x_step, ptrdiff_t pixels, int lanes, ptrdiff_t outputs, void *totals)
{
    const REAL *dy = turned, *x = tile, *tap[DJ];
    REAL *total = totals;
    UNROLL for (int j = 0; j < DJ; j++)
        tap[j] = x + offset[j];
    for (ptrdiff_t o = 0; o < outputs; o += DV * VF) {
        if (outputs - o > VF)
            TIER(pixels)(dy + o, pitch, tap, x_step, pixels, lanes, DV, total + o);
        else
            TIER(pixels)(dy + o, pitch, tap, x_step, pixels, lanes, 1, total + o);
    }
}

TARGET static void TIER(decode)(const int8_t *codes, ptrdiff_t step, ptrdiff_t count, ptrdiff_t lanes, int man,
                                void *tile)
{
    REAL *restrict to = tile;
    for (ptrdiff_t p = 0; p < count; p++, codes += step, to += LANES) {
        if (lanes == LANES) {
            UNROLL for (int i = 0; i < LANES; i += VF)
                TIER(values)(codes + i, man, to + i);
        } else {
            for (ptrdiff_t i = 0; i < LANES; i++)
                to[i] = i < lanes ? (REAL)mlp_minifloat_value(codes[i], man) : 0;
        }
    }
}

TARGET static void TIER(turn)(const int8_t *codes, ptrdiff_t plane, ptrdiff_t outputs, ptrdiff_t lanes, ptrdiff_t pitch,
                              int man, void *turned)
{
    int8_t bytes[LANES * MLP_MINIFLOAT_CHANNELS];
    REAL *restrict to = turned;
    memset(bytes, 0, (size_t)(lanes * pitch));
    for (ptrdiff_t o = 0; o < outputs; o++)
        for (ptrdiff_t i = 0; i < lanes; i++)
            bytes[i * pitch + o] = codes[o * plane + i];
    for (ptrdiff_t i = 0; i < lanes * pitch; i += VF) /* the pitch is a multiple of a cache line */
        TIER(values)(bytes + i, man, to + i);
}

static const mlp_minifloat_tiles TIER(tiles) = {(int)sizeof(REAL), LANES, DJ, TIER(dot), TIER(decode),
                                                TIER(turn)};

#undef DJ
#undef DV
#undef LANES
