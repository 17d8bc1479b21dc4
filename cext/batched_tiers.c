/* The inner loops of batched.c, once for each vector tier. */
#include "batched.h"

#define TIER portable
#define TARGET MLP_NOINLINE
#include "batched_lanes.h"
#ifdef MLP_HAVE_AVX2
#define TIER avx2
#define TARGET MLP_TARGET_AVX2
#include "batched_lanes.h"
#endif
#ifdef MLP_HAVE_AVX512
#define TIER avx512
#define TARGET MLP_TARGET_AVX512
#include "batched_lanes.h"
#endif
