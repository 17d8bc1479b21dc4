/* What the quantising kernels share: the walk over a tensor in storage order, its tiers, and the random mixer. */
#ifndef MINILP_QUANTISE_H
#define MINILP_QUANTISE_H
#include "minilp_core.h"
#include <string.h>

#define MLP_ABS_MASK 0x7FFFFFFFu
#define MLP_MAX_AXES 16
#define MLP_PIECE 16384 /* elements that one thread takes at a time; no run crosses from one piece into the next */

/* A tensor in storage order. Python has merged what axes it can. Steps are in elements, 0 where a scale is shared. */
typedef struct {
    int ndim;
    const int64_t *shape, *scale_steps, *index_steps;
    uint64_t index; /* logical index of the first element, for random draws */
} mlp_layout;

/* A run of elements along the last axis. */
typedef struct {
    int64_t position, n;         /* in storage order */
    int64_t scale, scale_step;   /* where the first element's scale is, and how far to the next */
    uint64_t index, index_step;  /* logical index of the first element; no run crosses a multiple of 2^32 */
    int slot;                    /* number of the thread */
} mlp_run;

/* Work on one run; returns a word of which the walk reports the largest (magnitude bits, to find NaN and infinity). */
typedef uint32_t (*mlp_run_function)(const void *task, const mlp_run *run);

uint32_t mlp_walk(const mlp_layout *layout, mlp_run_function function, const void *task, int threads);
int mlp_layout_ok(const mlp_layout *layout);
int64_t mlp_layout_size(const mlp_layout *layout);
int mlp_walk_threads(int64_t elements);

/* Whether a float's magnitude is above that of another, both as bits; NaN is not. */
MLP_INLINE int32_t mlp_beyond(uint32_t word, uint32_t limit)
{
    const int32_t magnitude = (int32_t)(word & MLP_ABS_MASK);
    return (magnitude > (int32_t)limit) & (magnitude <= 0x7F800000);
}

/* Instantiate an inline run function for every tier, and a chooser NAME_for_tier(). */
#ifdef MLP_HAVE_AVX2
#define MLP_RUN_AVX2(name) \
    MLP_TARGET_AVX2 static uint32_t name##_avx2(const void *t, const mlp_run *r) { return name(t, r); }
#define MLP_CASE_AVX2(name) if (mlp_vector_tier() == MLP_AVX2) return name##_avx2;
#else
#define MLP_RUN_AVX2(name)
#define MLP_CASE_AVX2(name)
#endif
#ifdef MLP_HAVE_AVX512
#define MLP_RUN_AVX512(name) \
    MLP_TARGET_AVX512 static uint32_t name##_avx512(const void *t, const mlp_run *r) { return name(t, r); }
#define MLP_CASE_AVX512(name) if (mlp_vector_tier() == MLP_AVX512) return name##_avx512;
#else
#define MLP_RUN_AVX512(name)
#define MLP_CASE_AVX512(name)
#endif
#define MLP_RUN_TIERS(name) \
    MLP_NOINLINE static uint32_t name##_portable(const void *t, const mlp_run *r) { return name(t, r); } \
    MLP_RUN_AVX2(name) \
    MLP_RUN_AVX512(name) \
    static mlp_run_function name##_for_tier(void) { MLP_CASE_AVX512(name) MLP_CASE_AVX2(name) return name##_portable; }

/* The mixer: twin of mix32 and random_bits in reference_quantise.py. */
MLP_INLINE uint32_t mlp_mix32(uint32_t x)
{
    x = (x ^ (x >> 15)) * 0x49C9E4C5u;
    x = (x ^ (x >> 14)) * 0x3875CECBu;
    return x ^ (x >> 16);
}

/* The second key word of a run: the upper half of the index is the same for all its elements. */
MLP_INLINE uint32_t mlp_run_key(const uint32_t *key, uint64_t index)
{
    return key[1] ^ ((uint32_t)(index >> 32) * 0x9E3779B1u);
}

MLP_INLINE uint32_t mlp_draw(uint32_t key, uint32_t run_key, uint32_t index)
{
    return mlp_mix32(mlp_mix32(index ^ key) + run_key);
}

#endif
