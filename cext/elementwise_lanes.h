/* The loops of elementwise.c, once for each instruction set. No include guard, on purpose. The includer defines
 * TIER(name), TARGET, BYTES, the width of a vector register, SIGNS(v): bit i says whether v[i] > 0, MAX(v, w) of
 * 32-bit integers, and PUT_PAST(p, v), which writes a register past the caches. */
#define LANES (BYTES / 4)
typedef float TIER(floats) __attribute__((vector_size(BYTES)));
typedef int32_t TIER(ints) __attribute__((vector_size(BYTES)));

/* a + b, or a alone; with `relu` the larger of it and 0, where NaN stays and -0.0 becomes +0.0; the signs of what comes
 * out, if `positive` wants them; and its largest magnitude, or each column's: with the sign bit off, the bits of floats
 * are integers in the order of the magnitudes. */
TARGET static uint32_t TIER(finish)(const mlp_flat *t, int64_t start, int64_t end)
{
    const float *a = t->a, *b = t->b;
    float *out = t->out;
    uint8_t *positive = t->positive;
    const int relu = t->relu, past = t->past;
    TIER(ints) largest = {0};
    uint32_t *maxima = t->maxima ? t->maxima + t->column : NULL, *next = t->maxima ? t->maxima + t->columns : NULL;
    int64_t at = start;
    for (; at + 16 <= end; at += 16) {
        unsigned signs = 0;
        _Pragma("GCC unroll 4") for (int i = 0; i < 16; i += LANES) {
            TIER(floats) v, other;
            __builtin_memcpy(&v, a + at + i, BYTES);
            if (b) {
                __builtin_memcpy(&other, b + at + i, BYTES);
                v += other;
            }
            if (relu)
                v = (TIER(floats))((TIER(ints))v & ~(v <= 0.0f));
            if (positive)
                signs |= (unsigned)SIGNS(v) << i;
            TIER(ints) magnitude = (TIER(ints))v & 0x7FFFFFFF, before;
            if (maxima) {
                __builtin_memcpy(&before, maxima + i, BYTES);
                magnitude = MAX(magnitude, before);
                __builtin_memcpy(maxima + i, &magnitude, BYTES);
            } else {
                largest = MAX(largest, magnitude);
            }
            if (past)
                PUT_PAST(out + at + i, v);
            else
                __builtin_memcpy(out + at + i, &v, BYTES);
        }
        if (positive)
            positive[at / 8] = (uint8_t)signs, positive[at / 8 + 1] = (uint8_t)(signs >> 8);
        if (maxima && (maxima += 16) == next)
            maxima = t->maxima;
    }
    uint32_t found = 0;
    for (int lane = 0; lane < LANES; lane++)
        found = (uint32_t)largest[lane] > found ? (uint32_t)largest[lane] : found;
    for (; at < end; at++) {
        const float v = b ? a[at] + b[at] : a[at];
        out[at] = relu && v <= 0.0f ? 0.0f : v;
        found = mlp_larger(found, out[at]);
        if (positive)
            positive[at / 8] = (uint8_t)((at % 8 ? positive[at / 8] : 0) | (v > 0.0f) << at % 8);
    }
    return found;
}

TARGET static uint32_t TIER(relu_backward)(const mlp_flat *t, int64_t start, int64_t end)
{
    TIER(ints) bit[16 / LANES];
    for (int i = 0; i < 16; i++)
        bit[i / LANES][i % LANES] = 1 << i;
    int64_t at = start;
    for (; at + 16 <= end; at += 16) {
        const int signs = t->positive[at / 8] | t->positive[at / 8 + 1] << 8;
        _Pragma("GCC unroll 4") for (int i = 0; i < 16; i += LANES) {
            TIER(ints) v;
            __builtin_memcpy(&v, t->a + at + i, BYTES);
            v &= (bit[i / LANES] & signs) != 0;
            __builtin_memcpy(t->out + at + i, &v, BYTES);
        }
    }
    for (; at < end; at++) {
        const float grad = t->a[at];
        t->out[at] = t->positive[at / 8] >> at % 8 & 1 ? grad : 0.0f;
    }
    return 0;
}

TARGET static uint32_t TIER(add)(const mlp_flat *t, int64_t start, int64_t end)
{
    const float *a = t->a, *b = t->b;
    float *out = t->out;
    _Pragma("GCC ivdep") /* out may be a or b: an element meets only itself */
    for (int64_t i = start; i < end; i++)
        out[i] = a[i] + b[i];
    return 0;
}

/* g = grad + wd * p;  buffer = momentum * buffer + undamped * g;  p -= lr * (nesterov ? g + momentum * buffer : buffer) */
MLP_INLINE void TIER(sgd_run)(const mlp_flat *t, const int has_buffer, const int nesterov, int64_t start, int64_t end)
{
    const float *restrict grad = t->a;
    float *restrict p = t->out, *restrict buffer = t->buffer;
    const float lr = t->lr, momentum = t->momentum, undamped = t->undamped, decay = t->weight_decay;
    for (int64_t i = start; i < end; i++) {
        float g = decay != 0.0f ? p[i] * decay + grad[i] : grad[i];
        if (has_buffer) {
            const float kept = t->first ? g : buffer[i] * momentum + g * undamped;
            buffer[i] = kept;
            g = nesterov ? kept * momentum + g : kept;
        }
        p[i] -= g * lr;
    }
}

TARGET static uint32_t TIER(sgd)(const mlp_flat *t, int64_t start, int64_t end)
{
    if (!t->buffer)
        TIER(sgd_run)(t, 0, 0, start, end);
    else if (t->nesterov)
        TIER(sgd_run)(t, 1, 1, start, end);
    else
        TIER(sgd_run)(t, 1, 0, start, end);
    return 0;
}

static const mlp_flat_kernels TIER(kernels) = {TIER(finish), TIER(relu_backward), TIER(add), TIER(sgd)};
#undef LANES
#undef SIGNS
#undef MAX
#undef PUT_PAST
#undef TIER
#undef TARGET
#undef BYTES
