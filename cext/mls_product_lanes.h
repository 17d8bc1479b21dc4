/* The vector loops of the emulated matrix products of MLS codes: one body, included once per tier with
 *   VECTOR_BYTES, TIER, TARGET; ROWS: of a tile, as registers allow; MULADD(a, b, c): one rounding; and where the tier
 *   has it DOT(sum, a, b): four products of unsigned by signed bytes a lane, added to a sum.
 * See mls_product.h. */
#define LANES (VECTOR_BYTES / 4)
#define COLUMNS (2 * LANES)
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(base) JOIN(base, TIER)
#define MLP_UNROLL _Pragma("GCC unroll 16")

typedef int32_t NAME(mlp_mls_product_ints) __attribute__((vector_size(VECTOR_BYTES), aligned(VECTOR_BYTES)));
typedef float NAME(mlp_mls_product_numbers) __attribute__((vector_size(VECTOR_BYTES), aligned(VECTOR_BYTES)));

/* tile[r][j] += sum over u of a[r][u] b[u][j], one u after the other */
#define TILE(element, vector, STEP)                                                                                    \
    vector sum[ROWS][2];                                                                                               \
    MLP_UNROLL for (int r = 0; r < ROWS; r++)                                                                          \
        for (int v = 0; v < 2; v++)                                                                                    \
            sum[r][v] = ((const vector *)tile)[2 * r + v];                                                             \
    for (int64_t u = 0; u < units; u++, a++, b += COLUMNS) {                                                           \
        const vector left = ((const vector *)b)[0], right = ((const vector *)b)[1];                                    \
        MLP_UNROLL for (int r = 0; r < ROWS; r++) {                                                                    \
            const vector x = a[r * MLP_MLS_DEPTH] - (vector){0};   /* 0 + -0 would have to be 0: an instruction */     \
            sum[r][0] = STEP(sum[r][0], x, left);                                                                      \
            sum[r][1] = STEP(sum[r][1], x, right);                                                                     \
        }                                                                                                              \
    }                                                                                                                  \
    MLP_UNROLL for (int r = 0; r < ROWS; r++)                                                                          \
        for (int v = 0; v < 2; v++)                                                                                    \
            ((vector *)tile)[2 * r + v] = sum[r][v];

#define FUSED(sum, a, b) MULADD(a, b, sum)

TARGET static void NAME(mlp_mls_product_floats)(const float *a, const float *b, int64_t units, float *tile)
{
    TILE(float, NAME(mlp_mls_product_numbers), FUSED)
}

#ifdef DOT
TARGET static void NAME(mlp_mls_product_quads)(const int32_t *a, const int32_t *b, int64_t units, int32_t *tile)
{
    TILE(int32_t, NAME(mlp_mls_product_ints), DOT)
}
#endif

TARGET static void NAME(mlp_mls_product_number)(const uint8_t *bytes, int bias, float factor, const float *scale,
                                                int64_t n, float *out)
{
    if (scale)
        for (int64_t i = 0; i < n; i++)
            out[i] = (float)((int32_t)bytes[i] - bias) * (factor * scale[i]);
    else
        for (int64_t i = 0; i < n; i++)
            out[i] = (float)((int32_t)bytes[i] - bias) * factor;
}

TARGET static void NAME(mlp_mls_product_finish)(const float *tile, int64_t rows, int64_t columns, double scale,
                                                float *out, int64_t out_row)
{
    for (int64_t r = 0; r < rows; r++, tile += COLUMNS, out += out_row)
        for (int64_t j = 0; j < columns; j++)
            out[j] = (float)((double)tile[j] * scale);
}

#define WHOLE                                                                                                          \
    for (int64_t r = 0; r < rows; r++, tile += COLUMNS, out += out_row)                                                \
        for (int64_t j = 0; j < columns; j++) {                                                                        \
            const float term = (float)((double)tile[j] * (double)(row[r] * column[j]));                                \
            out[j] = (float)((double)term * scale);                                                                    \
        }

TARGET static void NAME(mlp_mls_product_finish_floats)(const float *tile, const float *row, const float *column,
                                                       int64_t rows, int64_t columns, double scale, float *out,
                                                       int64_t out_row)
{
    WHOLE
}

TARGET static void NAME(mlp_mls_product_finish_quads)(const int32_t *tile, const float *row, const float *column,
                                                      int64_t rows, int64_t columns, double scale, float *out,
                                                      int64_t out_row)
{
    WHOLE
}

#ifdef DOT
#define QUADS NAME(mlp_mls_product_quads)
#else
#define QUADS NULL
#endif
static const mlp_mls_products NAME(mlp_mls_products) = {
    ROWS, COLUMNS, NAME(mlp_mls_product_floats), QUADS, NAME(mlp_mls_product_number), NAME(mlp_mls_product_finish),
    NAME(mlp_mls_product_finish_floats), NAME(mlp_mls_product_finish_quads)};

#undef LANES
#undef COLUMNS
#undef JOIN_
#undef JOIN
#undef NAME
#undef MLP_UNROLL
#undef TILE
#undef FUSED
#undef WHOLE
#undef QUADS
#undef VECTOR_BYTES
#undef TIER
#undef TARGET
#undef ROWS
#undef MULADD
#undef DOT
