"""check_format: built-in formats keep every law, and each law catches the format that breaks it."""
import dataclasses
import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from minilp import use_backend
from minilp.formats import Fixed, PoT, QTensor, absmax, base
from minilp.testing import LAWS, check_format, contractions, exact, runner


@pytest.fixture(autouse=True)
def own_registry():
    """Formats defined in a test disappear with it."""
    before = dict(base._registry)
    yield
    base._registry.clear()
    base._registry.update(before)


@pytest.mark.parametrize("fmt", [PoT(3), PoT(4), PoT(5), PoT(6), PoT(5, threshold="linear", underflow="half"),
                                 Fixed(2), Fixed(5), Fixed(8)], ids=str)
def test_built_in_formats_keep_the_laws(fmt):
    check_format(fmt)


@pytest.mark.parametrize("fmt", [PoT(5), Fixed(8)], ids=str)
def test_laws_hold_on_the_numpy_backend(fmt):
    with use_backend("numpy"):
        check_format(fmt, seed=1)


def fixed(self, x, keep=(), stream=None, scales=None, **stream_fields):
    """Fixed's own encoding, with fields of the stream replaced."""
    if stream is not None:
        stream = dataclasses.replace(stream, **stream_fields)
    return Fixed.encode(self, x, keep=keep, stream=stream, scales=scales)


def with_codes(q, codes):
    """q with other codes, in the same memory order."""
    out = np.empty_like(q.codes)
    out[...] = np.clip(codes, -31, 31)
    return QTensor(q.format, out, q.scales, keep=q.keep)


def encode(change):
    """An ``encode`` that returns change(self, what Fixed returned, x, options)."""
    def method(self, x, **options):
        return change(fixed(self, x, **options), x)
    return {"encode": method}


def thawed(q, x):
    object.__setattr__(q, "codes", q.codes.copy())
    return q


class Loose(QTensor):
    """Packs one byte too many."""

    def pack(self):
        return np.append(super().pack(), np.uint8(0))


def shared_scale(self, x, *, keep=(), **options):
    """Gives every kept slice the scale of the whole tensor."""
    scale = np.ascontiguousarray(np.broadcast_to(self.scales_for(absmax(x))[0], absmax(x, keep).shape))
    return fixed(self, x, keep=keep, **{"scales": (scale,), **options})


def up_twice(self, x, *, stream=None, **options):
    """Of two draws the larger magnitude: biased."""
    first, second = fixed(self, x, stream=stream, **options), fixed(self, x, stream=stream, call=99, **options)
    return with_codes(first, np.where(np.abs(second.codes) > np.abs(first.codes), second.codes, first.codes))


def moved_scale(self, x, *, scales=None, **options):
    """Does not use the scales it is given."""
    return fixed(self, x, scales=scales and (scales[0] + np.int32(1),), **options)


def nearly(self, a, b, spec):
    """A contraction that is right to nearly seven digits."""
    return exact.contraction(a.decode() * np.float32(1 + 2**-22), b.decode(), spec)


DRAWN = itertools.count()

# words of the law: what to put into a Fixed(6) to break it
PLANTED = {
    "a format is a frozen dataclass": {"__eq__": lambda self, other: self is other},
    "from_config(to_config())": {"to_config": lambda self: {"name": "planted", "bits": self.bits - 1}},
    "immutable": encode(thawed),
    "codes are integers of the tensor's shape": encode(lambda q, x: QTensor(q.format, q.codes.astype(float), q.scales)),
    "packed codes take": encode(lambda q, x: Loose(q.format, q.codes, q.scales, keep=q.keep)),
    "every code survives": encode(lambda q, x: with_codes(q, np.where(q.codes == -31, -30, q.codes))),
    "encoding again under the same scales": {"encode": moved_scale},
    "rounding goes to a neighbouring level": encode(lambda q, x: with_codes(q, q.codes + 2 * np.sign(q.codes))),
    "a larger number never gets": encode(lambda q, x: with_codes(q, np.where(q.codes == 3, 5, q.codes))),
    "the values of -x": encode(lambda q, x: with_codes(q, np.where(q.codes == -4, -3, q.codes))),
    "zero becomes zero": encode(lambda q, x: with_codes(q, np.where(x == 0, 1, q.codes))),
    "2^j x has 2^j times": {"scales_for": lambda self, m: (np.maximum(Fixed.scales_for(self, m)[0], np.int32(-9)),)},
    "empty tensors": encode(lambda q, x: q if x.size else QTensor(q.format, np.zeros(1, np.int8), q.scales)),
    "NaN and infinity": {"encode": lambda self, x, **options: fixed(self, np.asarray(np.nan_to_num(x)), **options)},
    "a kept axis is scaled": {"encode": shared_scale},
    "scales_for": {"encode": lambda self, x, **options: fixed(self, x, **{
        "scales": (Fixed.scales_for(self, absmax(x, options.get("keep", ())))[0] + np.int32(1),), **options})},
    "codes take the memory order": encode(lambda q, x: QTensor(q.format, np.ascontiguousarray(q.codes), q.scales)),
    "transposed and reshaped": {"decode": lambda self, q: Fixed.decode(self, q) * (2 - q.codes.flags.c_contiguous)},
    "a stream rounds stochastically": {"encode": lambda self, x, **how: fixed(self, x, **how, seed=next(DRAWN))},
    "splitting a tensor": {"encode": lambda self, x, **options: fixed(self, x, **options, offset=0)},
    "stochastic rounding is unbiased": {"encode": up_twice},
    "the table holds": {"table": lambda self: np.where(Fixed.table(self) == 7, 8, Fixed.table(self)).astype(np.int8)},
    "the contraction of codes is exact": {"contract": nearly},
}


def planted(changes):
    return dataclass(frozen=True)(type("Planted", (Fixed,), dict(changes)))(bits=6)


def test_the_planted_format_is_sound_without_a_change():
    check_format(planted({}))
    check_format(planted(encode(lambda q, x: with_codes(q, q.codes))))


@pytest.mark.parametrize("words", PLANTED)
def test_each_law_catches_its_break(words):
    name, = (name for name in LAWS if words in name)
    with pytest.raises(AssertionError):
        LAWS[name](planted(PLANTED[words]), np.random.default_rng(0))
    with pytest.raises(AssertionError, match=r"^Planted\(bits=6\) breaks the law "):
        check_format(planted(PLANTED[words]))


def test_every_law_has_a_planted_break():
    for law in LAWS:
        assert sum(words in law for words in PLANTED) == 1, law
    assert len(PLANTED) == len(LAWS)


def test_the_message_names_law_input_and_outcome(monkeypatch):
    name, = (name for name in LAWS if "larger number" in name)
    monkeypatch.setattr(runner, "LAWS", {name: LAWS[name]})
    with pytest.raises(AssertionError, match=r"law 'a larger number .*': 0\.\d+ became 1\.\d+, the larger 0"):
        check_format(planted(PLANTED["a larger number never gets"]))


def test_an_exception_inside_a_law_is_a_breach():
    def explode(self, q):
        raise KeyError("nothing here")
    with pytest.raises(AssertionError, match=r"breaks the law .*it raised KeyError"):
        check_format(planted({"decode": explode}))


def test_exceptions_can_be_declared():
    @dataclass(frozen=True)
    class NearestOnly(Fixed):
        stochastic: ClassVar[bool] = False

        def encode(self, x, *, keep=(), stream=None, scales=None):
            if stream is not None:
                raise ValueError("NearestOnly rounds to nearest only")
            return Fixed.encode(self, x, keep=keep, scales=scales)

    check_format(NearestOnly())

    @dataclass(frozen=True)
    class TakesAStream(Fixed):
        stochastic: ClassVar[bool] = False

    with pytest.raises(AssertionError, match="declares stochastic = False, but takes a stream"):
        check_format(TakesAStream())


def test_undecorated_subclass_is_told_what_to_do():
    class Forgotten(Fixed):
        flavour: int = 3

    with pytest.raises(AssertionError, match=r"\['flavour'\] are no fields; decorate the class with @dataclass"):
        check_format(Forgotten())


def test_a_scale_along_the_sum_must_be_refused():
    @dataclass(frozen=True)
    class Careless(Fixed):
        def contract(self, a, b, spec):
            return exact.contraction(a.decode(), b.decode(), spec)

    with pytest.raises(AssertionError, match="a scale along a summed axis was accepted"):
        check_format(Careless())


def test_an_exact_contract_is_accepted():
    @dataclass(frozen=True)
    class InRuns(Fixed):
        sums_in_runs: ClassVar[bool] = True

        def contract(self, a, b, spec):
            return exact.contraction(a.decode(), b.decode(), spec)

    check_format(InRuns())


def test_exact_contraction_equals_float64_where_that_is_exact():
    rng = np.random.default_rng(0)
    for spec, a_shape, b_shape in contractions():
        a, b = rng.integers(-9, 10, a_shape).astype(np.float32) / 8, rng.integers(-9, 10, b_shape).astype(np.float32)
        got = exact.contraction(a, b, spec)
        assert np.array_equal(got, loops(a.astype(np.float64), b.astype(np.float64), spec))


def loops(a, b, spec):
    """The definition, index by index."""
    if spec.kind.startswith("linear"):
        return a @ b.T if spec.kind == "linear" else a @ b if spec.kind == "linear_input_grad" else a.T @ b
    (sh, sw), (ph, pw), (dh, dw), g = spec.stride, spec.padding, spec.dilation, spec.groups
    x = a if spec.kind == "conv2d" else b
    if spec.kind == "conv2d_input_grad":
        x = np.zeros((a.shape[0], b.shape[1] * g, *spec.size))
    w = np.zeros((a.shape[1], x.shape[1] // g, *spec.size)) if "weight" in spec.kind else b
    oh, ow = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in
              zip(x.shape[2:], (ph, pw), (dh, dw), w.shape[2:], (sh, sw), strict=True))
    y = np.zeros((x.shape[0], w.shape[0], oh, ow)) if spec.kind == "conv2d" else a
    out = {"conv2d": y, "conv2d_input_grad": x, "conv2d_weight_grad": w}[spec.kind]
    for n, o, i, j, c, u, v in itertools.product(*(range(k) for k in (*y.shape, *w.shape[1:]))):
        r, s, channel = i * sh + u * dh - ph, j * sw + v * dw - pw, o // (w.shape[0] // g) * w.shape[1] + c
        if 0 <= r < x.shape[2] and 0 <= s < x.shape[3]:
            if spec.kind == "conv2d":
                y[n, o, i, j] += x[n, channel, r, s] * w[o, c, u, v]
            elif spec.kind == "conv2d_input_grad":
                x[n, channel, r, s] += y[n, o, i, j] * w[o, c, u, v]
            else:
                w[o, c, u, v] += y[n, o, i, j] * x[n, channel, r, s]
    return out


def test_rounding_to_float32_is_numpys():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        integer, exponent = int(rng.integers(-2**53, 2**53)), int(rng.integers(-200, 90))
        with np.errstate(over="ignore"):
            want = np.float32(np.ldexp(np.float64(integer), exponent))
        assert exact.round_to_float32(integer, exponent) == want
    assert exact.round_to_float32(2**25 + 2, 0) == 2**25  # a tie, to even
    assert exact.round_to_float32((2**24 + 1) << 40 | 1, 0) == 2.0**64 + 2.0**41  # above a tie; float64 would miss it
    assert exact.round_to_float32(0, 5) == 0 and exact.round_to_float32(1, 128) == np.inf


def test_as_integers_is_exact():
    x = np.array([0, 1, -1.5, 2.0**-149, 3e38, 1e-20], np.float32)
    integers, exponent = exact.as_integers(x)
    for whole, number in zip(integers, x, strict=True):
        mantissa, power = float(number).as_integer_ratio()
        assert whole * power * 2**max(exponent, 0) == mantissa * 2**max(-exponent, 0)
