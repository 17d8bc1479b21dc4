/* The inner loop of the convolutions, and what fills their tiles; real_vectors.h compiles it for each instruction set
 * and each kind of number. No include guard, on purpose. Products of codes are exact, so there a fused FMA is the same;
 * sums of float32 products are promised within a bound, not by bits. */
#define GM (VECTOR_BYTES == 64 ? 8 : 4) /* register tile: GM outputs times GP pixels of one vector */
#define GP 3
#define UNROLL2 _Pragma("GCC unroll 2")
#define AHEAD 16 /* pixels: the images of real batches lie too far apart for the hardware to follow */
#define LANES (MLP_LINE / (int)sizeof(REAL))

typedef double TIER(doubles) __attribute__((vector_size(8 * VF)));

/* Sums of one pixel to their place, outputs `pitch` numbers apart: the scale, and the last rounding. */
MLP_INLINE TARGET_BODY void TIER(put)(const REAL *sum, ptrdiff_t pitch, const mlp_conv_row *q, ptrdiff_t p, ptrdiff_t o,
                                      ptrdiff_t first)
{
    const ptrdiff_t lanes = MLP_MIN(VF, q->lanes - first), end = MLP_MIN(q->outputs, o + GM);
    float *restrict y = q->y + p * q->y_step + o * q->y_plane + first;
    for (; o < end; o++, sum += pitch, y += q->y_plane) {
        if (!q->row && lanes == VF) {
            TIER(reals) part;
            memcpy(&part, sum, sizeof part);
            const TIER(floats) result = __builtin_convertvector(part, TIER(floats));
            memcpy(y, &result, sizeof result);
        } else if (!q->row) {
            for (ptrdiff_t i = 0; i < lanes; i++)
                y[i] = (float)sum[i];
        } else if (lanes == VF) {
            TIER(doubles) scale;
            TIER(reals) part;
            memcpy(&scale, q->lane + first, sizeof scale);
            memcpy(&part, sum, sizeof part);
            const TIER(floats) result = __builtin_convertvector(
                __builtin_convertvector(part, TIER(doubles)) * (q->row[o] * scale), TIER(floats));
            memcpy(y, &result, sizeof result);
        } else {
            for (ptrdiff_t i = 0; i < lanes; i++)
                y[i] = (float)((double)sum[i] * (q->row[o] * q->lane[first + i]));
        }
    }
}

/* GM outputs from o on times `pixels` pixels, kept in registers over a chunk. */
MLP_INLINE TARGET_BODY void TIER(pixels)(const mlp_conv_row *q, ptrdiff_t p, const int pixels, ptrdiff_t o,
                                         ptrdiff_t first)
{
    const REAL *x = (const REAL *)q->x + p * q->x_step + first / LANES * q->part + first % LANES;
    const REAL *panel = (const REAL *)q->panel + o / GM * q->block;
    const int32_t *offset = q->offset;
    const REAL *column[GP]; /* of their own registers: an address is one of them and the offset */
    UNROLL for (int v = 0; v < pixels; v++)
        column[v] = x + v * q->x_step;
    REAL total[GM * GP * VF] __attribute__((aligned(64)));
    if (q->chunks != 1)
        memset(total, 0, sizeof total);
    const ptrdiff_t outputs = MLP_MIN(GM, q->outputs - o);
    UNROLL for (int v = 0; v < pixels; v++) /* the lines that the results will fill: on their way during the sum */
        for (ptrdiff_t m = 0; m < outputs; m++)
            __builtin_prefetch(q->y + (p + v) * q->y_step + (o + m) * q->y_plane + first, 1);
    ptrdiff_t k = 0;
    for (ptrdiff_t c = 0; c < q->chunks; c++) {
        VEC sum[GM][GP];
        UNROLL for (int m = 0; m < GM; m++)
            UNROLL for (int v = 0; v < pixels; v++)
                sum[m][v] = ZERO;
        const ptrdiff_t end = q->ends[c];
        UNROLL2 for (; k < end; k++, panel += GM) {
            VEC in[GP];
            UNROLL for (int v = 0; v < pixels; v++)
                in[v] = LOAD(column[v] + offset[k]);
            UNROLL for (int m = 0; m < GM; m++) {
                const VEC weight = SPLAT(panel[m]);
                UNROLL for (int v = 0; v < pixels; v++)
                    sum[m][v] = FMA(weight, in[v], sum[m][v]);
            }
        }
        if (q->chunks == 1) {
            UNROLL for (int m = 0; m < GM; m++)
                UNROLL for (int v = 0; v < pixels; v++)
                    STORE(total + (m * GP + v) * VF, sum[m][v]);
        } else {
            UNROLL for (int m = 0; m < GM; m++)
                UNROLL for (int v = 0; v < pixels; v++)
                    STORE(total + (m * GP + v) * VF, LOAD(total + (m * GP + v) * VF) + sum[m][v]);
        }
    }
    for (int v = 0; v < pixels; v++)
        TIER(put)(total + v * VF, GP * VF, q, p + v, o, first);
}

/* All outputs and images of `pixels` neighbouring pixels: their numbers pass the first-level cache once for each block
 * of outputs, and a channel's results fill whole lines one after another. */
#define PIXELS(count)                                                                                                  \
    for (ptrdiff_t o = 0; o < q->outputs; o += GM)                                                                     \
        for (ptrdiff_t first = 0; first < q->lanes; first += VF)                                                       \
            TIER(pixels)(q, p, count, o, first)

TARGET static void TIER(row)(const mlp_conv_row *q)
{
    ptrdiff_t p = 0;
    for (; q->pixels - p >= GP && q->pixels - p != 4; p += GP)
        PIXELS(GP);
    for (; q->pixels - p >= 2; p += 2) /* 2 + 2 rather than 3 + 1, which would leave registers idle */
        PIXELS(2);
    if (p < q->pixels)
        PIXELS(1);
}
#undef PIXELS

/* VF float32 neighbours as numbers. */
MLP_INLINE TARGET_BODY void TIER(copy)(const float *from, REAL *to)
{
    TIER(floats) floats;
    memcpy(&floats, from, sizeof floats);
    const TIER(reals) value = __builtin_convertvector(floats, TIER(reals));
    memcpy(to, &value, sizeof value);
}

/* One loop over pixels and parts for every kind of element: WHOLE fills a line, ONE a number. */
#define FILL(name, ELEMENT, WHOLE, ONE)                                                                               \
    TARGET static void TIER(name)(const void *elements, ptrdiff_t step, ptrdiff_t count, ptrdiff_t lanes,              \
                                  const void *how, char *tile, ptrdiff_t pixel, ptrdiff_t part)                        \
    {                                                                                                                  \
        const ELEMENT *from = elements;                                                                                \
        (void)how;                                                                                                     \
        for (ptrdiff_t p = 0; p < count; p++, from += step, tile += pixel)                                             \
            for (ptrdiff_t n = 0; n < lanes; n += LANES) {                                                             \
                const ELEMENT *restrict at = from + n;                                                                 \
                __builtin_prefetch(at + AHEAD * step);                                                                 \
                REAL *restrict to = (REAL *)(tile + n / LANES * part);                                                 \
                if (lanes - n >= LANES) {                                                                              \
                    WHOLE;                                                                                             \
                } else {                                                                                               \
                    for (ptrdiff_t i = 0; i < LANES; i++)                                                              \
                        to[i] = n + i < lanes ? (REAL)(ONE) : 0;                                                       \
                }                                                                                                      \
            }                                                                                                          \
    }
FILL(from_floats, float, UNROLL for (int i = 0; i < LANES; i += VF) TIER(copy)(at + i, to + i), at[i])
FILL(from_levels, int8_t, UNROLL for (int i = 0; i < LANES; i += VF) TIER(values)(at + i, *(const int *)how, to + i),
     mlp_minifloat_value(at[i], *(const int *)how))

#ifdef GATHER
/* VF neighbouring codes by table. */
MLP_INLINE TARGET_BODY void TIER(look_up)(TIER(words) code, const mlp_conv_table *table, REAL *to)
{
    const TIER(words) above = code > table->top, below = code < -table->top;
    code = (code & ~(above | below)) | (above & table->top) | (below & -table->top);
    STORE(to, GATHER(table->middle, code));
}
MLP_INLINE float TIER(one)(int32_t code, const mlp_conv_table *table)
{
    return table->middle[code > table->top ? table->top : code < -table->top ? -table->top : code];
}
#define LOOK_UP(LOADED)                                                                                                \
    UNROLL for (int i = 0; i < LANES; i += VF) {                                                                       \
        TIER(LOADED) codes;                                                                                            \
        memcpy(&codes, at + i, sizeof codes);                                                                          \
        TIER(look_up)(__builtin_convertvector(codes, TIER(words)), how, to + i);                                       \
    }
typedef int16_t TIER(shorts) __attribute__((vector_size(2 * VF)));
FILL(from_bytes, int8_t, LOOK_UP(bytes), TIER(one)(at[i], how))
FILL(from_words, int16_t, LOOK_UP(shorts), TIER(one)(at[i], how))
static const mlp_conv_tiles TIER(tiles) = {(int)sizeof(REAL), GM, TIER(row), TIER(from_floats), TIER(from_levels),
                                           TIER(from_bytes), TIER(from_words)};
#undef LOOK_UP
#else
static const mlp_conv_tiles TIER(tiles) = {(int)sizeof(REAL), GM, TIER(row), TIER(from_floats), TIER(from_levels),
                                           NULL, NULL};
#endif

#undef GM
#undef GP
#undef UNROLL2
#undef LANES
#undef AHEAD
#undef FILL
