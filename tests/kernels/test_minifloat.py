"""The kernels of small floats: the bits of NumPy on every tier, sums exact or in the written order, nothing wraps."""
import numpy as np
import pytest

from minilp import use_backend
from minilp.formats import Minifloat, NotFiniteError, Spec, Stream
from minilp.kernels import backend, calls, minifloat, set_num_threads, threads
from minilp.testing import exact

RNG = np.random.default_rng(31)
E4M3, E5M2, E3M4 = Minifloat(4, 3), Minifloat(5, 2), Minifloat(3, 4)
LENGTHS = (1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 63, 65, 127, 129, 255, 1023, 20000)


def codes(fmt, *shape):
    return RNG.integers(-fmt.top, fmt.top + 1, shape).astype(np.int8)


def number(fmt, code):
    """Of one code or many, in steps of the smallest subnormal, from the bits of its value."""
    return fmt.integers()[np.asarray(code).view(np.uint8)].astype(np.float32)


def run(spec, a, b, fa, fb, scale_a=None, scale_b=None):
    one = np.ones(1, np.float32)
    return minifloat.contract(
        spec.kind, a, b, man_a=fa.man, man_b=fb.man, largest=int(fa.integers().max()) * int(fb.integers().max()),
        exact=max(fa.exp, fb.exp) < 5, scale_a=one if scale_a is None else scale_a,
        scale_b=one if scale_b is None else scale_b, stride=spec.stride, padding=spec.padding, dilation=spec.dilation,
        groups=spec.groups, size=spec.size)


def both(compute, name):
    """What C gives for one and for two threads, and NumPy; the C kernel must have run."""
    before, found = threads(), []
    try:
        for n in (1, 2):
            set_num_threads(n)
            with calls() as ran:
                found.append(compute())
            assert ran[name] == 1, ran
    finally:
        set_num_threads(before)
    with use_backend("numpy"):
        return *found, compute()


def three(batch, channels, outputs, height, width, kernel, stride, padding, dilation=(1, 1), groups=1):
    """The three contractions of one convolution: (spec, shape of a, shape of b)."""
    size = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in
                 zip((height, width), padding, dilation, kernel, stride, strict=True))
    x, w, y = (batch, channels, height, width), (outputs, channels // groups, *kernel), (batch, outputs, *size)
    geometry = (stride, padding, dilation, groups)
    return [(Spec("conv2d", *geometry), x, w),
            (Spec("conv2d_input_grad", *geometry, size=(height, width)), y, w),
            (Spec("conv2d_weight_grad", *geometry, size=kernel), y, x)]


def spread(*shape):
    x = RNG.standard_normal(shape) * np.exp2(RNG.integers(-24, 3, shape))
    return np.where(RNG.random(shape) < 0.1, 0, x).astype(np.float32)


@pytest.mark.parametrize("fmt", [E4M3, E5M2, E3M4, Minifloat(2, 1), Minifloat(2, 5)], ids=str)
def test_encode_every_length(isa, fmt):
    """Ties, subnormals of the format and of float32, saturation; nearest and stochastic."""
    for n in LENGTHS:
        x = spread(n)
        ties = number(fmt, codes(fmt, n // 3)) * np.float32(2.0**fmt.step)
        x[: n // 3] = ties + RNG.integers(0, 3, n // 3) * np.abs(ties) * np.float32(2.0**-fmt.man / 4)
        x[-1] *= np.float32(1e-38)
        for stream in (None, Stream(seed=n)):
            for exponent in (0, 5, -100):
                at = np.array([exponent], np.int32)
                got = both(lambda x=x, at=at, s=stream: minifloat.encode(x, at, fmt.man, fmt.emin, fmt.top, s),
                           "minifloat_encode")
                assert np.array_equal(got[0], got[2]) and np.array_equal(got[1], got[2]), (n, stream, exponent)


def test_encode_layouts_and_kept_axes(isa):
    x = spread(19, 3, 4, 5)
    for y in (x, np.ascontiguousarray(x.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2), x[::-1, :, ::2]):
        for keep in ((), (0,), (1,), (2, 3), (0, 1, 2, 3)):
            for stream in (None, Stream(seed=4)):
                one, two, twin = both(lambda y=y, k=keep, s=stream: E4M3.encode(y, keep=k, stream=s),
                                      "minifloat_encode")
                assert np.array_equal(one.codes, twin.codes) and np.array_equal(two.codes, twin.codes)
                assert one.codes.strides == twin.codes.strides


def test_encode_refuses(needs_c):
    at = np.zeros(1, np.int32)
    for name in ("c", "numpy"):
        with use_backend(name):
            with pytest.raises(NotFiniteError, match=r"x: cannot encode .* first is nan at index \(1,\)"):
                minifloat.encode(np.array([1, np.nan], np.float32), at, 3, -6, 126)
            with pytest.raises(NotFiniteError):
                E4M3.encode(np.array([1, -np.inf], np.float32), scales=(at,))
            with pytest.raises(TypeError, match="x must be a NumPy array of float32, got float64"):
                minifloat.encode(np.ones(2), at, 3, -6, 126)
            with pytest.raises(ValueError, match=r"exponent must lie in \[-126, 126\], got 127"):
                minifloat.encode(np.ones(2, np.float32), at + np.int32(127), 3, -6, 126)


SHAPES = [(1, 1, 1, 3, 3, (3, 3), (1, 1), (1, 1)), (33, 3, 5, 6, 7, (3, 3), (2, 2), (1, 1)),
          (31, 16, 17, 8, 8, (3, 3), (1, 1), (1, 1)), (64, 5, 9, 5, 4, (1, 1), (2, 2), (0, 0)),
          (7, 6, 8, 9, 9, (3, 2), (2, 1), (0, 2), (1, 3), 2), (65, 8, 8, 3, 3, (3, 3), (1, 1), (1, 1), (1, 1), 8),
          (2, 70, 66, 4, 4, (3, 3), (1, 1), (1, 1)), (17, 2, 3, 6, 6, (1, 1), (3, 3), (2, 2)),
          (5, 3, 4, 1, 9, (1, 3), (1, 2), (0, 3)), (300, 2, 34, 2, 3, (2, 2), (1, 1), (1, 1))]


@pytest.mark.parametrize("pair", [(E4M3, E4M3), (E5M2, E4M3), (E3M4, E5M2)], ids=lambda p: f"{p[0]}x{p[1]}")
def test_tiers_and_threads_give_the_bits_of_numpy(isa, pair):
    law = "chunks" if E5M2 in pair else "exact"
    for shape in SHAPES:
        for spec, a_shape, b_shape in three(*shape):
            a, b = codes(pair[0], *a_shape), codes(pair[1], *b_shape)
            one, two, twin = both(lambda s=spec, a=a, b=b: run(s, a, b, *pair), f"minifloat_{law}_{spec.kind}[{isa}]")
            assert np.array_equal(one.view(np.int32), twin.view(np.int32)), (shape, spec.kind)
            assert np.array_equal(two.view(np.int32), twin.view(np.int32)), (shape, spec.kind)
            order = (0, 1, 2, 3) if "weight" in spec.kind else (1, 2, 3, 0)
            assert all(x.transpose(order).flags.c_contiguous for x in (one, twin))
            if law == "exact" and one.size <= 400:
                assert np.array_equal(one, exact.contraction(number(pair[0], a), number(pair[1], b), spec))


@pytest.mark.parametrize("length", [0, 1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 63, 65, 127, 129, 257, 600])
def test_awkward_batches(isa, length):
    specs = three(length, 3, 4, 2, 2, (2, 2), (1, 1), (1, 0))
    specs += [(Spec("linear"), (length, 5), (3, 5)), (Spec("linear_input_grad"), (length, 3), (3, 5)),
              (Spec("linear_weight_grad"), (length, 3), (length, 5))]
    for pair in ((E4M3, E4M3), (E5M2, E4M3)):
        for spec, a_shape, b_shape in specs:
            a, b = codes(pair[0], *a_shape), codes(pair[1], *b_shape)
            got = run(spec, a, b, *pair)
            with use_backend("numpy"):
                assert np.array_equal(got, run(spec, a, b, *pair)), spec


def add_up(products):
    """float32 sums of the chunks, each in its order, and of their sums in theirs."""
    total = np.float32(0)
    for chunk in products:
        part = np.float32(0)
        for product in chunk:
            part = np.float32(part + product)
        total = np.float32(total + part)
    return total


def test_the_written_order_of_an_input_gradient(isa):
    """Chunks go by all taps, also where a stride leaves only some of them: an oracle of one product at a time."""
    spec, a_shape, b_shape = three(3, 2, 9, 5, 5, (3, 3), (2, 2), (1, 1))[1]
    a, b = codes(E5M2, *a_shape), codes(E4M3, *b_shape)
    got, e, w = run(spec, a, b, E5M2, E4M3), number(E5M2, a), number(E4M3, b)
    for n, c, y, x in ((0, 0, 0, 0), (1, 1, 1, 2), (2, 0, 3, 3), (0, 1, 4, 1)):
        products = []
        for o, ky, kx in np.ndindex(9, 3, 3):
            (oy, ry), (ox, rx) = divmod(y + 1 - ky, 2), divmod(x + 1 - kx, 2)
            inside = ry == rx == 0 and 0 <= oy < e.shape[2] and 0 <= ox < e.shape[3]
            products.append(e[n, o, oy, ox] * w[o, c, ky, kx] if inside else np.float32(0))
        assert got[n, c, y, x] == add_up([products[k:k + 32] for k in range(0, 81, 32)])


@pytest.mark.parametrize("batch", [40, 300])
def test_the_written_order_of_a_weight_gradient(isa, batch):
    spec, a_shape, b_shape = three(batch, 2, 3, 3, 3, (2, 2), (1, 1), (1, 0))[2]
    a, b = codes(E5M2, *a_shape), codes(E4M3, *b_shape)
    got = run(spec, a, b, E5M2, E4M3)
    e, act = number(E5M2, a), np.pad(number(E4M3, b), ((0, 0), (0, 0), (1, 1), (0, 0)))
    length = 64 if batch > 256 else 32
    for o, c, ky, kx in ((0, 0, 0, 0), (2, 1, 1, 1), (1, 0, 0, 1)):
        total = np.float32(0)
        for first in range(0, batch, length):
            chunks = [[e[n, o, y, x] * act[n, c, y + ky, x + kx] for n in range(block, min(block + 32, batch))]
                      for block in range(first, min(first + length, batch), 32)
                      for y, x in np.ndindex(*e.shape[2:])]
            total = np.float32(total + add_up(chunks))
        assert got[o, c, ky, kx] == total


def test_scales_of_kept_axes(isa):
    for shape in ((5, 4, 6, 4, 4, (3, 3), (1, 1), (1, 1)), (5, 4, 6, 4, 4, (3, 3), (2, 1), (1, 1), (1, 1), 2)):
        for spec, a_shape, b_shape in three(*shape):
            a, b = codes(E4M3, *a_shape), codes(E4M3, *b_shape)
            scales = [np.ldexp(np.float32(1), RNG.integers(-90, 9, s[axis]).astype(np.int32))
                      for s, axis in zip((a_shape, b_shape), spec.kept, strict=True)]
            wide = [scale.reshape([-1 if i == axis else 1 for i in range(4)])
                    for scale, axis in zip(scales, spec.kept, strict=True)]
            got = run(spec, a, b, E4M3, E4M3, *scales)
            want = exact.contraction(number(E4M3, a) * wide[0], number(E4M3, b) * wide[1], spec)
            assert np.array_equal(got, want) and not np.array_equal(got, run(spec, a, b, E4M3, E4M3)), (shape, spec)


def test_weight_gradients_beyond_2_53(isa):
    """Runs that double holds, their total in int64; and a run that double does not hold, which NumPy computes."""
    top = E4M3.encode(np.full((256, 1, 1, 700), 448, np.float32), scales=(np.zeros((1,) * 4, np.int32),)).codes
    few = top.copy()
    few[-1, 0, 0, -1] = 1  # the smallest subnormal: the total is odd, and beyond 2^53
    spec = Spec("conv2d_weight_grad", size=(1, 1))
    want = np.float32((few.size - 1) * 229376**2 + 229376)
    assert few.size * 229376**2 > 2**53
    with calls() as ran:
        assert run(spec, top, few, E4M3, E4M3).item() == want
    assert ran == {f"minifloat_exact_conv2d_weight_grad[{isa}]": 1}
    long = few.reshape(1, 1, 1, -1)
    with calls() as ran:
        assert run(spec, top.reshape(long.shape), long, E4M3, E4M3).item() == want
    assert ran == {"minifloat_exact_conv2d_weight_grad[numpy]": 1}


def test_a_result_beyond_float32_is_an_error(needs_c):
    big = np.array([2.0**100], np.float32)
    for name in ("c", "numpy"):
        for fmt in (E4M3, E5M2):
            a = np.full((2, 3), fmt.top, np.int8)
            with use_backend(name), pytest.raises(OverflowError, match="linear: a result is beyond the largest"):
                run(Spec("linear"), a, a, fmt, fmt, big, big)
    assert backend().name == "c"
