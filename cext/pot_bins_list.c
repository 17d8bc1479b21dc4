/* Sort one operand's codes by exponent and sign, and cut the list where a lane could overflow. See pot_bins.h. */
#include "pot_bins.h"

mlp_pot_room mlp_pot_list_room(int64_t n, int64_t limit, int levels)
{
    /* A segment ends because doubling would overflow (at most once per exponent), or because it is full: then the next
     * one starts empty, so after the first cut at an exponent each takes `limit` terms. */
    int64_t segments = 2 * levels + n / limit + 1;
    mlp_pot_room room = {n, 2 * (levels + segments), segments};
    return room;
}

int mlp_pot_list(const int8_t *codes, const int32_t *offsets, int64_t n, int64_t limit, int levels, int32_t *terms,
                 int32_t *runs, mlp_pot_segment *segments)
{
    int32_t count[256] = {0}, place[256], at = 0;
    for (int64_t i = 0; i < n; i++)
        count[(uint8_t)codes[i]]++;
    for (int level = levels; level > 0; level--)
        for (int sign = 0; sign < 2; sign++) {
            uint8_t code = (uint8_t)(sign ? -level : level);
            place[code] = at;
            at += count[code];
        }
    place[0] = at;  /* zeros land behind the list and are never visited */
    for (int64_t i = 0; i < n; i++)
        terms[place[(uint8_t)codes[i]]++] = offsets[i];

    int n_segments = 0, last_level = 0;
    int64_t bound = 0;
    int32_t term = 0, run = 0;
    mlp_pot_segment *now = NULL;
    for (int level = levels; level > 0; level--) {
        int64_t plus = count[level], minus = count[256 - level];
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
