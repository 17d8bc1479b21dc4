"""The emulation of power-of-two contractions on int8 digits: the integers of the shift/add kernels, on every tier."""
import pathlib
import sys

import numpy as np
import pytest

from minilp.kernels import calls, dot8, pot_emulate, set_num_threads, threads, use_backend, use_kernels
from minilp.kernels.backend import KernelError, vector_tier
from minilp.kernels.backend import tier as in_force
from minilp.kernels.pot import pot_contract
from minilp.kernels.pot_geometry import Geometry

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import pot_oracles as oracles
from pot_oracles import codes


@pytest.fixture(autouse=True)
def emulate():
    """The emulation, on one thread."""
    before = threads()
    set_num_threads(1)
    with use_kernels("emulate"):
        yield
    set_num_threads(before)


def problem(rng, n, c, o, hw, kernel=(3, 3), bits=(5, 5, 5), stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1,
            top=False):
    """The three contractions of one layer: kind -> (a, b, keyword arguments); with `top`, all codes are the largest."""
    out = [(hw[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2)]
    act, weight, error = (codes(rng, shape, width, 0.2) for shape, width in zip(
        ((n, c, *hw), (o, c // groups, *kernel), (n, o, *out)), bits, strict=True))
    if top:
        act, weight, error = (np.full_like(x, 2 ** (width - 1) - 1) for x, width in
                              zip((act, weight, error), bits, strict=True))
    common = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return {"conv2d": (act, weight, {"bits_a": bits[0], "bits_b": bits[1], **common}),
            "conv2d_input_grad": (error, weight, {"bits_a": bits[2], "bits_b": bits[1], "size": hw, **common}),
            "conv2d_weight_grad": (error, act, {"bits_a": bits[2], "bits_b": bits[0], "size": kernel, **common})}


def both(kind, a, b, kw, **more):
    """The exact sums by the emulation and by NumPy."""
    with calls() as seen:
        got = pot_contract(kind, a, b, **kw, **more)
    if a.size and b.size:
        assert [name.split("[")[0] for name in seen] == [f"pot_emulate_{kind.replace('linear', 'conv2d')}"]
    with use_backend("numpy"):
        return got, pot_contract(kind, a, b, **kw, **more)


def test_two_digits_are_every_power():
    """A low digit within +-64, a high one within 126, differences within 122: so int32 is proven wide enough."""
    value = [0, *(2**e for e in range(15))]
    low, high = dot8.power_digits(5).astype(int)
    assert (low + dot8.BASE * high).tolist() == value
    assert abs(low).max() == 64 and 0 <= high.min() and high.max() == 126 and abs(low - high).max() == 122
    assert dot8.power_digits(4)[0, :8].tolist() == value[:8] and len(dot8.power_digits(3)) == 1
    assert dot8.TERMS * max(127 * 127, 2 * 127 * 64, 64 * 64) < 2**31


def test_digits_whose_difference_is_no_byte_are_refused(every_isa):
    g = Geometry("conv2d_weight_grad", 1, 1, 1, 1, (1, 1), (1, 1), (1, 1), (1, 1), (0, 0), (1, 1))
    code, apart = np.ones((1, 1, 1, 1), np.int8), np.array([[-64] * 16, [64] * 16], np.int8)
    with pytest.raises(KernelError, match="dot8_conv2d_weight_grad"):
        dot8.contract(code, code, g, apart, apart, None)


GEOMETRIES = [
    {"n": 2, "c": 3, "o": 4, "hw": (5, 6)},
    {"n": 35, "c": 9, "o": 10, "hw": (6, 5), "stride": (2, 2)},
    {"n": 2, "c": 2, "o": 2, "hw": (7, 6), "kernel": (5, 5), "padding": (2, 2), "stride": (2, 2)},
    {"n": 2, "c": 3, "o": 2, "hw": (9, 8), "kernel": (7, 7), "padding": (3, 3)},
    {"n": 3, "c": 5, "o": 3, "hw": (5, 4), "kernel": (1, 1), "padding": (0, 0), "stride": (2, 2)},
    {"n": 2, "c": 2, "o": 3, "hw": (8, 9), "dilation": (2, 3), "padding": (0, 3), "stride": (3, 2)},
    {"n": 2, "c": 4, "o": 6, "hw": (5, 5), "groups": 2},
    {"n": 3, "c": 3, "o": 3, "hw": (6, 6), "groups": 3, "stride": (2, 2)},
    {"n": 2, "c": 2, "o": 2, "hw": (3, 4), "kernel": (3, 2), "padding": (3, 2), "stride": (1, 3)},
    {"n": 1, "c": 2, "o": 2, "hw": (8, 8), "kernel": (2, 2), "padding": (0, 0), "stride": (5, 5)},
    {"n": 2, "c": 20, "o": 17, "hw": (4, 6), "dilation": (1, 2)},
    {"n": 2, "c": 33, "o": 3, "hw": (5, 9), "kernel": (2, 5), "padding": (1, 2), "stride": (1, 2)},
    {"n": 130, "c": 12, "o": 12, "hw": (4, 4), "groups": 12},
]


@pytest.mark.parametrize("case", GEOMETRIES, ids=str)
@pytest.mark.parametrize("bits", [(3, 4, 5), (4, 4, 4), (5, 5, 5), (5, 3, 4)])
def test_every_geometry_equals_the_index_loop(every_isa, case, bits):
    for kind, (a, b, kw) in problem(np.random.default_rng(3), **case, bits=bits).items():
        got, twin = both(kind, a, b, kw, exponent=0, out="int64")
        assert (got == twin).all(), kind
        if kw["groups"] == 1 and case["n"] < 10:
            shape = {k: kw[k] for k in ("stride", "padding", "dilation")}
            assert (got == oracles.float64(kind, a, b, shape, kw.get("size"))).all(), kind


@pytest.mark.parametrize("bits", [(4, 4, 4), (5, 5, 5), (4, 5, 4)])
def test_awkward_lengths(every_isa, bits):
    cases = [dict(n=n, c=2, o=3, hw=(3, 3)) for n in (0, 1, 2, 15, 16, 17, 31, 33, 63, 65, 127, 129, 257)]
    cases += [dict(n=3, c=c, o=2, hw=(3, 4)) for c in (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 17, 65)]
    cases += [dict(n=3, c=2, o=o, hw=(3, 4)) for o in (0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 65)]
    for case in cases:
        for kind, (a, b, kw) in problem(np.random.default_rng(5), **case, bits=bits).items():
            got, twin = both(kind, a, b, kw, exponent=-11)
            assert got.shape == twin.shape and (got == twin).all(), (kind, a.shape, b.shape)


@pytest.mark.parametrize("case", [
    {"n": 2, "c": 16, "o": 3, "hw": (44, 40)},
    {"n": 1, "c": 64, "o": 2, "hw": (3, 500)},
    {"n": 70, "c": 600, "o": 66, "hw": (1, 1), "kernel": (1, 1), "padding": (0, 0)},
    {"n": 131, "c": 70, "o": 80, "hw": (9, 9), "stride": (2, 2)},
], ids=str)
def test_images_larger_than_the_caches(every_isa, case):
    for kind, (a, b, kw) in problem(np.random.default_rng(31), **case).items():
        got, twin = both(kind, a, b, kw, exponent=0, out="int64")
        assert (got == twin).all(), kind


@pytest.mark.parametrize("bits", [(4, 4, 4), (5, 5, 5)])
def test_codes_beyond_the_format_are_refused(every_isa, bits):
    """Found while operands are packed; by the last image and the last weight as by the first, on either side of 0."""
    for kind, (a, b, kw) in problem(np.random.default_rng(41), 67, 5, 6, (4, 5), bits=bits).items():
        top = 2 ** (bits[0] - 1) - 1
        pot_contract(kind, a, b, exponent=0, **kw)
        for which, place, bad in (("a", 0, top + 1), ("a", -1, -top - 1), ("b", 0, -128), ("b", -1, 127)):
            wrong = {"a": a.copy(), "b": b.copy()}
            wrong[which].flat[place] = bad
            with pytest.raises(ValueError, match=rf"{kind}: {which} must hold codes within \+-{top} .*{bad}"):
                pot_contract(kind, wrong["a"], wrong["b"], exponent=0, **kw)


def test_threads_and_strides_do_not_change_a_bit(every_isa):
    case, results = problem(np.random.default_rng(13), 33, 6, 17, (10, 11)), []
    for n, name in ((1, "nchw"), (2, "chwn"), (3, "negative"), (2, "gaps")):
        set_num_threads(n)
        results.append([pot_contract(kind, oracles.layouts(a)[name], oracles.layouts(b)[name], exponent=-9,
                                     **kw).tobytes() for kind, (a, b, kw) in case.items()])
    assert results[0] == results[1] == results[2] == results[3]


@pytest.mark.parametrize("bits", [3, 4, 5])
def test_worst_case_sums_of_the_top_code(every_isa, bits):
    for kind, (a, b, kw) in problem(np.random.default_rng(0), 130, 70, 33, (4, 4), bits=(bits,) * 3, top=True).items():
        got, twin = both(kind, a, (-b).astype(np.int8), kw, exponent=0, out="int64")
        depth = {"conv2d": 70 * 9, "conv2d_input_grad": 33 * 9, "conv2d_weight_grad": 130 * 16}[kind]
        assert (got == twin).all() and got.min() == -depth * 4 ** (2 ** (bits - 1) - 2)


@pytest.mark.parametrize("code", [15, 14, 7])  # largest high digit, largest mixed product, largest low digit
def test_sums_longer_than_int32_can_prove(every_isa, code):
    """K beyond TERMS goes in pieces (and visits, for the weight gradient), joined in int64 and rounded once."""
    depth = dot8.TERMS + 5
    long, few = np.full((2, depth), code, np.int8), np.full((depth, 3), -15, np.int8)
    want = -depth * 2 ** (code - 1 + 14)
    for kind, a, b in (("linear", long, few.T), ("linear_input_grad", long, few), ("linear_weight_grad", long.T, few)):
        for out, exponent in (("int64", 0), ("float32", -20)):
            got, twin = both(kind, a, b, {"bits_a": 5, "bits_b": 5}, exponent=exponent, out=out)
            assert (got == twin).all()
            assert (got == (want if out == "int64" else oracles.rounded(np.array(want, object), -20))).all()


@pytest.mark.parametrize("exponent", [-140, -150, -165, -190, -4000, 60])
def test_scaled_once_to_nearest_even_down_to_subnormals(every_isa, exponent):
    for kind, (a, b, kw) in problem(np.random.default_rng(21), 19, 3, 4, (4, 4)).items():
        exact, _ = both(kind, a, b, kw, exponent=0, out="int64")
        got, twin = both(kind, a, b, kw, exponent=exponent)
        assert (got == twin).all() and (got == oracles.rounded(exact.astype(object), exponent)).all()


def test_a_result_beyond_float32_is_an_error(every_isa):
    a = np.full((2, 4), 15, np.int8)
    for kind in ("linear", "linear_weight_grad"):
        assert pot_contract(kind, a[:, :2], a[:, :2], bits_a=5, bits_b=5, exponent=98)[0, 0] == 2.0**127
        for exponent in (99, 4000):
            with pytest.raises(OverflowError, match=r"pot_emulate_conv2d\w*: a result is beyond the largest float32"):
                pot_contract(kind, a[:, :2], a[:, :2], bits_a=5, bits_b=5, exponent=exponent)
    assert (pot_contract("linear", a, np.zeros_like(a), bits_a=5, bits_b=5, exponent=4000) == 0).all()


def test_linear_is_a_matrix_product(every_isa):
    rng = np.random.default_rng(23)
    for tokens, features, outputs in ((0, 3, 2), (1, 1, 1), (5, 65, 10), (129, 17, 3), (33, 7, 130)):
        x, w, e = (codes(rng, s, 5) for s in ((tokens, features), (outputs, features), (tokens, outputs)))
        xs, ws, es = (oracles.decode_float64(v) for v in (x, w, e))
        kw = {"bits_a": 5, "bits_b": 5, "exponent": 0}
        assert (pot_contract("linear", x, w, **kw) == (xs @ ws.T).astype(np.float32)).all()
        assert (pot_contract("linear_input_grad", e, w, **kw) == (es @ ws).astype(np.float32)).all()
        assert (pot_contract("linear_weight_grad", e, x, **kw) == (es.T @ xs).astype(np.float32)).all()


def test_the_family_says_what_runs(every_isa):
    """The counter names family and tier; 6 bits and the INT32 model stay with the shift/add kernels."""
    faster = "emulate" if every_isa in ("vnni", "amx") else "shift"
    for kind, (a, b, kw) in problem(np.random.default_rng(25), 4, 3, 4, (5, 5)).items():
        for wanted, family in (("emulate", "emulate"), ("shift", "shift"), ("auto", faster)):
            tier = in_force() if family == "emulate" else vector_tier()
            with use_kernels(wanted), calls() as seen:
                pot_contract(kind, a, b, exponent=0, **kw)
                assert pot_emulate.family(5, 5) == family
            assert list(seen) == [f"pot_{family}_{kind}[{tier}]"]
        assert in_force() == every_isa
        with calls() as seen:
            pot_contract(kind, a, b, exponent=0, accumulate="counts", **{**kw, "bits_a": 6})
            pot_contract(kind, a, b, exponent=0, accumulate="int32", **kw)
        assert all(name.startswith("pot_shift_") for name in seen) and len(seen) == 2
        assert pot_emulate.family(6, 5) == pot_emulate.family(5, 5, "int32") == "shift"
    with use_backend("numpy"):
        assert pot_emulate.family(5, 5) == "numpy"
