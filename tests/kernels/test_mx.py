"""MX contractions against an index loop in Python's integers: three directions, every element, tails, groups."""
import pathlib
import sys

import numpy as np
import pytest

import minilp
from minilp.formats import MX, PoT, Spec, Stream
from minilp.kernels import available_tiers, calls, set_num_threads, threads, use_backend, use_isa
from minilp.testing import exact
from minilp.testing.runner import numbers

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import mx_oracles as oracles

ELEMENTS = ("e2m1", "e2m3", "e3m2", "e4m3", "e5m2", "int8")
GEOMETRIES = [((1, 1), (1, 1), (1, 1), 1, (3, 3)), ((2, 2), (1, 1), (1, 1), 1, (3, 3)),
              ((2, 1), (0, 2), (1, 2), 2, (2, 3)), ((1, 1), (0, 0), (1, 1), 1, (1, 1)),
              ((2, 2), (0, 0), (1, 1), 3, (1, 1))]


def contractions(batch=5, channels=4, features=3):
    """Every kind of contraction; channels and features are those of one group."""
    yield Spec("linear"), (3, 7), (5, 7)
    yield Spec("linear_input_grad"), (3, 5), (5, 7)
    yield Spec("linear_weight_grad"), (7, 5), (7, 4)
    for *geometry, groups, kernel in GEOMETRIES:
        x, w = (batch, channels * groups, 5, 6), (features * groups, channels, *kernel)
        stride, padding, dilation = geometry
        out = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1
                    for n, p, d, k, s in zip(x[2:], padding, dilation, kernel, stride, strict=True))
        y, geometry = (batch, features * groups, *out), (*geometry, groups)
        yield Spec("conv2d", *geometry), x, w
        yield Spec("conv2d_input_grad", *geometry, size=(5, 6)), y, w
        yield Spec("conv2d_weight_grad", *geometry, size=kernel), y, x


def encode(fmt, x, spec, position):
    axis, run = spec.run(position, x.shape)
    return fmt.encode_along(x, axis, run=run)


@pytest.fixture(params=["c", "numpy"])
def backend(request):
    if request.param == "c":
        request.getfixturevalue("needs_c")
    with use_backend(request.param):
        yield request.param


def everywhere(run):
    """What ``run`` gives in NumPy and on every tier of the C core: (way, result)."""
    with use_backend("numpy"):
        yield "numpy", run()
    for tier in available_tiers():
        with use_isa(tier):
            yield tier, run()


@pytest.mark.parametrize(("left", "right"), [*zip(ELEMENTS, ELEMENTS, strict=True), ("e5m2", "e4m3"), ("int8", "e3m2"),
                                               ("e4m3", "e2m1")])
def test_every_contraction_equals_the_loop(left, right):
    """Blocks of 3 in runs of 4, 5 and 7; then the same with scales so far apart that terms are no normal numbers."""
    rng = np.random.default_rng(1)
    for wide in (False, True):
        for spec, *shapes in list(contractions())[:9 if wide else None]:
            coded = []
            for position, (element, shape) in enumerate(zip((left, right), shapes, strict=True)):
                x = numbers(rng, *shape)
                if wide:
                    x.reshape(-1)[::7] *= np.float32(2.0**40)
                    x[: 1 + position] *= np.float32(2.0**-40)
                coded.append(encode(MX(element, block=3), x, spec, position))
            a, b = coded
            unit = [2.0 ** (int(q.scales[0].max()) - 127 + q.format.level.step) for q in coded]
            want = oracles.loop(a.decode() / unit[0], b.decode() / unit[1], spec, 3)
            for way, got in everywhere(lambda a=a, b=b, spec=spec: a.format.contract(a, b, spec)):
                assert got.dtype == np.float32
                assert np.array_equal(got, (want * (unit[0] * unit[1])).astype(np.float32)), (spec, way)
                assert np.abs(got[got != 0]).min() > 2.0**-120


@pytest.mark.parametrize("element", ["e2m1", "e3m2", "e4m3", "int8"])
def test_c_equals_its_twin_at_awkward_sizes(needs_c, element):
    """Every tier, one and two threads; images that do not fill a vector, channels that do not fill a block."""
    rng, before = np.random.default_rng(5), threads()
    try:
        for n, (batch, channels, features) in enumerate(((1, 33, 5), (3, 1, 1), (17, 31, 9), (33, 65, 4), (70, 3, 34))):
            for spec, *shapes in contractions(batch, channels, features):
                a, b = (encode(MX(element), numbers(rng, *shape), spec, i) for i, shape in enumerate(shapes))
                set_num_threads(1 + n % 2)
                (_, want), *others = everywhere(lambda a=a, b=b, spec=spec: a.format.contract(a, b, spec))
                for way, got in others:
                    assert np.array_equal(got, want), (spec, shapes, way)
    finally:
        set_num_threads(before)


def test_which_contractions_run_in_c(needs_c):
    rng, spec = np.random.default_rng(6), Spec("linear")
    for element in ELEMENTS:
        x, w = numbers(rng, 3, 40), numbers(rng, 3, 40)
        x[1] = 0  # an empty block, as rectified activations have them, must not look like a far scale
        a, b = (encode(MX(element), y, spec, i) for i, y in enumerate((x, w)))
        with calls() as seen:
            a.format.contract(a, b, spec)
        (name,) = (name for name in seen if name.startswith("mx_conv2d"))
        dots = "dot" if minilp.backend().isa in ("vnni", "amx") else "pairs"
        want = {"e3m2": "pairs", "e4m3": "wide", "e5m2": ""}.get(element, dots)
        assert name.startswith(f"mx_conv2d_{want}[" if want else "mx_conv2d[numpy]"), (element, name)


@pytest.mark.parametrize(("element", "length"), [("int8", 260), ("int8", 261), ("int8", 1024), ("e2m1", 1021),
                                                 ("e2m1", 1024), ("e2m1", 1025), ("e2m3", 1024), ("e4m3", 1024)])
def test_the_largest_sums_of_a_block(needs_c, element, length):
    """One block, every element the largest: 260 squares of 127 are the most below 2^22, 1024 elements fill a record."""
    fmt = MX(element, block=2048)
    for sign in (1, -1):
        x = np.full((17, length), fmt.level.largest, np.float32)
        y = np.full((5, length), sign * fmt.level.largest, np.float32)
        y[1, ::2], y[2, -1], y[3, 0] = 0, 0, -y[3, 0]
        for spec, left, right in ((Spec("linear"), x, y), (Spec("linear_input_grad"), x, np.ascontiguousarray(y.T)),
                                  (Spec("linear_weight_grad"), np.ascontiguousarray(y.T), np.ascontiguousarray(x.T))):
            a, b = (encode(fmt, z, spec, i) for i, z in enumerate((left, right)))
            want = exact.contraction(a.decode(), b.decode(), spec)
            for way, got in everywhere(lambda a=a, b=b, spec=spec: fmt.contract(a, b, spec)):
                assert np.array_equal(got, want), (spec, way)


def test_a_result_beyond_float32_raises(backend):
    q = MX().encode_along(np.full((1, 4), 1e30, np.float32))
    with pytest.raises(OverflowError, match="beyond the largest float32"):
        MX().contract(q, q, Spec("linear"))


def test_blocks_of_32_with_a_tail(backend):
    """40 channels, 36 features, 35 images."""
    rng = np.random.default_rng(2)
    geometry = ((1, 1), (1, 1), (1, 1), 1)
    for spec, *shapes in ((Spec("conv2d", *geometry), (2, 40, 3, 2), (3, 40, 3, 3)),
                          (Spec("conv2d_input_grad", *geometry, size=(3, 2)), (2, 36, 3, 2), (36, 3, 3, 3)),
                          (Spec("conv2d_weight_grad", *geometry, size=(3, 3)), (35, 2, 3, 2), (35, 3, 3, 2))):
        a, b = (encode(MX(), numbers(rng, *shape), spec, i) for i, shape in enumerate(shapes))
        assert np.array_equal(MX().contract(a, b, spec), oracles.loop(a.decode(), b.decode(), spec, 32))


def test_one_block_is_exact(backend):
    """A sum inside one block is the exact contraction, rounded once: forward over 32 features of one tap."""
    rng = np.random.default_rng(3)
    for element in ELEMENTS:
        fmt, spec = MX(element), Spec("linear")
        a, b = (encode(fmt, numbers(rng, 4, 32), spec, i) for i in (0, 1))
        assert np.array_equal(fmt.contract(a, b, spec), exact.contraction(a.decode(), b.decode(), spec))


def test_the_widest_products_are_exact(backend):
    """Two E5M2 blocks whose sum has a bit at 2^0 and one at 2^66 of the smallest product."""
    top, bottom = 57344.0, 2.0**-16
    x = np.array([[top, bottom, *[top] * 30]], np.float32)
    y = np.array([[top, bottom, *[0.0] * 30], [top, -bottom, -top, *[0.0] * 29]], np.float32)
    spec = Spec("linear")
    a, b = (encode(MX("e5m2"), z, spec, i) for i, z in enumerate((x, y)))
    assert np.array_equal(a.decode(), x) and np.array_equal(b.decode(), y)
    got = MX("e5m2").contract(a, b, spec)
    assert got.tolist() == [[np.float32(top * top), -(2.0**-32)]]


def test_codes_of_another_contraction_are_not_multiplied(backend):
    rng = np.random.default_rng(4)
    x, w = numbers(rng, 70, 70), numbers(rng, 5, 70)
    fmt, spec = MX(), Spec("linear")
    good = encode(fmt, w, spec, 1)
    for wrong in (fmt.encode_along(x, 0), fmt.encode_along(x, 1, run=35), fmt.encode(x, keep=(1,)),
                  MX(block=16).encode_along(x, 1), PoT().encode(x)):
        assert fmt.contract(wrong, good, spec) is NotImplemented
    whole = fmt.encode(x, keep=(0,))  # one scale a token: constant in every block
    assert np.array_equal(fmt.contract(whole, good, spec), oracles.loop(whole.decode(), good.decode(), spec, 32))


def test_empty_sums_and_empty_batches(backend):
    fmt, spec = MX(), Spec("linear")
    for rows, depth in ((0, 4), (3, 0)):
        a, b = (encode(fmt, np.zeros((n, depth), np.float32), spec, i) for i, n in enumerate((rows, 2)))
        assert np.array_equal(fmt.contract(a, b, spec), np.zeros((rows, 2)))


@pytest.mark.parametrize("element", ELEMENTS)
def test_encode_equals_its_twin_everywhere(needs_c, element):
    """Blocks along every axis, in both memory orders and rounding modes; ties, subnormals, the largest floats."""
    rng, before = np.random.default_rng(7), threads()
    try:
        for n, (shape, runs) in enumerate((((67,), (67, 1)), ((5, 66), (66, 33)), ((35, 40, 3, 2), (35, 40, 10)),
                                           ((130, 3, 5, 5), (130, 65)))):
            x = (numbers(rng, *shape) * np.exp2(rng.integers(-130, 100, shape))).astype(np.float32)
            flat = x.reshape(-1)
            flat[::3] = rng.integers(-64, 65, len(flat[::3])) / 16  # ties under many a scale
            flat[:4] = 1e-45, -np.finfo(np.float32).max, -0.0, 2.0**-126
            stored = np.ascontiguousarray(np.moveaxis(x, 0, -1))
            for axis, run, stream, rule in ((a, r, s, c) for a in range(x.ndim) for r in (None, *runs)
                                            for s in (None, Stream(seed=n)) for c in ("floor", "ceil")):
                if run is not None and x.shape[axis] % run:
                    continue
                fmt = MX(element, scale_rule=rule)
                for y in (x, np.moveaxis(stored, -1, 0)):
                    set_num_threads(1 + n % 2)

                    def code(fmt=fmt, y=y, axis=axis, run=run, stream=stream):
                        return fmt.encode_along(y, axis, run=run, stream=stream)
                    (_, want), *others = everywhere(code)
                    for way, got in others:
                        assert np.array_equal(got.codes, want.codes), (shape, axis, run, stream, way)
                        assert np.array_equal(got.scales[0], want.scales[0]), (shape, axis, run, way)
                        assert got.codes.strides == want.codes.strides
    finally:
        set_num_threads(before)
