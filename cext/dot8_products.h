/* Which planes of digits the int8 engine multiplies, and what each product counts.
 *
 * Two digits by two take three products, not four (Karatsuba's identity; B is MLP_DOT8_BASE):
 *
 *     (l + B h) (l' + B h') = (1 + B) l l' + (B + B^2) h h' - B (l - h) (l' - h')
 *
 * Each of them is a product of bytes, and needs one plane of each side. A sum has at most MLP_DOT8_TERMS of them, so it is
 * below 2^31; the three together stay below 2^47, so a double holds every step of their weighted sum exactly. */
#ifndef MINILP_DOT8_PRODUCTS_H
#define MINILP_DOT8_PRODUCTS_H
#include <string.h>
#include "dot8.h"

typedef struct { int64_t weight; int a, b; } mlp_dot8_product; /* of one plane of each operand */

typedef struct {
    int8_t digits_a[MLP_DOT8_PLANES][16], digits_b[MLP_DOT8_PLANES][16];
    mlp_dot8_product product[MLP_DOT8_SUMS];
    int many, planes_a, planes_b;
} mlp_dot8_products;

/* The digits of each plane; 0 if a difference is no byte. */
static inline int mlp_dot8_plane_digits(const int8_t *digits, int planes, int8_t to[MLP_DOT8_PLANES][16])
{
    if (digits)
        memcpy(to, digits, (size_t)planes * 16);
    for (int code = 0; planes == MLP_DOT8_DIGITS && code < 16; code++) {
        const int difference = to[0][code] - to[1][code];
        if (difference < -127 || difference > 127)
            return 0;
        to[2][code] = (int8_t)difference;
    }
    return 1;
}

/* Which planes meet, and what a product counts. */
static inline int mlp_dot8_find_products(const mlp_dot8 *call, mlp_dot8_products *to)
{
    enum { B = MLP_DOT8_BASE };
    static const mlp_dot8_product one[] = {{1, 0, 0}}, tall[] = {{1, 0, 0}, {B, 1, 0}}, wide[] = {{1, 0, 0}, {B, 0, 1}},
                                  both[] = {{1 + B, 0, 0}, {B + B * B, 1, 1}, {-B, 2, 2}};
    const mlp_dot8_product *from = call->planes_a == 1 ? call->planes_b == 1 ? one : wide
                                                       : call->planes_b == 1 ? tall : both;
    to->many = call->planes_a + call->planes_b - 1;
    to->planes_a = to->many == 3 ? 3 : call->planes_a, to->planes_b = to->many == 3 ? 3 : call->planes_b;
    memcpy(to->product, from, (size_t)to->many * sizeof *from);
    return mlp_dot8_plane_digits(call->digits_a, call->planes_a, to->digits_a)
           && mlp_dot8_plane_digits(call->digits_b, call->planes_b, to->digits_b);
}

#endif
