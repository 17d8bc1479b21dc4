"""LNS kernels: C equals NumPy on every tier, levels are decided on the exact quotient, tables are exact."""
from fractions import Fraction

import numpy as np
import pytest

from minilp.formats import NotFiniteError, Stream
from minilp.kernels import calls, lns, reference_lns, set_num_threads, threads, use_backend

LATTICES = [(1, 16), (2, 127), (4, 255), (8, 128), (8, 127), (16, 128), (32, 128), (1, 128), (512, 15), (2048, 32768),
            (32768, 32767)]
WAYS = [(None, "linear"), (Stream(seed=3, offset=2**32 - 70), "linear"), (Stream(seed=4), "exponent")]


def numbers(rng, n, octaves):
    """Magnitudes over ``octaves`` below 4, with zeros of both signs."""
    x = rng.standard_normal(n) * np.exp2(rng.uniform(-octaves, 1, n))
    x[rng.random(n) < 0.05] = 0
    return np.where(rng.random(n) < 0.01, -0.0, x).astype(np.float32)


def both(x, maximum, gamma, top, stream=None, draw="linear"):
    """Codes by C, checked against the twin's, and their values by both."""
    with use_backend("numpy"):
        want = lns.lns_encode(x, maximum, gamma, top, stream, draw)
        value = lns.lns_decode(want, maximum, gamma, top)
    with calls() as seen:
        got = lns.lns_encode(x, maximum, gamma, top, stream, draw)
        back = lns.lns_decode(got, maximum, gamma, top)
    assert seen["lns_encode"] == seen["lns_decode"] == 1
    assert got.dtype == want.dtype == lns.code_dtype(top) and got.strides == want.strides
    assert np.array_equal(got, want)
    assert np.array_equal(back.view(np.uint32), value.view(np.uint32))
    return got


@pytest.mark.parametrize(("gamma", "top"), LATTICES)
def test_c_equals_numpy(isa, gamma, top):
    rng = np.random.default_rng(gamma + top)
    for n in (1, 127, 128, 129, 1001, 5003):
        for octaves in (3, top / gamma, 50):
            x = numbers(rng, n, octaves)
            for maximum in (np.abs(x).max() or 1, 0.7, 1.9999999, 3e38):
                for stream, draw in WAYS:
                    both(x, np.full(1, maximum, np.float32), gamma, top, stream, draw)


@pytest.mark.parametrize("maximum", [1e-45, 2e-40, 2.0**-126, 1.7 * 2.0**-126, 1e-37, 1e-33])
def test_c_equals_numpy_where_numbers_are_subnormal(isa, maximum):
    rng = np.random.default_rng(0)
    x = (numbers(rng, 2001, 12) * np.float32(2.0**-126)).astype(np.float32)
    assert ((np.abs(x) < 2.0**-126) & (x != 0)).any()
    for gamma, top in ((1, 16), (8, 128), (16, 127), (2048, 32768)):
        for stream, draw in WAYS:
            both(x, np.full(1, maximum, np.float32), gamma, top, stream, draw)


def test_c_equals_numpy_in_any_layout(isa):
    rng = np.random.default_rng(1)
    x = numbers(rng, 5 * 7 * 3 * 131, 20).reshape(5, 7, 3, 131)
    before = threads()
    try:
        for workers in (1, 2):
            set_num_threads(workers)
            for order in ((0, 1, 2, 3), (1, 2, 3, 0)):
                stored = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
                for keep in ((), (1,), (3,), (0, 1, 2, 3)):
                    axes = tuple(axis for axis in range(4) if axis not in keep)
                    maximum = np.abs(x).max(axis=axes, keepdims=True)
                    maximum[maximum == 0] = 1
                    for stream, draw in WAYS:
                        codes = both(stored, maximum, 8, 128, stream, draw)
                        assert codes.transpose(order).flags.c_contiguous
                        with use_backend("numpy"):
                            assert np.array_equal(codes, lns.lns_encode(x, maximum, 8, 128, stream, draw))
    finally:
        set_num_threads(before)


@pytest.mark.parametrize("gamma", [1, 2, 4, 8, 16])
def test_levels_are_decided_on_the_exact_quotient(isa, gamma):
    """At the float32 numbers on both sides of each threshold, in fractions: t^(2 gamma) against 2^(2k - 1)."""
    top = 4 * gamma
    for maximum in np.array([1, 1.5, 1.4142135, 1.9999999, 5.877472e-39 * 2**30], np.float32):
        thresholds = float(maximum) * np.exp2((np.arange(2, top + 1) - top - 0.5) / gamma)
        near = np.repeat(thresholds.astype(np.float32)[None], 40, 0)  # repeated: long enough for the integer path
        x = np.concatenate([near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(9))], axis=1)
        codes = both(np.ascontiguousarray(x.reshape(-1)), np.full(1, maximum), gamma, top).reshape(x.shape)
        assert (codes == codes[0]).all()
        for number, code in zip(x[0], codes[0], strict=True):
            power = (Fraction(float(number)) / Fraction(float(maximum))) ** (2 * gamma)
            want = max(k for k in range(1, top + 1) if k == 1 or power >= Fraction(2) ** (2 * (k - top) - 1))
            assert code == want, (gamma, maximum, number)


def test_roots_are_correctly_rounded():
    """Twice a half-step of float64 around each entry has the n-th root of 2^k in it."""
    for n in (1, 2, 8, 64):
        found = reference_lns.roots(n)
        assert len(found) == n and found[0] == 1 and not found.flags.writeable
        for k, root in enumerate(found):
            middle, half = Fraction(float(root)), Fraction(1, 2**53)
            assert (middle - half) ** n <= 2**k <= (middle + half) ** n
    fine = reference_lns.roots(1 << 16)
    assert np.abs(np.log2(fine) * 65536 - np.arange(65536)).max() < 1e-10 and (np.diff(fine) > 0).all()


@pytest.mark.parametrize("gamma", [1, 8, 2048, 32768])
@pytest.mark.parametrize("between", [True, False])
def test_one_comparison_after_the_bucket_is_enough(gamma, between):
    edges, buckets = reference_lns.edges(gamma, between), reference_lns.buckets(gamma, between)
    inner = edges[1:-1][edges[1:-1] < 2]
    m = np.concatenate([inner, np.nextafter(inner, 1), np.nextafter(inner, 2), np.linspace(1, 2, 5001)[:-1]])
    start = buckets[((m - 1) * 2 * gamma).astype(int)]
    assert np.array_equal(start + (m >= edges[start + 1]), np.searchsorted(edges[1:], m, side="right"))


@pytest.mark.parametrize(("top", "code"), [(16, 17), (16, -17), (127, -128), (128, 129), (128, -32768), (300, 301),
                                           (32768, 32769), (32768, -2**31)])
def test_decoding_finds_a_code_beyond_the_top_wherever_it_stands(isa, top, code):
    for shape, kept in (((1000,), (1,)), ((70_000,), (1,)), ((3, 50), (3, 1)), ((50, 3), (1, 3))):
        codes = np.zeros(shape, lns.code_dtype(top))
        maximum = np.ones(kept, np.float32)
        codes.flat[[0, 1]] = top, -top
        assert (lns.lns_decode(codes, maximum, 256, top).flat[:2] == (1, -1)).all()
        for place in (0, codes.size // 2, codes.size - 1):
            bad = codes.copy()
            bad.flat[place] = code
            with pytest.raises(ValueError, match=rf"codes must lie in \[-{top}, {top}\], got .*{code}"):
                lns.lns_decode(bad, maximum, 256, top)


def test_wrong_arguments_are_named(backend):
    x, one = np.ones(3, np.float32), np.ones(1, np.float32)
    for words, function in [
        ("gamma must be a power of two", lambda: lns.lns_encode(x, one, 3, 16)),
        ("gamma must be a power of two", lambda: lns.lns_decode(np.ones(3, np.int8), one, 0, 16)),
        ("top must be 1 to 32768", lambda: lns.lns_encode(x, one, 1, 40000)),
        ("draw must be", lambda: lns.lns_encode(x, one, 1, 16, Stream(), "log")),
        ("maximum must be positive and finite", lambda: lns.lns_encode(x, 0 * one, 1, 16)),
        ("maximum must be positive and finite", lambda: lns.lns_encode(x, one * np.float32(np.nan), 1, 16)),
        ("maximum must have the shape", lambda: lns.lns_encode(x, np.ones(2, np.float32), 1, 16)),
        ("codes must lie in", lambda: lns.lns_decode(np.array([17], np.int8), one, 1, 16)),
    ]:
        with pytest.raises(ValueError, match=words):
            function()
    with pytest.raises(TypeError, match="float32"):
        lns.lns_encode(x.astype(np.float64), one, 1, 16)
    with pytest.raises(TypeError, match="int16"):
        lns.lns_decode(np.ones(3, np.int8), one, 8, 128)
    for bad in (np.nan, -np.inf):
        x[1] = bad
        for stream, draw in WAYS:
            with pytest.raises(NotFiniteError, match=r"^grad: .* at index \(1,\)"):
                lns.lns_encode(x, one, 8, 128, stream, draw, name="grad")


@pytest.fixture(params=["c", "numpy"])
def backend(request):
    """Both backends in turn."""
    if request.param == "c":
        request.getfixturevalue("needs_c")
    with use_backend(request.param):
        yield request.param


def test_many_maxima_of_short_runs(isa):
    """A scale per row of a length around the one from which a row is worth a table of its own."""
    rng = np.random.default_rng(2)
    for length in (31, 127, 128, 300):
        x = numbers(rng, 64 * length, 20).reshape(64, length)
        maximum = np.abs(x).max(axis=1, keepdims=True)
        for gamma, top in ((4, 15), (8, 127), (8, 128), (2048, 32768)):
            for stream, draw in WAYS:
                both(x, maximum, gamma, top, stream, draw)
