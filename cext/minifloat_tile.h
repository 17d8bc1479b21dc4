/* The inner loops of the kernels of small floats, written once and included by minifloat_tiles.c for each instruction
 * set and each kind of number. No include guard, on purpose. The includer defines:
 *   TIER(name)            the function's name in this tier        TARGET, TARGET_BODY   attributes
 *   REAL                  float or double                         VEC, VF   vector of VF numbers
 *   WIDE                  numbers that are scaled and rounded at once
 *   LOAD, STORE, SPLAT, ZERO
 *   FMA(a, b, c)          a * b + c; the product is exact, so fused or not is the same
 *   GM, GV                register tile of gather: GM outputs times GV vectors
 *   DJ, DV                register tile of dot: DJ taps times DV vectors of outputs */
#define UNROLL _Pragma("GCC unroll 32")
#define LANES (MLP_MINIFLOAT_BYTES / (int)sizeof(REAL))

typedef double TIER(doubles) __attribute__((vector_size(8 * WIDE)));
typedef float TIER(floats) __attribute__((vector_size(4 * WIDE)));
typedef REAL TIER(reals) __attribute__((vector_size(sizeof(REAL) * WIDE)));
typedef int32_t TIER(words) __attribute__((vector_size(4 * WIDE)));
typedef int8_t TIER(bytes) __attribute__((vector_size(WIDE)));

/* mlp_minifloat_value of WIDE neighbours. */
MLP_INLINE TARGET_BODY void TIER(values)(const int8_t *codes, int man, REAL *to)
{
    TIER(bytes) bytes;
    memcpy(&bytes, codes, sizeof bytes);
    const TIER(words) code = __builtin_convertvector(bytes, TIER(words)), sign = code >> 31;
    const TIER(words) level = (code ^ sign) - sign, below = (level >> man) - 1, octave = below & ~(below >> 31);
    const TIER(floats) integer = __builtin_convertvector(level - (octave << man), TIER(floats));
    const TIER(words) word = ((TIER(words))integer + (octave << 23)) | (sign & INT32_MIN);
    const TIER(reals) value = __builtin_convertvector((TIER(floats))word, TIER(reals));
    memcpy(to, &value, sizeof value);
}

/* Sums of one pixel to their place: the scale, and the last rounding. */
MLP_INLINE TARGET_BODY void TIER(put)(const REAL *sum, ptrdiff_t pitch, const mlp_minifloat_target *to, ptrdiff_t at,
                                      ptrdiff_t first, int lanes)
{
    for (int m = 0; m < to->outputs; m++, sum += pitch) {
        float *restrict y = to->y + m * to->plane + at;
        const double row = to->row[m], *restrict lane = to->lane + first;
        int i = 0;
        for (; i + WIDE <= lanes; i += WIDE) {
            TIER(doubles) scale;
            TIER(reals) part;
            memcpy(&scale, lane + i, sizeof scale);
            memcpy(&part, sum + i, sizeof part);
            const TIER(floats) result = __builtin_convertvector(
                __builtin_convertvector(part, TIER(doubles)) * (row * scale), TIER(floats));
            memcpy(y + i, &result, sizeof result);
        }
        for (; i < lanes; i++)
            y[i] = (float)((double)sum[i] * (row * lane[i]));
    }
}

/* One pixel: GM outputs times `vectors` vectors, kept in registers over a chunk. */
MLP_INLINE TARGET_BODY void TIER(pixel)(const REAL *x, const int32_t *offset, const REAL *panel, const int32_t *ends,
                                        ptrdiff_t chunks, const int vectors, const mlp_minifloat_target *to,
                                        ptrdiff_t at, ptrdiff_t first)
{
    VEC total[GM][GV];
    UNROLL for (int m = 0; m < GM; m++)
        UNROLL for (int v = 0; v < vectors; v++)
            total[m][v] = ZERO;
    ptrdiff_t k = 0;
    for (ptrdiff_t c = 0; c < chunks; c++) {
        VEC sum[GM][GV];
        UNROLL for (int m = 0; m < GM; m++)
            UNROLL for (int v = 0; v < vectors; v++)
                sum[m][v] = ZERO;
        for (const ptrdiff_t end = ends[c]; k < end; k++, panel += GM) {
            const REAL *from = x + offset[k];
            VEC in[GV];
            UNROLL for (int v = 0; v < vectors; v++)
                in[v] = LOAD(from + v * VF);
            UNROLL for (int m = 0; m < GM; m++) {
                const VEC weight = SPLAT(panel[m]);
                UNROLL for (int v = 0; v < vectors; v++)
                    sum[m][v] = FMA(weight, in[v], sum[m][v]);
            }
        }
        UNROLL for (int m = 0; m < GM; m++)
            UNROLL for (int v = 0; v < vectors; v++)
                total[m][v] += sum[m][v];
    }
    REAL row[GM * GV * VF] __attribute__((aligned(64)));
    UNROLL for (int m = 0; m < GM; m++)
        UNROLL for (int v = 0; v < vectors; v++)
            STORE(row + (m * vectors + v) * VF, total[m][v]);
    const ptrdiff_t left = to->lanes - first;
    if (left >= vectors * VF)
        TIER(put)(row, vectors * VF, to, at, first, vectors * VF);
    else
        TIER(put)(row, vectors * VF, to, at, first, (int)left);
}

TARGET static void TIER(gather)(const void *tile, const int32_t *offset, const void *weights, const int32_t *ends,
                                ptrdiff_t chunks, ptrdiff_t pixels, ptrdiff_t x_step, ptrdiff_t y_step,
                                mlp_minifloat_target to)
{
    const REAL *x = tile, *panel = weights;
    for (int first = 0; first < to.lanes; first += GV * VF)
        for (ptrdiff_t p = 0; p < pixels; p++) {
            const REAL *from = x + p * x_step + first;
            if (to.lanes - first > VF)
                TIER(pixel)(from, offset, panel, ends, chunks, GV, &to, p * y_step + first, first);
            else
                TIER(pixel)(from, offset, panel, ends, chunks, 1, &to, p * y_step + first, first);
        }
}

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
            UNROLL for (int i = 0; i < LANES; i += WIDE)
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
    for (ptrdiff_t i = 0; i < lanes * pitch; i += WIDE) /* the pitch is a multiple of a cache line */
        TIER(values)(bytes + i, man, to + i);
}

static const mlp_minifloat_tiles TIER(tiles) = {(int)sizeof(REAL), LANES, GM, DJ, TIER(gather), TIER(dot), TIER(decode),
                                                TIER(turn)};

#undef TIER
#undef REAL
#undef VEC
#undef VF
#undef LOAD
#undef STORE
#undef SPLAT
#undef ZERO
#undef FMA
#undef UNROLL
#undef LANES
