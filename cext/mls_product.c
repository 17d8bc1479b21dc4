/* Emulated matrix products of MLS codes (mls_product.h): a walk over tiles of outputs, each made in one go.
 *
 * Codes become bytes once, the first operand's with the sum innermost, the second's with the columns innermost;
 * whichever lies the other way is turned in squares of 16. Bytes become numbers once: the second operand's all of them,
 * in panels of the columns of a tile; the first one's a few tiles at a time, which then stay in a core's cache while
 * all panels pass. Rows of tiles are cut by the shape; no cut changes the order of a sum. */
#include "mls_product.h"
#include <stdlib.h>
#include <string.h>

enum { CACHE = 512 * 1024, MOST_TILES = 8, GROUP = 2 };   /* bytes and tiles of rows; panels of a piece of work */

typedef struct {
    const mlp_mls_matrices *g;
    const mlp_mls_products *lanes;
    const mlp_mls_dots *dots;
    mlp_mls_decode decode_a, decode_b;
    int quads;
    int64_t units, blocks, panels;       /* floats or quads of the sum, in blocks of MLP_MLS_DEPTH; column panels */
    int64_t tiles, chunk;                /* tiles of rows; how many of them share a pass over the panels */
    int64_t a_row, b_row;                /* bytes of a row */
    uint8_t *a, *b;                      /* (m, a_row) and (padded k, b_row), biased */
    int32_t *panel;                      /* (panels, blocks, MLP_MLS_DEPTH, columns) numbers or quads */
    int32_t *start;                      /* (panels, columns): what sums start from */
} plan;

static int64_t up(int64_t n, int64_t step) { return mlp_ceil_div(n, step) * step; }

/* Sixteen rows of bytes, `rows` of them with codes; `inner` codes in each, steps in bytes. What is left stays biased. */
static void to_bytes(const plan *p, const mlp_mls_decode *d, const int8_t *codes, int64_t step, int64_t inner_step,
                     int64_t rows, int64_t inner, uint8_t *out, int64_t out_row)
{
    memset(out, d->bias, (size_t)(16 * out_row));
    if (inner_step == 1)
        for (int64_t i = 0; i < rows; i++)
            p->dots->decode(d, codes + i * step, 0, 1, inner, out + i * out_row, 0, p->dots->lanes);
    else
        for (int64_t k = 0; k < inner; k += 16)
            p->dots->turn(d, codes + k * inner_step, inner_step, mlp_min(16, inner - k), 0, 1, rows, out + k, out_row,
                          8);
}

/* Columns of the panels from `first` on, as numbers with their scales or as quads, and what their sums start from. */
static void fill_panels(const plan *p, int64_t first, int64_t panels)
{
    const mlp_mls_matrices *g = p->g;
    int64_t columns = p->lanes->columns, size = p->blocks * MLP_MLS_DEPTH * columns;
    int32_t *panel = p->panel + first * size;
    for (int64_t u = 0; u < p->units; u++)
        for (int64_t i = 0; i < panels; i++) {
            int32_t *out = panel + i * size + u * columns;
            const uint8_t *from = p->b + u * (p->quads ? 4 : 1) * p->b_row + (first + i) * columns;
            if (p->quads)
                p->dots->gather(from, p->b_row, 2, (char *)out);
            else
                p->lanes->number(from, p->decode_b.bias, g->depth_b && !g->one ? g->depth_b[u] : 1,
                                 g->one ? NULL : g->outer_b + (first + i) * columns, columns, (float *)out);
        }
    if (!p->quads)
        return;
    int32_t ones[MLP_MLS_DEPTH * MLP_MLS_MOST_ROWS];
    memset(ones, 1, sizeof ones);
    for (int64_t i = 0; i < panels; i++) {   /* sums of the columns, taken off so often as the first operand is biased */
        int32_t tile[MLP_MLS_MOST_ROWS * MLP_MLS_MOST_COLUMNS] __attribute__((aligned(64))) = {0};
        for (int64_t k = 0; k < p->units; k += MLP_MLS_DEPTH)
            p->lanes->quads(ones, panel + i * size + k * columns, mlp_min(MLP_MLS_DEPTH, p->units - k), tile);
        for (int64_t j = 0; j < columns; j++)
            p->start[(first + i) * columns + j] = -p->decode_a.bias * tile[j];
    }
}

/* Rows from `row` on as numbers or quads: (blocks, chunk rows, MLP_MLS_DEPTH). */
static void fill_rows(const plan *p, int64_t row, int64_t rows, int32_t *out)
{
    const mlp_mls_matrices *g = p->g;
    int64_t block = p->chunk * p->lanes->rows * MLP_MLS_DEPTH;
    for (int64_t k = 0; k < p->units; k += MLP_MLS_DEPTH, out += block)
        for (int64_t i = 0; i < up(rows, p->lanes->rows); i++) {
            int64_t few = mlp_min(MLP_MLS_DEPTH, p->units - k);
            const uint8_t *from = p->a + (row + i) * p->a_row + k * (p->quads ? 4 : 1);
            if (i >= rows)   /* their sums go nowhere, but numbers too small to be normal would take time */
                memset(out + i * MLP_MLS_DEPTH, 0, (size_t)(4 * few));
            else if (p->quads)
                memcpy(out + i * MLP_MLS_DEPTH, from, (size_t)(4 * few));
            else
                p->lanes->number(from, p->decode_a.bias, g->one ? 1 : g->outer_a[row + i],
                                 g->one || !g->depth_a ? NULL : g->depth_a + k, few,
                                 (float *)(out + i * MLP_MLS_DEPTH));
        }
}

static void run_tile(const plan *p, int64_t row, int64_t panel, const int32_t *a, int32_t *tile)
{
    const mlp_mls_matrices *g = p->g;
    const mlp_mls_products *lanes = p->lanes;
    int64_t column = panel * lanes->columns, block = p->chunk * lanes->rows * MLP_MLS_DEPTH;
    const int32_t *b = p->panel + column * p->blocks * MLP_MLS_DEPTH;
    for (int64_t r = 0; r < lanes->rows; r++)
        memcpy(tile + r * lanes->columns, p->start + column, (size_t)lanes->columns * sizeof *tile);
    for (int64_t k = 0; k < p->units; k += MLP_MLS_DEPTH, a += block, b += MLP_MLS_DEPTH * lanes->columns)
        if (p->quads)
            lanes->quads(a, b, mlp_min(MLP_MLS_DEPTH, p->units - k), tile);
        else
            lanes->floats((const float *)a, (const float *)b, mlp_min(MLP_MLS_DEPTH, p->units - k), (float *)tile);
    int64_t rows = mlp_min(lanes->rows, g->m - row), columns = mlp_min(lanes->columns, g->n - column);
    float *out = g->out + row * g->n + column;
    const float *sums = (const float *)tile;
    if (!g->one)
        lanes->finish(sums, rows, columns, g->scale, out, g->n);
    else if (p->quads)
        lanes->finish_quads(tile, g->outer_a + row, g->outer_b + column, rows, columns, g->scale, out, g->n);
    else
        lanes->finish_floats(sums, g->outer_a + row, g->outer_b + column, rows, columns, g->scale, out, g->n);
}

static int run(const plan *p)
{
    const mlp_mls_matrices *g = p->g;
    int64_t rows = p->chunk * p->lanes->rows;
    int64_t size = p->blocks * rows * MLP_MLS_DEPTH * 4;
    int failed = 0;
    MLP_PRAGMA(omp parallel reduction(| : failed) num_threads(mlp_threads()))
    {
        int32_t *a = aligned_alloc(64, (size_t)size);
        int32_t tile[MLP_MLS_MOST_ROWS * MLP_MLS_MOST_COLUMNS] __attribute__((aligned(64)));
        failed |= !a;
        MLP_PRAGMA(omp for schedule(dynamic) nowait)
        for (int64_t i = 0; i < g->m; i += 16)
            to_bytes(p, &p->decode_a, g->a + i * g->step_a[0], g->step_a[0], g->step_a[1], mlp_min(16, g->m - i), g->k,
                     p->a + i * p->a_row, p->a_row);
        MLP_PRAGMA(omp for schedule(dynamic))
        for (int64_t k = 0; k < g->k; k += 16)
            to_bytes(p, &p->decode_b, g->b + k * g->step_b[1], g->step_b[1], g->step_b[0], mlp_min(16, g->k - k), g->n,
                     p->b + k * p->b_row, p->b_row);
        MLP_PRAGMA(omp for schedule(dynamic))
        for (int64_t i = 0; i < p->panels; i += GROUP)
            fill_panels(p, i, mlp_min(GROUP, p->panels - i));
        MLP_PRAGMA(omp for schedule(dynamic))
        for (int64_t row = 0; row < g->m; row += rows)
            if (a) {
                fill_rows(p, row, mlp_min(rows, g->m - row), a);
                for (int64_t panel = 0; panel < p->panels; panel++)
                    for (int64_t r = row; r < mlp_min(row + rows, g->m); r += p->lanes->rows)
                        run_tile(p, r, panel, a + (r - row) * MLP_MLS_DEPTH, tile);
            }
        free(a);
    }
    return failed ? MLP_NO_MEMORY : MLP_OK;
}

/* How sums are made; 0 where they do not fit. */
static int choose(plan *p)
{
    const mlp_mls_matrices *g = p->g;
    mlp_mls_plan_decode(&p->decode_a, g->table_a);
    mlp_mls_plan_decode(&p->decode_b, g->table_b);
    if (!g->one)
        return 1;
    int64_t product = mlp_max(1, p->decode_a.bias * p->decode_b.bias);
    p->quads = p->lanes->quads && g->k <= INT32_MAX / (4 * product);
    if (p->quads)
        p->decode_b.bias = 0;
    return p->quads || g->k <= (1 << 24) / product;
}

int mlp_mls_product(const mlp_mls_matrices *g)
{
    plan p = {.g = g, .lanes = mlp_mls_products_for_tier(), .dots = mlp_mls_dots_for_tier()};
    if (g->m < 1 || g->n < 1 || g->k < 1 || (g->step_a[0] != 1 && g->step_a[1] != 1)
        || (g->step_b[0] != 1 && g->step_b[1] != 1))
        return MLP_BAD_ARGUMENT;
    if (!p.lanes || !p.dots || !choose(&p))
        return MLP_UNSUPPORTED;
    p.units = p.quads ? mlp_ceil_div(g->k, 4) : g->k;
    p.blocks = mlp_ceil_div(p.units, MLP_MLS_DEPTH);
    p.panels = mlp_ceil_div(g->n, p.lanes->columns);
    p.tiles = mlp_ceil_div(g->m, p.lanes->rows);
    p.chunk = mlp_min(CACHE / (p.blocks * MLP_MLS_DEPTH * 4 * p.lanes->rows), MOST_TILES);
    p.chunk = mlp_max(1, mlp_min(p.chunk, mlp_ceil_div(p.tiles, mlp_threads())));
    p.a_row = up(g->k, 64);
    p.b_row = up(p.panels * p.lanes->columns, 64);
    /* Rows of bytes come in sixteens, and a quad takes up to three more. */
    p.a = aligned_alloc(64, (size_t)(up(g->m, 16) * p.a_row));
    p.b = aligned_alloc(64, (size_t)(up(g->k, 16) * p.b_row));
    p.panel = aligned_alloc(64, (size_t)(p.panels * p.lanes->columns * p.blocks * MLP_MLS_DEPTH * 4));
    p.start = calloc((size_t)(p.panels * p.lanes->columns), sizeof *p.start);
    int status = p.a && p.b && p.panel && p.start ? run(&p) : MLP_NO_MEMORY;
    free(p.a);
    free(p.b);
    free(p.panel);
    free(p.start);
    return status;
}
