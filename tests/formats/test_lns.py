"""LNS: the test vectors of the notes, widths, rounding, narrowing, contractions, words, and the laws."""
import itertools
from fractions import Fraction

import numpy as np
import pytest

import minilp
from minilp import cli, formats, report
from minilp.contract import executed, float_contraction, multiply
from minilp.formats import LNS, PoT, QTensor, Spec, Stream
from minilp.testing import check_format, contractions

X = np.array([1, -0.5, 0.3, -0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6, 0], np.float32)
LEGAL = [(bits, gamma) for gamma, bits in itertools.product((1, 2, 4, 8, 16), range(4, 17))
         if 2 ** (bits - 1) - 1 <= 253 * gamma]
VECTORS = [
    (8, 8, 1.66398e-05, [127, 119, 113, 100, 74, 47, 21, 0, 0],
     [1, -0.5, 0.297302, -0.0963882, 0.0101316, 9.76562e-4, 1.02648e-4, 1.66398e-5, 1.66398e-5, 0]),
    (5, 1, 3.05176e-05, [15, 14, 13, 12, 8, 5, 2, 0, 0],
     [1, -0.5, 0.25, -0.125, 0.0078125, 9.76562e-4, 1.2207e-4, 3.05176e-5, 3.05176e-5, 0]),
    (8, 16, 0.00407919, [127, 111, 99, 74, 21, 0, 0, 0, 0],
     [1, -0.5, 0.297302, -0.100656, 0.0101316, *[0.00407919] * 4, 0]),
]


def numbers(shape, seed=0, octaves=9):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * np.exp2(rng.uniform(-octaves, 1, shape))
    return np.where(rng.random(shape) < 0.1, 0, x).astype(np.float32)


@pytest.mark.parametrize(("bits", "gamma", "s", "exponents", "values"), VECTORS)
def test_vectors_of_the_notes(bits, gamma, s, exponents, values):
    fmt = LNS(bits, gamma)
    q = fmt.encode(X)
    assert float(fmt.s(q.scales[0])[0]) == pytest.approx(s, rel=1e-5)
    assert (np.abs(q.codes[:9]) - 1).tolist() == exponents and q.codes[9] == 0
    assert (np.sign(q.codes) == np.sign(X)).all()
    np.testing.assert_allclose(q.decode(), values, rtol=6e-6)


@pytest.mark.parametrize(("bits", "gamma"), LEGAL)
def test_laws(bits, gamma):
    check_format(LNS(bits, gamma))


@pytest.mark.parametrize("fmt", [LNS(5, 1, "code"), LNS(8, 8, "code"), LNS(12, 16, "code"), LNS(16, 2048),
                                 LNS(16, 2048, "code"), LNS(16, 2**15), LNS(4, 64), LNS(draw="exponent"),
                                 LNS(16, 2048, draw="exponent"), LNS(path="bins")], ids=str)
def test_laws_of_the_rest(fmt):
    check_format(fmt)


def test_widths():
    """Zero as a flag beside the bits, or as a code among them; codes as wide as they must be."""
    for bits, gamma in LEGAL:
        flag, code = LNS(bits, gamma), LNS(bits, gamma, zero="code")
        assert (flag.levels, code.levels) == (2**bits + 1, 2**bits - 1)
        assert (flag.bits, flag.stored_bits, code.bits, code.stored_bits) == (bits, bits + 1, bits, bits)
        assert (flag.top, flag.steps, code.top) == (2 ** (bits - 1), 2 ** (bits - 1) - 1, 2 ** (bits - 1) - 1)
        for fmt in (flag, code):
            assert len(fmt.codes()) == fmt.levels and fmt.codes().max() == fmt.top
            assert fmt.range == (2.0 ** -(fmt.steps / gamma), 1.0)
            q = QTensor(fmt, fmt.codes())
            assert q.nbytes_payload == -(-fmt.levels * fmt.stored_bits // 8) == q.pack().size
    kinds = [LNS(*args).codes().dtype for args in ((7, 8), (8, 8), (8, 8, "code"), (16, 2048), (16, 2048, "code"))]
    assert kinds == [np.int8, np.int16, np.int8, np.int32, np.int16]
    q = LNS().encode(numbers((3, 5)), keep=(0,))
    assert q.nbits == 15 * 9 + 3 * 32 and PoT().stored_bits == 5


@pytest.mark.parametrize("gamma", [1, 2, 4, 8, 16, 2048])
def test_error_is_at_most_half_a_step(gamma):
    """2^(1/(2 gamma)) - 1 of the value inside the range; the maximum itself exactly; the rest at the smallest."""
    fmt = LNS(16 if gamma > 16 else 8, gamma)
    x = numbers(4000, octaves=fmt.octaves + 2)
    q = fmt.encode(x)
    y, largest = q.decode(), np.abs(x).max()
    assert np.abs(y).max() == largest == q.scales[0]
    inside = np.abs(x) >= fmt.s(largest)
    ratio = (y[inside] / x[inside]).astype(np.float64)
    bound = 2 ** (1 / (2 * gamma))
    assert inside.sum() > 1000 and 1 / bound - 2e-7 <= ratio.min() and ratio.max() <= bound + 2e-7
    assert ratio.max() > 1 + 0.9 * (bound - 1)
    tiny = ~inside & (x != 0)
    assert tiny.any() and (np.abs(q.codes[tiny]) == 1).all()


def test_zero_groups_and_held_scales():
    for keep in ((), (0,)):
        q = LNS().encode(np.zeros((2, 3), np.float32), keep=keep)
        assert (q.codes == 0).all() and (q.scales[0] == 1).all() and (q.decode() == 0).all()
    q = LNS().encode(X, scales=(np.full(1, 0.25, np.float32),))
    assert np.abs(q.codes[:3]).tolist() == [128, 128, 128] and q.decode()[2] == 0.25


def test_stochastic_rounding_by_value_and_by_exponent():
    """Between two levels: the first is right on average, the second has the logarithm right and the value too small."""
    t = np.float32(2**-0.3)
    x = np.full(1 << 16, t)
    one = (np.ones(1, np.float32),)
    linear = LNS(5, 1).encode(x, scales=one, stream=Stream(seed=1)).decode()
    exponent = LNS(5, 1, draw="exponent")
    q = exponent.encode(x, scales=one, stream=Stream(seed=1))
    y = q.decode()
    chance = 6 * 0.25 / 2**8  # six sigmas of the mean of a draw between 0.5 and 1
    assert abs(linear.mean(dtype=np.float64) - t) < chance
    assert abs((q.codes - 16).mean() + 0.3) < 2 * chance and abs(y.mean(dtype=np.float64) - 0.85) < chance
    assert not exponent.unbiased and exponent.stochastic and LNS().unbiased
    tiny = np.full(4000, 1e-5, np.float32)  # a third of the smallest level
    assert set(LNS(5, 1).encode(tiny, scales=one, stream=Stream()).codes.tolist()) == {0, 1}
    assert set(exponent.encode(tiny, scales=one, stream=Stream()).codes.tolist()) == {1}


def test_exponent_rule_knows_the_logarithm():
    """The share of draws that go up is the fraction of gamma log2 t, for coarse and fine lattices."""
    for gamma, bits in ((8, 8), (2048, 16), (32768, 16)):
        fmt = LNS(bits, gamma, draw="exponent")
        t = np.exp2(-np.random.default_rng(0).uniform(0, 0.9 * fmt.octaves, 20)).astype(np.float32)
        draws = 1 << 14
        q = fmt.encode(np.repeat(t, draws), scales=(np.ones(1, np.float32),), stream=Stream(seed=2))
        mean = q.codes.reshape(20, draws).mean(axis=1)
        assert np.abs(mean - fmt.top - gamma * np.log2(t.astype(np.float64))).max() < 6 * 0.5 / 2**7 + gamma / 2**22


@pytest.mark.parametrize(("stored", "target"), [
    (LNS(16, 2048), LNS(8, 8)), (LNS(16, 2048, "code"), LNS(8, 8, "code")), (LNS(12, 128), LNS(8, 8)),
    (LNS(16, 2048), LNS(5, 1)), (LNS(10, 32), LNS(8, 32)), (LNS(8, 8), LNS(6, 2, "code"))], ids=str)
def test_narrow_is_encode_of_decode_but_for_ties(stored, target):
    codes = stored.codes()
    q = QTensor(stored, codes, (np.array([1.7], np.float32),))
    got = LNS.narrow(q, target)
    assert got.format == target and got.codes.dtype == target.codes().dtype and got.scales[0] == q.scales[0]
    shift = (stored.gamma // target.gamma).bit_length() - 1
    distance = stored.top - np.abs(codes.astype(np.int64))
    tie = (distance + (1 << shift >> 1)) % (1 << shift) == 0 if shift else np.zeros(len(codes), bool)
    want = target.encode(q.decode(), scales=q.scales).codes
    assert np.array_equal(got.codes[~tie], want[~tie]) and (codes[got.codes == 0] == 0).all()
    down = np.abs(want.astype(int)) - np.abs(got.codes.astype(int))  # a tie takes one step more from the top
    assert ((down[tie] == 0) | (down[tie] == 1)).all()
    if stored == LNS(16, 2048) and target == LNS(8, 8):  # section 3.4 of the notes
        e = np.maximum(0, 127 - ((32767 - (np.abs(codes[codes != 0].astype(int)) - 1) + 128) >> 8))
        assert np.array_equal(np.abs(got.codes[codes != 0]) - 1, e)


def test_narrow_with_kept_axes():
    """Each slice gets the value of its own largest level, and is narrowed as if it were a tensor of its own."""
    stored, target = LNS(16, 2048), LNS(8, 8)
    x = numbers((6, 5, 4)) * np.exp2(-np.arange(6)).astype(np.float32)[:, None, None]
    x[3] = 0
    q = stored.encode(x)
    got = LNS.narrow(q, target, keep=(0,))
    assert got.keep == (0,) and got.scales[0].shape == (6, 1, 1)
    assert np.array_equal(got.scales[0][:3], np.abs(q.decode()[:3]).max(axis=(1, 2), keepdims=True))
    assert (np.abs(got.codes).max(axis=(1, 2)) == [128, 128, 128, 0, 128, 128]).all()
    inside = (np.abs(got.codes) > 1) & (np.abs(q.codes) > 1)  # neither lattice ends above them
    error = np.abs(got.decode()[inside] / x[inside] - 1)
    assert inside.sum() > 80 and 0.03 < error.max() < 2 ** (1 / 16 + 1 / 4096) - 1
    turned = QTensor(stored, np.asfortranarray(q.codes), q.scales)
    assert np.array_equal(LNS.narrow(turned, target, keep=(0,)).codes, got.codes)
    assert LNS.narrow(turned, target).codes.flags.f_contiguous
    with pytest.raises(ValueError, match="at most 8 levels an octave"):
        LNS.narrow(target.encode(x), stored)
    with pytest.raises(TypeError, match="PoT"):
        LNS.narrow(PoT().encode(x), target)


@pytest.mark.parametrize("path", ["float", "bins"])
def test_contractions_of_mixed_gammas(path):
    """Against float64 on the decoded values, with a scale per result row or column, and how it says it was done."""
    fa, fb = LNS(8, 8, path=path), LNS(6, 4, "code", path=path)
    for spec, a_shape, b_shape in contractions():
        for keep in itertools.product(((), (spec.kept[0],)), ((), (spec.kept[1],))):
            a, b = fa.encode(numbers(a_shape), keep=keep[0]), fb.encode(numbers(b_shape, 1), keep=keep[1])
            with executed() as seen:
                got = multiply(a, b, spec)
            va, vb = a.decode().astype(np.float64), b.decode().astype(np.float64)
            size = float_contraction(np.abs(va), np.abs(vb), spec)
            assert got.dtype == np.float32
            assert (np.abs(got - float_contraction(va, vb, spec)) <= 3e-7 * size).all(), (spec, keep)
            if path == "float":
                assert np.array_equal(got, float_contraction(a.decode(), b.decode(), spec))
            assert list(seen) == [f"{spec.kind}: {fa} x {fb} {fa.arithmetic}"]
        a = fa.encode(numbers(a_shape), keep=(spec.axes[0][0],))
        with pytest.raises(ValueError, match="this contraction sums over"):
            fa.contract(a, fb.encode(numbers(b_shape)), spec)
    words = {"float": "in float32 on decoded codes (path=float)", "bins": "in integer bins (path=bins)"}
    assert fa.arithmetic == words[path] and not fa.exact_contract


def test_hybrid_conversion_reaches_the_kernel():
    """One product with e = 126 + 125 = 31 * 8 + 3: two constants take 2^(3/8) for 1 + 3/8, four for 2^(2/8) * 9/8."""
    x, w = (np.array([[2.0 ** (-steps / 8), 1]], np.float32) for steps in (1, 2))
    for lut, constant in ((None, 2 ** (3 / 8)), (4, 2 ** (2 / 8) * 9 / 8), (2, 11 / 8), (1, 11 / 8)):
        fmt = LNS(path="bins", convert="hybrid" if lut else "exact", lut=lut)
        a, b = fmt.encode(x), fmt.encode(w)
        assert (a.codes[0, 0] - 1, b.codes[0, 0] - 1) == (126, 125)
        got = fmt.contract(a, b, Spec("linear_weight_grad"))[0, 0]
        assert got == pytest.approx(2.0**31 * constant * float(fmt.s(1)) ** 2, rel=1e-6)
    assert "approximate" in LNS(path="bins", convert="hybrid", lut=2).arithmetic


def test_hybrid_without_a_table_length_is_exact():
    """So that ``--set lns.convert=hybrid --set lns.lut=4`` can name one field after the other."""
    x = numbers((5, 33))
    results = [fmt.contract(fmt.encode(x), fmt.encode(x), Spec("linear"))
               for fmt in (LNS(path="bins"), *(LNS(path="bins", convert="hybrid", lut=lut) for lut in (None, 8, 4)))]
    assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes() != results[3].tobytes()
    assert "approximate" not in LNS(path="bins", convert="hybrid").arithmetic
    recipe = minilp.recipe.get("lns-madam").set("lns.convert", "hybrid").set("lns.lut", 4)
    assert recipe.act.format == LNS(convert="hybrid", lut=4)


def test_arithmetic_names_the_accumulator():
    assert LNS(path="bins", accumulator=24).arithmetic == "in integer bins (path=bins, a 24-bit accumulator)"


def test_only_with_its_like():
    a, b = LNS().encode(numbers((3, 4))), PoT().encode(numbers((5, 4)))
    assert LNS().contract(a, b, Spec("linear")) is NotImplemented
    with executed() as seen:
        multiply(a, b, Spec("linear"))
    assert list(seen) == ["linear: emulated in float64"]


def test_cost():
    """Exponent add, sign, one-hot, bin: 31.75 octaves of product need more than 32 bits, 30 do not."""
    assert LNS().cost(LNS()) == {"int7_add": 1, "xor1": 1, "int64_shift": 1, "int64_add": 1}
    assert LNS(5, 1).cost(LNS(5, 1)) == {"int4_add": 1, "xor1": 1, "int32_shift": 1, "int32_add": 1}
    assert LNS(5, 1).cost(LNS()) == {"int7_add": 1, "xor1": 1, "int32_shift": 1, "int32_add": 1}
    assert LNS(accumulator=24, path="bins").cost(LNS())["int24_add"] == 1
    with pytest.raises(NotImplementedError, match=r"PoT\(bits=5\)"):
        LNS().cost(PoT())


@pytest.mark.parametrize(("fields", "words"), [
    ({"bits": 3}, "bits"), ({"bits": 17}, "bits"), ({"bits": True}, "bits"), ({"gamma": 6}, "gamma"),
    ({"gamma": 2**16}, "gamma"), ({"gamma": 0}, "gamma"), ({"zero": "none"}, "zero"), ({"draw": "log"}, "draw"),
    ({"path": "int"}, "path"), ({"convert": "lut"}, "convert"), ({"lut": 4}, "lut is for convert='hybrid'"),
    ({"convert": "hybrid", "lut": 3}, "lut"), ({"convert": "hybrid", "lut": 16}, "lut"),
    ({"accumulator": 4}, "accumulator"), ({"accumulator": "24"}, "accumulator"),
    ({"bits": 9, "gamma": 1}, "spans 255 octaves, float32's normal numbers 253"),
    ({"bits": 16, "gamma": 64}, "spans 511.98.* octaves"), ({"bits": 9, "gamma": 1, "zero": "code"}, "254 octaves")])
def test_wrong_fields_are_named(fields, words):
    with pytest.raises(ValueError, match=words):
        LNS(**fields)


def test_explain_follows_the_datapath(capsys):
    """Each line against its arithmetic in fractions: 113 + 123 = 29 * 8 + 4."""
    assert cli.main(["explain", "lns", "0.3", "-0.7"]) == 0
    text = capsys.readouterr().out
    for words in ("LNS(bits=8, gamma=8)", "e = 113 (1110001)", "e = 123 (1111011)", "0 XOR 1 = 1", "113 + 123 = 236",
                  "quotient 29, remainder 4", f"bin 4: 0 - 1 << 29 = -{2**29}", "2^(4/8) = 1.41421", "-0.210224"):
        assert words in text, words
    text = report.explain("lns:convert=hybrid,lut=2,zero=code", 0.3, 0.71 * 2 ** (1 / 8))
    assert "e = 112 (1110000)" in text and "112 + 123 = 235" in text
    assert "3 = 0 + 3: 2 of 8 constants kept" in text
    assert f"bin 0: 0 + (1 + 3/8) << 29 = {Fraction(11, 8) * 2**29}" in text
    assert "zero gate" in report.explain("lns", 0, 2) and "decodes to 2" in report.explain("lns", 0, 2)


def test_registered_and_exported(capsys):
    assert minilp.LNS is formats.LNS is LNS and "lns" in formats.available()
    assert cli.main(["formats"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("LNS(bits=8, gamma=8)"))
    assert " 257 " in line and "2106.13914" in line
    assert str(LNS(16, 2048, "code")) == "LNS(bits=16, gamma=2048, zero='code')"
