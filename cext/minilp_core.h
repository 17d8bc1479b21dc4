/* What every C source of the core includes: the public prototypes, status codes and the tier switch. */
#ifndef MINILP_CORE_H
#define MINILP_CORE_H
#include <stddef.h>
#include <stdint.h>
#include "minilp_core.cdef.h"
#include "minilp_mx.cdef.h"

enum { MLP_OK = 0, MLP_BAD_ARGUMENT = 1, MLP_NO_MEMORY = 2, MLP_OVERFLOW = 3, MLP_UNSUPPORTED = 4, MLP_BAD_CODE = 5 };
enum { MLP_PORTABLE = 0, MLP_AVX2 = 1, MLP_AVX512 = 2, MLP_VNNI = 3, MLP_AMX = 4 };

/* One body, several tiers: write the work once as a static MLP_INLINE function in plain C or with GCC's generic
 * vectors, then instantiate it in a noinline function per tier with MLP_TARGET_*. The compiler lowers the same
 * operations to each instruction set, so every tier computes the same bits. */
#define MLP_INLINE static inline __attribute__((always_inline))
#define MLP_NOINLINE __attribute__((noinline))
#define MLP_TARGET_AVX2 __attribute__((noinline, target("avx2,fma")))
#define MLP_TARGET_AVX512 __attribute__((noinline, target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define MLP_TARGET_VNNI \
    __attribute__((noinline, target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")))
#define MLP_TARGET_AMX \
    __attribute__((noinline, target("amx-tile,amx-int8,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")))

/* The version for the vector tier in force; a version that was not built is not looked at by the compiler. */
#define MLP_FOR_TIER(portable, avx2, avx512) MLP_IF_AVX512(avx512, MLP_IF_AVX2(avx2, portable))
#ifdef MLP_HAVE_AVX512
#define MLP_IF_AVX512(then, otherwise) (mlp_vector_tier() == MLP_AVX512 ? (then) : (otherwise))
#else
#define MLP_IF_AVX512(then, otherwise) (otherwise)
#endif
#ifdef MLP_HAVE_AVX2
#define MLP_IF_AVX2(then, otherwise) (mlp_vector_tier() >= MLP_AVX2 ? (then) : (otherwise))
#else
#define MLP_IF_AVX2(then, otherwise) (otherwise)
#endif

#ifdef MLP_HAVE_OPENMP
#include <omp.h>
#define MLP_PRAGMA(x) _Pragma(#x)
#define MLP_PARALLEL_FOR(n) MLP_PRAGMA(omp parallel for schedule(static) num_threads(n))
#define MLP_PARALLEL_MAX(n, found) MLP_PRAGMA(omp parallel for schedule(static) num_threads(n) reduction(max : found))
#else
#define MLP_PRAGMA(x)
#define MLP_PARALLEL_FOR(n)
#define MLP_PARALLEL_MAX(n, found)
#endif

/* The larger of a magnitude's bits and those of |value|: the order of the bits is the order of the magnitudes, with
 * infinity and NaN on top. */
MLP_INLINE uint32_t mlp_larger(uint32_t magnitude, float value)
{
    uint32_t word;
    __builtin_memcpy(&word, &value, sizeof word);
    word &= 0x7FFFFFFFu;
    return word > magnitude ? word : magnitude;
}

#endif
