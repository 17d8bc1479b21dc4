"""Oracles for the MLS contractions: an index loop of the stated order over Python integers, and one exact sum."""
import itertools

import numpy as np

from minilp.formats import Spec, Stream
from minilp.kernels import calls
from minilp.testing import exact

GEOMETRIES = [((3, 3), (1, 1), (1, 1)), ((3, 3), (2, 2), (1, 1)), ((1, 1), (1, 1), (0, 0)), ((1, 1), (2, 2), (0, 0)),
              ((3, 3), (1, 2), (0, 2)), ((2, 5), (2, 1), (1, 3))]
"""Kernel, stride and padding."""


def tensor(rng, *shape):
    """Numbers over many octaves, groups of very different size, a group of zeros."""
    x = rng.standard_normal(shape) * np.exp2(rng.integers(-4, 1, shape))
    if len(shape) == 4:
        x *= np.exp2(rng.integers(-9, 1, (*shape[:2], 1, 1)))
        x[0, 0] = 0
    return x.astype(np.float32)


def operands(rng, kind, fmt_a, fmt_b, n, c, o, size, kernel, stride, padding):
    """Coded operands of one contraction and its spec."""
    out = tuple((s + 2 * p - k) // st + 1 for s, p, k, st in zip(size, padding, kernel, stride, strict=True))
    act, error, weight = (n, c, *size), (n, o, *out), (o, c, *kernel)
    a, b, extra = {"conv2d": (act, weight, None), "conv2d_input_grad": (error, weight, size),
                   "conv2d_weight_grad": (error, act, kernel)}[kind]
    stream = Stream(seed=1) if kind != "conv2d" else None
    return (fmt_a.encode(tensor(rng, *a), stream=stream), fmt_b.encode(tensor(rng, *b)),
            Spec(kind, stride, padding, size=extra))


def parts(q):
    """Integers, significands and exponents of every element's group, all as Python integers (object arrays)."""
    fmt = q.format
    whole = fmt.integers()
    integers = np.array([int(np.sign(c)) * int(whole[abs(int(c))]) for c in q.codes.reshape(-1)], object)
    exponent = np.broadcast_to(q.scales[1].astype(int) + fmt.group_man, q.shape)[:, :, 0, 0]
    significand = np.broadcast_to(2**fmt.group_man + q.scales[2].astype(int), q.shape)[:, :, 0, 0]
    return integers.reshape(q.shape), significand, exponent


def index_loop(a, b, spec, one=False):
    """The stated order, from the definition: groups ascending, an integer sum in each, shifts and one add, float32.

    With ``one`` the whole sum is a single group.
    """
    (ia, sa, ea), (ib, sb, eb) = parts(a), parts(b)
    (sy, sx), (py, px) = spec.stride, spec.padding
    act, weight = {"conv2d": (a, b), "conv2d_input_grad": (None, b), "conv2d_weight_grad": (b, None)}[spec.kind]
    height, width = spec.size if act is None else act.shape[2:]
    kh, kw = spec.size if weight is None else weight.shape[2:]
    oh, ow = (height + 2 * py - kh) // sy + 1, (width + 2 * px - kw) // sx + 1
    taps = [(y, x, v, u, y * sy - py + v, x * sx - px + u) for y, x, v, u in np.ndindex(oh, ow, kh, kw)]
    taps = [t for t in taps if 0 <= t[4] < height and 0 <= t[5] < width]
    if spec.kind == "conv2d":
        shape, outer = (a.shape[0], b.shape[0], oh, ow), a.shape[1]
    elif spec.kind == "conv2d_input_grad":
        shape, outer = (a.shape[0], b.shape[1], height, width), a.shape[1]
    else:
        shape, outer = (a.shape[1], b.shape[1], kh, kw), a.shape[0]
    total = np.zeros(shape, np.float32)
    sums = np.zeros(shape, object)
    for g in range(outer):
        sums = sums if one else np.zeros(shape, object)
        for y, x, v, u, i, j in taps:
            if spec.kind == "conv2d":
                sums[:, :, y, x] += np.outer(ia[:, g, i, j], ib[:, g, v, u])
            elif spec.kind == "conv2d_input_grad":
                sums[:, :, i, j] += np.outer(ia[:, g, y, x], ib[g, :, v, u])
            else:
                sums[:, :, v, u] += np.outer(ia[g, :, y, x], ib[g, :, i, j])
        if one and g < outer - 1:
            continue
        for p, q in np.ndindex(shape[:2]):
            left, right = {"conv2d": ((p, g), (q, g)), "conv2d_input_grad": ((p, g), (g, q)),
                           "conv2d_weight_grad": ((g, p), (g, q))}[spec.kind]
            m, e = int(sa[left] * sb[right]), int(ea[left] + eb[right])
            for index in itertools.product([p], [q], range(shape[2]), range(shape[3])):
                t = shift_add(sums[index], m)
                total[index] += np.ldexp(np.float32(exact.round_to_float32(t, 0)), -e)
    scale = np.float64(a.scales[0].reshape(())) * np.float64(b.scales[0].reshape(()))
    scale *= 2.0 ** -(a.format.fraction_bits + b.format.fraction_bits)
    return (total.astype(np.float64) * scale).astype(np.float32)


def is_one(a, b, spec):
    """Whether no group scale varies along the sum's outermost axis: then all of the sum is one group."""
    axes = {"conv2d": (1, 1), "conv2d_input_grad": (1, 0), "conv2d_weight_grad": (0, 0)}[spec.kind.replace("linear",
                                                                                                          "conv2d")]
    return all(q.scales[1].shape[axis] == 1 for q, axis in zip((a, b), axes, strict=True))


def shift_add(p, m):
    """P times m by at most two left shifts and one add."""
    return {1: lambda: p, 2: lambda: p << 1, 3: lambda: (p << 1) + p, 4: lambda: p << 2, 6: lambda: (p << 2) + (p << 1),
            9: lambda: (p << 3) + p}[m]()


def contract(a, b, spec):
    """The contraction, after checking that no kernel of another kind ran."""
    with calls() as seen:
        result = a.format.contract(a, b, spec)
    assert set(seen) and all(name.startswith(f"mls_{spec.kind}") for name in seen)
    return result


def exact_result(a, b, spec):
    """The contraction without any rounding before the end, but for the one to float32 before the tensor scales."""
    one = [type(q)(q.format, q.codes, (np.ones_like(q.scales[0]), *q.scales[1:])) for q in (a, b)]
    total = exact.contraction(one[0].decode(), one[1].decode(), spec).astype(np.float64)
    return (total * np.float64(a.scales[0].reshape(())) * np.float64(b.scales[0].reshape(()))).astype(np.float32)
