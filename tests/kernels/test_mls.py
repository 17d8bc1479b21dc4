"""MLS contractions: by == against an index loop of the stated order, every kind, stride, padding, kernel and tier."""
import itertools

import numpy as np
import pytest

from minilp.formats import MLS, Spec, Stream
from minilp.kernels import calls, use_backend
from minilp.testing import exact

KINDS = ("conv2d", "conv2d_input_grad", "conv2d_weight_grad")


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


def index_loop(a, b, spec):
    """The stated order, from the definition: groups ascending, an integer sum in each, shifts and one add, float32."""
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
    for g in range(outer):
        sums = np.zeros(shape, object)
        for y, x, v, u, i, j in taps:
            if spec.kind == "conv2d":
                sums[:, :, y, x] += np.outer(ia[:, g, i, j], ib[:, g, v, u])
            elif spec.kind == "conv2d_input_grad":
                sums[:, :, i, j] += np.outer(ia[:, g, y, x], ib[g, :, v, u])
            else:
                sums[:, :, v, u] += np.outer(ia[g, :, y, x], ib[g, :, i, j])
        assert max(abs(p) for p in sums.reshape(-1)) < 2**31
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


GEOMETRIES = [((3, 3), (1, 1), (1, 1)), ((3, 3), (2, 2), (1, 1)), ((1, 1), (1, 1), (0, 0)), ((1, 1), (2, 2), (0, 0)),
              ((3, 3), (1, 2), (0, 2)), ((2, 5), (2, 1), (1, 3))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("kernel", "stride", "padding"), GEOMETRIES)
def test_equals_the_index_loop(kind, kernel, stride, padding):
    """C and NumPy; formats, group scales and top codes take turns."""
    rng = np.random.default_rng(hash((kernel, stride)) % 1000)
    formats = [MLS(2, 1), MLS(2, 4), MLS(0, 4, group_man=0), MLS(1, 2, top="keep")]
    for i, fmt in enumerate(formats):
        other = formats[(i + kernel[0]) % 4]
        a, b, spec = operands(rng, kind, fmt, other, 3, 2, 3, (5, 6), kernel, stride, padding)
        want = index_loop(a, b, spec)
        for backend in ("numpy", "auto"):
            with use_backend(backend):
                got = contract(a, b, spec)
            assert got.dtype == np.float32
            assert np.array_equal(got, want), (fmt, other, backend)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group", ["n", "c", "nc"])
def test_every_grouping_equals_the_index_loop(kind, group):
    """Where a group scale varies along the sum's outermost axis. Elsewhere the whole sum is one integer."""
    rng = np.random.default_rng(5)
    spans = {"conv2d": "c", "conv2d_input_grad": "n", "conv2d_weight_grad": "n"}[kind] in group
    a, b, spec = operands(rng, kind, MLS(group=group), MLS(group=group), 3, 4, 3, (5, 6), (3, 3), (1, 1), (1, 1))
    got = contract(a, b, spec)
    if spans or (kind == "conv2d_input_grad" and group == "c"):
        assert np.array_equal(got, index_loop(a, b, spec))
    else:
        assert np.array_equal(got, exact_result(a, b, spec))


@pytest.mark.parametrize("kind", KINDS)
def test_one_group_is_one_integer_sum(kind):
    a, b, spec = operands(np.random.default_rng(6), kind, MLS(2, 4, group="none"), MLS(2, 4, group="none"), 3, 4, 3,
                          (5, 6), (3, 3), (1, 1), (1, 1))
    assert np.array_equal(contract(a, b, spec), exact_result(a, b, spec))


def exact_result(a, b, spec):
    """The contraction without any rounding before the end, but for the one to float32 before the tensor scales."""
    one = [type(q)(q.format, q.codes, (np.ones_like(q.scales[0]), *q.scales[1:])) for q in (a, b)]
    total = exact.contraction(one[0].decode(), one[1].decode(), spec).astype(np.float64)
    return (total * np.float64(a.scales[0].reshape(())) * np.float64(b.scales[0].reshape(()))).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_inside_a_group_the_sum_is_the_float64_contraction(kind):
    """One group along the sum: the result is the float64 contraction of the codes, rounded once, at <2,4>."""
    rng = np.random.default_rng(7)
    for fmt in (MLS(2, 1), MLS(2, 4), MLS(2, 4, top="keep")):
        n = 1 if kind == "conv2d_weight_grad" else 5
        c = 1 if kind == "conv2d" else 4
        o = 1 if kind == "conv2d_input_grad" else 3
        a, b, spec = operands(rng, kind, fmt, fmt, n, c, o, (6, 6), (3, 3), (1, 1), (1, 1))
        a, b = (type(q)(fmt, np.where(q.codes == 0, 1, q.codes).astype(np.int8), q.scales) for q in (a, b))
        assert np.array_equal(contract(a, b, spec), exact_result(a, b, spec))


def test_mls_three_convs_share_one_encoding():
    """A training step encodes each operand once, and the backward contractions see the forward's codes."""
    from minilp import nn, recipe
    from minilp.autograd import Tensor
    from minilp.contract import executed
    encoded = []

    class Watched(MLS):
        def encode(self, x, **options):
            q = super().encode(x, **options)
            encoded.append(q)
            return q

        def contract(self, a, b, spec):
            assert any(a is q for q in encoded) and any(b is q for q in encoded)
            return super().contract(a, b, spec)

    rng = np.random.default_rng(8)
    layer = nn.Conv2d(4, 8, 3, padding=1, bias=False)
    found = recipe.get("mls")
    role = found.error
    found = recipe.Recipe(weight=Watched(), act=Watched(), error=type(role)(Watched(), rounding="stochastic"))
    found.apply(nn.Sequential(layer))
    x = Tensor(rng.standard_normal((5, 4, 6, 6)).astype(np.float32), requires_grad=True)
    with executed() as how:
        y = layer(x)
        y.backward(rng.standard_normal(y.shape).astype(np.float32))
    assert len(encoded) == 3
    assert len(how) == 3 and all(words.endswith("in integers") for words in how)
    act, weight, error = encoded
    assert np.array_equal(y.data, MLS().contract(act, weight, Spec("conv2d", padding=(1, 1))))
    assert np.array_equal(x.grad, MLS().contract(error, weight, Spec("conv2d_input_grad", padding=(1, 1), size=(6, 6))))
    assert np.array_equal(layer.weight.grad,
                          MLS().contract(error, act, Spec("conv2d_weight_grad", padding=(1, 1), size=(3, 3))))


@pytest.mark.parametrize("kind", ["linear", "linear_input_grad", "linear_weight_grad"])
def test_linear_sums_rows(kind):
    """A 1x1 convolution of one pixel, whose groups are rows: equal to the index loop, or to one integer sum."""
    rng = np.random.default_rng(9)
    shapes = {"linear": ((5, 12), (7, 12)), "linear_input_grad": ((5, 7), (7, 12)),
              "linear_weight_grad": ((5, 7), (5, 12))}[kind]
    a, b = (MLS(2, 4).encode(tensor(rng, *shape)) for shape in shapes)
    got = MLS(2, 4).contract(a, b, Spec(kind))
    size = None if kind == "linear" else (1, 1)
    wide = [type(q)(q.format, q.codes[:, :, None, None], tuple(s[:, :, None, None] for s in q.scales)) for q in (a, b)]
    spec = Spec(kind.replace("linear", "conv2d"), size=size)
    want = exact_result(*wide, spec) if kind == "linear" else index_loop(*wide, spec)
    assert np.array_equal(got, want[:, :, 0, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_channel_groups_and_dilation(kind):
    """Each channel group is a contraction of its own; a dilated kernel is one with zeros between its taps."""
    rng = np.random.default_rng(10)
    act, weight, error = (MLS().encode(tensor(rng, *shape)) for shape in ((3, 4, 7, 7), (6, 2, 2, 2), (3, 6, 5, 5)))
    size = {"conv2d": None, "conv2d_input_grad": (7, 7), "conv2d_weight_grad": (2, 2)}[kind]
    a, b = {"conv2d": (act, weight), "conv2d_input_grad": (error, weight), "conv2d_weight_grad": (error, act)}[kind]
    got = a.format.contract(a, b, Spec(kind, dilation=(2, 2), groups=2, size=size))

    def piece(q, axis, i):
        half = q.shape[axis] // 2
        cut = (slice(None),) * axis + (slice(i * half, (i + 1) * half),)
        return type(q)(q.format, q.codes[cut], tuple(s[cut] if s.shape[axis] > 1 else s for s in q.scales))

    def spread(q):
        codes = np.zeros((*q.shape[:2], 3, 3), np.int8)
        codes[:, :, ::2, ::2] = q.codes
        return type(q)(q.format, codes, q.scales)

    for i in range(2):
        half = slice(i * got.shape[1] // 2, (i + 1) * got.shape[1] // 2)
        if kind == "conv2d":
            want, have = index_loop(piece(act, 1, i), spread(piece(weight, 0, i)), Spec(kind)), got[:, half]
        elif kind == "conv2d_input_grad":
            want = index_loop(piece(error, 1, i), spread(piece(weight, 0, i)), Spec(kind, size=size))
            have = got[:, half]
        else:
            want = index_loop(piece(error, 1, i), piece(act, 1, i), Spec(kind, size=(3, 3)))[:, :, ::2, ::2]
            have = got[3 * i:3 * i + 3]
        assert np.array_equal(have, want)


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_group_scales_and_widths(kind):
    """Exponents far below float32's range when added up, and elements too wide for the vector kernel's 32 bits."""
    rng = np.random.default_rng(11)
    a, b, spec = operands(rng, kind, MLS(2, 1), MLS(2, 1), 3, 2, 3, (4, 4), (3, 3), (1, 1), (1, 1))
    tiny = tuple(type(q)(q.format, q.codes, (q.scales[0], (q.scales[1] + 66).astype(np.int16), q.scales[2]))
                 for q in (a, b))
    assert np.array_equal(MLS().contract(*tiny, spec), index_loop(*tiny, spec))
    wide = MLS(3, 4)
    a, b, spec = operands(rng, kind, wide, wide, 2, 2, 2, (12, 12), (3, 3), (1, 1), (1, 1))
    a, b = (type(q)(wide, np.full_like(q.codes, wide.top_code), q.scales) for q in (a, b))
    assert np.array_equal(a.format.contract(a, b, spec), index_loop(a, b, spec))


def test_a_tensor_scale_per_sample():
    rng = np.random.default_rng(12)
    x, w = tensor(rng, 3, 4, 5, 5), MLS().encode(tensor(rng, 6, 4, 3, 3))
    together = MLS().contract(MLS().encode(x, keep=(0,)), w, Spec("conv2d"))
    for i in range(3):
        assert np.array_equal(together[i:i + 1], MLS().contract(MLS().encode(x[i:i + 1]), w, Spec("conv2d")))
    assert MLS().contract(MLS().encode(x, keep=(1,)), w, Spec("conv2d")) is NotImplemented
