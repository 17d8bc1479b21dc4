/* Freed memory stays with the process, for the next array.
 *
 * A training step makes and drops the same big arrays over and over. The C library hands them back to the system, and
 * the system clears each page again when it is first written: up to a fifth of a step's processor time. Told to keep
 * freed memory, it finds it for the next array of that size and for a kernel's scratch, and a step clears no page at
 * all. The price is that memory, once used, is not given back to other programs while this one runs. */
#include "minilp_core.h"
#ifdef __GLIBC__
#include <malloc.h>
#endif

enum { KEEP = 1 << 30, MOST_BEFORE_GLIBC_2_35 = 1 << 25 };

int mlp_keep_freed_memory(void)
{
#ifdef __GLIBC__
    /* M_TRIM_THRESHOLD: free bytes at the end of the heap from which on it shrinks. M_MMAP_THRESHOLD: size from which on
     * a block gets a mapping of its own, which cannot be kept. */
    const int maps = mallopt(M_MMAP_THRESHOLD, KEEP) || mallopt(M_MMAP_THRESHOLD, MOST_BEFORE_GLIBC_2_35);
    return maps && mallopt(M_TRIM_THRESHOLD, KEEP) ? MLP_OK : MLP_UNSUPPORTED;
#else
    return MLP_UNSUPPORTED;
#endif
}
