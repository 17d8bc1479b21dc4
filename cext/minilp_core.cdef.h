/* Every function that Python sees. Plain prototypes only: cffi reads this file as it is, C sources get it through
 * minilp_core.h. Each function returns a status code (0 = MLP_OK) unless its comment says otherwise. */

/* dispatch.c: which instruction sets this build and this machine have; the tier in force; threads. */
int mlp_detected_tier(void);          /* the best tier: 0 portable, 1 avx2, 2 avx512 */
int mlp_tier(void);                   /* the tier in force */
int mlp_set_tier(int tier);           /* MLP_UNSUPPORTED if the machine or the build lacks it */
int mlp_threads(void);                /* threads a parallel kernel will use */
int mlp_set_threads(int n);           /* MLP_BAD_ARGUMENT if n < 1 */

/* pot_shift_mac.c: contractions of power-of-two codes as the paper's MAC does them, on unfolded rows.
 * a is (rows_a, depth) and b (rows_b, depth), int8 codes; the result is (rows_a, rows_b). */
int mlp_pot_rows_int64(const int8_t *a, const int8_t *b, int64_t rows_a, int64_t rows_b, int64_t depth, int64_t *out);
int mlp_pot_rows_int32(const int8_t *a, const int8_t *b, int64_t rows_a, int64_t rows_b, int64_t depth, int64_t *out,
                       int64_t *overflows);   /* adds the number of overflowing additions to *overflows */
int mlp_pot_rows_counts(const int8_t *a, const int8_t *b, int64_t rows_a, int64_t rows_b, int64_t depth, int64_t exponent,
                        float *out_float, int64_t *out_int);   /* one of the two outputs is NULL */
int mlp_pot_scale(const int64_t *sums, int64_t n, int64_t exponent, float *out);   /* MLP_OVERFLOW beyond float32 */

/* f32_*.c: float32 convolution in (C, H, W, N) storage; weights (O, C / groups, KH, KW). The output is written whole.
 * Sizes are those of the forward convolution; batch and channels may be 0. */
typedef struct {
    int64_t batch, channels, height, width, outputs, kernel_h, kernel_w;
    int64_t stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w, groups;
} mlp_f32_geometry;
int mlp_f32_conv2d(const mlp_f32_geometry *g, const float *x, const float *w, float *y);
int mlp_f32_conv2d_input_grad(const mlp_f32_geometry *g, const float *dy, const float *w, float *dx);
int mlp_f32_conv2d_weight_grad(const mlp_f32_geometry *g, const float *dy, const float *x, float *dw);
