"""MLS contractions under every grouping, in C: one integer for the whole sum, sums beyond 31 bits, far exponents."""
import itertools
import pathlib
import sys

import numpy as np
import pytest

from minilp.formats import MLS, Spec
from minilp.kernels import calls, set_num_threads, threads, use_backend, use_kernels

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from mls_oracles import GEOMETRIES, contract, exact_result, index_loop, is_one, operands, tensor

KINDS = ("conv2d", "conv2d_input_grad", "conv2d_weight_grad")
LINEAR = ("linear", "linear_input_grad", "linear_weight_grad")


def in_c(a, b, spec):
    """The contraction, after checking that it ran in C; and the NumPy twin's."""
    with calls() as seen:
        c = a.format.contract(a, b, spec)
    assert seen and not [name for name in seen if name.endswith("[numpy]")], seen
    with use_kernels("shift"):
        assert np.array_equal(c, a.format.contract(a, b, spec))
    with use_backend("numpy"):
        return c, a.format.contract(a, b, spec)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group", ["none", "n", "c", "nc"])
def test_every_grouping_equals_the_index_loop(kind, group):
    """C and NumPy, every geometry; one integer where no group scale varies along the sum's outermost axis."""
    rng = np.random.default_rng(5)
    ones = 0
    for i, (kernel, stride, padding) in enumerate(GEOMETRIES):
        fmt = MLS(2, (1, 4)[i % 2], group=group, group_man=int(i % 3 != 2), least=(4, 1)[i % 2])
        a, b, spec = operands(rng, kind, fmt, fmt, 3, 4, 3, (5, 6), kernel, stride, padding)
        one = is_one(a, b, spec)
        want, ones = index_loop(a, b, spec, one), ones + one
        for backend in ("numpy", "auto"):
            with use_backend(backend):
                assert np.array_equal(contract(a, b, spec), want), (fmt, spec, backend)
        if one:
            assert np.array_equal(want, exact_result(a, b, spec))
    assert ones == {"conv2d": 6 * (group in ("none", "n")), "conv2d_input_grad": 6 * (group == "none"),
                    "conv2d_weight_grad": 6 * (group in ("none", "c"))}[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group", ["none", "n", "c"])
def test_convolutions_equal_the_twin(isa, needs_c, kind, group):
    """Every tier and thread count; odd channel counts, batches around the vector lengths, formats up to 11 bits."""
    rng = np.random.default_rng(6)
    before = threads()
    formats = [MLS(2, 1, group=group), MLS(2, 4, group=group, top="keep"), MLS(3, 4, group=group),
               MLS(0, 4, group=group, group_man=0), MLS(2, 3, group=group, underflow="sudden")]
    for i, batch in enumerate((1, 3, 8, 16, 17, 33, 5)):
        fmt, other = formats[i % 5], formats[(i + i // 5) % 5]
        kernel, stride, padding = GEOMETRIES[i % 6]
        a, b, spec = operands(rng, kind, fmt, other, batch, 5 + i % 2, 7, (7 + i % 3, 9), kernel, stride, padding)
        try:
            for n in (1, 2):
                set_num_threads(n)
                c, twin = in_c(a, b, spec)
                assert np.array_equal(c, twin), (fmt, other, batch, spec)
        finally:
            set_num_threads(before)
    groups = Spec(kind, padding=(1, 1), groups=2, size={"conv2d": None, "conv2d_input_grad": (6, 5),
                                                        "conv2d_weight_grad": (3, 3)}[kind])
    act, weight, error = (fmt.encode(tensor(rng, *shape)) for shape in ((5, 6, 6, 5), (8, 3, 3, 3), (5, 8, 6, 5)))
    c, twin = in_c(*{"conv2d": (act, weight), "conv2d_input_grad": (error, weight),
                     "conv2d_weight_grad": (error, act)}[kind], groups)
    assert np.array_equal(c, twin)


@pytest.mark.parametrize("kind", LINEAR)
def test_linear_equals_the_twin(isa, needs_c, kind):
    """Every grouping, with and without falling back; sums longer than the kernels multiply out at a time."""
    rng = np.random.default_rng(7)
    before = threads()
    for i, (group, least, man) in enumerate(itertools.product(("none", "n", "c", "nc"), (1, 4), (0, 1))):
        fmt = MLS(2, (1, 4)[i % 2], group=group, least=least, group_man=man)
        rows, inputs, outputs = ((17, 70, 5), (64, 3, 131), (1, 129, 33), (130, 8, 1))[i % 4]
        act, weight, error = (tensor(rng, *shape) for shape in ((rows, inputs), (outputs, inputs), (rows, outputs)))
        for x in (act, weight, error):
            x *= np.exp2(rng.integers(-20, 1, x.shape[0]))[:, None].astype(np.float32)
        a, b = (fmt.encode(x) for x in {"linear": (act, weight), "linear_input_grad": (error, weight),
                                        "linear_weight_grad": (error, act)}[kind])
        try:
            for n in (1, 2):
                set_num_threads(n)
                c, twin = in_c(a, b, Spec(kind))
                assert np.array_equal(c, twin), (fmt, rows, inputs, outputs)
        finally:
            set_num_threads(before)


@pytest.mark.parametrize("group", ["none", "n", "c", "nc"])
@pytest.mark.parametrize("kind", LINEAR)
def test_linear_equals_the_index_loop(kind, group):
    rng = np.random.default_rng(8)
    shapes = {"linear": ((5, 12), (7, 12)), "linear_input_grad": ((5, 7), (7, 12)),
              "linear_weight_grad": ((5, 7), (5, 12))}[kind]
    for least, man in itertools.product((1, 4), (1, 4)):
        fmt = MLS(2, man, group=group, least=least)
        a, b = (fmt.encode(tensor(rng, *shape)) for shape in shapes)
        wide = [type(q)(fmt, q.codes[:, :, None, None], tuple(s[:, :, None, None] for s in q.scales)) for q in (a, b)]
        spec = Spec(kind.replace("linear", "conv2d"), size=None if kind == "linear" else (1, 1))
        want = index_loop(*wide, spec, is_one(a, b, Spec(kind)))
        assert np.array_equal(fmt.contract(a, b, Spec(kind)), want[:, :, 0, 0]), (least, man)


def full(fmt, shape, bit, sign=1):
    """All elements the largest number, group scales (1 + bit / 2), tensor scale 1."""
    q = fmt.encode(np.ones(shape, np.float32))
    return type(q)(fmt, np.full(shape, sign * fmt.top_code, np.int8),
                   (q.scales[0], q.scales[1] + fmt.group_man * bit, np.full_like(q.scales[2], bit)))


@pytest.mark.parametrize("terms", [4095, 4096, 4097, 65535, 65536, 131071, 131072, 131073, 150001])
def test_the_largest_sums(isa, needs_c, terms):
    """Products of 2^14 and a significand of 9, at the edges of 31 bits with and without it, and of a segment."""
    fmt = MLS(2, 4, top="keep", group="n")
    assert int(fmt.integers()[-1]) == 128
    for sign in (1, -1):
        a, b = full(fmt, (2, terms), 1), full(fmt, (3, terms), 1, sign)
        # codes stand for 128 / 128, group scales for 1.5 / 2 each
        want = np.float32(sign * terms * 9) * np.float32(2.0**-4)
        c, twin = in_c(a, b, Spec("linear"))
        assert np.array_equal(c, np.full((2, 3), want)) and np.array_equal(twin, c)
    t = full(MLS(2, 4, top="keep", group="c"), (terms, 2), 1), full(MLS(2, 4, top="keep", group="c"), (terms, 3), 1)
    c, twin = in_c(*t, Spec("linear_weight_grad"))
    assert np.array_equal(c, np.full((2, 3), np.float32(terms * 9) * np.float32(2.0**-4)))
    assert np.array_equal(twin, c)


@pytest.mark.parametrize("group", ["nc", "none"])
def test_the_largest_sums_of_a_weight_gradient(isa, needs_c, group):
    """Maps whose integer sums leave 32 bits: segments of rows, and of columns."""
    fmt = MLS(3, 4, top="saturate", group=group)
    top = int(fmt.integers()[-1])
    for size in ((3, 700), (40, 30), (1, 1300)):
        bit = int(group == "nc")
        error, act = full(fmt, (2, 2, *size), bit), full(fmt, (2, 1, *size), bit, -1)
        c, twin = in_c(error, act, Spec("conv2d_weight_grad", size=(1, 1)))
        terms = size[0] * size[1] * (1 if bit else 2)
        assert terms * top**2 > 2**31
        sums = np.float32(-terms * top**2 * (9 if bit else 1)) * np.float32(2.0 ** (-2 * fmt.fraction_bits - 4 * bit))
        assert np.array_equal(c, np.full(c.shape, sums * (2 if bit else 1)))
        assert np.array_equal(c, twin)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group", ["n", "c", "nc"])
def test_far_group_scales(isa, needs_c, kind, group):
    """Exponents up to the largest that eight bits hold: terms become subnormal, or nothing."""
    rng = np.random.default_rng(9)
    fmt = MLS(2, 4, group=group)
    a, b, spec = operands(rng, kind, fmt, fmt, 5, 4, 3, (5, 6), (3, 3), (1, 1), (1, 1))
    for span in (59, 70, 80, 255):
        far = []
        for q in (a, b):
            e = rng.integers(40, span + 1, q.scales[1].shape).astype(np.int16)
            far.append(type(q)(fmt, q.codes, (q.scales[0] * np.float32(2.0**30), e, q.scales[2])))
        want = index_loop(*far, spec, is_one(*far, spec))
        c, twin = in_c(*far, spec)
        assert np.array_equal(c, want) and np.array_equal(twin, want)
        assert c.any() or span == 255
