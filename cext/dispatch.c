/* Which instruction sets this machine offers, which tier is in force, and how many threads a kernel may use.
 *
 * The tier cache and the thread count are the only globals of the core. A forked child computes on one thread:
 * libgomp's pool does not survive a fork, and a child that opened a parallel region would wait for ever. */
#define _GNU_SOURCE
#include "minilp_core.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

static atomic_int tier_in_force = -1;
static atomic_int thread_count = 0;
static atomic_int is_forked_child = 0;

static void after_fork_in_child(void) { atomic_store(&is_forked_child, 1); }

__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(NULL, NULL, after_fork_in_child); }

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>

/* Tile registers are 8 KiB of state that Linux saves for a process only after it has asked (once for all threads). */
MLP_INLINE int may_use_tiles(void)
{
#if defined(MLP_HAVE_AMX) && defined(__linux__)
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18, TILE = 1 << 24, INT8 = 1 << 25 };
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || (edx & (TILE | INT8)) != (TILE | INT8))
        return 0;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return 0;
#endif
}

static int detect(void)
{
    __builtin_cpu_init();
#ifdef MLP_HAVE_AVX512
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")
        && __builtin_cpu_supports("avx512vl")) {
#ifdef MLP_HAVE_VNNI
        if (__builtin_cpu_supports("avx512vnni"))
            return may_use_tiles() ? MLP_AMX : MLP_VNNI;
#endif
        return MLP_AVX512;
    }
#endif
#ifdef MLP_HAVE_AVX2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return MLP_AVX2;
#endif
    return MLP_PORTABLE;
}
#else
static int detect(void) { return MLP_PORTABLE; }
#endif

int mlp_detected_tier(void)
{
    static atomic_int detected = -1;
    int tier = atomic_load(&detected);
    if (tier < 0) {
        tier = detect();
        atomic_store(&detected, tier);
    }
    return tier;
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

int mlp_vector_tier(void)
{
    const int tier = mlp_tier();
    return tier < MLP_AVX512 ? tier : MLP_AVX512;
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
