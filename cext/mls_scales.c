/* The scales of an MLS tensor from the largest magnitudes of its groups; twin in minilp/kernels/reference_mls.py.
 *
 *   S_t = the largest of all;  for each group: S_g = its maximum / S_t, up to the next (1 + m / 2^man) 2^-e
 *
 * A double's bits, cut behind `man` bits of the mantissa, are exponent and mantissa of S_g as one integer; what is cut
 * off is rounded up, and a carry moves the exponent. The quotient in double falls on the same side of 1 and 1.5 times a
 * power of two as the exact one. S_t S_g needs 26 bits, which a double holds. */
#include "minilp_core.h"
#include <string.h>

int mlp_mls_scales(const float *maxima, int64_t n, int group_exp, int group_man, float *tensor, int16_t *exponent,
                   int8_t *mantissa, double *unit)
{
    if (n < 1 || group_exp < 1 || group_exp > 8 || group_man < 0 || group_man > 1)
        return MLP_BAD_ARGUMENT;
    const int cut = 52 - group_man;
    const int64_t least = (int64_t)(1024 - (1 << group_exp)) << group_man, one = (int64_t)1023 << group_man;
    float largest = 0;
    for (int64_t i = 0; i < n; i++)
        largest = maxima[i] > largest ? maxima[i] : largest;
    *tensor = largest > 0 ? largest : 1;
    for (int64_t i = 0; i < n; i++) {
        double quotient = (double)maxima[i] / (double)*tensor, scale;
        quotient = quotient > 0x1p-126 ? quotient : 0x1p-126;
        int64_t field;
        memcpy(&field, &quotient, sizeof field);
        field = (field + ((int64_t)1 << cut) - 1) >> cut;
        field = maxima[i] > 0 ? field : one;
        field = field > least ? field : least;
        exponent[i] = (int16_t)(1023 - (field >> group_man));
        mantissa[i] = (int8_t)(field & ((1 << group_man) - 1));
        field = (int64_t)((uint64_t)field << cut);
        memcpy(&scale, &field, sizeof scale);
        unit[i] = (double)*tensor * scale;
    }
    return MLP_OK;
}
