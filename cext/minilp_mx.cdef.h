/* What Python sees of the MX kernels: as minilp_core.cdef.h has the rest. */

/* mx_*.c: MX elements as 16-bit integers, two along the sum in an int32, the first one low; absent ones are 0. Sums of
 * a block fit 31 bits; scales are powers of two such that no term is subnormal. Every size is at least 1. */
int64_t mlp_mx_lanes(void);                            /* int32 lanes of a vector, not a status */
typedef struct {
    const int8_t *codes;               /* (channels, *size, batch) */
    const int32_t *table;              /* the integer of each code & 255 */
    int32_t *out;                      /* (pairs, *padded, lanes), or (channels / lanes, *padded, pairs, lanes) */
    int64_t channels, batch, block, pairs, lanes, size[2], padded[2], before[2];
} mlp_mx_pairs;
int mlp_mx_pair_channels(const mlp_mx_pairs *g);
int mlp_mx_pair_images(const mlp_mx_pairs *g);
typedef struct {
    const int32_t *input;                              /* (all_pairs, *in_size, lanes) */
    const int32_t *weight;                             /* (out_channels, blocks, *kernel, pairs) */
    const float *scale_input, *scale_weight;           /* (blocks, *in_size, lanes); (out_channels, blocks, *kernel) */
    float *out;                                        /* (out_channels, *out_size, batch) */
    double scale;
    int input_grad;                                    /* `input` is the error, the result the input's gradient */
    int64_t batch, lanes;                              /* lanes: the batch filled up to whole vectors */
    int64_t out_channels, blocks, pairs, all_pairs;    /* pairs of a whole block, and of all */
    int64_t in_size[2], out_size[2], kernel[2], stride[2], padding[2], dilation[2];   /* in_size: with its padding */
    int64_t left[2];                                   /* input_grad: rows and columns of padding in front */
    int wide;                                          /* records: which */
} mlp_mx_rows;
int mlp_mx_rows_contract(const mlp_mx_rows *g);
typedef struct {
    const int32_t *error, *act;                        /* (features, *out_size, pairs), (vectors, *size, pairs, lanes) */
    const float *scale_error, *scale_act;              /* as these, one for each block of block_pairs pairs */
    float *out;                                        /* (features, *kernel, vectors, lanes) sums */
    int64_t features, vectors, pairs, block_pairs, size[2], out_size[2], kernel[2], stride[2], dilation[2];
    int wide;                                          /* records: which */
} mlp_mx_wgrad;                                        /* size: of the activation with its padding */
int mlp_mx_wgrad_contract(const mlp_mx_wgrad *g);

/* mx_records.c: the same on records, see mx_records.h: of bytes (sums of a block below 2^22, where the tier multiplies
 * four bytes at once), or wide (below 2^53, any tier). A block has at most 1024 elements. */
int64_t mlp_mx_record_lanes(int wide);                 /* of a vector, not a status; 0 where the tier has none */
typedef struct {
    const int8_t *codes;               /* (channels, *size, batch) */
    const int16_t *table;              /* bytes: the integers of codes 0 ... 127; the largest is the bias */
    const float *values;               /* wide: the integer of each code & 255 */
    const float *scale;                /* (blocks, *size, batch) for samples, else (channels, *size, blocks) */
    int32_t *records;                  /* (*padded, batch / lanes, blocks), (channels / lanes, *padded, blocks), or */
    int64_t channels, batch, block, blocks, size[2], padded[2], before[2];      /* words: (channels, blocks, *size) */
    int64_t length;                    /* of a record: quads of a block, or elements */
    int64_t bias;                      /* words of bytes: of the other operand */
} mlp_mx_records;
int mlp_mx_dot_samples(const mlp_mx_records *g);       /* lanes are samples, blocks lie along channels */
int mlp_mx_dot_channels(const mlp_mx_records *g);      /* lanes are channels, blocks lie along the batch */
int mlp_mx_dot_words(const mlp_mx_records *g);         /* no lanes, blocks lie along the batch; no padding */
int mlp_mx_wide_samples(const mlp_mx_records *g);
int mlp_mx_wide_channels(const mlp_mx_records *g);
int mlp_mx_wide_words(const mlp_mx_records *g);
/* Records of samples and words (out_channels, blocks, *kernel); records of channels and words. Scales lie in them.
 * `pairs` of rows, `block_pairs` of the weight gradient: the length of a record; its `pairs`: blocks. */
int mlp_mx_rows_records(const mlp_mx_rows *g);
int mlp_mx_wgrad_records(const mlp_mx_wgrad *g);
typedef struct {
    int man, emin, top, highest, ceil;                 /* highest: exponent of the largest value */
    float largest;
} mlp_mx_element;
int mlp_mx_encode(const mlp_mx_element *g, const float *x, const uint32_t *draw, int64_t outer, int64_t length,
                  int64_t inner, int64_t run, int64_t block, int8_t *codes, uint8_t *scales, uint32_t *largest);
                                      /* (outer, length, inner), blocks along length; draw NULL rounds to nearest */
