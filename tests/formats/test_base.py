"""Formats as values: registry, configurations, immutability; and a format of one's own, written as a user would."""
import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest

from minilp.formats import Fixed, Format, PoT, QTensor, Spec, absmax, available, base
from minilp.testing import check_format


@pytest.fixture(autouse=True)
def own_registry():
    """Formats defined in a test disappear with it."""
    before = dict(base._registry)
    yield
    base._registry.clear()
    base._registry.update(before)


def define_twelfths():
    """A user's format: two methods, plain NumPy."""
    @dataclass(frozen=True)
    class Twelfths(Format):
        """``code * 2^j / 12``: twelfths of the next power of two above the largest magnitude."""

        bits: int = 5

        def encode(self, x, *, keep=(), stream=None, scales=None):
            largest = absmax(x, keep)  # also refuses NaN and infinity
            if scales is None:
                scales = (np.exp2(np.frexp(largest)[1]).astype(np.float32).reshape(largest.shape),)
            steps = np.minimum(np.abs(x) / scales[0] * 12, 12)
            draw = 0.5 if stream is None else stream.uint32(x.shape) / np.float32(2**32)
            codes = np.empty_like(x, dtype=np.int8)  # in the memory order of x
            codes[...] = np.sign(x) * np.floor(steps + draw)
            return QTensor(self, codes, scales, keep=keep)

        def decode(self, q):
            return (q.codes * (q.scales[0] / np.float32(12))).astype(np.float32)

        def codes(self):
            return np.arange(-12, 13, dtype=np.int8)

    return Twelfths


def test_a_format_of_ones_own_keeps_the_laws():
    check_format(define_twelfths()())


def test_a_format_of_ones_own_registers_and_explains_itself():
    fmt = define_twelfths()(bits=6)
    assert "twelfths" in available()
    assert Format.from_config({"name": "twelfths", "bits": 6}) == fmt
    assert "decodes to 0.5" in fmt.explain(0.5, 2) and str(fmt) == "Twelfths(bits=6)"


def test_defining_a_name_again_replaces_it():
    first, second = define_twelfths(), define_twelfths()
    assert first is not second and type(Format.from_config("twelfths")) is second


def test_missing_methods_are_named():
    @dataclass(frozen=True)
    class Half(Format):
        bits: int = 4

        def encode(self, x, *, keep=(), stream=None, scales=None):
            return QTensor(self, x.astype(np.int8))

    with pytest.raises(TypeError, match="decode"):
        Half()


@pytest.mark.parametrize("fmt", [PoT(), PoT(4, threshold="linear", underflow="half"), Fixed(3)])
def test_config_round_trip(fmt):
    config = fmt.to_config()
    assert config["name"] == type(fmt).__name__.lower() and config["bits"] == fmt.bits
    assert Format.from_config(config) == fmt and hash(Format.from_config(config)) == hash(fmt)


def test_config_errors_list_what_there_is():
    with pytest.raises(ValueError, match=r"unknown format 'pott'; known: .*fixed.*pot"):
        Format.from_config("pott")
    with pytest.raises(ValueError, match="'pot' has no field 'bit'; it has bits, threshold, underflow, accumulate"):
        Format.from_config({"name": "pot", "bit": 5})


def test_configs_are_immutable():
    fmt = PoT()
    with pytest.raises(dataclasses.FrozenInstanceError):
        fmt.bits = 4
    fmt.to_config()["bits"] = 3
    assert fmt == PoT(bits=5) and PoT() in {fmt}
    with pytest.raises(dataclasses.FrozenInstanceError):
        Spec("linear").groups = 2


def test_defaults_say_nothing_rather_than_zero():
    fmt = define_twelfths()()
    assert fmt.contract(None, None, Spec("linear")) is NotImplemented
    assert fmt.scales_for(np.ones(1, np.float32)) is NotImplemented
    assert fmt.table() is None and fmt.range is None
    grad = np.ones(3)
    assert fmt.ste(None, grad) is grad
    with pytest.raises(NotImplementedError, match=r"Twelfths\.cost"):
        fmt.cost(fmt)


def test_str_shows_what_differs():
    assert str(PoT()) == "PoT(bits=5)"
    assert str(PoT(4, underflow="half")) == "PoT(bits=4, underflow='half')"


def test_spec_knows_its_axes_and_terms():
    assert Spec("conv2d").axes == ((1, 2, 3), (1, 2, 3)) and Spec("conv2d").kept == (0, 0)
    assert Spec("conv2d_input_grad").axes == ((1, 2, 3), (0, 2, 3)) and Spec("conv2d_input_grad").kept == (0, 1)
    assert Spec("linear_weight_grad").axes == ((0,), (0,)) and Spec("linear_weight_grad").kept == (1, 1)
    assert Spec("conv2d", groups=2).terms((8, 6, 9, 9), (4, 3, 3, 3)) == 27
    assert Spec("conv2d_input_grad", groups=2).terms((8, 4, 9, 9), (4, 3, 3, 3)) == 18
    assert Spec("conv2d_weight_grad").terms((8, 4, 9, 9), (8, 6, 9, 9)) == 8 * 81
    assert Spec("linear").terms((7, 5), (3, 5)) == 5
    with pytest.raises(ValueError, match="kind must be one of conv2d"):
        Spec("conv3d")
