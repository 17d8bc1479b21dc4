/* MX contractions by four products of bytes an instruction (VNNI): the bits of mx.h, for elements whose integers fit a
 * byte and blocks whose sums stay below 2^22.
 *
 * One operand is spread over the lanes of vectors, the other is the same for all lanes. Both lie in records, one for a
 * block of the sum, the scale last:
 *
 *   lanes   `quads` vectors, in each lane four neighbours along the sum as bytes, integer + bias; a vector of scales
 *   words   the first sum, `quads` times four neighbours as signed bytes, the scale
 *
 * The first sum is the bits of 1.5 2^23 less bias * (sum of the signed bytes). Why no bit changes is said in mls_dot.h:
 * the sum of a block then is the float 1.5 2^23 + P, fma(that, s, -1.5 2^23 s) is P s, exact as s is a power of two,
 * and fma(P s, s', total) rounds once, where the definition's float32 add does. What is padding has the scale 0: its
 * term is a zero and changes no total, as none is -0.
 *
 *   mx_dot_records.c   codes to records
 *   mx_dot.c           the sums */
#ifndef MINILP_MX_DOT_H
#define MINILP_MX_DOT_H
#include "mx.h"
#include "mls_dot.h"

enum { MLP_MX_LANES = 16, MLP_MX_MOST = 1024 };   /* elements of the longest block that records hold */

/* Bytes of a record of lanes, and 32-bit words of one of words. */
MLP_INLINE int64_t mlp_mx_lane_record(int64_t quads) { return (quads + 1) * 64; }
MLP_INLINE int64_t mlp_mx_word_record(int64_t quads) { return quads + 2; }

#endif
