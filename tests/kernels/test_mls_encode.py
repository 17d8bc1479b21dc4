"""Rounding to MLS levels next to every threshold: the quick loop in single precision against the twin's quotient."""
import numpy as np
import pytest

from minilp.formats import Stream
from minilp.kernels import use_backend
from minilp.kernels.mls import mls_encode, mls_scales

FORMATS = [(1, 3, 7), (1, 3, 8), (4, 3, 63), (0, 1, 1), (2, 8, 35), (6, 1, 127)]  # man, binades, top


def near(values: np.ndarray) -> np.ndarray:
    """The float32 numbers next to each value, and a few farther off, of either sign."""
    middle = values.astype(np.float32)
    bits = middle.view(np.int32)[None] + np.array([-40, -3, -2, -1, 0, 1, 2, 3, 40], np.int32)[:, None]
    bits = np.maximum(bits, 0).astype(np.int32)
    x = bits.view(np.float32)
    return np.concatenate([x, -x]).ravel()


def same(x: np.ndarray, unit: np.ndarray, fmt: tuple[int, int, int], stream: Stream | None = None) -> None:
    """C and twin agree, codes of both signs and more than one level are among them."""
    got = mls_encode(x, unit, *fmt, stream=stream)
    with use_backend("numpy"):
        want = mls_encode(x, unit, *fmt, stream=stream)
    assert np.array_equal(got, want)
    assert len(np.unique(want)) >= 3


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("significand", [1.0, 1.5])
def test_nearest_next_to_every_threshold(isa, fmt, significand):
    man, binades, _ = fmt
    rng = np.random.default_rng(man)
    steps = np.concatenate([np.arange(2 * 2**man) + 0.5, np.arange(1, 2 * 2**man + 1)])
    for tensor in (np.float32(1), np.float32(rng.uniform(1, 2)), np.float32(1.9999999) * np.float32(2.0**-60)):
        unit = np.float64(tensor) * significand * 2.0**-5
        x = near(np.concatenate([steps * 2.0**(e - man - binades) * unit for e in range(binades + 2)]))
        same(x, np.full(1, unit), fmt)


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 127, 128, 129, 255, 1023])
def test_a_scale_for_each_sample(isa, n):
    """Batch innermost in memory, as activations lie, and innermost in the index."""
    rng = np.random.default_rng(n)
    unit = (np.float64(np.float32(0.37)) * np.array([1, 1.5])[rng.integers(0, 2, n)] * 2.0**-rng.integers(0, 9, n))
    ties = (rng.integers(-16, 17, (3, 5, n)) * unit / 16 + 0).astype(np.float32)
    some = (rng.standard_normal((3, 5, n)) * unit).astype(np.float32)
    for x in (ties, some):
        for stream in (None, Stream(1, 2, 0, 3, 0, "error")):
            same(x.transpose(2, 0, 1), unit.reshape(n, 1, 1), (1, 3, 7), stream)
            same(x, unit.reshape(1, 1, n), (1, 3, 7), stream)


@pytest.mark.parametrize("fmt", FORMATS)
def test_draws_that_lift_an_element_to_the_next_level_by_a_hair(isa, fmt):
    """|x| such that the draw of its place brings it next to a whole number of steps."""
    man, binades, _ = fmt
    stream, unit = Stream(5, 1, 0, 2, 0, "error"), np.float64(np.float32(1.2345)) * 1.5
    rng, n = np.random.default_rng(8), 4096
    draw = stream.uint32((n,)).astype(np.int64) >> 16
    whole = rng.integers(1, 2 * 2**man + 1, n) * 65536
    steps = (whole - draw - np.array([0, 0.5, 1])[rng.integers(0, 3, n)]) / 65536
    x = (steps * 2.0**-(man + rng.integers(0, binades + 1, n)) * unit).astype(np.float32)
    for hair in (-2, -1, 0, 1, 2):
        moved = (np.abs(x).view(np.int32) + np.int32(hair)).view(np.float32) * np.where(rng.random(n) < 0.5, -1, 1)
        same(moved.astype(np.float32), np.full(1, unit), fmt, stream)


def test_units_without_a_normal_reciprocal(isa):
    """Scales below 2^-126 and above 2^126 have reciprocals that single precision does not hold."""
    x = np.array([3e-44, -1e-39, 2e-38, 0, 1e-45], np.float32)
    same(x, np.full(1, 2.0**-125), (1, 3, 7))
    same(x, np.full(1, 2.0**-140), (1, 3, 7))
    same(np.array([3e38, -1e38, 0, 5e37], np.float32), np.full(1, 1.5 * 2.0**127), (1, 3, 7))


@pytest.mark.parametrize("bits", [(8, 1), (8, 0), (2, 1), (1, 0)])
def test_scales_equal_the_twin(needs_c, bits):
    """Zeros, subnormals, and maxima next to 1 and 1.5 times powers of two of the largest."""
    rng = np.random.default_rng(3)
    for n in (1, 2, 3, 17, 1023):
        largest = np.float32(rng.uniform(1e-3, 7))
        exact = largest * np.array([1, 1.5])[rng.integers(0, 2, n)] * 2.0**-rng.integers(1, 140, n)
        maxima = (exact.astype(np.float32).view(np.int32) + rng.integers(-1, 2, n, dtype=np.int32)).view(np.float32)
        maxima = np.maximum(np.where(rng.random(n) < 0.1, 0, maxima), 0).astype(np.float32)
        for some in (maxima, np.append(maxima, largest), np.zeros(n, np.float32)):
            got, got_unit = mls_scales(some, (), *bits)
            with use_backend("numpy"):
                want, want_unit = mls_scales(some, (), *bits)
            for a, b in zip((*got, got_unit), (*want, want_unit), strict=True):
                assert a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)
