/* The fast contraction of logarithmic codes (lns_bins.h): out (rows, lanes) = w (rows, depth) times x (depth, lanes).
 *
 * Every row of w is sorted once. A thread takes one group of lanes and a share of the rows; block by block along the
 * depth it expands the codes in its lanes and walks the lists of its rows over them. */
#include "lns_bins.h"
#include "pot_bins.h"
#include <stdlib.h>
#include <string.h>

typedef struct {
    const mlp_lns_planes *g;
    const mlp_lns_lanes *lanes;
    int64_t block, blocks, limit, run_room, segment_room;
    int32_t *terms, *runs, *n_segments;      /* per row and block */
    mlp_lns_segment *segments;
} plan;

static int plan_lists(plan *p)
{
    const mlp_lns_planes *g = p->g;
    int64_t lists = g->rows * p->blocks, step = p->lanes->rows * p->lanes->lanes * 4, octaves = g->top_w / g->gamma + 1;
    p->run_room = 2 * g->gamma * octaves;
    p->segment_room = mlp_min(octaves, p->block);
    p->terms = malloc((size_t)(g->rows * g->depth) * sizeof *p->terms);
    p->runs = malloc((size_t)(lists * p->run_room) * sizeof *p->runs);
    p->n_segments = malloc((size_t)lists * sizeof *p->n_segments);
    p->segments = malloc((size_t)(lists * p->segment_room) * sizeof *p->segments);
    if (!p->terms || !p->runs || !p->n_segments || !p->segments)
        return 0;
    MLP_PARALLEL_FOR(mlp_threads())
    for (int64_t list = 0; list < lists; list++) {
        int64_t first = list % p->blocks * p->block, place = list / p->blocks * g->depth + first;
        p->n_segments[list] = mlp_lns_list(g->w + place, mlp_min(p->block, g->depth - first), g->gamma, g->top_w,
                                           p->limit, (int32_t)step, p->terms + place, p->runs + list * p->run_room,
                                           p->segments + list * p->segment_room);
    }
    return 1;
}

/* The codes of one block in the lanes from l on, expanded. `codes` is room for a block of them. */
static void fill_tile(const plan *p, int64_t first, int64_t depth, int64_t l, int64_t valid, int16_t *codes, int32_t *tile)
{
    const mlp_lns_planes *g = p->g;
    int64_t lanes = p->lanes->lanes;
    for (int64_t i = 0; g->turned && i < valid; i++)
        for (int64_t k = 0; k < depth; k++)
            codes[k * lanes + i] = g->x[(l + i) * g->depth + first + k];
    for (int64_t k = 0; k < depth; k++) {
        const int16_t *row = g->turned ? codes + k * lanes : g->x + (first + k) * g->lanes + l;
        if (!g->turned && k + 8 < depth)
            __builtin_prefetch(row + 8 * g->lanes);   /* rows lie far apart: each is a cache miss of its own */
        p->lanes->expand(row, valid, tile + k * p->lanes->rows * lanes);
    }
}

/* What the caller wants of the finished bins of one row, lanes from l on. */
static void store(const plan *p, const int64_t *bins, int64_t row, int64_t l, int64_t valid, double *values)
{
    const mlp_lns_planes *g = p->g;
    int64_t at = row * g->lanes + l;
    if (g->out_bins) {
        for (int s = 0; s < g->gamma; s++)
            memcpy(g->out_bins + s * g->rows * g->lanes + at, bins + s * p->lanes->lanes,
                   (size_t)valid * sizeof *bins);
        return;
    }
    p->lanes->close(bins, g->constants, g->lut, values);
    for (int64_t i = 0; i < valid; i++)
        if (g->out_float)
            g->out_float[at + i] = (float)(values[i] * g->scale);
        else
            g->out_double[at + i] = values[i];
}

static int run(const plan *p)
{
    const mlp_lns_planes *g = p->g;
    int64_t lanes = p->lanes->lanes, groups = mlp_ceil_div(g->lanes, lanes), wide = g->gamma * lanes;
    int64_t shares = mlp_min(g->rows, mlp_ceil_div(4 * mlp_threads(), groups)), share = mlp_ceil_div(g->rows, shares);
    int64_t parts[] = {p->block * p->lanes->rows * lanes * 4, wide * 4, share * wide * 8, lanes * 8,
                       p->block * lanes * 2};
    int64_t size = 0;
    for (int i = 0; i < 5; i++)
        size += parts[i] = mlp_ceil_div(parts[i], 64) * 64;
    int no_memory = 0;
    MLP_PRAGMA(omp parallel reduction(| : no_memory) num_threads(mlp_threads()))
    {
        char *tile = aligned_alloc(64, (size_t)size);
        no_memory |= !tile;
        int32_t *sums = (int32_t *)(tile + parts[0]);
        int64_t *bins = (int64_t *)(tile + parts[0] + parts[1]);
        double *values = (double *)(tile + parts[0] + parts[1] + parts[2]);
        int16_t *codes = (int16_t *)(tile + parts[0] + parts[1] + parts[2] + parts[3]);
        MLP_PRAGMA(omp for schedule(dynamic))
        for (int64_t t = 0; t < groups * shares; t++) {
            int64_t l = t / shares * lanes, valid = mlp_min(lanes, g->lanes - l);
            int64_t from = t % shares * share, to = mlp_min(from + share, g->rows);
            if (!tile || from >= to)
                continue;
            memset(bins, 0, (size_t)((to - from) * wide) * sizeof *bins);
            for (int64_t block = 0; block < p->blocks; block++) {
                int64_t first = block * p->block, depth = mlp_min(p->block, g->depth - first);
                fill_tile(p, first, depth, l, valid, codes, (int32_t *)tile);
                for (int64_t row = from; row < to; row++) {
                    int64_t list = row * p->blocks + block;
                    const mlp_lns_segment *segment = p->segments + list * p->segment_room;
                    for (int32_t i = 0; i < p->n_segments[list]; i++, segment++) {
                        p->lanes->walk(tile, p->terms + row * g->depth + first + segment->first_term,
                                       p->runs + list * p->run_room + segment->first_run, segment->octaves, sums);
                        p->lanes->fold(sums, segment->shift, bins + (row - from) * wide);
                    }
                }
            }
            for (int64_t row = from; row < to; row++)
                store(p, bins + (row - from) * wide, row, l, valid, values);
        }
        free(tile);
    }
    return no_memory ? MLP_NO_MEMORY : MLP_OK;
}

int mlp_lns_planes_contract(const mlp_lns_planes *g)
{
    plan p = {.g = g, .lanes = mlp_lns_for_tier(g->gamma)};
    if (!p.lanes || g->top_x / g->gamma > MLP_LNS_SPAN || g->top_w / g->gamma > 62)
        return MLP_UNSUPPORTED;
    if (g->rows < 1 || g->depth < 1 || g->lanes < 1 || g->top_x < 0 || g->top_w < 0 || g->lut < 1)
        return MLP_BAD_ARGUMENT;
    /* A bin is at most 2^(octaves of x) times 2 (a carried remainder) times the list's limit: below 2^30. */
    p.limit = (int64_t)1 << (29 - g->top_x / g->gamma);
    p.block = mlp_min(g->depth, mlp_min(p.limit, MLP_LNS_TILE_BYTES / (p.lanes->rows * p.lanes->lanes * 4)));
    p.blocks = mlp_ceil_div(g->depth, p.block);
    p.block = mlp_ceil_div(g->depth, p.blocks);
    p.blocks = mlp_ceil_div(g->depth, p.block);
    int status = plan_lists(&p) ? run(&p) : MLP_NO_MEMORY;
    free(p.terms);
    free(p.runs);
    free(p.n_segments);
    free(p.segments);
    return status;
}
