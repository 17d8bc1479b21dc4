/* Forward convolution and input gradient by exponent-binned adds (pot_bins.h): weights sorted, samples in the lanes.
 *
 *     for each output (o, y, x) and sample n:
 *         for each channel c and tap (i, j):
 *             out[o, y, x, n] += weight[o, c, i, j] * input[c, y * stride + i - padding, x * stride + j - padding, n]
 *
 * The vectors take 16 or 32 samples n at once, and the terms (c, i, j) in the order of their weights' exponents. Sums
 * of integers do not mind the order, and no lane ever wraps (the segments of pot_bins.h), so these are the same
 * integers; each is rounded to float once.
 *
 * Both are one scheme: an output at position a of a phase (see mlp_pot_axis) reads the inputs a * in_step + offset.
 *
 * A thread takes a tile of outputs for one vector of samples, expands the inputs under it to integer lanes, zeros
 * around the border, and walks each output channel's list for a patch of outputs at once: a square of 4 x 4, or 8 in a
 * row. Channels are summed in blocks small enough that the inputs under a patch stay in the first-level cache. */
#include "pot_bins.h"
#include "pot_round.h"
#include <stdlib.h>
#include <string.h>

typedef struct {
    const mlp_pot_rows *g;
    const mlp_pot_lanes *lanes;
    mlp_pot_axis y, x;
    int64_t limit, block, blocks;            /* channels in a block, blocks */
    int64_t tile_y, tile_x, rows, columns;   /* outputs of a tile (before the phase's step), inputs under it */
    int64_t pitch;                           /* input vectors of a channel, some of them to spare */
    int past_cache;                          /* results go straight to memory */
    int grid;                                /* patches are squares, where there are enough rows */
    int narrow;                              /* every sum fits int32, and is a normal float */
    mlp_pot_room room;                       /* of one list; list of (phase, output channel, block) in that order */
    int32_t *terms, *runs, *n_segments;
    mlp_pot_segment *segments;
} plan;

/* Outputs that one walk sums up. Of `jobs` in rows of `side`, `down` x `across` are shown. */
typedef struct {
    const char *corner;                      /* inputs of the first output */
    int64_t at, down, across, valid;         /* `valid` samples from element `at` of the result's first channel on */
    int jobs, side;
} patch;

/* Sizes of blocks and tiles. A tile is a strip, 8 outputs wide: what one walk reads lies close together. */
static void plan_tiles(plan *p)
{
    const mlp_pot_rows *g = p->g;
    int64_t bytes = p->lanes->bytes, span_y = p->y.high - p->y.low + 1, span_x = p->x.high - p->x.low + 1;
    p->tile_y = p->y.phase[0].count;
    p->tile_x = mlp_min(8, p->x.phase[0].count);
    p->columns = p->x.in_step * (p->tile_x - 1) + span_x;
    p->grid = p->lanes->walk_grid && p->y.in_step == 1 && p->x.in_step == 1 && p->tile_y >= 3 && p->tile_x >= 3;
    int64_t reach = p->grid ? (span_y + 3) * (span_x + 3) : span_y * p->columns;
    int64_t fit = mlp_max(1, MLP_POT_L1_BYTES / (reach * bytes));
    p->blocks = mlp_ceil_div(g->in_channels, fit);
    p->block = mlp_ceil_div(g->in_channels, p->blocks);
    p->blocks = mlp_ceil_div(g->in_channels, p->block);
    int64_t strips = mlp_ceil_div(p->x.phase[0].count, p->tile_x) * mlp_ceil_div(g->batch, p->lanes->lanes);
    for (;; p->tile_y = mlp_ceil_div(p->tile_y, 2)) {
        p->rows = p->y.in_step * (p->tile_y - 1) + span_y;
        /* Neighbouring channels' inputs fall into neighbouring sets of the cache; few are too few to collide. */
        p->pitch = p->rows * p->columns;
        p->pitch += p->pitch > 64 ? mlp_floor_mod(span_y * p->columns - p->pitch, 64) : 0;
        /* the lanes of one vector of samples, and the codes of all: the next vector finds its own in the cache */
        int64_t size = g->in_channels * p->rows * p->columns * (bytes + g->batch);
        int few = strips * mlp_ceil_div(p->y.phase[0].count, p->tile_y) < 4 * mlp_threads() && p->tile_y > 4;
        if (p->tile_y == 1 || (size <= MLP_POT_L2_BYTES && !few))
            break;
    }
    /* A result that no cache can hold need not pass through the caches, where it would drive out the tile. */
    p->past_cache = g->out_float && (uintptr_t)g->out_float % 64 == 0 && g->batch % 16 == 0
                    && g->out_channels * g->out_size[0] * g->out_size[1] * g->batch * 4 >= MLP_POT_STREAM_BYTES;
    p->narrow = g->out_float && g->exponent >= MLP_NORMAL_LOW && g->exponent <= MLP_NORMAL_HIGH
                && mlp_pot_fits_int32(g->levels_input, g->levels_weight,
                                      g->in_channels * g->kernel[0] * g->kernel[1]);
}

/* Sorts the weights of every (phase, output channel, block of input channels). */
static int plan_lists(plan *p)
{
    const mlp_pot_rows *g = p->g;
    int64_t per_output = p->y.phases * p->x.phases * p->blocks, lists = per_output * g->out_channels;
    int64_t most = p->block * g->kernel[0] * g->kernel[1], bytes = p->lanes->bytes;
    p->room = mlp_pot_list_room(most, p->limit, g->levels_weight);
    p->terms = malloc((size_t)(lists * p->room.terms + 1) * sizeof *p->terms);
    p->runs = malloc((size_t)(lists * p->room.runs + 1) * sizeof *p->runs);
    p->segments = malloc((size_t)(lists * p->room.segments + 1) * sizeof *p->segments);
    p->n_segments = malloc((size_t)(lists + 1) * sizeof *p->n_segments);
    if (!p->terms || !p->runs || !p->segments || !p->n_segments)
        return 0;
    int failed = 0;
    MLP_PRAGMA(omp parallel for schedule(static) reduction(| : failed) num_threads(mlp_threads()))
    for (int64_t list = 0; list < lists; list++) {
        int64_t block = list % p->blocks, o = list / p->blocks % g->out_channels;
        int64_t f = list / p->blocks / g->out_channels;
        const mlp_pot_phase *fy = &p->y.phase[f / p->x.phases], *fx = &p->x.phase[f % p->x.phases];
        int8_t *codes = malloc((size_t)most + MLP_POT_SPARE);
        int32_t *offsets = malloc((size_t)(most + MLP_POT_SPARE) * sizeof *offsets);
        if (codes && offsets) {
            int64_t n = 0, first = block * p->block, last = mlp_min(first + p->block, g->in_channels);
            for (int64_t c = first; c < last; c++)
                for (int64_t i = 0; i < fy->taps; i++)
                    for (int64_t j = 0; j < fx->taps; j++) {
                        codes[n] = g->weight[o * g->weight_out_step + c * g->weight_in_step + fy->tap[i] * g->kernel[1]
                                             + fx->tap[j]];
                        offsets[n++] = (int32_t)((c * p->pitch + (fy->offset[i] - p->y.low) * p->columns + fx->offset[j]
                                                  - p->x.low) * bytes);
                    }
            p->n_segments[list] = mlp_pot_list(codes, offsets, n, p->limit, g->levels_weight,
                                               p->terms + list * p->room.terms, p->runs + list * p->room.runs,
                                               p->segments + list * p->room.segments);
        } else {
            failed = 1;
        }
        free(codes);
        free(offsets);
    }
    return !failed;
}

/* Inputs under the tile whose first output is (a, b), samples from n on, as lanes; zeros where there is no input. */
static void fill_tile(const plan *p, int64_t a, int64_t b, int64_t n, char *tile)
{
    const mlp_pot_rows *g = p->g;
    int64_t bytes = p->lanes->bytes, valid = mlp_min(p->lanes->lanes, g->batch - n);
    int64_t top = a * p->y.in_step + p->y.low, left = b * p->x.in_step + p->x.low;
    int64_t from = mlp_min(mlp_max(-left, 0), p->columns);
    int64_t to = mlp_max(mlp_min(g->in_size[1] - left, p->columns), from);
    for (int64_t c = 0; c < g->in_channels; c++, tile += (p->pitch - p->rows * p->columns) * bytes)
        for (int64_t r = 0; r < p->rows; r++, tile += p->columns * bytes) {
            int64_t y = top + r;
            if (y < 0 || y >= g->in_size[0]) {
                memset(tile, 0, (size_t)(p->columns * bytes));
                continue;
            }
            memset(tile, 0, (size_t)(from * bytes));
            if (to > from)
                p->lanes->expand(g->input + ((c * g->in_size[0] + y) * g->in_size[1] + left + from) * g->batch + n,
                                 g->batch, to - from, valid, tile + from * bytes);
            memset(tile + to * bytes, 0, (size_t)((p->columns - to) * bytes));
        }
}

/* One output vector: from int64 sums to what the caller wants. Returns how many results left float32. */
static int64_t store(const plan *p, const int64_t *total, int64_t valid, int64_t at)
{
    const mlp_pot_rows *g = p->g;
    int64_t failed = 0;
    if (g->out_int) {
        memcpy(g->out_int + at, total, (size_t)valid * sizeof *total);
    } else if (g->exponent >= MLP_NORMAL_LOW && g->exponent <= MLP_NORMAL_HIGH) {
        p->lanes->wide_to_float(total, valid, (int)g->exponent, p->past_cache, g->out_float + at);
    } else {
        for (int64_t i = 0; i < valid; i++)
            failed += mlp_round_to_float(total[i], g->exponent, g->out_float + at + i);
    }
    return failed;
}

/* A patch of output channel o, from its sums: int32 times 2^exponent, or int64. */
static int64_t show(const plan *p, const patch *h, int64_t o, const int32_t *narrow, int64_t exponent,
                    const int64_t *wide)
{
    const mlp_pot_rows *g = p->g;
    int64_t failed = 0, pixel = p->x.out_step * g->batch, row = p->y.out_step * g->out_size[1] * g->batch;
    for (int64_t i = 0; i < h->down; i++)
        for (int64_t j = 0; j < h->across; j++) {
            int64_t from = (i * h->side + j) * p->lanes->lanes;
            int64_t to = h->at + o * g->out_size[0] * g->out_size[1] * g->batch + i * row + j * pixel;
            if (narrow)
                p->lanes->narrow_to_float(narrow + from, h->valid, (int)exponent, p->past_cache, g->out_float + to);
            else
                failed += store(p, wide + from, h->valid, to);
        }
    return failed;
}

/* A patch of outputs, of every output channel. */
static int64_t run_patch(const plan *p, int64_t phase, const patch *h, char *totals, char *sums)
{
    const mlp_pot_rows *g = p->g;
    const char *base[MLP_POT_JOBS];
    int64_t lanes = p->lanes->lanes, bytes = p->lanes->bytes, failed = 0;
    int square = h->side < h->jobs;
    const mlp_pot_walk walk = square ? p->lanes->walk_grid : p->lanes->walk[h->jobs];
    for (int j = 0; j < (square ? h->jobs / h->side : h->jobs); j++)
        base[j] = h->corner + j * (square ? p->columns : p->x.in_step) * bytes;
    for (int64_t block = 0; block < p->blocks; block++)
        for (int64_t o = 0; o < g->out_channels; o++) {
            int64_t list = (phase * g->out_channels + o) * p->blocks + block;
            int64_t *wide = (int64_t *)totals + (p->blocks > 1 ? o * MLP_POT_GRID_JOBS * lanes : 0);
            int32_t *narrow = (int32_t *)totals + (p->blocks > 1 ? o * MLP_POT_GRID_JOBS * lanes : 0);
            const int32_t *terms = p->terms + list * p->room.terms, *runs = p->runs + list * p->room.runs;
            const mlp_pot_segment *segment = p->segments + list * p->room.segments;
            /* A single segment in lanes of 32 bits is one float conversion away from the result. */
            if (p->blocks == 1 && p->n_segments[list] == 1 && bytes == 4 * lanes && g->out_float
                && g->exponent >= MLP_NORMAL_LOW && g->exponent + MLP_POT_SHIFTS <= MLP_NORMAL_HIGH) {
                walk(base, terms, runs, segment->runs, sums);
                failed += show(p, h, o, (const int32_t *)sums, g->exponent + segment->shift, NULL);
                continue;
            }
            if (block == 0 && (!p->narrow || p->n_segments[list] == 0))
                memset(p->narrow ? (void *)narrow : wide, 0, (size_t)(h->jobs * lanes) * (p->narrow ? 4 : 8));
            for (int32_t s = 0; s < p->n_segments[list]; s++, segment++) {
                walk(base, terms + segment->first_term, runs + segment->first_run, segment->runs, sums);
                if (p->narrow)
                    p->lanes->fold_narrow(sums, h->jobs, segment->shift, block + s == 0, narrow);
                else
                    p->lanes->fold(sums, h->jobs, segment->shift, wide);
            }
            if (block == p->blocks - 1)
                failed += show(p, h, o, p->narrow ? narrow : NULL, g->exponent, wide);
        }
    return failed;
}

/* Zeros for all samples of the outputs that no tap reaches (a stride beyond the kernel). */
static void clear_outputs(const plan *p, const mlp_pot_phase *fy, const mlp_pot_phase *fx, int64_t a0, int64_t a1,
                          int64_t b0, int64_t b1)
{
    const mlp_pot_rows *g = p->g;
    size_t size = g->out_int ? sizeof *g->out_int : sizeof *g->out_float;
    char *out = g->out_int ? (char *)g->out_int : (char *)g->out_float;
    for (int64_t o = 0; o < g->out_channels; o++)
        for (int64_t a = a0; a < a1; a++)
            for (int64_t b = b0; b < b1; b++) {
                int64_t y = fy->origin + a * p->y.out_step, x = fx->origin + b * p->x.out_step;
                int64_t pixel = (o * g->out_size[0] + y) * g->out_size[1] + x;
                memset(out + (size_t)(pixel * g->batch) * size, 0, (size_t)g->batch * size);
            }
}

/* All outputs of one tile for the samples from n on. */
static int64_t run_tile(const plan *p, int64_t a0, int64_t b0, int64_t n, char *tile, char *totals, char *sums)
{
    const mlp_pot_rows *g = p->g;
    int64_t bytes = p->lanes->bytes, valid = mlp_min(p->lanes->lanes, g->batch - n), failed = 0;
    fill_tile(p, a0, b0, n, tile);
    for (int64_t phase = 0; phase < p->y.phases * p->x.phases; phase++) {
        const mlp_pot_phase *fy = &p->y.phase[phase / p->x.phases], *fx = &p->x.phase[phase % p->x.phases];
        int64_t a1 = mlp_min(a0 + p->tile_y, fy->count), b1 = mlp_min(b0 + p->tile_x, fx->count);
        if (fy->taps * fx->taps == 0) {
            if (n == 0)
                clear_outputs(p, fy, fx, a0, a1, b0, b1);
            continue;
        }
        for (int64_t a = a0, down; a < a1; a += down) {
            down = p->grid && a1 - a >= 3 ? mlp_min(a1 - a, 4) : 1;  /* two rows alone are done faster one by one */
            for (int64_t b = b0, across; b < b1; b += across) {
                across = mlp_min(b1 - b, down > 1 ? 4 : 8);
                int jobs = down > 1 ? MLP_POT_GRID_JOBS : across > 4 ? 8 : across > 2 ? 4 : (int)across;
                const char *corner = tile + ((a - a0) * p->y.in_step * p->columns + (b - b0) * p->x.in_step) * bytes;
                int64_t y = fy->origin + a * p->y.out_step, x = fx->origin + b * p->x.out_step;
                patch h = {corner, (y * g->out_size[1] + x) * g->batch + n, down, across, valid, jobs,
                           down > 1 ? 4 : jobs};
                failed += run_patch(p, phase, &h, totals, sums);
            }
        }
    }
    return failed;
}

/* Shares the tiles among the threads. */
static int run(const plan *p)
{
    const mlp_pot_rows *g = p->g;
    int64_t down = mlp_ceil_div(p->y.phase[0].count, p->tile_y), across = mlp_ceil_div(p->x.phase[0].count, p->tile_x);
    int64_t lanes = p->lanes->lanes, vectors = mlp_ceil_div(g->batch, lanes), tasks = down * across * vectors;
    /* Outputs computed beside the last one shown read up to 8 steps, below it up to a row and 4 steps past the tile. */
    size_t size = (size_t)(g->in_channels * p->pitch + 8 * p->x.in_step + p->columns) * (size_t)p->lanes->bytes;
    size_t totals = (size_t)(g->out_channels * MLP_POT_GRID_JOBS * lanes) * sizeof(int64_t);
    size_t sums = (size_t)(MLP_POT_GRID_JOBS * p->lanes->bytes);
    int64_t failed = 0;
    int no_memory = 0;
    MLP_PRAGMA(omp parallel reduction(+ : failed) reduction(| : no_memory) num_threads(mlp_threads()))
    {
        char *memory = aligned_alloc(64, (size + totals + sums + 63) / 64 * 64);
        no_memory |= !memory;
        if (memory)
            memset(memory, 0, size);
        MLP_PRAGMA(omp for schedule(dynamic))
        for (int64_t t = 0; t < tasks; t++)
            if (memory)
                failed += run_tile(p, t / vectors / across * p->tile_y, t / vectors % across * p->tile_x,
                                   t % vectors * lanes, memory, memory + size, memory + size + totals);
        if (p->past_cache)
            __sync_synchronize();  /* the other threads may read what went past the caches */
        free(memory);
    }
    return no_memory ? MLP_NO_MEMORY : failed ? MLP_OVERFLOW : MLP_OK;
}

int mlp_pot_rows_contract(const mlp_pot_rows *g)
{
    plan p = {.g = g, .lanes = mlp_pot_choose_lanes(g->levels_input, g->batch, &p.limit)};
    int status = MLP_OK;
    if (!p.lanes)
        return MLP_UNSUPPORTED;
    if (g->batch == 0 || g->out_channels == 0 || g->out_size[0] == 0 || g->out_size[1] == 0)
        return MLP_OK;
    if (!mlp_pot_within(g->input, g->in_channels * g->in_size[0] * g->in_size[1] * g->batch, g->levels_input)
        || !mlp_pot_within(g->weight, g->in_channels * g->out_channels * g->kernel[0] * g->kernel[1], g->levels_weight))
        return MLP_BAD_CODE;
    if (mlp_pot_plan_axis(&p.y, g->input_grad, g->kernel[0], g->stride[0], g->padding[0], g->dilation[0],
                          g->out_size[0])
        && mlp_pot_plan_axis(&p.x, g->input_grad, g->kernel[1], g->stride[1], g->padding[1], g->dilation[1],
                             g->out_size[1])) {
        plan_tiles(&p);
        if ((double)g->in_channels * p.pitch * p.lanes->bytes > INT32_MAX)
            status = MLP_UNSUPPORTED;
        else
            status = plan_lists(&p) ? run(&p) : MLP_NO_MEMORY;
    } else {
        status = MLP_NO_MEMORY;
    }
    mlp_pot_free_axis(&p.y);
    mlp_pot_free_axis(&p.x);
    free(p.terms);
    free(p.runs);
    free(p.segments);
    free(p.n_segments);
    return status;
}
