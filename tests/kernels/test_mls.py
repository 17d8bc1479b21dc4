"""MLS contractions: by == against an index loop of the stated order, every kind, stride, padding, kernel and tier."""
import pathlib
import sys

import numpy as np
import pytest

from minilp.formats import MLS, Spec
from minilp.kernels import use_backend
from minilp.testing import exact

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from mls_oracles import GEOMETRIES, contract, exact_result, index_loop, operands, tensor

KINDS = ("conv2d", "conv2d_input_grad", "conv2d_weight_grad")


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


@pytest.mark.parametrize("kind", KINDS)
def test_every_group_sum_is_the_float64_contraction(kind):
    """Each group alone, all scales 1: the float32 result is the integer sum of its codes, which float64 holds."""
    rng = np.random.default_rng(13)
    fmt = MLS(2, 1)
    a, b, spec = operands(rng, kind, fmt, fmt, 3, 4, 5, (6, 7), (3, 3), (2, 1), (1, 1))
    axis_a, axis_b = {"conv2d": (1, 1), "conv2d_input_grad": (1, 0), "conv2d_weight_grad": (0, 0)}[kind]
    unscaled = [type(q)(fmt, q.codes, (np.ones_like(q.scales[0]), *map(np.zeros_like, q.scales[1:]))) for q in (a, b)]

    def group(q, axis, i):
        cut = (slice(None),) * axis + (slice(i, i + 1),)
        return type(q)(fmt, q.codes[cut], (q.scales[0], *(s[cut] for s in q.scales[1:])))

    for i in range(a.shape[axis_a]):
        one = [group(q, axis, i) for q, axis in zip(unscaled, (axis_a, axis_b), strict=True)]
        values = [fmt.wide_table()[q.codes.view(np.uint8)].astype(np.float64) for q in one]
        got = contract(*one, spec).astype(np.float64) * 4.0**fmt.fraction_bits
        assert np.array_equal(got, exact.contraction(*values, spec)), i


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
