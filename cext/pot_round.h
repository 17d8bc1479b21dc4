/* The single rounding at the end of a power-of-two contraction. */
#ifndef MINILP_POT_ROUND_H
#define MINILP_POT_ROUND_H
#include "minilp_core.h"
#include <string.h>

enum { MLP_POT_SUMS = 61 };  /* exponent sums of two 6-bit operands: 0 .. 30 + 30 */

/* An int64 sum times 2^exponent is a normal float (or 0) for these exponents: converting it is the only rounding. */
enum { MLP_NORMAL_LOW = -126, MLP_NORMAL_HIGH = 64 };

/* value * 2^exponent for such an exponent: an add to the exponent field. Zero has none and stays zero. */
MLP_INLINE float mlp_add_exponent(float value, int32_t exponent)
{
    union { float f; int32_t bits; } u = {value};
    u.bits += u.bits ? exponent << 23 : 0;
    return u.f;
}

/* out = sum * 2^exponent, to nearest even once, subnormals included. Returns 1 if the result is beyond the largest
 * float (out is then infinite), else 0. Everything is integer arithmetic on the bits of the result. */
MLP_INLINE int mlp_round_to_float(__int128 sum, int64_t exponent, float *out)
{
    uint32_t sign = sum < 0 ? 0x80000000u : 0u, bits;
    unsigned __int128 size = sum < 0 ? -(unsigned __int128)sum : (unsigned __int128)sum;
    uint64_t high = (uint64_t)(size >> 64), low = (uint64_t)size;
    if (size == 0) {
        *out = 0.0f;
        return 0;
    }
    int top = high ? 127 - __builtin_clzll(high) : 63 - __builtin_clzll(low);
    /* The unit of the last place: 23 places below the leading bit, but never below 2^-149. */
    int64_t unit = top - 23;
    if (unit + exponent < -149)
        unit = -149 - exponent;
    uint32_t mantissa;
    if (unit <= 0) {
        mantissa = (uint32_t)(size << -unit);
    } else if (unit > 127) {
        mantissa = 0;
    } else {
        unsigned __int128 rest = size & (((unsigned __int128)1 << unit) - 1), half = (unsigned __int128)1 << (unit - 1);
        mantissa = (uint32_t)(size >> unit);
        mantissa += rest > half || (rest == half && (mantissa & 1));
    }
    /* A subnormal has exponent field 0 and its mantissa as it is; a normal one carries its leading bit into the field,
     * and a mantissa rounded up to the next power of two carries by itself. */
    int64_t field = unit + exponent + 149;
    int overflow = mantissa != 0 && field > 253;
    bits = overflow ? 0x7f800000u : ((uint32_t)field << 23) + mantissa;
    if (!overflow && bits >= 0x7f800000u)
        overflow = 1, bits = 0x7f800000u;
    bits |= sign;
    memcpy(out, &bits, sizeof bits);
    return overflow;
}

#endif
