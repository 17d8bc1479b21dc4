/* The flat loops of elementwise.c, for whoever has such a loop at the end of a pass of its own. Inside cext/ only. */
#ifndef MINILP_ELEMENTWISE_H
#define MINILP_ELEMENTWISE_H
#include "minilp_core.h"

/* From this many elements on an array is written past the caches: it would have left them before anybody reads it. */
enum { MLP_PAST_CACHES = 1 << 19 };

typedef struct {
    const float *a, *b;
    uint8_t *positive;
    float *out;
    int relu, past; /* past: write past the caches, see mlp_flat_settle; `out` starts on a line of 64 bytes then */
    /* of finish: the largest magnitudes so far of rows of `columns` numbers, which is a multiple of 16, or NULL; the
     * first number belongs to `column` */
    uint32_t *maxima;
    int64_t columns, column;
    /* of sgd: a is the gradient, out the parameter */
    float *buffer, lr, momentum, undamped, weight_decay;
    int nesterov, first;
} mlp_flat;

/* Elements start ... end - 1; returns the largest magnitude's bits of what `finish` wrote, where that has no maxima. */
typedef uint32_t mlp_flat_loop(const mlp_flat *t, int64_t start, int64_t end);

typedef struct {
    mlp_flat_loop *finish, *relu_backward, *add, *sgd;
} mlp_flat_kernels;

const mlp_flat_kernels *mlp_flat_in_force(void);

/* Whether an array may be written past the caches. */
int mlp_flat_past(const float *out, int64_t n);

/* Stores past the caches are not ordered with those that tell other threads that a result is there: this waits for
 * them, after the last one. */
void mlp_flat_settle(const mlp_flat *t);

#endif
