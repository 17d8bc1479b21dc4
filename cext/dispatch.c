/* Which instruction sets this machine offers, which tier is in force, and how many threads a kernel may use.
 *
 * The tier cache and the thread count are the only globals of the core. A forked child computes on one thread:
 * libgomp's pool does not survive a fork, and a child that opened a parallel region would wait for ever. */
#define _GNU_SOURCE
#include "minilp_core.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

static atomic_int tier_in_force = -1;
static atomic_int thread_count = 0;
static atomic_int is_forked_child = 0;

static void after_fork_in_child(void) { atomic_store(&is_forked_child, 1); }

__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(NULL, NULL, after_fork_in_child); }

int mlp_detected_tier(void)
{
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
#ifdef MLP_HAVE_AVX512
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")
        && __builtin_cpu_supports("avx512vl"))
        return MLP_AVX512;
#endif
#ifdef MLP_HAVE_AVX2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return MLP_AVX2;
#endif
#endif
    return MLP_PORTABLE;
}

int mlp_tier(void)
{
    int tier = atomic_load(&tier_in_force);
    if (tier < 0) {
        tier = mlp_detected_tier();
        atomic_store(&tier_in_force, tier);
    }
    return tier;
}

int mlp_set_tier(int tier)
{
    if (tier < MLP_PORTABLE || tier > mlp_detected_tier())
        return MLP_UNSUPPORTED;
    atomic_store(&tier_in_force, tier);
    return MLP_OK;
}

int mlp_threads(void)
{
#ifdef MLP_HAVE_OPENMP
    if (atomic_load(&is_forked_child))
        return 1;
    int n = atomic_load(&thread_count);
    return n > 0 ? n : omp_get_max_threads();
#else
    return 1;
#endif
}

int mlp_set_threads(int n)
{
    if (n < 1)
        return MLP_BAD_ARGUMENT;
    atomic_store(&thread_count, n);
    return MLP_OK;
}
