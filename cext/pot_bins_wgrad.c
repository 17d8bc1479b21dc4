/* Weight gradient by exponent-binned adds (pot_bins.h): activations sorted, output channels in the lanes.
 *
 *     dW[o, c, tap] = sum over images n and outputs p of E[n, p, o] X[n, c, p * stride + tap]
 *
 * After ReLU half of X is zero, and zeros are never visited. An activation at padded position q = stride * a + f meets
 * the taps of its phase f, each at output a + offset; so one walk over the sorted activations of a channel serves all
 * taps of the phase, and the error's zero border makes every position legal.
 *
 * Codes are first turned to sample-major order. The work is cut into chunks of images and rows whose error vectors fit
 * the first-level cache; each thread sums its chunks into totals of its own. A sum of integers that never wraps (lanes
 * by the segments of pot_bins.h, int32 totals by the number of terms) does not mind the order: these are the same
 * integers as the loop's. */
#include "pot_bins.h"
#include <stdlib.h>
#include <string.h>

typedef struct {
    const mlp_pot_wgrad *g;
    const mlp_pot_lanes *lanes;
    mlp_pot_axis y, x;
    int64_t limit, positions[2];                        /* a = 0 .. positions-1 */
    int64_t padded, vectors;                            /* output channels rounded up, vectors of them */
    int narrow;                                         /* every total fits int32 */
    int64_t images, rows, tile_rows, tile_columns;      /* of a chunk; rows counts a, the tile adds the offsets */
    int64_t chunks_down, chunks;
    int8_t *error, *act;                                /* (N, OH, OW, padded) and (N, C, H, W), an image every */
    int64_t error_step, act_step;                       /* ... bytes: not a power of two, which would crowd the cache */
} plan;

typedef struct {
    char *tile;              /* (vectors, images, tile_rows, tile_columns) error vectors */
    int8_t *codes;
    int32_t *where;          /* offset of each position of an image's rows in the tile */
    int32_t *offsets, *terms, *runs, *n_segments;
    mlp_pot_segment *segments;
    char *sums;
    char *total;             /* (channels, phases, vectors, taps of the phase, lanes), int32 or int64 */
} scratch;

typedef int8_t bytes16 __attribute__((vector_size(16)));
#ifdef __clang__
#define INTERLEAVE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define INTERLEAVE(a, b, ...) __builtin_shuffle(a, b, (bytes16){__VA_ARGS__})
#endif

/* 16 x 16 bytes: interleaving row i with row i + 8 is one perfect shuffle, and four of them transpose. */
static void transpose16(const int8_t *from, int64_t from_step, int8_t *to, int64_t to_step)
{
    bytes16 a[16], b[16];
    for (int i = 0; i < 16; i++)
        memcpy(&a[i], from + i * from_step, 16);
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 8; i++) {
            b[2 * i] = INTERLEAVE(a[i], a[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            b[2 * i + 1] = INTERLEAVE(a[i], a[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        }
        memcpy(a, b, sizeof a);
    }
    for (int i = 0; i < 16; i++)
        memcpy(to + i * to_step, &a[i], 16);
}

/* Bytes of a (rows, columns) matrix to (columns, rows). */
static void transpose(const int8_t *from, int64_t from_step, int64_t rows, int64_t columns, int8_t *to, int64_t to_step)
{
    for (int64_t r0 = 0; r0 < rows; r0 += 16)
        for (int64_t c0 = 0; c0 < columns; c0 += 16) {
            if (r0 + 16 <= rows && c0 + 16 <= columns) {
                transpose16(from + r0 * from_step + c0, from_step, to + c0 * to_step + r0, to_step);
                continue;
            }
            for (int64_t r = r0; r < mlp_min(r0 + 16, rows); r++)
                for (int64_t c = c0; c < mlp_min(c0 + 16, columns); c++)
                    to[c * to_step + r] = from[r * from_step + c];
        }
}

/* Both operands in sample-major order, the error with its channels together and padded with zeros. */
static int turn(plan *p)
{
    const mlp_pot_wgrad *g = p->g;
    int64_t outputs = g->out_size[0] * g->out_size[1], inputs = g->size[0] * g->size[1], n = g->batch;
    p->error_step = outputs * p->padded + 64;
    p->act_step = g->channels * inputs + 64;
    p->error = calloc((size_t)(n * p->error_step), 1);
    p->act = malloc((size_t)(n * p->act_step));
    if (!p->error || !p->act)
        return 0;
    MLP_PARALLEL_FOR(mlp_threads())
    for (int64_t i = 0; i < outputs; i++)
        transpose(g->error + i * n, outputs * n, g->features, n, p->error + i * p->padded, p->error_step);
    MLP_PARALLEL_FOR(mlp_threads())
    for (int64_t i = 0; i < g->channels * mlp_ceil_div(inputs, 64); i++) {
        int64_t c = i % g->channels, from = i / g->channels * 64;
        transpose(g->act + (c * inputs + from) * n, n, mlp_min(64, inputs - from), n, p->act + c * inputs + from,
                  p->act_step);
    }
    return 1;
}

/* Error vectors of one chunk, zeros outside the image. */
static void fill_tile(const plan *p, int64_t n0, int64_t images, int64_t a0, scratch *s)
{
    const mlp_pot_wgrad *g = p->g;
    int64_t bytes = p->lanes->bytes, width = g->out_size[1], left = p->x.low;
    int64_t from = mlp_min(mlp_max(-left, 0), p->tile_columns);
    int64_t to = mlp_max(mlp_min(width - left, p->tile_columns), from);
    for (int64_t v = 0; v < p->vectors; v++)
        for (int64_t i = 0; i < images; i++)
            for (int64_t r = 0; r < p->tile_rows; r++) {
                char *row = s->tile + ((v * p->images + i) * p->tile_rows + r) * p->tile_columns * bytes;
                int64_t y = a0 + p->y.low + r;
                if (y < 0 || y >= g->out_size[0]) {
                    memset(row, 0, (size_t)(p->tile_columns * bytes));
                    continue;
                }
                memset(row, 0, (size_t)(from * bytes));
                if (to > from)
                    p->lanes->expand(p->error + (n0 + i) * p->error_step + (y * width + left + from) * p->padded
                                         + v * p->lanes->lanes,
                                     p->padded, to - from, p->lanes->lanes, row + from * bytes);
                memset(row + to * bytes, 0, (size_t)((p->tile_columns - to) * bytes));
            }
}

/* Rows and columns of one phase's activations: those a whose position stride * a + f - padding is inside the image. */
typedef struct {
    int64_t top, bottom, left, columns;
} window;

static window see(const plan *p, int64_t a0, int64_t a1, int64_t fy, int64_t fx)
{
    const mlp_pot_wgrad *g = p->g;
    int64_t y = g->padding[0] - fy, x = g->padding[1] - fx;
    int64_t right = x + g->size[1] > 0 ? mlp_ceil_div(x + g->size[1], g->stride[1]) : 0;
    window w = {mlp_max(a0, mlp_ceil_div(mlp_max(y, 0), g->stride[0])),
                mlp_min(a1, y + g->size[0] > 0 ? mlp_ceil_div(y + g->size[0], g->stride[0]) : 0),
                mlp_ceil_div(mlp_max(x, 0), g->stride[1]), 0};
    w.columns = mlp_max(0, right - w.left);
    return w;
}

/* Sorts the activations of channel c inside the window. Returns the number of segments. */
static int sort_channel(const plan *p, int64_t n0, int64_t images, window w, int64_t fy, int64_t fx, int64_t c,
                        scratch *s, int32_t *terms, int32_t *runs, mlp_pot_segment *segments)
{
    const mlp_pot_wgrad *g = p->g;
    int64_t n = 0, image = p->tile_rows * p->tile_columns * p->lanes->bytes;
    int64_t x = g->stride[1] * w.left + fx - g->padding[1];
    int64_t rows = g->stride[0] * g->stride[1] == 1 ? w.bottom - w.top : 1;  /* that lie together */
    for (int64_t i = 0; i < images; i++)
        for (int64_t a = w.top; a < w.bottom; a += rows) {
            int64_t y = g->stride[0] * a + fy - g->padding[0];
            n += mlp_pot_keep(p->act + (n0 + i) * p->act_step + (c * g->size[0] + y) * g->size[1] + x, g->stride[1],
                              rows * w.columns, s->where + (a - w.top) * w.columns, (int32_t)(i * image),
                              s->codes + n, s->offsets + n);
        }
    return mlp_pot_list(s->codes, s->offsets, n, p->limit, g->levels_act, terms, runs, segments);
}

/* Adds one chunk of one phase to the thread's totals. */
static void run_phase(const plan *p, int64_t n0, int64_t images, int64_t a0, int64_t a1, int64_t f, int64_t slot,
                      mlp_pot_room room, scratch *s)
{
    const mlp_pot_wgrad *g = p->g;
    int64_t bytes = p->lanes->bytes, lanes = p->lanes->lanes, fy = f / g->stride[1], fx = f % g->stride[1];
    const mlp_pot_phase *y = &p->y.phase[fy], *x = &p->x.phase[fx];
    int64_t taps = y->taps * x->taps, all_slots = g->kernel[0] * g->kernel[1] * p->vectors, slots = taps * p->vectors;
    window w = see(p, a0, a1, fy, fx);
    if (taps == 0 || w.columns == 0)
        return;
    for (int64_t a = w.top, i = 0; a < w.bottom; a++)
        for (int64_t b = w.left; b < w.left + w.columns; b++)
            s->where[i++] = (int32_t)(((a - a0) * p->tile_columns + b) * bytes);
    for (int64_t c = 0; c < g->channels; c++)
        s->n_segments[c] = sort_channel(p, n0, images, w, fy, fx, c, s, s->terms + c * room.terms,
                                        s->runs + c * room.runs, s->segments + c * room.segments);
    for (int64_t first = 0, jobs; first < slots; first += jobs) {
        const char *base[MLP_POT_JOBS];
        jobs = mlp_pot_jobs(slots - first);
        for (int64_t j = 0; j < jobs; j++) {
            int64_t v = (first + j) / taps, i = (first + j) % taps / x->taps, k = (first + j) % x->taps;
            int64_t row = v * p->images * p->tile_rows + y->offset[i] - p->y.low;
            base[j] = s->tile + (row * p->tile_columns + x->offset[k] - p->x.low) * bytes;
        }
        for (int64_t c = 0; c < g->channels; c++) {
            const mlp_pot_segment *segment = s->segments + c * room.segments;
            for (int32_t k = 0; k < s->n_segments[c]; k++, segment++) {
                p->lanes->walk[jobs](base, s->terms + c * room.terms + segment->first_term,
                                     s->runs + c * room.runs + segment->first_run, segment->runs, s->sums);
                int64_t at = (c * all_slots + slot + first) * lanes;
                if (p->narrow)
                    p->lanes->fold_narrow(s->sums, jobs, segment->shift, 0, (int32_t *)s->total + at);
                else
                    p->lanes->fold(s->sums, jobs, segment->shift, (int64_t *)s->total + at);
            }
        }
    }
}

/* Sizes of chunks: error vectors of one group of output channels fit the first-level cache. */
static void plan_chunks(plan *p)
{
    const mlp_pot_wgrad *g = p->g;
    int64_t span = p->y.high - p->y.low;
    p->tile_columns = p->positions[1] + p->x.high - p->x.low;
    int64_t row_bytes = p->tile_columns * p->lanes->bytes;
    p->rows = mlp_min(p->positions[0], mlp_max(4, MLP_POT_L1_BYTES / row_bytes - span));
    p->chunks_down = mlp_ceil_div(p->positions[0], p->rows);
    p->rows = mlp_ceil_div(p->positions[0], p->chunks_down);
    p->chunks_down = mlp_ceil_div(p->positions[0], p->rows);
    p->tile_rows = p->rows + span;
    p->images = p->chunks_down > 1 ? 1 : mlp_max(1, MLP_POT_L1_BYTES / (row_bytes * p->tile_rows));
    p->images = mlp_max(1, mlp_min(p->images, mlp_ceil_div(g->batch, 2 * mlp_threads())));
    p->chunks = p->chunks_down * mlp_ceil_div(g->batch, p->images);
}

/* One block of memory for everything a thread needs. */
static void *take_scratch(const plan *p, mlp_pot_room room, scratch *s)
{
    const mlp_pot_wgrad *g = p->g;
    int64_t c = g->channels, parts[] = {
        p->vectors * p->images * p->tile_rows * p->tile_columns * p->lanes->bytes, MLP_POT_JOBS * p->lanes->bytes,
        c * g->kernel[0] * g->kernel[1] * p->vectors * p->lanes->lanes * (p->narrow ? 4 : 8), room.terms,
        room.terms * 4, c * room.terms * 4, c * room.runs * 4, c * 4,
        c * room.segments * (int64_t)sizeof(mlp_pot_segment), room.terms * 4};
    char *at[10];
    int64_t size = 0;
    for (int i = 0; i < 10; i++)
        size += (parts[i] + 63) / 64 * 64;
    char *memory = aligned_alloc(64, (size_t)size);
    if (!memory)
        return NULL;
    size = 0;
    for (int i = 0; i < 10; i++) {
        at[i] = memory + size;
        size += (parts[i] + 63) / 64 * 64;
    }
    *s = (scratch){at[0], (int8_t *)at[3], (int32_t *)at[9], (int32_t *)at[4], (int32_t *)at[5], (int32_t *)at[6],
                   (int32_t *)at[7], (mlp_pot_segment *)at[8], at[1], at[2]};
    memset(s->total, 0, (size_t)parts[2]);
    return memory;
}

/* Adds a thread's totals to the result. */
static void add_totals(const plan *p, const scratch *s)
{
    const mlp_pot_wgrad *g = p->g;
    int64_t lanes = p->lanes->lanes, taps = g->kernel[0] * g->kernel[1], at = 0;
    for (int64_t c = 0; c < g->channels; c++)
        for (int64_t f = 0; f < g->stride[0] * g->stride[1]; f++) {
            const mlp_pot_phase *y = &p->y.phase[f / g->stride[1]], *x = &p->x.phase[f % g->stride[1]];
            for (int64_t slot = 0; slot < p->vectors * y->taps * x->taps; slot++, at += lanes) {
                int64_t o0 = slot / (y->taps * x->taps) * lanes, i = slot / x->taps % y->taps, k = slot % x->taps;
                int64_t *out = g->out + c * taps + y->tap[i] * g->kernel[1] + x->tap[k];
                for (int64_t o = o0; o < mlp_min(o0 + lanes, g->features); o++)
                    out[o * g->channels * taps] += p->narrow ? ((const int32_t *)s->total)[at + o - o0]
                                                             : ((const int64_t *)s->total)[at + o - o0];
            }
        }
}

static int run(const plan *p)
{
    const mlp_pot_wgrad *g = p->g;
    int64_t taps = g->kernel[0] * g->kernel[1], most = p->images * p->rows * p->positions[1];
    mlp_pot_room room = mlp_pot_list_room(most, p->limit, g->levels_act);
    int no_memory = 0;
    memset(g->out, 0, (size_t)(g->features * g->channels * taps) * sizeof *g->out);
    MLP_PRAGMA(omp parallel reduction(| : no_memory) num_threads(mlp_threads()))
    {
        scratch s = {0};
        void *memory = take_scratch(p, room, &s);
        no_memory |= !memory;
        MLP_PRAGMA(omp for schedule(dynamic))
        for (int64_t t = 0; t < p->chunks; t++)
            if (memory) {
                int64_t n0 = t / p->chunks_down * p->images, a0 = t % p->chunks_down * p->rows;
                int64_t images = mlp_min(p->images, g->batch - n0), a1 = mlp_min(a0 + p->rows, p->positions[0]);
                fill_tile(p, n0, images, a0, &s);
                for (int64_t f = 0, slot = 0; f < g->stride[0] * g->stride[1]; f++) {
                    run_phase(p, n0, images, a0, a1, f, slot, room, &s);
                    slot += p->y.phase[f / g->stride[1]].taps * p->x.phase[f % g->stride[1]].taps * p->vectors;
                }
            }
        MLP_PRAGMA(omp critical(mlp_pot_wgrad_sum))
        if (memory)
            add_totals(p, &s);
        free(memory);
    }
    return no_memory ? MLP_NO_MEMORY : MLP_OK;
}

int mlp_pot_wgrad_contract(const mlp_pot_wgrad *g)
{
    plan p = {.g = g, .lanes = mlp_pot_choose_lanes(g->levels_error, g->features, &p.limit)};
    int status = MLP_NO_MEMORY;
    if (!p.lanes)
        return MLP_UNSUPPORTED;
    if (!mlp_pot_within(g->error, g->features * g->out_size[0] * g->out_size[1] * g->batch, g->levels_error)
        || !mlp_pot_within(g->act, g->channels * g->size[0] * g->size[1] * g->batch, g->levels_act))
        return MLP_BAD_CODE;
    int64_t group = mlp_max(16, p.lanes->lanes);
    p.padded = mlp_ceil_div(g->features, group) * group;
    p.vectors = mlp_ceil_div(g->features, p.lanes->lanes);
    p.narrow = mlp_pot_fits_int32(g->levels_error, g->levels_act, g->batch * g->out_size[0] * g->out_size[1]);
    /* The taps as the input gradient sees them, at activation positions counted from the padded corner. */
    for (int i = 0; i < 2; i++)
        p.positions[i] = (g->size[i] - 1 + g->padding[i]) / g->stride[i] + 1;
    if (mlp_pot_plan_axis(&p.y, 1, g->kernel[0], g->stride[0], 0, g->dilation[0], 1)
        && mlp_pot_plan_axis(&p.x, 1, g->kernel[1], g->stride[1], 0, g->dilation[1], 1)) {
        plan_chunks(&p);
        if ((double)p.vectors * p.images * p.tile_rows * p.tile_columns * p.lanes->bytes > INT32_MAX)
            status = MLP_UNSUPPORTED;
        else if (turn(&p))
            status = run(&p);
    }
    mlp_pot_free_axis(&p.y);
    mlp_pot_free_axis(&p.x);
    free(p.error);
    free(p.act);
    return status;
}
