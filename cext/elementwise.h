/* The flat loops of elementwise.c, for whoever has such a loop at the end of a pass of its own. Inside cext/ only. */
#ifndef MINILP_ELEMENTWISE_H
#define MINILP_ELEMENTWISE_H
#include "minilp_core.h"

typedef struct {
    const float *a, *b;
    uint8_t *positive;
    float *out;
    int relu;
    /* of sgd: a is the gradient, out the parameter */
    float *buffer, lr, momentum, undamped, weight_decay;
    int nesterov, first;
} mlp_flat;

/* Elements start ... end - 1; returns the largest magnitude's bits of what `finish` wrote. */
typedef uint32_t mlp_flat_loop(const mlp_flat *t, int64_t start, int64_t end);

typedef struct {
    mlp_flat_loop *finish, *relu_backward, *add, *sgd;
} mlp_flat_kernels;

const mlp_flat_kernels *mlp_flat_in_force(void);

#endif
