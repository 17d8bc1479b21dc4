"""The modelled INT32 accumulator, and what the wrapper refuses."""
import pathlib
import sys

import numpy as np
import pytest

from minilp.kernels import KernelError, use_backend, use_kernels
from minilp.kernels.pot import pot_contract

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import pot_oracles as oracles
from pot_oracles import codes

BACKENDS = ("c", "numpy")


def walk(products):
    """INT32 accumulation of Python integers: (wrapped sum, additions that left int32)."""
    total = overflows = 0
    for product in products:
        total += product
        wrapped = (total + 2 ** 31) % 2 ** 32 - 2 ** 31
        overflows += wrapped != total
        total = wrapped
    return total, overflows


@pytest.mark.parametrize("backend", BACKENDS)
def test_int32_counts_every_overflowing_addition(needs_c, backend):
    """8 products of 2^28 reach 2^31; each addition that leaves int32 counts, in ascending k, and wraps."""
    rng = np.random.default_rng(1)
    a, b = codes(rng, (5, 300), 5), codes(rng, (4, 300), 5)
    a[0], b[0] = 15, 15
    a[1, ::2] = 15
    with use_backend(backend):
        got, overflows = pot_contract("linear", a, b, bits_a=5, bits_b=5, exponent=0, accumulate="int32", out="int64",
                                      return_overflows=True)
    left, right = oracles.decode(a), oracles.decode(b)
    want = [[walk(left[i] * right[j]) for j in range(4)] for i in range(5)]
    assert got.tolist() == [[value for value, _ in row] for row in want]
    assert overflows == sum(count for row in want for _, count in row)


@pytest.mark.parametrize("backend", BACKENDS)
def test_int32_weight_gradient_walks_sample_by_sample(needs_c, backend):
    rng = np.random.default_rng(2)
    error, act = np.abs(codes(rng, (3, 2, 4, 5), 5, 0)), codes(rng, (3, 2, 6, 7), 5, 0)
    error[0], act[0] = 15, 15
    with use_backend(backend):
        got, overflows = pot_contract("conv2d_weight_grad", error, act, bits_a=5, bits_b=5, exponent=0, size=(3, 3),
                                      accumulate="int32", out="int64", return_overflows=True)
    e, x = oracles.decode(error), oracles.decode(act)
    total = 0
    for o, c, ky, kx in np.ndindex(2, 2, 3, 3):
        value, count = walk((e[:, o] * x[:, c, ky:ky + 4, kx:kx + 5]).ravel())
        assert got[o, c, ky, kx] == value
        total += count
    assert overflows == total > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_int32_without_overflow_is_exact(needs_c, backend):
    rng = np.random.default_rng(3)
    a, b = codes(rng, (6, 200), 4), codes(rng, (7, 200), 4)
    with use_backend(backend):
        got, overflows = pot_contract("linear", a, b, bits_a=4, bits_b=4, exponent=-5, accumulate="int32",
                                      return_overflows=True)
        assert overflows == 0
        assert (got == pot_contract("linear", a, b, bits_a=4, bits_b=4, exponent=-5)).all()
        with pytest.raises(KernelError, match="INT32"):
            pot_contract("linear", a, b, bits_a=6, bits_b=5, exponent=0, accumulate="int32")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int16, np.int32, np.int64])
def test_wrapper_rejects_wrong_dtype(needs_c, backend, dtype):
    """cffi would take any buffer; the wrapper does not."""
    good, bad = np.zeros((2, 3), np.int8), np.zeros((2, 3), dtype)
    with use_backend(backend):
        for a, b, name in ((bad, good, "a"), (good, bad, "b")):
            with pytest.raises(TypeError, match=f"{name} must be an int8 array of codes, got {np.dtype(dtype)}"):
                pot_contract("linear", a, b, bits_a=5, bits_b=5, exponent=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("change", "words"), [
    ({"kind": "conv3d"}, "kind must be one of"),
    ({"bits_a": 7}, "bits_a must be 3, 4, 5 or 6"),
    ({"accumulate": "int16"}, "accumulate must be one of"),
    ({"out": "float64"}, "out must be one of"),
    ({"a": np.full((2, 3, 4, 4), 16, np.int8)}, r"a must hold codes within \+-15 \(5 bits\), got 16"),
    ({"b": np.full((4, 3, 3, 3), -128, np.int8)}, r"b must hold codes within \+-15"),
    ({"b": np.zeros((4, 2, 3, 3), np.int8)}, "do not split into 1 groups"),
    ({"groups": 2}, "do not split into 2 groups"),
    ({"groups": 0}, "groups must be"),
    ({"a": np.zeros((2, 3, 4), np.int8)}, "a must have 4 axes"),
    ({"size": (4, 4)}, "size must be None"),
    ({"stride": (0, 1)}, "stride must be a pair"),
    ({"padding": 1}, "padding must be a pair"),
    ({"dilation": (3, 3)}, "does not fit"),
    ({"return_overflows": True}, "accumulate='int32' only"),
    ({"kind": "conv2d_input_grad"}, "size must be a pair"),
    ({"kind": "conv2d_input_grad", "size": (9, 9), "a": np.zeros((2, 4, 4, 4), np.int8)}, "gives outputs of"),
    ({"kind": "conv2d_weight_grad", "size": (3, 3), "b": np.zeros((5, 3, 4, 4), np.int8)}, "2 samples but the act.* 5"),
    ({"kind": "linear"}, "must have 2 axes"),
], ids=lambda v: str(list(v)) if isinstance(v, dict) else None)
def test_wrapper_names_what_is_wrong(needs_c, backend, change, words):
    call = {"kind": "conv2d", "a": np.zeros((2, 3, 4, 4), np.int8), "b": np.zeros((4, 3, 3, 3), np.int8), "bits_a": 5,
            "bits_b": 5, "exponent": 0, **change}
    kind, a, b = (call.pop(k) for k in ("kind", "a", "b"))
    with use_backend(backend), pytest.raises(ValueError, match=words):
        pot_contract(kind, a, b, **call)


@pytest.mark.parametrize("bits", [3, 4, 5, 6])
def test_the_shift_kernels_find_a_code_beyond_the_format_wherever_it_is(isa, bits):
    """The first, one in the middle, and the last of many, in either operand and on either side of 0."""
    top = 2 ** (bits - 1) - 1
    rng = np.random.default_rng(43)
    act, weight, error = (codes(rng, shape, bits) for shape in ((65, 8, 9, 9), (5, 8, 3, 3), (65, 5, 9, 9)))
    kw = {"bits_a": bits, "bits_b": bits, "exponent": 0, "padding": (1, 1), "accumulate": "counts"}
    for kind, a, b, size in (("conv2d", act, weight, None), ("conv2d_input_grad", error, weight, (9, 9)),
                             ("conv2d_weight_grad", error, act, (3, 3))):
        for which, place, bad in (("a", 0, top + 1), ("a", 99, 98), ("a", -1, -top - 1), ("b", 0, -128), ("b", -1, 99)):
            wrong = {"a": a.copy(), "b": b.copy()}
            wrong[which].flat[place] = bad
            with use_kernels("shift"), pytest.raises(ValueError, match=rf"{kind}: {which} must hold codes .*{bad}"):
                pot_contract(kind, wrong["a"], wrong["b"], size=size, **kw)
