/* Every function that Python sees. Plain prototypes only: cffi reads this file as it is, C sources get it through
 * minilp_core.h. Each function returns a status code (0 = MLP_OK) unless its comment says otherwise. */

/* dispatch.c: which instruction sets this build and this machine have; the tier in force; threads. */
int mlp_detected_tier(void);          /* the best tier: 0 portable, 1 avx2, 2 avx512 */
int mlp_tier(void);                   /* the tier in force */
int mlp_set_tier(int tier);           /* MLP_UNSUPPORTED if the machine or the build lacks it */
int mlp_threads(void);                /* threads a parallel kernel will use */
int mlp_set_threads(int n);           /* MLP_BAD_ARGUMENT if n < 1 */
