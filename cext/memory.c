/* Freed memory stays with the process, for the next array.
 *
 * A training step makes and drops the same big arrays over and over. The C library hands them back to the system, and
 * the system clears each page again when it is first written: up to a fifth of a step's processor time. Told to keep
 * freed memory, it finds it for the next array of that size and for a kernel's scratch, and a step clears no page at
 * all. The price is that memory, once used, is not given back to other programs while this one runs.
 *
 * The memory that is kept comes in big pages where the system has them (Linux: 2 MiB in place of 4 KiB). A step walks
 * through some hundred megabytes, many times more than the processor has 4 KiB pages at hand (its TLB), and each page
 * that is not at hand is looked up in memory. One span of address space is therefore taken from the heap, marked, and
 * given back. It costs no memory before it is used; what does not fit into it has small pages. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* madvise */
#endif
#include "minilp_core.h"
#ifdef __GLIBC__
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#endif

enum { KEEP = 1 << 30, MOST_BEFORE_GLIBC_2_35 = 1 << 25, SPAN = 1 << 29, PAGE = 4096 };

#if defined(__GLIBC__) && defined(MADV_HUGEPAGE)
static void use_big_pages(void)
{
    void *span = malloc(SPAN); /* the heap keeps it, as its end shrinks from KEEP bytes on only */
    if (span) {
        const uintptr_t start = ((uintptr_t)span + PAGE - 1) / PAGE * PAGE, end = ((uintptr_t)span + SPAN) / PAGE * PAGE;
        (void)madvise((void *)start, end - start, MADV_HUGEPAGE); /* refused: small pages, as before */
    }
    free(span);
}
#else
static void use_big_pages(void)
{
}
#endif

int mlp_keep_freed_memory(void)
{
#ifdef __GLIBC__
    /* M_TRIM_THRESHOLD: free bytes at the end of the heap from which on it shrinks. M_MMAP_THRESHOLD: size from which on
     * a block gets a mapping of its own, which cannot be kept. */
    const int maps = mallopt(M_MMAP_THRESHOLD, KEEP) || mallopt(M_MMAP_THRESHOLD, MOST_BEFORE_GLIBC_2_35);
    if (!maps || !mallopt(M_TRIM_THRESHOLD, KEEP)) {
        return MLP_UNSUPPORTED;
    }
    use_big_pages();
    return MLP_OK;
#else
    return MLP_UNSUPPORTED;
#endif
}
