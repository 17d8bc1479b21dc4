/* The int8 engine's convolution, forward and input gradient, in (C, H, W, N) storage. For every output of one image:
 *
 *     for each tap inside the picture, for each channel: sum += x[channel][pixel + tap] * w[output][channel][tap];
 *
 * in int32, exact, since the sums fit (dot8.h); so any order gives the same. The walk is that of f32_conv.c on words of
 * two or four channels: a band of rows of 32 images is copied into a tile, [row][column][word][image] (or 16 images and
 * then 16 more), padding written out, and every output channel of the band is summed from it before the next band. */
#include <stdatomic.h>
#include <string.h>
#include "dot8_products.h"

enum { TILE_BYTES = 800 << 10 };

typedef struct { ptrdiff_t y, x, weight; } tap; /* distance from (pixel * in_step), and where its weight lies */

typedef struct {
    ptrdiff_t batch, groups;
    ptrdiff_t in_channels, in_h, in_w;          /* channels of one group */
    ptrdiff_t out_channels, out_h, out_w;
    ptrdiff_t rows, columns;                    /* outputs of this walk: first + i * out_step, i < rows */
    ptrdiff_t first_y, first_x, out_step_y, out_step_x, in_step_y, in_step_x;
    ptrdiff_t weight_group, weight_out, weight_in; /* distances in the weight between groups and channels */
    ptrdiff_t taps;
    tap *tap;
    const int8_t *in;
    const mlp_dot8 *q;
} walk;

/* What a walk derives from its sizes. Words of a tile: [plane of digits][half][row][column][word of channels][image]. */
typedef struct {
    mlp_dot8_products products;
    int planes_x, planes_w, sums, digits_x, digits_w, halves;
    ptrdiff_t m, blocks, words, count, lane_blocks, y_low, x_low, height;
    ptrdiff_t skip_y, skip_x, step_y, step_x, columns, pixel, band, bands, half, plane, items;
    ptrdiff_t steps, panel;                     /* of the sum, and numbers of their weights for a block of outputs */
    float power;                                /* as in mlp_dot8_target */
} plan;

static plan make_plan(const walk *s, const mlp_dot8_tiles *tier)
{
    plan p = {.words = mlp_f32_ceil(s->in_channels, tier->word), .lane_blocks = mlp_f32_ceil(s->batch, MLP_DOT8_LANES),
              .digits_x = s->q->planes_a, .digits_w = s->q->planes_b, .halves = MLP_DOT8_LANES / tier->lanes};
    if (!mlp_dot8_find_products(s->q, &p.products))
        return p; /* no product, no sum */
    p.planes_x = p.products.planes_a, p.planes_w = p.products.planes_b, p.sums = p.products.many;
    p.m = tier->outputs[p.digits_x - 1][p.digits_w - 1], p.blocks = mlp_f32_ceil(s->out_channels, p.m);
    p.count = p.words * s->taps, p.pixel = p.words * tier->lanes;
    ptrdiff_t y_high = 0, x_high = 0;
    for (ptrdiff_t t = 0; t < s->taps; t++) {
        const tap *at = &s->tap[t];
        p.y_low = t ? MLP_MIN(p.y_low, at->y) : at->y, y_high = t ? MLP_MAX(y_high, at->y) : at->y;
        p.x_low = t ? MLP_MIN(p.x_low, at->x) : at->x, x_high = t ? MLP_MAX(x_high, at->x) : at->x;
    }
    p.height = y_high - p.y_low + 1;
    p.skip_y = p.height == 1 ? s->in_step_y : 1, p.skip_x = x_high == p.x_low ? s->in_step_x : 1;
    p.step_y = s->in_step_y / p.skip_y, p.step_x = s->in_step_x / p.skip_x;
    p.columns = (s->columns - 1) * p.step_x + x_high - p.x_low + 1;
    const ptrdiff_t row_bytes = MLP_MAX(1, p.planes_x * p.halves * p.pixel) * p.columns * (ptrdiff_t)sizeof(int32_t);
    const ptrdiff_t room = TILE_BYTES / row_bytes - p.height;
    p.band = MLP_MIN(s->rows, room < 0 ? 1 : room / p.step_y + 1);
    p.bands = MLP_MAX(mlp_f32_ceil(s->rows, p.band), mlp_f32_ceil(mlp_threads(), s->groups * p.lane_blocks));
    p.band = mlp_f32_ceil(s->rows, MLP_MIN(s->rows, p.bands)), p.bands = mlp_f32_ceil(s->rows, p.band);
    p.half = ((p.band - 1) * p.step_y + p.height) * p.columns * p.pixel, p.plane = p.halves * p.half;
    p.items = s->groups * p.lane_blocks * p.bands;
    return p;
}

/* Cut the sum over (tap, word of channels) into steps of up to `depth` words that are neighbours in the tile: words
 * first[k] to first[k + 1] - 1 from offset[k] on. Both arrays have room for one step a word; first for one more. */
static void find_steps(const walk *s, plan *p, const mlp_dot8_tiles *tier, ptrdiff_t *first, int32_t *offset)
{
    ptrdiff_t before = 0;
    for (ptrdiff_t k = 0; k < p->count; k++) {
        const tap *t = &s->tap[k / p->words];
        const ptrdiff_t at = ((t->y - p->y_low) * p->columns + t->x - p->x_low) * p->pixel
                             + k % p->words * tier->lanes;
        if (!k || at != before + tier->lanes || k - first[p->steps - 1] == tier->depth)
            first[p->steps] = k, offset[p->steps++] = (int32_t)at;
        before = at;
    }
    first[p->steps] = p->count;
    p->panel = p->steps * p->planes_w * p->m * tier->depth;
}

/* The power of two by which every result is scaled, if there is one that leaves them normal. */
static float find_power(const walk *s)
{
    const mlp_dot8 *q = s->q;
    for (ptrdiff_t i = 1; i < s->groups * s->out_channels; i++)
        if (q->row_scale[i] != q->row_scale[0])
            return 0;
    for (ptrdiff_t i = 1; i < s->batch; i++)
        if (q->lane_scale[i] != q->lane_scale[0])
            return 0;
    const double power = q->row_scale[0] * q->lane_scale[0];
    uint64_t bits;
    memcpy(&bits, &power, sizeof bits);
    return bits << 12 || !(power >= 0x1p-126 && power <= 0x1p90) ? 0 : (float)power;
}

/* The weights in the order of the inner loop, [group][block of outputs][step][plane][output][word], and where each sum
 * starts, [group][block of outputs][sum][output]: where x is stored 128 too large, at -128 times its weights. Returns
 * whether all codes have digits. */
static int pack_weights(const walk *s, const plan *p, const mlp_dot8_tiles *tier, const ptrdiff_t *first,
                        int32_t *panel, int32_t *start)
{
    enum { CODES = 256, WORD = 4 };
    const uint32_t mask = tier->bytes == 1 ? 0xff : 0xffff;
    int8_t number[MLP_DOT8_PLANES][CODES];
    mlp_dot8_largest largest = {{0}};
    for (int e = 0; e < p->planes_w; e++)
        for (int code = 0; code < CODES; code++)
            number[e][code] = mlp_dot8_digit((int8_t)code, s->q->digits_b ? p->products.digits_b[e] : NULL, &largest);
    largest.each[0] = 0;
    for (ptrdiff_t b = 0; b < s->groups * p->blocks; b++, panel += p->panel, start += p->sums * p->m) {
        memset(start, 0, (size_t)(p->sums * p->m) * sizeof *start);
        memset(panel, 0, (size_t)p->panel * sizeof *panel);
        for (ptrdiff_t k = 0, step = 0; k < p->count; k++, step += first[step + 1] == k) {
            const ptrdiff_t o0 = b % p->blocks * p->m, c0 = k % p->words * tier->word;
            const ptrdiff_t channels = MLP_MIN(tier->word, s->in_channels - c0);
            const int8_t *w = s->q->b + b / p->blocks * s->weight_group + o0 * s->weight_out + c0 * s->weight_in
                              + s->tap[k / p->words].weight;
            int32_t *to = panel + step * p->planes_w * p->m * tier->depth + k - first[step];
            for (ptrdiff_t m = 0; m < MLP_MIN(p->m, s->out_channels - o0); m++, w += s->weight_out) {
                uint8_t code[WORD] = {0};
                for (ptrdiff_t c = 0; c < channels; c++) {
                    const int magnitude = w[c * s->weight_in] < 0 ? -w[c * s->weight_in] : w[c * s->weight_in];
                    code[c] = (uint8_t)w[c * s->weight_in];
                    largest.each[0] = (uint8_t)MLP_MAX(largest.each[0], magnitude);
                }
                for (int e = 0; e < p->planes_w; e++) {
                    uint32_t word = 0;
                    int32_t sum = 0;
                    for (int c = 0; c < tier->word; c++) {
                        word |= ((uint32_t)number[e][code[c]] & mask) << (8 * tier->bytes * c);
                        sum += number[e][code[c]];
                    }
                    to[(e * p->m + m) * tier->depth] = (int32_t)word;
                    for (int i = 0; tier->flip && i < p->sums; i++)
                        if (p->products.product[i].b == e)
                            start[i * p->m + m] -= tier->flip * sum;
                }
            }
        }
    }
    return !s->q->digits_b || mlp_dot8_within(&largest, s->q->top_b);
}

/* Copy what one item reads: all channels of a group, `rows` tile rows from y0 on, images n0 to n0 + lanes - 1.
 * `digits` is room for one row of a word's channels. */
static void pack_tile(const walk *s, const plan *p, const mlp_dot8_tiles *tier, ptrdiff_t group, ptrdiff_t y0,
                      ptrdiff_t rows, ptrdiff_t n0, ptrdiff_t lanes, int8_t *digits, int32_t *tile,
                      mlp_dot8_largest *largest)
{
    const ptrdiff_t row = p->columns * p->pixel, picture = s->in_h * s->in_w * s->batch;
    const size_t word = sizeof *tile;
    ptrdiff_t low, high;
    mlp_dot8_inside(p->x_low, p->skip_x, p->columns, s->in_w, &low, &high);
    const ptrdiff_t count = high - low, length = count * MLP_DOT8_LANES;
    for (ptrdiff_t i = 0; i < p->planes_x * p->halves * rows; i++) {
        int32_t *to = tile + i / rows * p->half + i % rows * row;
        const ptrdiff_t y = y0 + i % rows * p->skip_y;
        if (y < 0 || y >= s->in_h || count <= 0) {
            memset(to, tier->flip, (size_t)row * word);
            continue;
        }
        memset(to, tier->flip, (size_t)(low * p->pixel) * word);
        memset(to + high * p->pixel, tier->flip, (size_t)((p->columns - high) * p->pixel) * word);
        const int plane = (int)(i / rows / p->halves);
        const int8_t *digit = s->q->digits_a ? p->products.digits_a[plane] : NULL;
        const int8_t *in = s->in + group * s->in_channels * picture
                           + (y * s->in_w + p->x_low + low * p->skip_x) * s->batch + n0;
        if (tier->quads) { /* fills all planes and halves at once */
            const mlp_dot8_pack all = {
                .from = in, .channel = picture, .channels = s->in_channels, .pixel = p->skip_x * s->batch,
                .count = count, .lanes = lanes, .digits = s->q->digits_a ? p->products.digits_a : NULL,
                .planes = p->planes_x, .flip = tier->flip, .to = (int8_t *)(to + low * p->pixel),
                .to_pixel = p->pixel * 4, .to_plane = p->plane * 4, .to_word = tier->lanes * 4,
                .to_half = p->halves == 1 ? 64 : p->half * 4, .largest = largest};
            if (i < rows)
                tier->quads(&all);
            continue;
        }
        for (ptrdiff_t c = 0; c < p->words * tier->word; c++) {
            int8_t *row_of_digits = digits + c % tier->word * length;
            if (c < s->in_channels)
                tier->digits(in + c * picture, p->skip_x * s->batch, count, lanes, digit, tier->flip, row_of_digits,
                             MLP_DOT8_LANES, MLP_DOT8_LANES, largest);
            else
                memset(row_of_digits, tier->flip, (size_t)length);
            if (c % tier->word == tier->word - 1)
                tier->words(digits, length, count, to + low * p->pixel + c / tier->word * MLP_DOT8_LANES, p->pixel);
        }
    }
}

static void run_item(const walk *s, const plan *p, ptrdiff_t item, const mlp_dot8_tiles *tier, const int32_t *offset,
                     const int32_t *panel, const int32_t *start, int8_t *digits, int32_t *tile,
                     mlp_dot8_largest *largest)
{
    const ptrdiff_t g = item / (p->lane_blocks * p->bands), y0 = item / p->lane_blocks % p->bands * p->band;
    const ptrdiff_t n0 = item % p->lane_blocks * MLP_DOT8_LANES, rows = MLP_MIN(p->band, s->rows - y0);
    const ptrdiff_t lanes = MLP_MIN(MLP_DOT8_LANES, s->batch - n0), plane = s->out_h * s->out_w * s->batch;
    const mlp_dot8 *q = s->q;
    pack_tile(s, p, tier, g, y0 * s->in_step_y + p->y_low, (rows - 1) * p->step_y + p->height, n0, lanes, digits, tile,
              largest);
    for (ptrdiff_t b = 0; b < p->blocks; b++)
        for (ptrdiff_t r = 0; r < rows; r++) {
            const ptrdiff_t channel = g * s->out_channels + b * p->m, y = s->first_y + (y0 + r) * s->out_step_y;
            const ptrdiff_t at = channel * plane + (y * s->out_w + s->first_x) * s->batch + n0;
            const mlp_dot8_target to = {q->out_float ? q->out_float + at : NULL, q->out_float ? NULL : q->out_int + at,
                                        plane, q->row_scale + channel, q->lane_scale + n0, p->power,
                                        (int)MLP_MIN(p->m, s->out_channels - b * p->m), (int)lanes};
            tier->gather[p->digits_x - 1][p->digits_w - 1](
                tile + r * p->step_y * p->columns * p->pixel, p->plane, offset, panel + (g * p->blocks + b) * p->panel,
                start + (g * p->blocks + b) * p->sums * p->m, p->steps, s->columns, p->step_x * p->pixel,
                s->out_step_x * s->batch, to);
        }
}

static int run(const walk *s)
{
    if (!s->batch || !s->rows || !s->columns || !s->out_channels)
        return MLP_OK;
    const mlp_dot8_tiles *tier = mlp_dot8_tiles_in_force();
    plan p = make_plan(s, tier);
    if (s->in_channels * s->taps > MLP_DOT8_TERMS)
        return MLP_OVERFLOW;
    if (!p.sums)
        return MLP_BAD_ARGUMENT;
    if (p.plane * p.planes_x > INT32_MAX)
        return MLP_UNSUPPORTED;
    const int threads = mlp_workers(p.items);
    /* The last step of a tile may read beyond its words: weights of 0 take no part, but the memory has to be there. */
    const ptrdiff_t pitch = mlp_f32_ceil(p.plane * p.planes_x, 16) * 16 + tier->depth * MLP_DOT8_LANES;
    const ptrdiff_t few = tier->word * p.columns * MLP_DOT8_LANES;
    int32_t *offset = mlp_f32_alloc((size_t)p.count, sizeof *offset);
    ptrdiff_t *first = mlp_f32_alloc((size_t)p.count + 1, sizeof *first);
    if (offset && first)
        find_steps(s, &p, tier, first, offset);
    p.power = s->q->out_float ? find_power(s) : 0;
    int32_t *panel = mlp_f32_alloc((size_t)(s->groups * p.blocks * p.panel), sizeof *panel);
    int32_t *start = mlp_f32_alloc((size_t)(s->groups * p.blocks * p.sums * p.m), sizeof *start);
    int32_t *tiles = mlp_f32_alloc((size_t)(threads * pitch), sizeof *tiles);
    int8_t *digits = mlp_f32_alloc((size_t)(threads * few), 1);
    int status = offset && first && panel && start && tiles && digits ? MLP_OK : MLP_NO_MEMORY;
    if (status == MLP_OK) {
        const ptrdiff_t beyond = tier->depth * MLP_DOT8_LANES;
        for (int thread = 1; thread <= threads; thread++)
            memset(tiles + thread * pitch - beyond, 0, (size_t)beyond * sizeof *tiles);
        atomic_llong next = 0;
        atomic_int within = pack_weights(s, &p, tier, first, panel, start);
        MLP_PARALLEL_FOR(threads)
        for (int thread = 0; thread < threads; thread++) {
            mlp_dot8_largest largest = {{0}};
            for (ptrdiff_t item; (item = atomic_fetch_add(&next, 1)) < p.items;)
                run_item(s, &p, item, tier, offset, panel, start, digits + thread * few, tiles + thread * pitch,
                         &largest);
            if (!mlp_dot8_within(&largest, s->q->top_a))
                atomic_store(&within, 0);
        }
        status = within ? MLP_OK : MLP_BAD_CODE;
    }
    free(offset);
    free(first);
    free(panel);
    free(start);
    free(tiles);
    free(digits);
    return status;
}

int mlp_dot8_conv2d(const mlp_dot8 *call)
{
    const mlp_f32_geometry *q = &call->size;
    const ptrdiff_t kernel = q->kernel_h * q->kernel_w, cg = q->channels / q->groups;
    walk s = {.batch = q->batch, .groups = q->groups, .in_channels = cg, .in_h = q->height, .in_w = q->width,
              .out_channels = q->outputs / q->groups,
              .out_h = mlp_f32_positions(q->height, q->kernel_h, q->stride_h, q->padding_h, q->dilation_h),
              .out_w = mlp_f32_positions(q->width, q->kernel_w, q->stride_w, q->padding_w, q->dilation_w),
              .out_step_y = 1, .out_step_x = 1, .in_step_y = q->stride_h, .in_step_x = q->stride_w,
              .weight_group = q->outputs / q->groups * cg * kernel, .weight_out = cg * kernel, .weight_in = kernel,
              .in = call->a, .q = call, .taps = kernel, .tap = mlp_f32_alloc((size_t)kernel, sizeof(tap))};
    if (!s.tap)
        return MLP_NO_MEMORY;
    s.rows = s.out_h, s.columns = s.out_w;
    for (ptrdiff_t t = 0; t < kernel; t++)
        s.tap[t] = (tap){t / q->kernel_w * q->dilation_h - q->padding_h,
                         t % q->kernel_w * q->dilation_w - q->padding_w, t};
    int status = run(&s);
    free(s.tap);
    return status;
}

int mlp_dot8_conv2d_input_grad(const mlp_dot8 *call)
{
    const mlp_f32_geometry *q = &call->size;
    const ptrdiff_t kernel = q->kernel_h * q->kernel_w, cg = q->channels / q->groups;
    walk s = {.batch = q->batch, .groups = q->groups, .in_channels = q->outputs / q->groups,
              .in_h = mlp_f32_positions(q->height, q->kernel_h, q->stride_h, q->padding_h, q->dilation_h),
              .in_w = mlp_f32_positions(q->width, q->kernel_w, q->stride_w, q->padding_w, q->dilation_w),
              .out_channels = cg, .out_h = q->height, .out_w = q->width, .out_step_y = q->stride_h,
              .out_step_x = q->stride_w, .in_step_y = 1, .in_step_x = 1,
              .weight_group = q->outputs / q->groups * cg * kernel, .weight_out = kernel, .weight_in = cg * kernel,
              .in = call->a, .q = call, .tap = mlp_f32_alloc((size_t)kernel, sizeof(tap))};
    int status = s.tap ? MLP_OK : MLP_NO_MEMORY;
    for (s.first_y = 0; status == MLP_OK && s.first_y < MLP_MIN(q->stride_h, q->height); s.first_y++)
        for (s.first_x = 0; status == MLP_OK && s.first_x < MLP_MIN(q->stride_w, q->width); s.first_x++) {
            /* Pixel first + i * stride was reached by tap t from the output at i + (first + padding - t) / stride. */
            s.taps = 0;
            for (ptrdiff_t t = kernel; t-- > 0;) { /* last first: from left to right in the error */
                const ptrdiff_t y = s.first_y + q->padding_h - t / q->kernel_w * q->dilation_h;
                const ptrdiff_t x = s.first_x + q->padding_w - t % q->kernel_w * q->dilation_w;
                if (y % q->stride_h == 0 && x % q->stride_w == 0)
                    s.tap[s.taps++] = (tap){y / q->stride_h, x / q->stride_w, t};
            }
            s.rows = mlp_f32_ceil(q->height - s.first_y, q->stride_h);
            s.columns = mlp_f32_ceil(q->width - s.first_x, q->stride_w);
            status = run(&s);
        }
    free(s.tap);
    return status;
}
