"""The table kernel: exact integers, the same bits in C and NumPy, on every tier and any number of threads."""
import numpy as np
import pytest

from minilp import use_backend
from minilp.formats import Fixed, PoT, Spec
from minilp.kernels import dot8, set_num_threads, table, threads
from minilp.testing import contractions, exact

RNG = np.random.default_rng(11)
OWN = Fixed(8).table()
DOUBLED = np.zeros(256, np.int8)
DOUBLED[np.arange(-7, 8)] = [-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12]
ONE = np.ones(1, np.float32)


def codes(top, *shape):
    return RNG.integers(-top, top + 1, shape).astype(np.int8)


def run(spec, a, b, table_a=OWN, table_b=OWN, scale_a=ONE, scale_b=ONE):
    return table.contract(spec.kind, a, b, table_a=table_a, table_b=table_b, scale_a=scale_a, scale_b=scale_b,
                          stride=spec.stride, padding=spec.padding, dilation=spec.dilation, groups=spec.groups,
                          size=spec.size)


POWERS = PoT(5).table()


def by_numpy(*args, **kw):
    with use_backend("numpy"):
        return run(*args, **kw)


def three(batch, channels, outputs, height, width, kernel, stride, padding, dilation=(1, 1), groups=1):
    """The three contractions of one convolution: (spec, shape of a, shape of b)."""
    size = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in
                 zip((height, width), padding, dilation, kernel, stride, strict=True))
    x, w, y = (batch, channels, height, width), (outputs, channels // groups, *kernel), (batch, outputs, *size)
    geometry = (stride, padding, dilation, groups)
    return [(Spec("conv2d", *geometry), x, w),
            (Spec("conv2d_input_grad", *geometry, size=(height, width)), y, w),
            (Spec("conv2d_weight_grad", *geometry, size=kernel), y, x)]


@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_every_kind_is_exact(backend, request):
    if backend == "c":
        request.getfixturevalue("needs_c")
    for spec, a_shape, b_shape in contractions():
        a, b = codes(7, *a_shape), codes(127, *b_shape)
        with use_backend(backend):
            got = run(spec, a, b, table_a=DOUBLED, scale_a=np.array([0.375], np.float32),
                      scale_b=np.array([2.0**-9], np.float32))
        want = exact.contraction(DOUBLED[a.view(np.uint8)] * np.float32(0.375), b * np.float32(2.0**-9), spec)
        assert np.array_equal(got, want) and got.dtype == np.float32, spec


SHAPES = [(1, 1, 1, 3, 3, (3, 3), (1, 1), (1, 1)), (33, 3, 5, 6, 7, (3, 3), (2, 2), (1, 1)),
          (31, 16, 17, 8, 8, (3, 3), (1, 1), (1, 1)), (64, 5, 9, 5, 4, (1, 1), (2, 2), (0, 0)),
          (7, 6, 8, 9, 9, (3, 2), (2, 1), (0, 2), (1, 3), 2), (65, 8, 8, 3, 3, (3, 3), (1, 1), (1, 1), (1, 1), 8),
          (2, 70, 66, 4, 4, (3, 3), (1, 1), (1, 1)), (17, 2, 3, 6, 6, (1, 1), (3, 3), (2, 2))]


def test_tiers_and_threads_give_the_bits_of_numpy(every_isa):
    before = threads()
    for shape in SHAPES:
        for spec, a_shape, b_shape in three(*shape):
            a, b = codes(127, *a_shape), codes(127, *b_shape)
            scales = {"scale_a": np.array([1 / 3], np.float32), "scale_b": np.array([1.7e-3], np.float32)}
            want = by_numpy(spec, a, b, **scales)
            for n in (1, 2):
                set_num_threads(n)
                try:
                    got = run(spec, a, b, **scales)
                finally:
                    set_num_threads(before)
                assert np.array_equal(got.view(np.int32), want.view(np.int32)), (shape, spec.kind, n)
                order = (0, 1, 2, 3) if "weight" in spec.kind else (1, 2, 3, 0)
                assert all(x.transpose(order).flags.c_contiguous for x in (got, want))


def test_powers_of_two_times_integers_are_exact_on_every_tier(every_isa):
    """Two digits times one: a shift of an int8 integer, in either place and with powers in both."""
    for shape in SHAPES:
        for spec, a_shape, b_shape in three(*shape):
            for tables, tops in (((POWERS, OWN), (15, 127)), ((OWN, POWERS), (127, 15)), ((POWERS, POWERS), (15, 15))):
                a, b = codes(tops[0], *a_shape), codes(tops[1], *b_shape)
                words = {"table_a": tables[0], "table_b": tables[1], "scale_a": np.array([2.0**-9], np.float32)}
                got = run(spec, a, b, **words)
                values = [t[x.view(np.uint8)].astype(np.float32) for t, x in zip(tables, (a, b), strict=True)]
                want = exact.contraction(values[0] * np.float32(2.0**-9), values[1], spec)
                assert np.array_equal(got, want) and np.array_equal(by_numpy(spec, a, b, **words), want), (shape, spec)


def test_powers_may_be_named_by_other_codes(every_isa):
    """A format whose code c stands for 2^(7 - c): the engine's codes are looked up."""
    table_a = np.zeros(256, np.int16)
    table_a[:8] = 2 ** np.arange(7, -1, -1)
    for spec, a_shape, b_shape in three(*SHAPES[1]):
        a, b = np.abs(codes(7, *a_shape)), codes(127, *b_shape)
        want = exact.contraction(table_a[a].astype(np.float32), b.astype(np.float32), spec)
        assert np.array_equal(run(spec, a, b, table_a=table_a), want)


def test_the_largest_sum_of_powers_and_integers(every_isa):
    for depth in (dot8.TERMS, dot8.TERMS + 3):
        a, b = np.full((1, depth), 15, np.int8), np.full((1, depth), 127, np.int8)
        assert run(Spec("linear"), a, b, table_a=POWERS).item() == np.float32(depth * 2**14 * 127)
        assert run(Spec("linear_weight_grad"), a.T, b.T, table_a=POWERS).item() == np.float32(depth * 2**14 * 127)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 193, 255, 1023])
def test_awkward_batches(every_isa, length):
    for spec, a_shape, b_shape in three(length, 3, 4, 2, 2, (2, 2), (1, 1), (1, 0)):
        a, b = codes(127, *a_shape), codes(127, *b_shape)
        assert np.array_equal(run(spec, a, b), by_numpy(spec, a, b)), spec
    for kind, a_shape, b_shape in (("linear", (length, 5), (3, 5)), ("linear_input_grad", (length, 3), (3, 5)),
                                   ("linear_weight_grad", (length, 3), (length, 5))):
        a, b = codes(127, *a_shape), codes(127, *b_shape)
        with use_backend("c"):
            assert np.array_equal(run(Spec(kind), a, b), by_numpy(Spec(kind), a, b)), kind


def test_sums_beyond_int32_are_exact(every_isa):
    """All products 127^2 and enough of them to leave int32: pieces forward and backward, int64 for the weight."""
    depth = max(dot8.TERMS, 2**31 // 127**2) + 5
    full = np.full((2, depth), 127, np.int8)
    want = np.float32(depth * 127 * 127)
    assert (run(Spec("linear"), full, full) == want).all()
    assert (run(Spec("linear_input_grad"), full, np.full((depth, 3), 127, np.int8)) == want).all()
    assert (run(Spec("linear_weight_grad"), full.T, full.T) == want).all()
    wide = np.full((1, 1, 1, depth), 127, np.int8)  # one row of pixels longer than one int32 sum may be
    assert run(Spec("conv2d_weight_grad", size=(1, 1)), wide, -wide).item() == -want


def test_the_largest_sum_that_one_piece_may_hold(every_isa):
    full = np.full((1, dot8.TERMS), 127, np.int8)
    assert run(Spec("linear"), full, full).item() == np.float32(dot8.TERMS * 127 * 127)


def test_scales_of_kept_axes(every_isa):
    for shape in ((5, 4, 6, 4, 4, (3, 3), (1, 1), (1, 1)), (5, 4, 6, 4, 4, (3, 3), (2, 1), (1, 1), (1, 1), 2)):
        for spec, a_shape, b_shape in three(*shape):
            a, b = codes(127, *a_shape), codes(127, *b_shape)
            scales = [np.ldexp(np.float32(1), RNG.integers(-9, 9, s[axis]).astype(np.int32))
                      for s, axis in zip((a_shape, b_shape), spec.kept, strict=True)]
            spread = [scale.reshape([-1 if i == axis else 1 for i in range(4)])
                      for scale, axis in zip(scales, spec.kept, strict=True)]
            got = run(spec, a, b, scale_a=scales[0], scale_b=scales[1])
            assert np.array_equal(got, exact.contraction(a * spread[0], b * spread[1], spec)), (shape, spec)


def test_values_look_codes_up_in_their_memory_order(needs_c):
    stored = codes(7, 3, 5, 4, 2).transpose(3, 0, 1, 2)
    for backend in ("c", "numpy"):
        with use_backend(backend):
            got = table.values(stored, DOUBLED)
            assert np.array_equal(got, DOUBLED[stored.view(np.uint8)]) and got.strides == stored.strides
            assert table.values(stored, OWN) is stored
            odd = np.array([-128, 3], np.int8)
            assert table.values(odd, OWN).tolist() == [0, 3]
            assert table.values(np.array([255, 7], np.uint8), DOUBLED).tolist() == [-1, 12]


def test_a_result_beyond_float32_is_an_error(every_isa):
    big, a = np.array([2.0**126], np.float32), np.ones((2, 3), np.int8)
    with pytest.raises(OverflowError, match="linear: a result is beyond the largest float32"):
        run(Spec("linear"), a, np.full((2, 3), 127, np.int8), scale_a=big, scale_b=big)


@pytest.mark.parametrize(("change", "error", "words"), [
    ({"a": np.zeros((2, 3), np.int16)}, TypeError, "a must be an int8 or uint8 array of codes, got int16"),
    ({"table_b": np.zeros(16, np.int8)}, TypeError, "table_b must be int8 or int16 of shape .256,., got int8"),
    ({"table_a": np.full(256, -128, np.int8)}, ValueError, r"table_a must lie within \+-127, got -128"),
    ({"table_a": np.arange(256, dtype=np.int16)}, ValueError, "int16 table_a must be 0 or .* power of two .* got 3"),
    ({"table_b": np.full(256, -2**15, np.int16)}, ValueError, "table_b must be 0 or .* up to 16384, got -32768"),
    ({"scale_b": np.ones(4, np.float32)}, ValueError, r"scale_b must hold 1 or 5 values, got \(4,\)"),
    ({"a": np.zeros((2, 3, 1), np.int8)}, ValueError, r"a must have 2 axes, got shape \(2, 3, 1\)"),
    ({"kind": "matmul"}, ValueError, "kind must be one of conv2d, .*, got 'matmul'"),
])
def test_refusals(change, error, words):
    arguments = {"kind": "linear", "a": codes(7, 2, 3), "b": codes(7, 5, 3), "table_a": OWN, "table_b": OWN,
                 "scale_a": ONE, "scale_b": ONE} | change
    with pytest.raises(error, match=words):
        table.contract(arguments.pop("kind"), arguments.pop("a"), arguments.pop("b"), **arguments)
