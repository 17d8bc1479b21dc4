"""Fixed point: scale, rounding to even, saturation."""
import numpy as np
import pytest

from minilp.formats import Fixed, Stream


def f32(*numbers):
    return np.array(numbers, np.float32)


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_step_is_the_smallest_that_holds_the_maximum(bits):
    fmt = Fixed(bits)
    for maximum in (1, fmt.top, fmt.top * 1.001, 0.7, 1e-6, 12345):
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
    for bits in range(2, 9):
        q = Fixed(bits).encode(f32(np.finfo(np.float32).max, 1e-45))
        assert np.isfinite(q.decode()).all() and q.codes[0] > 0
        assert Fixed(bits).encode(f32(1e-45)).codes[0] == 0
        assert Fixed(bits).encode(np.zeros(2, np.float32)).scales[0][0] == 0


def test_table_is_the_codes_themselves():
    table = Fixed(4).table()
    assert [int(table[c & 255]) for c in range(-8, 8)] == [0, *range(-7, 8)]


@pytest.mark.parametrize("bits", [1, 9, 4.5, "8"])
def test_bad_bits_are_refused(bits):
    with pytest.raises(ValueError, match="bits must be 2 to 8"):
        Fixed(bits)
