/* Every function that Python sees. Plain prototypes only: cffi reads this file as it is, C sources get it through
 * minilp_core.h. Each function returns a status code (0 = MLP_OK) unless its comment says otherwise. */

/* dispatch.c: which instruction sets this build and this machine have; the tier in force; threads. */
int mlp_detected_tier(void);          /* the best tier: 0 portable, 1 avx2, 2 avx512, 3 vnni, 4 amx */
int mlp_tier(void);                   /* the tier in force */
int mlp_vector_tier(void);            /* the same, avx512 at most: for kernels with no dot-product or tile version */
int mlp_set_tier(int tier);           /* MLP_UNSUPPORTED if the machine or the build lacks it */
int mlp_threads(void);                /* threads a parallel kernel will use */
int mlp_set_threads(int n);           /* MLP_BAD_ARGUMENT if n < 1 */

/* memory.c: from now on the C library keeps what is freed. MLP_UNSUPPORTED where it cannot be told. */
int mlp_keep_freed_memory(void);

/* pot_shift_mac.c: contractions of power-of-two codes as the paper's MAC does them, on unfolded rows.
 * a is (rows_a, depth) and b (rows_b, depth), int8 codes; the result is (rows_a, rows_b). */
int mlp_pot_rows_int64(const int8_t *a, const int8_t *b, int64_t rows_a, int64_t rows_b, int64_t depth, int64_t *out);
int mlp_pot_rows_int32(const int8_t *a, const int8_t *b, int64_t rows_a, int64_t rows_b, int64_t depth, int64_t *out,
                       int64_t *overflows);   /* adds the number of overflowing additions to *overflows */
int mlp_pot_rows_counts(const int8_t *a, const int8_t *b, int64_t rows_a, int64_t rows_b, int64_t depth, int64_t exponent,
                        float *out_float, int64_t *out_int);   /* one of the two outputs is NULL */
int mlp_pot_scale(const int64_t *sums, int64_t n, int64_t exponent, float *out);   /* MLP_OVERFLOW beyond float32 */
int mlp_pot_join(const int64_t *low, const int64_t *high, int width, int64_t n, int64_t exponent, float *out);
                                      /* low + high * 2^width, then as mlp_pot_scale */

/* pot_bins_*.c: the same contractions by exponent-binned adds, directly on activations stored as (C, H, W, N).
 * MLP_UNSUPPORTED: more than 16 levels in the lanes, or a tile beyond 2 GiB. MLP_BAD_CODE: a code is beyond its levels.
 * Every size is at least 1. */
typedef struct {
    const int8_t *input, *weight;      /* (in_channels, *in_size, batch) codes; kernel rows contiguous */
    float *out_float;                  /* (out_channels, *out_size, batch); one of the two outputs is NULL */
    int64_t *out_int;
    int levels_input, levels_weight;   /* codes are -levels .. levels; at most 16 for the input, 31 for the weight */
    int input_grad;                    /* `input` is the error, the result the input's gradient */
    int64_t exponent, batch, in_channels, out_channels, in_size[2], out_size[2], kernel[2], stride[2], padding[2],
            dilation[2], weight_out_step, weight_in_step;
} mlp_pot_rows;
int mlp_pot_rows_contract(const mlp_pot_rows *g);
typedef struct {
    const int8_t *error, *act;         /* (features, *out_size, batch) and (channels, *size, batch) */
    int64_t *out;                      /* (features, channels, *kernel) integer sums */
    int levels_error, levels_act;      /* at most 16 and 31 */
    int64_t batch, channels, features, size[2], out_size[2], kernel[2], stride[2], padding[2], dilation[2];
} mlp_pot_wgrad;
int mlp_pot_wgrad_contract(const mlp_pot_wgrad *g);

/* f32_*.c: float32 convolution in (C, H, W, N) storage; weights (O, C / groups, KH, KW). The output is written whole.
 * Sizes are those of the forward convolution; batch and channels may be 0. */
typedef struct {
    int64_t batch, channels, height, width, outputs, kernel_h, kernel_w;
    int64_t stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w, groups;
} mlp_f32_geometry;
int mlp_f32_conv2d(const mlp_f32_geometry *g, const float *x, const float *w, float *y);
int mlp_f32_conv2d_input_grad(const mlp_f32_geometry *g, const float *dy, const float *w, float *dx);
int mlp_f32_conv2d_weight_grad(const mlp_f32_geometry *g, const float *dy, const float *x, float *dw);
/* The same on int8 or int16 codes (`width` bytes), which stand for table[top + code]; beyond top they saturate. */
typedef struct {
    const void *codes;
    const float *table;                /* 2 top + 1 values */
    int64_t width, top;
} mlp_codes;
int mlp_coded_conv2d(const mlp_f32_geometry *g, const mlp_codes *x, const float *w, float *y);
int mlp_coded_conv2d_input_grad(const mlp_f32_geometry *g, const mlp_codes *dy, const float *w, float *dx);
int mlp_coded_conv2d_weight_grad(const mlp_f32_geometry *g, const mlp_codes *dy, const mlp_codes *x, float *dw);

/* norm.c: batch norm in training, plus the residual if there is one, with `relu` followed by it; x is (channels, length),
 * contiguous; weight, bias, mean ... one value a channel. `positive`, NULL or one row of (length + 7) / 8 bytes a channel:
 * bit i % 8 of byte i / 8 says whether y[i] > 0. Behind the ReLU, backward has a place `masked` (else NULL) for what is
 * left of dy, which is the residual's gradient; without `positive` it computes the sign of y again. dy, masked and dx may
 * be the same array, any two or all. MLP_BAD_ARGUMENT if length < 1. */
int mlp_f32_batch_norm(const float *x, const float *residual, int64_t channels, int64_t length, const float *weight,
                       const float *bias, double eps, int relu, float *y, uint8_t *positive, float *mean, float *var,
                       float *invstd, uint32_t *largest, int64_t samples, uint32_t *maxima);
int mlp_f32_batch_norm_backward(const float *dy, const float *x, const uint8_t *positive, int64_t channels,
                                int64_t length, const float *mean, const float *invstd, const float *weight,
                                const float *bias, float *masked, float *dx, float *dweight, float *dbias,
                                uint32_t *largest, int64_t samples, uint32_t *maxima);

/* elementwise.c: n contiguous floats in, n out. Bit i % 8 of byte i / 8 of `positive` says whether y[i] > 0. `largest`
 * here and in norm.c receives the bits of the largest magnitude written (infinity and NaN are on top). */
int mlp_f32_relu(const float *x, int64_t n, float *y, uint8_t *positive, uint32_t *largest);
int mlp_f32_add_relu(const float *a, const float *b, int64_t n, float *y, uint8_t *positive, uint32_t *largest);
int mlp_f32_relu_backward(const float *dy, const uint8_t *positive, int64_t n, float *dx);   /* dx may be dy */
int mlp_f32_add(const float *a, const float *b, int64_t n, float *out);   /* out may be a or b */
typedef struct {
    float *p;
    const float *grad;
    float *buffer; /* NULL: no momentum */
    int64_t n;
    float weight_decay;
    int first;     /* the buffer holds nothing yet */
} mlp_f32_sgd_part;
int mlp_f32_sgd(const mlp_f32_sgd_part *parts, int64_t count, float lr, float momentum, float undamped, int nesterov);

/* pool.c: max pooling in (C, H, W, N) storage; index is the winning tap ky * KW + kx. MLP_UNSUPPORTED beyond 256 taps. */
typedef struct {
    int64_t batch, channels, height, width, out_height, out_width;
    int64_t kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w;
} mlp_f32_window;
int mlp_f32_max_pool2d(const mlp_f32_window *g, const float *x, float *y, uint8_t *index);
int mlp_f32_max_pool2d_backward(const mlp_f32_window *g, const float *dy, const uint8_t *index, float *dx);

/* quantise_*.c: largest magnitude, codes and values. Tensors come in storage order with axes merged where steps allow;
 * steps are in elements, 0 where a scale is shared. Floats are read as bits. key NULL rounds to nearest; `largest`
 * receives the largest magnitude bits seen (0x7F800000 and above: infinity or NaN). */
int mlp_absmax(const uint32_t *x, int ndim, const int64_t *shape, const int64_t *scale_steps, int64_t threads,
               int64_t count, uint32_t *maxima);  /* maxima: zeroed (threads, count); count 1 uses maxima[0] alone */
int mlp_pot_encode(const uint32_t *x, int8_t *codes, int ndim, const int64_t *shape, const int64_t *scale_steps,
                   const int64_t *index_steps, const int32_t *beta, int bits, int addend, int half, uint32_t limit, int64_t *beyond,
                   const uint32_t *key, uint64_t offset, uint32_t *largest);
int mlp_pot_decode(const int8_t *codes, uint32_t *x, int ndim, const int64_t *shape, const int64_t *scale_steps,
                   const int32_t *beta, int bits);
int mlp_fixed_encode(const uint32_t *x, int8_t *codes, int ndim, const int64_t *shape, const int64_t *scale_steps,
                     const int64_t *index_steps, const int32_t *exponent, int bits, const uint32_t *key, uint64_t offset,
                     uint32_t *largest);
int mlp_fixed_decode(const int8_t *codes, float *x, int ndim, const int64_t *shape, const int64_t *scale_steps,
                     const int32_t *exponent);
int mlp_random_bits(uint32_t *out, int ndim, const int64_t *shape, const int64_t *scale_steps,
                    const int64_t *index_steps, const uint32_t *key, uint64_t offset);
/* Where |x| > limit, a float's bits: counts in zeroed pieces of 16384 elements (mlp_pot_encode's `beyond`, or NULL, is
 * the same for its x), then the positions. */
int mlp_outside_count(const uint32_t *x, int64_t n, uint32_t limit, int64_t *counts);
int mlp_outside_list(const uint32_t *x, int64_t n, uint32_t limit, const int64_t *counts, int64_t *positions);

/* lns_encode.c, lns_decode.c: logarithmic codes, signed levels up to `top` in `width` (1, 2 or 4) bytes. The tables are
 * those of kernels/reference_lns.py; `lattice` is gamma but for rule 2. Rules: 0 nearest, 1 linear, 2 exponent. */
int mlp_lns_encode(const float *x, void *codes, int width, int ndim, const int64_t *shape, const int64_t *scale_steps,
                   const int64_t *index_steps, const float *maximum, const double *edges, const int64_t *buckets,
                   const double *values, int log_lattice, int log_gamma, int top, int rule, const uint32_t *key,
                   uint64_t offset, uint32_t *largest);
int mlp_lns_decode(const void *codes, float *x, int width, int ndim, const int64_t *shape, const int64_t *scale_steps,
                   const float *maximum, const double *values, int top); /* MLP_BAD_CODE: one is beyond top */

/* dot8_*.c: contractions of integers of magnitude at most 127, or of 130 * 127 in two planes of digits, exact. A result
 * is (double)sum * (row_scale[output channel] * lane_scale[image]) rounded to float; lane_scale is padded to a multiple
 * of 32; the weight gradient gives its sums alone. One of the two outputs is NULL. MLP_OVERFLOW: more than 131072 terms
 * in a sum, split the channels. MLP_BAD_CODE: among those that the sums take in, a code is beyond +-top. */
typedef struct {
    mlp_f32_geometry size;             /* of the forward convolution; batch and channels may be 0 */
    const int8_t *a, *b;               /* activation or error, and weight; error and activation */
    const int8_t *digits_a, *digits_b; /* (planes, 16): digits of the codes 0 .. 15; NULL: codes are the integers. Two
                                          digits of a code differ by at most 127 */
    int planes_a, planes_b;            /* 1 or 2; with NULL 1 */
    int top_a, top_b;                  /* with digits, the largest code that may be; 0 .. 15 */
    const double *row_scale, *lane_scale;
    float *out_float;
    int64_t *out_int;
} mlp_dot8;
int mlp_dot8_conv2d(const mlp_dot8 *g);
int mlp_dot8_conv2d_input_grad(const mlp_dot8 *g);
int mlp_dot8_conv2d_weight_grad(const mlp_dot8 *g);
int mlp_dot8_values(const int8_t *codes, const int8_t *table, int64_t n, int8_t *values);  /* table[code & 255] */

/* minifloat_*.c: small floats with `man` mantissa bits. Numbers are integers, in steps of the smallest subnormal. With
 * `exact` sums run in double and must stay below 2^53; else in float, in the written order. A result is (double)sum *
 * (row_scale[output channel] * lane_scale[image]) rounded to float. `sums` receives, for each run of `run` images (a
 * multiple of 32), (outputs, channels / groups, kernel) doubles or floats; there no size may be 0. */
int mlp_minifloat_encode(const uint32_t *x, int8_t *codes, int ndim, const int64_t *shape, const int64_t *scale_steps,
                         const int64_t *index_steps, const int32_t *exponent, int man, int emin, int top,
                         const uint32_t *key, uint64_t offset, uint32_t *largest);
int mlp_minifloat_conv2d(const mlp_f32_geometry *g, int exact, const int8_t *x, int man_x, const int8_t *w, int man_w,
                         const double *row_scale, const double *lane_scale, float *out);
int mlp_minifloat_conv2d_input_grad(const mlp_f32_geometry *g, int exact, const int8_t *dy, int man_dy, const int8_t *w,
                                    int man_w, const double *row_scale, const double *lane_scale, float *out);
int mlp_minifloat_conv2d_weight_grad(const mlp_f32_geometry *g, int exact, const int8_t *dy, int man_dy, const int8_t *x,
                                     int man_x, int64_t run, void *sums);

/* mls_*.c: MLS codes. Integers are table[code & 255]; a group scale is (1 + bit/2) 2^-exponent; sums come out times
 * `scale`. A group is one index of the sum's outermost axis, or with `one` all of it: scales then have 1 in the place of
 * that axis. `wide` is needed where the products inside a group and four bits more do not fit 31 bits, or two exponents
 * exceed 118 in sum; `product` bounds the product of two integers. Every size is at least 1. */
int mlp_mls_scales(const float *maxima, int64_t n, int group_exp, int group_man, float *tensor, int16_t *exponent,
                   int8_t *mantissa, double *unit);
int mlp_mls_encode(const float *x, int8_t *codes, int ndim, const int64_t *shape, const int64_t *scale_steps,
                   const int64_t *index_steps, const double *unit, int man, int binades, int top, int sudden,
                   const uint32_t *key, uint64_t offset, uint32_t *largest, int64_t threads, uint32_t *maxima);
typedef struct {
    const int8_t *input;                               /* (in_channels, *in_size, batch) */
    const int16_t *table, *weight;                     /* weight: (out_channels, in_channels, *kernel) integers */
    const int32_t *exponent_input, *bit_input;         /* (in_channels, batch) */
    const int32_t *exponent_weight, *bit_weight;       /* (out_channels, in_channels) */
    float *out;                                        /* (out_channels, *out_size, batch) */
    double scale;
    int one, wide, input_grad;                         /* `input` is the error, the result the input's gradient */
    int64_t product, batch, in_channels, out_channels, in_size[2], out_size[2], kernel[2], stride[2], padding[2],
            dilation[2];
} mlp_mls_rows;
int mlp_mls_rows_contract(const mlp_mls_rows *g);
int mlp_mls_dot_rows_contract(const mlp_mls_rows *g);   /* |P m| <= 2^24; see mls_dot.h */
typedef struct {
    const int8_t *error, *act;                         /* (features, *out_size, batch), (channels, *size, batch) */
    const int16_t *table_error, *table_act;
    const int32_t *exponent_error, *bit_error;         /* (features, batch) */
    const int32_t *exponent_act, *bit_act;             /* (channels, batch) */
    float *out;                                        /* (features, channels, *kernel) */
    double scale;
    int one, wide;
    int64_t product, batch, channels, features, size[2], out_size[2], kernel[2], stride[2], padding[2], dilation[2];
} mlp_mls_wgrad;
int mlp_mls_wgrad_contract(const mlp_mls_wgrad *g);
int mlp_mls_dot_wgrad_contract(const mlp_mls_wgrad *g); /* |P| <= 2^24 */
/* mls_product.c: a (m, k) times b (k, n), where one of `step_a` (along m, along k), and of `step_b` (along n, along k), is
 * 1. Integers within 127; group scales, whose products are at least 2^-118, along m and n, and along k unless NULL.
 * With `one` the sum is one group. MLP_UNSUPPORTED: this tier has no such kernel, or the sum may not fit. */
typedef struct {
    const int8_t *a, *b;
    const int16_t *table_a, *table_b;
    const float *outer_a, *outer_b, *depth_a, *depth_b;   /* outer_b: padded to a multiple of 32 */
    float *out;                                           /* (m, n) */
    double scale;
    int one;
    int64_t m, n, k, step_a[2], step_b[2];
} mlp_mls_matrices;
int mlp_mls_product(const mlp_mls_matrices *g);

/* lns_bins_*.c: logarithmic codes, 0 or sign * (e + 1) with an exponent e in steps of 2^(1 / gamma); gamma a power of
 * two. A result is the sum over the `lut` bins (a power of two up to gamma) of constants[i] * (double)bin[i]. With lut <
 * gamma a bin joins gamma / lut remainders and counts in units of 1 / gamma. out_float receives it times `scale`,
 * rounded; one output is not NULL. The wrapper proves that no int64 bin overflows. */
typedef struct {
    const int16_t *x, *w;              /* (depth, lanes) and (rows, depth), exponents at most top_x and top_w */
    int turned;                        /* x is (lanes, depth) */
    const double *constants;
    double scale;
    float *out_float;                  /* (rows, lanes) */
    double *out_double;
    int64_t *out_bins;                 /* (gamma, rows, lanes), one bin per remainder whatever lut is */
    int gamma, lut, top_x, top_w;
    int64_t rows, depth, lanes;        /* at least 1 */
} mlp_lns_planes;
int mlp_lns_planes_contract(const mlp_lns_planes *g);   /* MLP_UNSUPPORTED: gamma > 16, or x has over 23 octaves */
typedef struct {
    const int32_t *a, *b;              /* (rows_a, depth) and (rows_b, depth); the result is (rows_a, rows_b) */
    const double *constants;
    double scale;
    float *out_float;
    double *out_double;
    int gamma, lut;
    int64_t sums, rows_a, rows_b, depth;   /* sums: 0 for int64 bins, else count per exponent sum 0 .. sums - 1 */
} mlp_lns_rows;
int mlp_lns_rows_contract(const mlp_lns_rows *g);
typedef struct {
    const int32_t *a, *b;
    const int64_t *constants;          /* integers */
    int64_t *out;
    int gamma, lut, bits, shift, vector;   /* accumulator width; right shift of each sum of `vector` products */
    int64_t rows_a, rows_b, depth;
} mlp_lns_narrow;
int mlp_lns_narrow_contract(const mlp_lns_narrow *g, int64_t *overflows);   /* adds the saturations to *overflows */

/* bench_peak.c: `rounds` rounds of arithmetic in registers, for the clock. kind: 0 float32 multiply-adds, 1 additions of
 * 16-bit lanes, 2 int8 multiply-adds. Returns how many of them a round has (not a status), -1 where the tier has none. */
int64_t mlp_bench_peak(int kind, int64_t rounds);

/* batched.c: batches of matrix products (batch, m, k) x (batch, k, n) on int8 codes that lie in any strides. Steps are
 * distances in elements: between matrices, along m (or n) and along k. Sums times both scales, in double, are rounded
 * to float32 once. */
typedef struct {
    int64_t batch, m, n, k;
    int64_t run;                                       /* products of one run, at least 1; k / run counts scales */
    const int8_t *a, *b;
    int64_t step_a[3], step_b[3];
    const void *values_a, *values_b;                   /* 256 numbers by code & 255: double (exact), float (runs) */
    const float *scale_a, *scale_b;                    /* runs: factors of the numbers, or NULL */
    int64_t scale_step_a[3], scale_step_b[3];          /* the last one from run to run */
    const double *row_scale, *column_scale;            /* (batch, m), (batch, n) */
    float *out;                                        /* (batch, m, n) */
} mlp_batched;
int mlp_batched_exact(const mlp_batched *q);           /* sums below 2^53: exact in any order */
int mlp_batched_runs(const mlp_batched *q);            /* float32 sums in the order of batched_lanes.h */
int mlp_batched_shift(const mlp_batched *q);           /* powers of two of at most 5 bits: shifts and additions */
