/* One version of the includer's LOOPS, and the decoding of small floats that its loops share; see real_vectors.h. */
#define VF (VECTOR_BYTES / (int)sizeof(REAL))
#define UNROLL _Pragma("GCC unroll 32")

typedef float TIER(floats) __attribute__((vector_size(4 * VF)));
typedef REAL TIER(reals) __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t TIER(words) __attribute__((vector_size(4 * VF)));
typedef int8_t TIER(bytes) __attribute__((vector_size(VF)));

/* mlp_minifloat_value of VF neighbours. */
MLP_INLINE TARGET_BODY void TIER(values)(const int8_t *codes, int man, REAL *to)
{
    TIER(bytes) bytes;
    memcpy(&bytes, codes, sizeof bytes);
    const TIER(words) code = __builtin_convertvector(bytes, TIER(words)), sign = code >> 31;
    const TIER(words) level = (code ^ sign) - sign, below = (level >> man) - 1, octave = below & ~(below >> 31);
    const TIER(floats) integer = __builtin_convertvector(level - (octave << man), TIER(floats));
    const TIER(words) word = ((TIER(words))integer + (octave << 23)) | (sign & INT32_MIN);
    const TIER(reals) value = __builtin_convertvector((TIER(floats))word, TIER(reals));
    memcpy(to, &value, sizeof value);
}

#include LOOPS

#undef TIER
#undef REAL
#undef VEC
#undef VF
#undef LOAD
#undef STORE
#undef SPLAT
#undef ZERO
#undef FMA
#undef GATHER
#undef UNROLL
