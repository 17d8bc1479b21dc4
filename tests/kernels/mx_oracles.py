"""MX contractions one product at a time, in Python's integers: what the kernels are held against."""
import numpy as np

from minilp.testing import exact


def loop(a, b, spec, block):
    """The contraction of decoded operands: exact sums of a block, rounded to float32, added in float32, ascending."""
    if spec.kind.startswith("linear"):
        a, b = a[:, :, None, None], b[:, :, None, None]
    (ia, ea), (ib, eb) = exact.as_integers(a), exact.as_integers(b)
    walk = {"input_grad": _input_grad, "weight_grad": _weight_grad}.get(spec.kind.split("_", 1)[-1], _forward)
    shape, blocks = walk(ia, ib, spec, block)
    out = np.zeros(shape, np.float32)
    for index in np.ndindex(*shape):
        total = np.float32(0)
        for terms in blocks(*index):
            total = np.float32(total + np.float32(exact.round_to_float32(sum(terms), ea + eb)))
        out[index] = total
    return out[:, :, 0, 0] if spec.kind.startswith("linear") else out


def _cut(length, block):
    return [range(start, min(start + block, length)) for start in range(0, length, block)]


def _forward(a, b, spec, block):
    (n, _, h, w), (o, per, kh, kw) = a.shape, b.shape
    (sh, sw), (ph, pw), (dh, dw) = spec.stride, spec.padding, spec.dilation
    out = (h + 2 * ph - dh * (kh - 1) - 1) // sh + 1, (w + 2 * pw - dw * (kw - 1) - 1) // sw + 1

    def blocks(i, f, y, x):
        first = f // (o // spec.groups) * per
        for part in _cut(per, block):
            for ky, kx in np.ndindex(kh, kw):
                iy, ix = y * sh - ph + ky * dh, x * sw - pw + kx * dw
                if 0 <= iy < h and 0 <= ix < w:
                    yield [a[i, first + c, iy, ix] * b[f, c, ky, kx] for c in part]
    return (n, o, *out), blocks


def _input_grad(a, b, spec, block):
    (n, o, oh, ow), (_, per, kh, kw) = a.shape, b.shape
    (sh, sw), (ph, pw), (dh, dw) = spec.stride, spec.padding, spec.dilation
    features = o // spec.groups

    def blocks(i, c, iy, ix):
        first = c // per * features
        for part in _cut(features, block):
            for ky, kx in np.ndindex(kh, kw):
                (y, ry), (x, rx) = divmod(iy + ph - ky * dh, sh), divmod(ix + pw - kx * dw, sw)
                if not ry and not rx and 0 <= y < oh and 0 <= x < ow:
                    yield [a[i, first + f, y, x] * b[first + f, c % per, ky, kx] for f in part]
    return (n, per * spec.groups, *(spec.size or (1, 1))), blocks


def _weight_grad(a, b, spec, block):
    (n, o, oh, ow), (_, c, h, w) = a.shape, b.shape
    (sh, sw), (ph, pw), (dh, dw) = spec.stride, spec.padding, spec.dilation
    per = c // spec.groups

    def blocks(f, i, ky, kx):
        first = f // (o // spec.groups) * per
        for part in _cut(n, block):
            for y, x in np.ndindex(oh, ow):
                iy, ix = y * sh - ph + ky * dh, x * sw - pw + kx * dw
                if 0 <= iy < h and 0 <= ix < w:
                    yield [a[m, f, y, x] * b[m, first + i, iy, ix] for m in part]
    return (o, per, *(spec.size or (1, 1))), blocks
