/* Emulated forward convolution and input gradient of MLS codes (mls_dot.h): lanes are samples, a group is one input
 * channel.
 *
 *   for o: for pixel: for c ascending:   sum += float32(P m) 2^-e,   P = sum over the taps of w x
 *
 * A thread takes a band of output rows of some samples. First the codes it reads become integers with zeros around the
 * image, channels next to each other. Then it walks along PIXELS output rows of one vector of samples. The inputs under
 * a column of them are kept as quads: a lane holds four neighbouring pixels of a row as bytes, so that a row of up to
 * four taps is one instruction. To the next column, quads move by a byte. Blocks of outputs go through all channels in
 * ascending order, totals in registers; where the taps are neighbouring rows, a row of quads is loaded once for all
 * outputs of the block that it touches. Outputs are visited by phase as in pot_bins.h. Those of neighbouring features
 * lie far apart in memory, a line each: a big result goes past the caches, which would read every line before it is
 * written over. mls_dot.h says why the bits are those of mls_rows.c. */
#include "elementwise.h"
#include "mls_dot.h"
#include <stdlib.h>
#include <string.h>

/* Output rows of a walk; walks and samples (a line of codes) of a thread's task; columns that are decoded at a time. */
enum { PIXELS = 4, WALKS = 2, SAMPLES = 64, COLUMNS = 4 };

typedef struct {
    const mlp_mls_rows *g;
    const mlp_mls_dots *dots;
    mlp_mls_decode decode;
    mlp_pot_axis y, x;
    int64_t rows, columns, tall, chunks;  /* inputs of all outputs; rows under PIXELS outputs; quads in a row */
    int64_t bands, samples;               /* cuts of the output rows, of WALKS walks each; samples of a task */
    int64_t high, vector;                 /* inputs of a band; bytes of a vector of samples in a task's values */
    int64_t most, length;                 /* quads that a phase has room for; most + 2 words */
    int64_t *quads, *steps, *offset;      /* a phase's; rows between pixels or 0 (see mls_dot.h); in bytes */
    int32_t *weight;                      /* (phase, out_channels, in_channels, quads + 2) */
    int past;                             /* a big result: whole lines of it go past the caches */
} plan;

/* The quads of one phase: each row of taps is cut every four columns. `of` receives where each starts; each tap's quad
 * and byte in it go to `place`, the tap's number counted in bytes. Returns how many there are. */
static int64_t plan_phase(const plan *p, const mlp_pot_phase *fy, const mlp_pot_phase *fx, int64_t *of, int64_t *place)
{
    int64_t n = 0;
    const int down = fy->taps && fy->offset[fy->taps - 1] < fy->offset[0];   /* rows always upwards in memory */
    for (int64_t t = 0; t < fy->taps; t++)
        for (int64_t k = 0; k < p->chunks; k++) {
            int64_t i = down ? fy->taps - 1 - t : t, left = p->x.low + 4 * k, used = 0;
            for (int64_t j = 0; j < fx->taps; j++)
                if (fx->offset[j] >= left && fx->offset[j] < left + 4) {
                    place[fy->tap[i] * p->g->kernel[1] + fx->tap[j]] = 4 * n + fx->offset[j] - left;
                    used = 1;
                }
            if (used)
                of[n++] = (k * p->tall + fy->offset[i] - p->y.low) * p->g->in_channels * p->dots->bytes;
        }
    return n;
}

static int plan_quads(plan *p)
{
    const mlp_mls_rows *g = p->g;
    int64_t phases = p->y.phases * p->x.phases, taps = g->kernel[0] * g->kernel[1];
    p->most = g->kernel[0] * mlp_min(p->chunks, g->kernel[1]);
    p->length = p->most + 2;
    p->quads = calloc((size_t)(2 * phases), sizeof *p->quads);
    p->steps = p->quads ? p->quads + phases : NULL;
    p->offset = malloc((size_t)(phases * p->most) * sizeof *p->offset);
    p->weight = calloc((size_t)(phases * g->out_channels * g->in_channels * p->length), sizeof *p->weight);
    int64_t *place = malloc((size_t)taps * sizeof *place);
    int done = p->quads && p->offset && p->weight && place;
    for (int64_t f = 0; done && f < phases; f++) {
        for (int64_t t = 0; t < taps; t++)
            place[t] = -1;
        int64_t quads = p->quads[f] = plan_phase(p, &p->y.phase[f / p->x.phases], &p->x.phase[f % p->x.phases],
                                                 p->offset + f * p->most, place);
        p->steps[f] = p->y.in_step;
        for (int64_t q = 1; q < quads; q++)
            if (p->offset[f * p->most + q] - p->offset[f * p->most + q - 1] != g->in_channels * p->dots->bytes)
                p->steps[f] = 0;
        for (int64_t k = 0; k < g->out_channels * g->in_channels; k++) {
            int64_t o = k / g->in_channels, c = k % g->in_channels;
            int32_t *out = p->weight + (f * g->out_channels + o) * g->in_channels * p->length + c * (quads + 2);
            int32_t sum = 0;
            for (int64_t t = 0; t < taps; t++) {
                if (place[t] < 0)
                    continue;
                int32_t w = g->weight[k * taps + t];
                out[1 + place[t] / 4] |= (int32_t)((uint32_t)(w & 0xFF) << (place[t] % 4 * 8));
                sum -= w * p->decode.bias;
            }
            out[0] = p->dots->pairs ? sum & 0xFFFF : MLP_MLS_MAGIC + sum;
            float scale = mlp_mls_group_scale(g->exponent_weight[k], g->bit_weight[k]);
            memcpy(out + 1 + quads, &scale, sizeof scale);
        }
    }
    free(place);
    return done;
}

/* Whether an output reads this row, if the first one reads row 0. */
static int is_read(const plan *p, int64_t r) { return r % p->y.in_step <= p->y.high - p->y.low; }

/* Row `top + r` of inputs of some samples and all channels, by a few columns at a time so that both ends stay in the
 * cache, to row r of (vectors, high, columns, in_channels, lanes), biased. */
static void fill_row(const plan *p, int64_t n, int64_t samples, int64_t top, int64_t r, uint8_t *values)
{
    const mlp_mls_rows *g = p->g;
    int64_t pixel = g->in_channels * p->dots->lanes, y = p->y.low + top + r, left = p->x.low;
    int64_t from = mlp_min(mlp_max(-left, 0), p->columns);
    int64_t to = mlp_max(mlp_min(g->in_size[1] - left, p->columns), from);
    uint8_t *row = values + r * p->columns * pixel;
    if (y < 0 || y >= g->in_size[0])
        to = from;
    for (int64_t v = 0; v * p->dots->lanes < samples; v++) {
        memset(row + v * p->vector, p->decode.bias, (size_t)(from * pixel));
        memset(row + v * p->vector + to * pixel, p->decode.bias, (size_t)((p->columns - to) * pixel));
    }
    for (int64_t x = from; x < to; x += COLUMNS)
        for (int64_t c = 0; c < g->in_channels; c++)
            p->dots->decode(&p->decode, g->input + ((c * g->in_size[0] + y) * g->in_size[1] + left + x) * g->batch + n,
                            g->batch, mlp_min(COLUMNS, to - x), samples, row + x * pixel + c * p->dots->lanes, pixel,
                            p->vector);
}

static void fill_scales(const plan *p, int64_t n, float *scales)
{
    const mlp_mls_rows *g = p->g;
    int64_t lanes = p->dots->lanes;
    for (int64_t c = 0; c < g->in_channels; c++, scales += 2 * lanes)
        for (int64_t j = 0; j < lanes; j++) {
            int64_t k = c * g->batch + n + j;
            scales[j] = n + j < g->batch ? mlp_mls_group_scale(g->exponent_input[k], g->bit_input[k]) : 0;
            scales[lanes + j] = -0x1.8p23f * scales[j];
        }
}

/* Moves the quads to output column i: (chunks, tall, in_channels) vectors. */
static void fill_tile(const plan *p, const uint8_t *values, int64_t rows, int64_t i, char *tile)
{
    int64_t pixel = p->g->in_channels * p->dots->lanes, row = p->g->in_channels * p->dots->bytes;
    for (int64_t k = 0; k < p->chunks; k++)
        for (int64_t r = 0; r < rows; r++) {
            if (!is_read(p, r))
                continue;
            const uint8_t *from = values + (r * p->columns + i * p->x.in_step + 4 * k) * pixel;
            if (i && p->x.in_step == 1)
                p->dots->slide(from + 3 * pixel, p->g->in_channels, tile + (k * p->tall + r) * row);
            else
                p->dots->gather(from, pixel, p->g->in_channels, tile + (k * p->tall + r) * row);
        }
}

/* PIXELS output rows from a on, before the phase's step, for one vector of samples from n on. */
static void run_walk(const plan *p, int64_t n, int64_t a, const uint8_t *values, const float *scales, char *tile)
{
    const mlp_mls_rows *g = p->g;
    int64_t bytes = p->dots->bytes, row = g->out_size[1] * g->batch, feature = g->in_channels * p->length;
    for (int64_t i = 0; i < p->x.phase[0].count; i++) {
        fill_tile(p, values, mlp_min(p->tall, p->rows - a * p->y.in_step), i, tile);
        for (int64_t f = 0; f < p->y.phases * p->x.phases; f++) {
            const mlp_pot_phase *fy = &p->y.phase[f / p->x.phases], *fx = &p->x.phase[f % p->x.phases];
            mlp_mls_dot_block b = {
                .channel = bytes, .pixel = p->y.in_step * g->in_channels * bytes,
                .channels = p->quads[f] ? g->in_channels : 0,   /* without taps sums are 0 */
                .quads = p->quads[f], .offset = p->offset + f * p->most, .row = g->in_channels * bytes,
                .step = p->steps[f], .feature = feature, .scales = scales,
                .out_feature = g->out_size[0] * row, .out_pixel = p->y.out_step * row,
                .valid = mlp_min(p->dots->lanes, g->batch - n),
                .past = p->past, .scale = g->scale};
            int64_t down = i < fx->count ? mlp_min(PIXELS, fy->count - a) : 0;
            int64_t at = (fy->origin + a * p->y.out_step) * row + (fx->origin + i * p->x.out_step) * g->batch + n;
            for (int64_t d = 0, pixels; d < down; d += pixels) {
                pixels = down == PIXELS ? PIXELS : 1;
                b.tile = tile + d * b.pixel;
                for (int64_t o = 0, features; o < g->out_channels; o += features) {
                    features = g->out_channels - o >= p->dots->features ? p->dots->features : 1;
                    b.weight = p->weight + (f * g->out_channels + o) * feature;
                    b.out = g->out + o * b.out_feature + at + d * b.out_pixel;
                    p->dots->rows(&b, (int)features, (int)pixels);
                }
            }
        }
    }
}

/* A band of output rows for SAMPLES samples. What it reads is decoded first and stays in the cache. */
static void run_task(const plan *p, int64_t n, int64_t band, uint8_t *values, float *scales, char *tile)
{
    const mlp_mls_rows *g = p->g;
    int64_t lanes = p->dots->lanes, samples = mlp_min(p->samples, g->batch - n), first = band * WALKS * PIXELS;
    int64_t top = first * p->y.in_step, row = p->columns * g->in_channels * lanes;
    for (int64_t r = 0; r < mlp_min(p->high, p->rows - top); r++)
        if (is_read(p, r))
            fill_row(p, n, samples, top, r, values);
    for (int64_t v = 0; v * lanes < samples; v++, values += p->vector) {
        fill_scales(p, n + v * lanes, scales);
        for (int64_t a = 0; a < mlp_min(WALKS * PIXELS, p->y.phase[0].count - first); a += PIXELS)
            run_walk(p, n + v * lanes, first + a, values + a * p->y.in_step * row, scales, tile);
    }
}

static int run(const plan *p)
{
    int64_t tile = mlp_ceil_div(p->chunks * p->tall * p->g->in_channels * p->dots->bytes, 64) * 64;
    int64_t scales = mlp_ceil_div(2 * p->g->in_channels * p->dots->bytes, 64) * 64;
    int64_t size = tile + scales + mlp_ceil_div(p->samples, p->dots->lanes) * p->vector;
    int64_t tasks = mlp_ceil_div(p->g->batch, p->samples) * p->bands;
    int failed = 0;
    MLP_PRAGMA(omp parallel reduction(| : failed) num_threads(mlp_threads()))
    {
        char *memory = aligned_alloc(64, (size_t)size);
        failed |= !memory;
        MLP_PRAGMA(omp for schedule(dynamic))
        for (int64_t t = 0; t < tasks; t++)
            if (memory)
                run_task(p, t / p->bands * p->samples, t % p->bands, (uint8_t *)memory + tile + scales,
                         (float *)(memory + tile), memory);
        mlp_flat_settle(&(mlp_flat){.past = p->past});
        free(memory);
    }
    return failed ? MLP_NO_MEMORY : MLP_OK;
}

static void plan_tasks(plan *p)
{
    int64_t span_y = p->y.high - p->y.low + 1, lanes = p->dots->lanes, count = p->y.phase[0].count;
    p->chunks = mlp_ceil_div(p->x.high - p->x.low + 1, 4);
    p->tall = p->y.in_step * (PIXELS - 1) + span_y;
    p->rows = p->y.in_step * (count - 1) + span_y;
    p->columns = p->x.in_step * (p->x.phase[0].count - 1) + 4 * p->chunks;
    p->bands = mlp_ceil_div(count, WALKS * PIXELS);
    p->samples = SAMPLES;   /* less where threads would have nothing to do; no output depends on another */
    while (p->samples > lanes && mlp_ceil_div(p->g->batch, p->samples) * p->bands < mlp_threads())
        p->samples /= 2;
    p->high = mlp_min(p->y.in_step * (WALKS * PIXELS - 1) + span_y, p->rows);
    p->vector = mlp_ceil_div(p->high * p->columns * p->g->in_channels * lanes, 64) * 64 + 64;
}

int mlp_mls_dot_rows_contract(const mlp_mls_rows *g)
{
    plan p = {.g = g, .dots = mlp_mls_dots_for_tier()};
    if (!p.dots || g->one || g->wide)
        return MLP_UNSUPPORTED;
    mlp_mls_plan_decode(&p.decode, g->table);
    p.past = p.dots->bytes == 64 && g->batch % p.dots->lanes == 0   /* a vector is a line */
             && mlp_flat_past(g->out, g->out_channels * g->out_size[0] * g->out_size[1] * g->batch);
    int status = MLP_NO_MEMORY;
    if (mlp_pot_plan_axis(&p.y, g->input_grad, g->kernel[0], g->stride[0], g->padding[0], g->dilation[0],
                          g->out_size[0])
        && mlp_pot_plan_axis(&p.x, g->input_grad, g->kernel[1], g->stride[1], g->padding[1], g->dilation[1],
                             g->out_size[1])
        && (plan_tasks(&p), plan_quads(&p)))
        status = p.dots->pairs && g->product * (4 * p.most + g->kernel[0] * g->kernel[1]) > INT16_MAX
                 ? MLP_UNSUPPORTED : run(&p);
    mlp_pot_free_axis(&p.y);
    mlp_pot_free_axis(&p.x);
    free(p.quads);
    free(p.offset);
    free(p.weight);
    return status;
}
