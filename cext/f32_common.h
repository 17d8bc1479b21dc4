/* Small helpers of the float kernels. */
#ifndef MINILP_F32_COMMON_H
#define MINILP_F32_COMMON_H
#include "minilp_core.h"

#define MLP_MIN(a, b) ((a) < (b) ? (a) : (b))
#define MLP_MAX(a, b) ((a) > (b) ? (a) : (b))

/* Threads for a number of independent pieces of work: never more than pieces, never less than one. */
static inline int mlp_workers(int64_t pieces) { return (int)MLP_MAX(1, MLP_MIN(pieces, mlp_threads())); }

#endif
