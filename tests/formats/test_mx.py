"""MX: element for element those of ml_dtypes, OCP's scale rule on every block, and the laws of a format."""
import math

import numpy as np
import pytest

from minilp import report, use_backend
from minilp.formats import MX, Format, NotFiniteError, QTensor, Stream
from minilp.testing import check_format
from minilp.testing.runner import numbers

RNG = np.random.default_rng(31)
ELEMENTS = ("e2m1", "e2m3", "e3m2", "e4m3", "e5m2", "int8")
TWINS = {"e2m1": "float4_e2m1fn", "e2m3": "float6_e2m3fn", "e3m2": "float6_e3m2fn", "e4m3": "float8_e4m3fn",
         "e5m2": "float8_e5m2"}
HIGHEST = {"e2m1": 2, "e2m3": 2, "e3m2": 4, "e4m3": 8, "e5m2": 15, "int8": 0}  # table 1 of the specification
LARGEST = {"e2m1": 6, "e2m3": 7.5, "e3m2": 28, "e4m3": 448, "e5m2": 57344, "int8": 127 / 64}


def grid(element):
    """Every finite value of an element, ascending, from ml_dtypes (int8: steps of 2^-6, without -128)."""
    if element == "int8":
        return np.arange(-127, 128) / 64
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    patterns = np.arange(2 ** MX(element).bits).astype(np.uint8)
    values = patterns.view(np.dtype(getattr(ml_dtypes, TWINS[element]))).astype(np.float64)
    return np.unique(values[np.isfinite(values)] + 0.0)


@pytest.mark.parametrize("element", ELEMENTS)
def test_elements_are_those_of_the_specification(element):
    fmt = MX(element)
    one = (np.full((1,), 127, np.uint8),)
    values = QTensor(fmt, fmt.codes(), one).decode()
    assert np.array_equal(values, grid(element))
    assert fmt.range[1] == LARGEST[element] == values.max()
    assert fmt.level.highest == HIGHEST[element] == math.floor(math.log2(values.max()))


@pytest.mark.parametrize("element", ELEMENTS)
def test_every_block_against_a_loop_over_the_grid(element):
    values = grid(element)
    x = numbers(RNG, 3, 70) * np.exp2(RNG.integers(-30, 30, (3, 1))).astype(np.float32)
    x[1, 32:64] = 0
    x[2, :5] = [1.0, 2.0, -4.0, 0.75, 1.9999999]
    q = MX(element).encode_along(x)
    assert q.scales[0].shape == (3, 3) and q.scales[0].dtype == np.uint8
    decoded = q.decode()
    for row in range(3):
        for block, start in enumerate((0, 32, 64)):
            part = x[row, start:start + 32].astype(np.float64)
            largest = np.abs(part).max()
            exponent = math.floor(math.log2(largest)) - HIGHEST[element] if largest else 0
            assert q.scales[0][row, block] == exponent + 127
            for i, v in enumerate(part):
                scaled = max(-LARGEST[element], min(LARGEST[element], v / 2.0**exponent))
                distance = np.abs(values - scaled)
                near = np.flatnonzero(distance == distance.min())
                even = [n for n in near if (n - len(values) // 2) % 2 == 0]
                want = values[near[0] if len(near) == 1 else even[0]]
                assert decoded[row, start + i] == want * 2.0**exponent, (element, v)


@pytest.mark.parametrize("element", TWINS)
def test_rounding_is_that_of_ml_dtypes(element):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    twin = np.dtype(getattr(ml_dtypes, TWINS[element]))
    values = grid(element)
    x = np.concatenate([RNG.uniform(values[0], values[-1], 3000), (values[1:] + values[:-1]) / 2,
                        RNG.standard_normal(2000) * np.exp2(RNG.uniform(-20, 2, 2000))])
    x = np.clip(x, values[0], values[-1]).astype(np.float32)
    q = MX(element).encode(x, scales=(np.full((1,), 127, np.uint8),))
    assert np.array_equal(q.decode(), x.astype(twin).astype(np.float32))


@pytest.mark.parametrize(("element", "rule"), [*((e, "floor") for e in ELEMENTS), ("e2m1", "ceil"), ("int8", "ceil")])
def test_the_laws_hold(element, rule):
    check_format(MX(element, scale_rule=rule))


def test_what_saturates_and_what_does_not():
    """7.9 lies between 6 and 8: OCP's scale for it is 1, and the element ends at 6."""
    x = np.array([7.9, 1.0, -7.9], np.float32)
    assert MX().encode_along(x).decode().tolist() == [6, 1, -6]
    assert MX(scale_rule="ceil").encode_along(x).decode().tolist() == [8, 1, -8]
    assert MX("int8").encode_along(np.array([-1.999], np.float32)).codes.tolist() == [-127]
    for element in ELEMENTS:
        fmt = MX(element, scale_rule="ceil")
        for largest in (LARGEST[element], np.nextafter(np.float32(LARGEST[element]), np.float32(np.inf))):
            q = fmt.encode_along(np.array([largest], np.float32))
            assert q.scales[0][0] == 127 + (largest > LARGEST[element])


def test_blocks_lie_along_the_axis_and_start_anew_with_every_run():
    x = RNG.standard_normal((4, 10, 3)).astype(np.float32) * np.exp2(RNG.integers(-9, 9, (4, 10, 3)))
    x = x.astype(np.float32)
    fmt = MX("e2m3", block=4)
    for axis, run, blocks in ((0, None, [(0, 4)]), (1, None, [(0, 4), (4, 8), (8, 10)]),
                              (1, 5, [(0, 4), (4, 5), (5, 9), (9, 10)]), (-1, 1, [(0, 1), (1, 2), (2, 3)]),
                              (2, 3, [(0, 3)])):
        for stored in (x, x.transpose(1, 2, 0).copy().transpose(2, 0, 1)):
            q = fmt.encode_along(stored, axis, run=run)
            moved, scales = np.moveaxis(q.decode(), axis, -1), np.moveaxis(q.scales[0], axis, -1)
            assert scales.shape[-1] == len(blocks) and q.codes.strides == stored.astype(np.int8).strides
            for place, (start, stop) in enumerate(blocks):
                for index in np.ndindex(*moved.shape[:-1]):
                    alone = fmt.encode(np.moveaxis(x, axis, -1)[index][start:stop])
                    assert np.array_equal(moved[index][start:stop], alone.decode())
                    assert scales[index][place] == alone.scales[0][0]
    with pytest.raises(ValueError, match="run must divide the 10 elements of axis 1, got 3"):
        fmt.encode_along(x, 1, run=3)


def test_extremes_of_float32():
    tiny, huge = np.float32(1e-45), np.finfo(np.float32).max
    for element in ELEMENTS:
        fmt = MX(element)
        for largest in (tiny, np.float32(2.0**-126), np.float32(1e38), huge):
            q = fmt.encode_along(np.array([largest, 0, -largest], np.float32))
            assert 0 <= q.scales[0][0] <= 254
            decoded = q.decode()
            assert np.isfinite(decoded).all() and decoded[0] == -decoded[2]
            exact = np.float64(largest) * 2.0 ** (127 - int(q.scales[0][0]))
            assert abs(decoded[0] - np.float64(largest)) <= max(0.5, exact / 4) * 2.0 ** (int(q.scales[0][0]) - 127)
    assert MX().encode_along(np.zeros(40, np.float32)).scales[0].tolist() == [127, 127]


def test_not_finite_is_refused():
    for bad in (np.nan, np.inf, -np.inf):
        x = np.ones((2, 40), np.float32)
        x[1, 35] = bad
        for axis in (0, 1):
            with pytest.raises(NotFiniteError):
                MX().encode_along(x, axis)


def test_stochastic_rounding_is_unbiased_in_every_block_and_the_same_whatever_the_axis():
    x = np.tile(np.array([[0.3, -1.7, 2.2, 6.0], [0.011, 0.04, 0.09, 0.09375]], np.float32), (4096, 1))
    q = MX(block=4).encode_along(x, stream=Stream(seed=9))
    mean = q.decode().astype(np.float64).reshape(4096, 2, 4).mean(axis=0)
    step = np.array([[0.5], [0.5 * 2.0**-6]])
    assert (np.abs(mean - x[:2]) < 6 * step * 4 / 64).all()
    drawn = []
    for stored in (x, x.T.copy().T):
        for name in ("auto", "numpy"):
            with use_backend(name):
                drawn.append(MX(block=4).encode_along(stored, stream=Stream(seed=9)).codes)
    assert all(np.array_equal(drawn[0], other) for other in drawn[1:])
    part = MX(block=4).encode_along(x[100:], stream=Stream(seed=9, offset=400)).codes
    assert np.array_equal(part, q.codes[100:])


def test_storage():
    q = MX("e3m2").encode_along(RNG.standard_normal((5, 70)).astype(np.float32))
    assert q.nbytes_payload == -(-6 * 350 // 8) and q.nbits == 6 * 350 + 8 * 15
    again = QTensor.unpack(q.pack(), q.format, q.scales, q.shape)
    assert np.array_equal(again.decode(), q.decode())
    assert np.array_equal(q.transpose(1, 0).decode(), q.decode().T)
    assert Format.from_config(q.format.to_config()) == q.format


@pytest.mark.parametrize(("fields", "words"), [
    ({"element": "e1m2"}, "element must be one of e2m1, .*, got 'e1m2'"), ({"block": 0}, "block must be .*, got 0"),
    ({"scale_rule": "up"}, "scale_rule must be 'floor' or 'ceil', got 'up'")])
def test_wrong_fields(fields, words):
    with pytest.raises(ValueError, match=words):
        MX(**fields)


def test_scales_that_do_not_fit_are_refused():
    x = np.ones((2, 70), np.float32)
    for wrong in (np.full((1, 1), 255, np.uint8), np.zeros((1,), np.uint8), np.zeros((1, 2), np.uint8),
                  np.zeros((1, 1), np.int32)):
        with pytest.raises(ValueError, match="MX: scales"):
            MX().encode(x, scales=(wrong,))


def test_reports():
    words = report.explain("mxfp4", 0.3, -0.7)
    assert "scale byte 123 = 2^-4, sign 0, fields 11 0, integer 8, decodes to 0.25" in words
    assert "P = 8 * -12 = -96" in words and "result      -0.1875" in words
    assert "(saturated)" in report.explain("mx:element=int8", 1.999, 1)
    row = next(line for line in report.formats().splitlines() if line.startswith("MX("))
    assert "E8M0" in row and "OCP Microscaling Formats (MX) Specification 1.0" in row
    assert MX().cost(MX("int8")) == {"int8_mul": 1, "int32_add": 1}
