"""Fixed point: scale, rounding to even, saturation."""
import numpy as np
import pytest

from minilp import models, multiply, nn, recipe
from minilp.autograd import Tensor
from minilp.formats import Fixed, Spec, Stream
from minilp.kernels import calls
from minilp.kernels.wide import wide_contract
from minilp.random import manual_seed
from minilp.recipe import Recipe, Role
from minilp.testing import check_format, contractions, exact


def f32(*numbers):
    return np.array(numbers, np.float32)


@pytest.mark.parametrize("bits", range(2, 17))
def test_the_step_is_the_smallest_that_holds_the_maximum(bits):
    fmt = Fixed(bits)
    for maximum in (1, fmt.top, fmt.top * 1.001, np.nextafter(f32(fmt.top), f32(9e9))[0], 0.7, 1e-6, 12345):
        exponent = int(fmt.encode(f32(maximum)).scales[0][0])
        assert np.float32(maximum) <= fmt.top * 2.0**exponent
        assert np.float32(maximum) > fmt.top * 2.0 ** (exponent - 1)


def test_rounds_to_even():
    q = Fixed(8).encode(f32(0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5), scales=(np.zeros(1, np.int32),))
    assert q.codes.tolist() == [0, 2, 2, 0, -2, -2, 126]


def test_given_scales_saturate():
    q = Fixed(4).encode(f32(6.5, 7.5, 100, -3e38), scales=(np.full(1, -100, np.int32),))
    assert q.codes.tolist() == [7, 7, 7, -7]
    q = Fixed(4).encode(f32(6.4, 7.4, 100, -3e38), scales=(np.zeros(1, np.int32),))
    assert q.codes.tolist() == [6, 7, 7, -7]


def test_stochastic_rounding_is_unbiased():
    values, draws = f32(0.25, 2.9, -1.5, 3), 1 << 14
    q = Fixed(8).encode(np.repeat(values, draws), stream=Stream(seed=2), scales=(np.zeros(1, np.int32),))
    means = q.codes.reshape(4, draws).mean(axis=1)
    assert (np.abs(means - values) <= 5 * np.sqrt(0.25 / draws)).all() and means[3] == 3
    assert len(np.unique(q.codes[:draws])) == 2


def test_extreme_scales_stay_finite():
    for bits in range(2, 17):
        q = Fixed(bits).encode(f32(np.finfo(np.float32).max, 1e-45))
        assert np.isfinite(q.decode()).all() and q.codes[0] > 0
        assert Fixed(bits).encode(f32(1e-45)).codes[0] == 0
        assert Fixed(bits).encode(np.zeros(2, np.float32)).scales[0][0] == 0


def test_table_is_the_codes_themselves():
    table = Fixed(4).table()
    assert [int(table[c & 255]) for c in range(-8, 8)] == [0, *range(-7, 8)]


@pytest.mark.parametrize("bits", [1, 17, 4.5, "8"])
def test_bad_bits_are_refused(bits):
    with pytest.raises(ValueError, match="bits must be 2 to 16"):
        Fixed(bits)


@pytest.mark.parametrize("bits", [9, 12, 16])
def test_laws_of_wide_codes(bits):
    check_format(Fixed(bits))
    assert Fixed(bits).encode(f32(1, -1)).codes.dtype == np.int16 and Fixed(bits).table() is None


@pytest.mark.parametrize(("left", "right"), [(16, 16), (16, 8), (5, 12)])
def test_wide_codes_contract_exactly(left, right):
    """Every kind, as unlimited integers have it; also under a scale for each slice of a kept axis."""
    rng = np.random.default_rng(left + right)
    for spec, a_shape, b_shape in contractions():
        for keep_a, keep_b in (((), ()), ((spec.kept[0],), (spec.kept[1],))):
            a, b = (Fixed(bits).encode(rng.standard_normal(shape).astype(np.float32) * np.float32(2.0**-60), keep=keep)
                    for bits, shape, keep in ((left, a_shape, keep_a), (right, b_shape, keep_b)))
            with calls() as seen, multiply.executed() as how:
                got = multiply.multiply(a, b, spec)
            assert np.array_equal(got, exact.contraction(a.decode(), b.decode(), spec))
            assert all(name.startswith("wide_") for name in seen) and seen
            assert all(words.endswith("in integers") for words in how) and how


def test_sums_that_float64_cannot_hold_are_cut_into_digits():
    rng = np.random.default_rng(0)
    length = 2**23 + 1024
    a = rng.integers(32000, 32768, (1, length)).astype(np.int16)
    b = rng.integers(32000, 32768, (2, length)).astype(np.int16)
    b[1] *= -1
    total = [int(np.dot(a[0].astype(np.int64), row.astype(np.int64))) for row in b]
    assert min(abs(t) for t in total) > 2**52 and any(t % 2 for t in total)
    got = wide_contract("linear", a, b, bits_a=16, bits_b=16, scale_a=f32(0.5), scale_b=f32(4, 2))
    want = [exact.round_to_float32(t, power) for t, power in zip(total, (1, 0), strict=True)]
    assert got.tolist() == [want]
    with pytest.raises(OverflowError, match="sums of 4294967296 products"):
        big = np.broadcast_to(np.int16(1), (1, 2**32))
        wide_contract("linear", big, big, bits_a=16, bits_b=16, scale_a=f32(1), scale_b=f32(1))
    with pytest.raises(OverflowError, match="beyond the largest float32"):
        wide_contract("linear", a[:, :9], b[:, :9], bits_a=16, bits_b=16, scale_a=f32(2.0**100), scale_b=f32(1))


def test_sixteen_bits_train_and_come_close_to_float32():
    x, y = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32), np.arange(8) % 4
    grads = []
    for name in ("fp32", recipe.int8(bits=16)):
        manual_seed(0)
        model = recipe.apply(name, models.build("small_cnn", num_classes=4, width=4))
        nn.functional.cross_entropy(model(Tensor(x)), y).backward()
        grads.append(model.conv2.weight.grad)
    assert 0 < np.abs(grads[0] - grads[1]).max() < 1e-2 * np.abs(grads[0]).max()


def test_a_scale_along_a_sum_is_refused_and_named():
    """Per output channel: the forward product takes it, the input gradient sums over that axis."""
    rng = np.random.default_rng(1)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 3, 5, 5), (4, 3, 3, 3)))
    for bits in (8, 12):
        layer = nn.Conv2d(3, 4, 3)
        Recipe(weight=Role(Fixed(bits), keep=(0,)), act=Fixed(bits), error=Fixed(bits)).apply(nn.Sequential(layer))
        inputs = Tensor(x, requires_grad=True)
        out = layer(inputs)
        coded = Fixed(bits).encode(layer.weight.data, keep=(0,))
        assert coded.scales[0].shape == (4, 1, 1, 1)
        want = exact.contraction(Fixed(bits).encode(x).decode(), coded.decode(), Spec("conv2d"))
        assert np.array_equal(out.data, want + layer.bias.data.reshape(1, -1, 1, 1))
        with pytest.raises(ValueError, match=r"conv2d_input_grad: the second operand Fixed\(bits=\d+\) keeps its own "
                                             r"scale along axis 0, which this contraction sums over"):
            out.backward(np.ones_like(out.data))
    coded = Fixed(12).encode(w, keep=(1,))
    assert Fixed(12).contract(Fixed(12).encode(x), coded, Spec("conv2d")) is NotImplemented
