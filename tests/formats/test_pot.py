"""PoT: the vectors of the paper's notes, the rounding over every mantissa, scales, edges, and its words."""
import numpy as np
import pytest

from minilp.formats import LNS, Fixed, NotFiniteError, PoT, QTensor, Spec, Stream
from minilp.formats.pot import rlog2

Z = None  # the zero code

VECTORS = [
    (5, [1, .75, .7, -.3, .001, 4.5e-5, 4.0e-5, 0], -7, [7, 7, 6, 5, -3, -7, Z, Z],
     [1, 1, .5, -.25, 2**-10, 2**-14, 0, 0]),
    (5, [-3, 2.9, 2.8, .1, -1e-4, 1e-5], -5, [7, 7, 6, 2, Z, Z], [-4, 4, 2, .125, 0, 0]),
    (4, [1, -.5, .1, .03, .011, .0113], -3, [3, 2, 0, -2, Z, -3], [1, -.5, .125, 2**-5, 0, 2**-6]),
    (5, [1.5e-9, -2e-10, 7e-14, 6e-14], -36, [7, 4, Z, Z], [2**-29, -2**-32, 0, 0]),
]


def f32(*numbers):
    return np.array(numbers, np.float32)


def exponents(q):
    """k of each code, None for the zero code."""
    return [None if code == 0 else abs(int(code)) - 1 - q.format.emax for code in q.codes]


@pytest.mark.parametrize(("bits", "x", "beta", "k", "values"), VECTORS)
def test_vectors_of_the_notes(bits, x, beta, k, values):
    q = PoT(bits).encode(f32(*x))
    assert int(q.scales[0][0]) == beta
    assert exponents(q) == k
    assert q.decode().tolist() == values


def test_rlog2_over_all_mantissas():
    """Equal to floor(log2 x) + (mantissa > sqrt 2), for every mantissa; mantissa^2 > 2 is exact in integers."""
    mantissa = np.arange(2**23, dtype=np.int32)
    whole = mantissa.astype(np.int64) + 2**23
    above = whole * whole > 2 * 4**23
    for exponent in (-126, -1, 0, 1, 127):
        x = (mantissa | np.int32((exponent + 127) << 23)).view(np.float32)
        assert np.array_equal(rlog2(x), exponent + above.astype(np.int32))
    assert mantissa[above][0] == 0x3504F4


def test_linear_threshold_rounds_from_three_halves_on():
    x = f32(1, np.nextafter(np.float32(1.5), np.float32(1)), 1.5, 1.6, 0.75, 0.74)
    q = PoT(5, threshold="linear").encode(x, scales=(np.zeros(1, np.int32),))
    assert q.decode().tolist() == [1, 1, 2, 2, 1, .5]


def test_underflow_rules():
    scales = (np.zeros(1, np.int32),)  # smallest power 2^-7
    x = f32(0.72, 0.70, 0.51, 0.5, 0.49) * 2.0**-7
    kept = {"rounded": [1, 0, 0, 0, 0], "half": [1, 1, 1, 1, 0]}
    for rule, want in kept.items():
        assert PoT(5, underflow=rule).encode(x, scales=scales).codes.tolist() == want
    linear = PoT(5, threshold="linear").encode(f32(0.76, 0.74) * np.float32(2.0**-7), scales=scales)
    assert linear.codes.tolist() == [1, 0]


@pytest.mark.parametrize("bits", [3, 4, 5, 6])
def test_all_codes_round_trip(bits):
    fmt = PoT(bits)
    codes = fmt.codes()
    assert len(codes) == fmt.levels == 2**bits - 1
    for beta in (fmt.emax - 126, -3, 0, 127 - fmt.emax):
        scales = (np.full(1, beta, np.int32),)
        values = QTensor(fmt, codes, scales).decode()
        want = [0 if c == 0 else np.sign(c) * 2.0 ** (abs(c) - 1 - fmt.emax + beta) for c in codes.astype(int)]
        assert values.tolist() == want
        assert np.array_equal(fmt.encode(values, scales=scales).codes, codes)
        assert np.array_equal(fmt.encode(values).codes, codes)  # the largest value calls for the same scale
        assert np.array_equal(fmt.encode(values, stream=Stream()).codes, codes)  # and a power has no neighbour to go to


def test_scales_put_the_maximum_on_the_top_code():
    rng = np.random.default_rng(0)
    for bits in (3, 4, 5, 6):
        x = np.exp2(rng.uniform(-90, 90, 50)).astype(np.float32)
        assert (PoT(bits).encode(x, keep=(0,)).codes == 2 ** (bits - 1) - 1).all()


def test_scale_saturates_where_values_would_leave_float32():
    fmt = PoT(5)
    biggest = np.finfo(np.float32).max  # its nearest power, 2^128, is no float32
    q = fmt.encode(f32(biggest, 1))
    assert q.scales[0][0] == 120 and q.decode()[0] == np.float32(2.0**127)
    tiny = np.float32(2.0**-126)
    q = fmt.encode(f32(tiny, tiny * 1.9))
    assert q.scales[0][0] == -119 and q.decode().tolist() == [tiny, 2 * tiny]


def test_subnormals_are_zero_and_alone_take_the_lowest_scale():
    x = f32(1e-40, -2e-39, 1.1e-38)
    for fmt in (PoT(5), PoT(5, underflow="half"), PoT(5, threshold="linear")):
        q = fmt.encode(x)
        assert q.codes.tolist() == [0, 0, 0] and q.scales[0][0] == -119
        assert fmt.encode(np.concatenate([x, f32(2.0**-120)])).codes.tolist()[:3] == [0, 0, 0]


def test_subnormals_round_stochastically_without_bias():
    x = np.full(1 << 14, 2.0**-126 * 0.375, np.float32)
    q = PoT(5).encode(x, stream=Stream(seed=3))
    assert q.scales[0][0] == -119 and set(np.unique(q.codes)) == {0, 1}
    assert abs(q.codes.mean() - 0.375) < 6 * np.sqrt(0.375 * 0.625 / x.size)


def test_all_zero_has_beta_zero():
    q = PoT().encode(np.zeros((2, 3), np.float32), keep=(0,))
    assert q.scales[0].tolist() == [[0], [0]] and not q.codes.any()


def test_held_scale_reencode():
    rng = np.random.default_rng(1)
    x = (rng.standard_normal((4, 5, 6)) * np.exp2(rng.integers(-20, 3, (4, 5, 6)))).astype(np.float32)
    for keep in ((), (0,), (0, 2)):
        for stream in (None, Stream(seed=8)):
            q = PoT().encode(x, keep=keep, stream=stream)
            again = PoT().encode(q.decode(), keep=keep, scales=q.scales, stream=stream)
            assert np.array_equal(again.codes, q.codes)


def test_given_scales_saturate_at_the_top_code():
    """What parameterized ratio clipping relies on: a lower scale clips for free."""
    scales = PoT().scales_for(f32(0.6))
    q = PoT().encode(f32(0.5, -0.6, 0.8, -100, 3e38), scales=scales)
    assert q.decode().tolist() == [0.5, -0.5, 0.5, -0.5, 0.5]
    clipped = PoT().encode(np.clip(f32(0.5, -0.6, 0.8, -100, 3e38), -np.float32(.6), np.float32(.6)), scales=scales)
    assert np.array_equal(clipped.codes, q.codes)


@pytest.mark.parametrize("threshold", ["log", "linear"])
@pytest.mark.parametrize("bits", [3, 4, 5, 6])
def test_one_scale_is_that_of_many(bits, threshold):
    """One maximum goes through Python's integers, several through NumPy's."""
    fmt, root = PoT(bits, threshold=threshold), np.float32(2) ** np.float32(0.5)
    edges = np.concatenate([np.nextafter(f32(v, v, v), f32(0, v, 4)) for v in (root, np.float32(1.5), np.float32(1))])
    maxima = np.concatenate([f32(0), *(np.ldexp(edges, e).astype(np.float32) for e in (-149, -126, -60, 0, 60, 126))])
    many, = fmt.scales_for(maxima)
    for maximum, beta in zip(maxima, many, strict=True):
        one, = fmt.scales_for(maximum.reshape(1, 1))
        assert one.shape == (1, 1) and one.dtype == np.int32 and one[0, 0] == beta


def test_sr_unbiased_when_not_saturated():
    values = f32(1, 1.25, 1.9, 0.3, 3.1, 2**-7 * .25, 2**-7 * .01, 100)
    draws = 1 << 15
    q = PoT(5).encode(np.repeat(values, draws), stream=Stream(seed=1), scales=(np.zeros(1, np.int32),))
    means = q.decode().reshape(len(values), draws).mean(axis=1, dtype=np.float64)
    low = np.where(values < 2**-7, 0, np.exp2(np.floor(np.log2(values))))
    high = np.where(values < 2**-7, 2**-7, 2 * low)
    sigma = np.sqrt((values - low) * (high - values) / draws)
    assert (np.abs(means - values) <= 5 * sigma).all()
    assert (sigma[1:] > 0).all()


def test_zero_empty_inf_nan_inputs():
    fmt = PoT()
    assert fmt.encode(np.zeros((0, 3), np.float32), keep=(1,)).codes.shape == (0, 3)
    assert fmt.encode(f32(0.0, -0.0)).decode().tolist() == [0, 0]
    assert not np.signbit(fmt.encode(f32(-0.0, 1)).decode()[0])
    for bad in (np.nan, np.inf, -np.inf):
        x = np.ones((3, 4), np.float32)
        x[1, 2] = bad
        for options in ({}, {"scales": fmt.scales_for(np.ones((1, 1), np.float32))}, {"stream": Stream()}):
            with pytest.raises(NotFiniteError, match=r"1 of 12 elements, the first is -?(nan|inf) at index \(1, 2\)"):
                fmt.encode(x, **options)


@pytest.mark.parametrize("bits", [2, 7, 5.5, "5", True, None])
def test_bad_bits_are_refused(bits):
    with pytest.raises(ValueError, match="bits must be 3, 4, 5 or 6"):
        PoT(bits)


@pytest.mark.parametrize("field", ["threshold", "underflow", "accumulate"])
def test_bad_options_are_refused(field):
    with pytest.raises(ValueError, match=f"{field} must be one of"):
        PoT(**{field: "none"})


def test_cost_is_an_exponent_add_a_xor_and_an_accumulator_add():
    assert PoT(5).cost(PoT(5)) == {"int4_add": 1, "xor1": 1, "int32_add": 1}
    assert PoT(4).cost(PoT(3)) == {"int3_add": 1, "xor1": 1, "int32_add": 1}
    assert PoT(6).cost(PoT(5)) == {"int5_add": 1, "xor1": 1, "int64_add": 1}
    assert PoT(5).cost(Fixed(8)) == PoT(3).cost(Fixed(4)) == {"int32_shift": 1, "xor1": 1, "int32_add": 1}
    for fmt, other in ((PoT(5), Fixed(9)), (PoT(6), Fixed(8)), (PoT(5), LNS())):
        with pytest.raises(NotImplementedError, match="does not say"):
            fmt.cost(other)


def test_unit_reaches_below_float32():
    q = PoT(5).encode(f32(2.0**-110, -2.0**-123, 0))
    assert 0 < (unit := q.format.unit(q).item()) < 2.0**-120
    assert np.array_equal(PoT(5).table()[q.codes.view(np.uint8)] * unit, q.decode()) and q.decode()[0] == 2.0**-110


def test_explain_shows_every_field():
    words = PoT(5).explain(0.3, -0.7)
    for piece in ("sign 0, k = 7 (0111), beta = -9, decodes to 0.25", "sign 1, k = 7 (0111), beta = -8", "0 XOR 1 = 1",
                  "7 + 7 = 14   (INT4 addition, 5-bit result)", "1 << (14 + 14) = 268435456", "= -268435456",
                  "2^-31, once per output", "-0.125   (exact product -0.21)"):
        assert piece in words
    assert "zero gate" in PoT(4).explain(0, 2) and "zero code (100)" in PoT(4).explain(0, 2)


def test_table_up_to_five_bits():
    assert PoT(6).table() is None and PoT(4, accumulate="int32").table() is None
    table = PoT(5).table()
    assert [int(table[c & 255]) for c in (-15, -1, 0, 1, 8, 15)] == [-2**14, -1, 0, 1, 128, 2**14]
    table = PoT(4).table()
    assert [int(table[c & 255]) for c in range(-7, 8)] == [-64, -32, -16, -8, -4, -2, -1, 0, 1, 2, 4, 8, 16, 32, 64]


def encoded(fmt, *shape, keep=(), seed=0):
    """A random tensor whose rows differ in scale, encoded."""
    x = np.random.default_rng(seed).standard_normal(shape)
    x *= np.exp2(np.arange(shape[0])).reshape(-1, *(1,) * (len(shape) - 1))
    return fmt.encode(x.astype(np.float32), keep=keep)


def test_contract_with_another_format_is_left_to_others():
    assert PoT().contract(encoded(PoT(), 3, 4), encoded(Fixed(), 5, 4), Spec("linear")) is NotImplemented


def test_contract_refuses_a_scale_along_the_sum():
    a, b = encoded(PoT(), 3, 4, keep=(1,)), encoded(PoT(), 5, 4)
    with pytest.raises(ValueError, match="linear: the scale of the first operand varies along its axis 1"):
        PoT().contract(a, b, Spec("linear"))


@pytest.mark.parametrize("bits", [(5, 5), (4, 6), (6, 6)])
def test_contract_equals_float64_with_kept_scales(bits):
    a, b = encoded(PoT(bits[0]), 6, 40, keep=(0,)), encoded(PoT(bits[1]), 5, 40, keep=(0,), seed=1)
    exact = a.decode().astype(np.float64) @ b.decode().astype(np.float64).T
    assert np.array_equal(PoT(bits[0]).contract(a, b, Spec("linear")), exact.astype(np.float32))


def test_int32_accumulator_reports_its_overflows():
    fmt = PoT(5, accumulate="int32")
    a, b = fmt.encode(np.ones((1, 64), np.float32)), fmt.encode(np.ones((1, 64), np.float32))
    with pytest.warns(RuntimeWarning, match="additions overflowed the INT32 accumulator"):
        wrapped = fmt.contract(a, b, Spec("linear"))
    assert wrapped[0, 0] != 64
    a, b = PoT(5).encode(np.ones((1, 64), np.float32)), PoT(5).encode(np.ones((1, 64), np.float32))
    assert PoT(5).contract(a, b, Spec("linear"))[0, 0] == 64
