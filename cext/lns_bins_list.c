/* Sorts the codes of one row by exponent and cuts them where a 32-bit bin could overflow (lns_bins.h). */
#include "lns_bins.h"
#include <string.h>

int32_t mlp_lns_list(const int16_t *codes, int64_t n, int gamma, int top, int64_t limit, int32_t step, int32_t *terms,
                     int32_t *runs, mlp_lns_segment *segments)
{
    int octaves = top / gamma + 1, last_exponent = octaves * gamma - 1;
    memset(runs, 0, (size_t)(2 * octaves * gamma) * sizeof *runs);
    for (int64_t k = 0; k < n; k++) {
        int e = codes[k] < 0 ? -codes[k] - 1 : codes[k] - 1;
        if (codes[k])
            runs[2 * (last_exponent - e) + (codes[k] < 0)]++;
    }
    int32_t start = 0;   /* counts become places, places become counts again below */
    for (int i = 0; i < 2 * octaves * gamma; i++) {
        int32_t many = runs[i];
        runs[i] = start;
        start += many;
    }
    for (int64_t k = 0; k < n; k++) {
        int e = codes[k] < 0 ? -codes[k] - 1 : codes[k] - 1;
        if (codes[k])
            terms[runs[2 * (last_exponent - e) + (codes[k] < 0)]++] = (int32_t)k * step;
    }
    for (int i = 2 * octaves * gamma - 1; i > 0; i--)
        runs[i] -= runs[i - 1];
    int32_t found = 0, before = 0;
    int64_t weight = 0;   /* sum of 2^(octave - last) over the terms of the open segment */
    int first = 0, last = 0;
    for (int i = 0; i < octaves; i++) {
        int32_t many = 0;
        for (int j = 0; j < 2 * gamma; j++)
            many += runs[2 * i * gamma + j];
        if (many == 0)
            continue;
        int down = i - last;
        if (weight && down < 40 && weight <= (limit - many) >> down) {
            weight = (weight << down) + many;
        } else {
            if (weight)
                found++;
            segments[found].first_term = before;
            weight = many;
            first = i;
        }
        last = i;
        before += many;
        segments[found].first_run = 2 * first * gamma;
        segments[found].octaves = last - first + 1;
        segments[found].shift = octaves - 1 - last;
    }
    return weight ? found + 1 : 0;
}
