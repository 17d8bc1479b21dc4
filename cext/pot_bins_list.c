/* Sort one operand's codes by exponent and sign, and cut the list where a lane could overflow. See pot_bins.h. */
#include "pot_bins.h"

mlp_pot_room mlp_pot_list_room(int64_t n, int64_t limit, int levels)
{
    /* A segment ends because doubling would overflow (at most once per exponent), or because it is full: then the next
     * one starts empty, so after the first cut at an exponent each takes `limit` terms. */
    int64_t segments = 2 * levels + n / limit + 1;
    mlp_pot_room room = {n + MLP_POT_SPARE, 2 * (levels + segments), segments};
    return room;
}

int64_t mlp_pot_keep(const int8_t *row, int64_t step, int64_t count, const int32_t *where, int32_t base,
                     int8_t *restrict codes, int32_t *restrict offsets)
{
    int64_t n = 0;
#ifdef MLP_HAVE_AVX512
    if (step <= 2 && mlp_vector_tier() == MLP_AVX512)
        return mlp_pot_keep_avx512(row, step, count, where, base, codes, offsets);
#endif
    /* Every code is written, but only a nonzero one stays. */
    for (; count > 0; count--, row += step) {
        int8_t code = *row;
        codes[n] = code;
        offsets[n] = *where++ + base;
        n += code != 0;
    }
    return n;
}

static void sort_portable(int8_t *codes, const int32_t *offsets, int64_t n, int levels, int32_t *terms, int32_t *count)
{
    /* A counting sort by four interleaved quarters: neighbours often share a code, and a counter that was just written
     * is slow to read again. Codes are told apart by their low 6 bits. */
    int32_t counts[4][64] = {{0}}, place[4][64], at = 0;
    for (int64_t i = 0; i < n; i++)
        counts[i & 3][codes[i] & 63]++;
    for (int i = 0; i <= 2 * levels; i++) {  /* levels, -levels, levels-1 ... -1; 0 behind the list, never visited */
        int level = levels - i / 2, code = (i & 1 ? -level : level) & 63;
        count[code] = 0;
        for (int quarter = 0; quarter < 4; quarter++) {
            place[quarter][code] = at + count[code];
            count[code] += counts[quarter][code];
        }
        at += count[code];
    }
    for (int64_t i = 0; i < n; i++)
        terms[place[i & 3][codes[i] & 63]++] = offsets[i];
}

int mlp_pot_list(int8_t *codes, const int32_t *offsets, int64_t n, int64_t limit, int levels, int32_t *terms,
                 int32_t *runs, mlp_pot_segment *segments)
{
    int32_t count[64];
    MLP_FOR_TIER(sort_portable, sort_portable, mlp_pot_sort_avx512)(codes, offsets, n, levels, terms, count);
    int n_segments = 0, last_level = 0;
    int64_t bound = 0;
    int32_t term = 0, run = 0;
    mlp_pot_segment *now = NULL;
    for (int level = levels; level > 0; level--) {
        int64_t plus = count[level], minus = count[64 - level];
        while (plus + minus > 0) {
            if (now) {
                int steps = last_level - level;
                if (bound > limit >> steps || bound << steps == limit) {
                    now = NULL;  /* no room left after the doublings */
                } else {
                    bound <<= steps;
                    for (; steps > 0; steps--, run += 2, now->runs++)
                        runs[run] = runs[run + 1] = 0;
                }
            }
            if (!now) {
                now = &segments[n_segments++];
                now->first_term = term;
                now->first_run = run;
                now->runs = 1;
                runs[run] = runs[run + 1] = 0;
                run += 2;
                bound = 0;
            }
            int64_t room = limit - bound, take_plus = plus < room ? plus : room;
            int64_t take_minus = minus < room - take_plus ? minus : room - take_plus;
            runs[run - 2] += (int32_t)take_plus;
            runs[run - 1] += (int32_t)take_minus;
            term += (int32_t)(take_plus + take_minus);
            bound += take_plus + take_minus;
            plus -= take_plus;
            minus -= take_minus;
            now->shift = level - 1;
            last_level = level;
        }
    }
    return n_segments;
}
