"""Exactness of the power-of-two contractions: C == twin == oracle for any shape, layout, bits, tier and threads."""
import pathlib
import sys

import numpy as np
import pytest

from minilp.kernels import KernelError, calls, pot_c, set_num_threads, threads, use_backend
from minilp.kernels.pot import pot_contract
from minilp.kernels.pot_geometry import geometry

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import pot_oracles as oracles
from pot_oracles import codes

KINDS = ("conv2d", "conv2d_input_grad", "conv2d_weight_grad")
LENGTHS = (0, 1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129)


@pytest.fixture(autouse=True)
def one_thread():
    """One thread is quickest for small arrays; the test of the thread count sets its own."""
    before = threads()
    set_num_threads(1)
    yield
    set_num_threads(before)


def problem(rng, n, c, o, hw, kernel=(3, 3), bits=(5, 5, 5), stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1,
            zeros=0.3):
    """Random act, weight and error of one layer, and the keyword arguments of its three contractions."""
    out = [(hw[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2)]
    act, weight = codes(rng, (n, c, *hw), bits[0], zeros), codes(rng, (o, c // groups, *kernel), bits[1], zeros)
    error = codes(rng, (n, o, *out), bits[2], zeros)
    common = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return {"conv2d": (act, weight, {"bits_a": bits[0], "bits_b": bits[1], **common}),
            "conv2d_input_grad": (error, weight, {"bits_a": bits[2], "bits_b": bits[1], "size": hw, **common}),
            "conv2d_weight_grad": (error, act, {"bits_a": bits[2], "bits_b": bits[0], "size": kernel, **common})}


def integers(kind, a, b, kw, **more):
    """The exact int64 sums by the backend in force."""
    return pot_contract(kind, a, b, exponent=0, out="int64", **kw, **more)


def twin(kind, a, b, kw, **more):
    """The exact int64 sums by NumPy."""
    with use_backend("numpy"):
        return integers(kind, a, b, kw, **more)


def same_in_float32(kind, a, b, kw, want):
    """Whether the float32 results are those integers times a power of two, rounded once."""
    got = pot_contract(kind, a, b, exponent=-17, **kw)
    return got.dtype == np.float32 and (got == np.ldexp(want.astype(np.float32), -17)).all()


GEOMETRIES = [
    {"n": 2, "c": 3, "o": 4, "hw": (5, 6)},
    {"n": 3, "c": 2, "o": 3, "hw": (6, 5), "stride": (2, 2)},
    {"n": 2, "c": 2, "o": 2, "hw": (7, 7), "kernel": (5, 5), "padding": (2, 2)},
    {"n": 2, "c": 2, "o": 2, "hw": (7, 6), "kernel": (5, 5), "padding": (2, 2), "stride": (2, 2)},
    {"n": 4, "c": 5, "o": 3, "hw": (3, 3), "kernel": (1, 1), "padding": (0, 0)},
    {"n": 3, "c": 5, "o": 3, "hw": (5, 4), "kernel": (1, 1), "padding": (0, 0), "stride": (2, 2)},
    {"n": 2, "c": 2, "o": 3, "hw": (7, 8), "dilation": (2, 2), "padding": (2, 2)},
    {"n": 2, "c": 2, "o": 3, "hw": (8, 9), "dilation": (2, 3), "padding": (0, 3), "stride": (3, 2)},
    {"n": 2, "c": 4, "o": 6, "hw": (5, 5), "groups": 2},
    {"n": 3, "c": 3, "o": 3, "hw": (6, 6), "groups": 3, "stride": (2, 2)},
    {"n": 2, "c": 2, "o": 2, "hw": (3, 4), "kernel": (3, 2), "padding": (3, 2), "stride": (1, 3)},
    {"n": 1, "c": 1, "o": 1, "hw": (1, 1), "kernel": (1, 1), "padding": (0, 0)},
    {"n": 1, "c": 2, "o": 2, "hw": (8, 8), "kernel": (2, 2), "padding": (0, 0), "stride": (5, 5)},
]


@pytest.mark.parametrize("case", GEOMETRIES, ids=str)
@pytest.mark.parametrize("bits", [(3, 4, 5), (4, 4, 4), (5, 5, 5), (5, 3, 4)])
def test_every_geometry_equals_the_index_loop(isa, case, bits):
    for kind, (a, b, kw) in problem(np.random.default_rng(3), **case, bits=bits).items():
        shape = {k: kw[k] for k in ("stride", "padding", "dilation")}
        want = oracles.index_loop(kind, a, b, shape, kw["groups"], kw.get("size"))
        for accumulate in ("int64", "counts"):
            assert (integers(kind, a, b, kw, accumulate=accumulate) == want).all(), (kind, accumulate)
            assert (twin(kind, a, b, kw, accumulate=accumulate) == want).all(), (kind, accumulate)
        assert same_in_float32(kind, a, b, kw, want), kind


@pytest.fixture(scope="module", params=[4, 5])
def awkward(request):
    """Contractions at awkward numbers of samples, channels and pixels, and what the NumPy twin makes of them."""
    rng = np.random.default_rng(5)
    cases = [dict(n=n, c=2, o=3, hw=(4, 3)) for n in LENGTHS]
    cases += [dict(n=3, c=c, o=2, hw=(3, 4)) for c in LENGTHS]
    cases += [dict(n=3, c=2, o=o, hw=(3, 4)) for o in LENGTHS]
    cases += [dict(n=2, c=1, o=2, hw=(3, w)) for w in LENGTHS[1:]]
    cases += [dict(n=33, c=2, o=2, hw=(h, w)) for h in range(1, 10) for w in (1, 2, 3, 4, 5, 9)]
    return [(kind, a, b, kw, twin(kind, a, b, kw)) for case in cases
            for kind, (a, b, kw) in problem(rng, **case, bits=(request.param,) * 3).items()]


def test_c_equals_numpy_at_awkward_lengths(isa, awkward):
    for kind, a, b, kw, want in awkward:
        got = integers(kind, a, b, kw)
        assert got.shape == want.shape, (kind, a.shape, b.shape)
        assert (got == want).all(), (kind, a.shape, b.shape)
        assert same_in_float32(kind, a, b, kw, want), (kind, a.shape, b.shape)


@pytest.mark.parametrize("bits", [(4, 4, 4), (5, 5, 5), (5, 4, 3)])
@pytest.mark.parametrize("stride", [1, 2])
def test_pot_equals_float64_oracle(isa, bits, stride):
    for kernel in (1, 3):
        case = problem(np.random.default_rng(7), 37, 16, 24, (9, 12), (kernel, kernel), bits, (stride, stride),
                       (kernel // 2, kernel // 2))
        for kind, (a, b, kw) in case.items():
            shape = {k: kw[k] for k in ("stride", "padding", "dilation")}
            want = oracles.float64(kind, a, b, shape, kw.get("size"))
            assert (integers(kind, a, b, kw) == want).all(), (kind, kernel)
            single = pot_contract(kind, a, b, exponent=-17, **kw)
            assert single.dtype == np.float32
            assert (single == np.ldexp(want, -17).astype(np.float32)).all(), (kind, kernel)


def test_float32_is_not_an_oracle():
    """5-bit sums need about 40 bits: the same product in float32 misses, so no test may use it as a reference."""
    rng = np.random.default_rng(9)
    a, b = codes(rng, (4, 1152), 5), codes(rng, (6, 1152), 5)
    exact = pot_contract("linear", a, b, bits_a=5, bits_b=5, exponent=0, out="int64")
    a64, b64 = oracles.decode_float64(a), oracles.decode_float64(b)
    assert (exact == a64 @ b64.T).all()
    assert (exact != (a64.astype(np.float32) @ b64.T.astype(np.float32)).astype(np.int64)).any()


@pytest.mark.parametrize("name", ["nchw", "chwn", "negative", "gaps"])
def test_any_strides_in_and_one_layout_out(isa, name):
    for kind, (a, b, kw) in problem(np.random.default_rng(11), 18, 5, 7, (6, 7), stride=(1, 2)).items():
        got = integers(kind, oracles.layouts(a)[name], oracles.layouts(b)[name], kw)
        assert (got == twin(kind, a, b, kw)).all()
        for result in (got, twin(kind, a, b, kw), pot_contract(kind, a, b, exponent=0, **kw)):
            stored = result if kind == "conv2d_weight_grad" else result.transpose(1, 2, 3, 0)
            assert stored.flags.c_contiguous, kind


@pytest.mark.parametrize("case", [
    {"n": 2, "c": 16, "o": 3, "hw": (44, 40)},
    {"n": 1, "c": 64, "o": 2, "hw": (3, 500)},
    {"n": 2, "c": 3, "o": 17, "hw": (60, 70), "stride": (2, 2)},
    {"n": 70, "c": 600, "o": 2, "hw": (1, 1), "kernel": (1, 1), "padding": (0, 0)},
], ids=str)
def test_images_larger_than_the_caches(isa, case):
    """Several tiles down and across, several blocks of channels, several chunks of rows."""
    for bits in (4, 5):
        for kind, (a, b, kw) in problem(np.random.default_rng(31), **case, bits=(bits,) * 3, zeros=0.1).items():
            want = twin(kind, a, b, kw)
            assert (integers(kind, a, b, kw) == want).all(), (kind, bits)
            assert same_in_float32(kind, a, b, kw, want), (kind, bits)


@pytest.mark.parametrize("n", [128, 130])
def test_results_larger_than_the_caches(isa, n):
    """From 4 MiB on whole vectors of results go past the caches, the rest of an odd batch through them."""
    rng = np.random.default_rng(33)
    set_num_threads(2)
    a, b = codes(rng, (n, 2, 32, 33), 5), codes(rng, (8, 2, 1, 1), 5)
    b[3] = 0  # an empty list
    got = pot_contract("conv2d", a, b, bits_a=5, bits_b=5, exponent=-17)
    assert got.nbytes > 4 << 20
    with use_backend("numpy"):
        assert (got == pot_contract("conv2d", a, b, bits_a=5, bits_b=5, exponent=-17)).all()


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("low", [-15, 1, 0])
def test_weight_gradient_sorts_signed_dense_and_sparse_rows(isa, stride, low):
    """Rows longer than one compare, with every level of both signs, of one sign, or nearly empty."""
    rng = np.random.default_rng(34)
    act = rng.integers(low or 1, 16, (2, 3, 5, 75)).astype(np.int8)
    if low == 0:
        act[rng.random(act.shape) < 0.97] = 0
    error = codes(rng, (2, 20, *((size - 1) // stride + 1 for size in (5, 75))), 5)
    kw = {"bits_a": 5, "bits_b": 5, "size": (3, 3), "stride": (stride, stride), "padding": (1, 1)}
    got = integers("conv2d_weight_grad", error, act, kw)
    assert (got == twin("conv2d_weight_grad", error, act, kw)).all()
    assert got.any()


def test_threads_do_not_change_a_bit(isa):
    case = problem(np.random.default_rng(13), 33, 6, 17, (10, 11))
    results = []
    for n in (1, 2, 3):
        set_num_threads(n)
        results.append([pot_contract(kind, a, b, exponent=-9, **kw).tobytes() for kind, (a, b, kw) in case.items()])
    set_num_threads(1)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("bits", [3, 4, 5])
def test_worst_case_sums_of_the_top_code(isa, bits):
    """All codes at the top with one sign: the largest sum the widths and K allow, in every direction."""
    top = 2 ** (bits - 1) - 1
    for kind, (a, b, kw) in problem(np.random.default_rng(0), 130, 70, 33, (4, 4), bits=(bits,) * 3).items():
        a, b = np.full_like(a, top), np.full_like(b, -top)
        got = integers(kind, a, b, kw)
        assert (got == twin(kind, a, b, kw)).all()
        depth = {"conv2d": 70 * 9, "conv2d_input_grad": 33 * 9, "conv2d_weight_grad": 130 * 16}[kind]
        assert got.min() == -depth * 4 ** (top - 1)
        assert same_in_float32(kind, a, b, kw, got), kind


@pytest.mark.parametrize("terms", [2**18, 2**18 + 1, 2**19 + 3])
@pytest.mark.parametrize("sign", [1, -1])
def test_sums_at_the_limit_of_narrow_totals(isa, terms, sign):
    """4-bit sums of up to 2**18 terms are totalled in int32, longer ones in int64; none wraps on either side."""
    a, b = np.full((terms, 2), 7, np.int8), np.full((terms, 3), 7 * sign, np.int8)
    a[-3:, 0], b[-2:, 1] = 1, -3
    want = oracles.decode_float64(a).T @ oracles.decode_float64(b)
    for kind, x, y in (("linear", a.T, b.T), ("linear_weight_grad", a, b)):
        got = pot_contract(kind, x, y, bits_a=4, bits_b=4, exponent=-17)
        assert (got == np.ldexp(want, -17).astype(np.float32)).all(), kind
        assert (pot_contract(kind, x, y, bits_a=4, bits_b=4, exponent=0, out="int64") == want).all(), kind


def test_pot_zero_weight_contributes_zero(isa):
    """DeepShift's convolution adds the input where the weight is zero; here zero is a gate of its own."""
    for kind, (a, b, kw) in problem(np.random.default_rng(15), 9, 4, 5, (5, 5), zeros=0).items():
        for left, right in ((a, np.zeros_like(b)), (np.zeros_like(a), b)):
            assert not integers(kind, left, right, kw).any(), kind
    a, b = codes(np.random.default_rng(2), (3, 40), 5), codes(np.random.default_rng(3), (4, 40), 5)
    b[:, 7:] = 0
    full = pot_contract("linear", a, b, bits_a=5, bits_b=5, exponent=0)
    assert (full == pot_contract("linear", a[:, :7], b[:, :7], bits_a=5, bits_b=5, exponent=0)).all()


def test_pot_same_sign_sum_has_no_drift(isa):
    """4096 products of one sign: shifting each to the right would floor every one of them."""
    rng = np.random.default_rng(17)
    a, b = (-np.abs(codes(rng, (1, 4096), 5, 0)) for _ in range(2))
    want = sum(2 ** (-int(x) - 1 - int(y) - 1) for x, y in zip(a[0], b[0], strict=True))
    for sign in (1, -1):
        got = pot_contract("linear", a, (sign * b).astype(np.int8), bits_a=5, bits_b=5, exponent=0, out="int64")
        assert got[0, 0] == sign * want


def test_int64_kernel_refuses_overflow_and_counts_take_over(isa):
    """6-bit operands with K=1152 need 72 bits: int64 refuses by name, counts give the exact sum rounded once."""
    a, b = np.full((2, 1152), 31, np.int8), np.full((3, 1152), -31, np.int8)
    a[1, 0], b[2] = 1, -1
    for backend in ("c", "numpy"):
        with use_backend(backend):
            with pytest.raises(KernelError, match=r"linear: operands of 6 and 6 bits with K=1152 .*72|71"):
                pot_contract("linear", a, b, bits_a=6, bits_b=6, exponent=0)
            got = pot_contract("linear", a, b, bits_a=6, bits_b=6, exponent=-60, accumulate="counts")
            want = [[-1152 * 2 ** 60, -1152 * 2 ** 60, -1152 * 2 ** 30]]
            want.append([-1151 * 2 ** 60 - 2 ** 30, -1151 * 2 ** 60 - 2 ** 30, -1151 * 2 ** 30 - 1])
            assert (got == oracles.rounded(np.array(want, object), -60)).all()
            with pytest.raises(OverflowError, match="int64"):
                pot_contract("linear", a, b, bits_a=6, bits_b=6, exponent=0, accumulate="counts", out="int64")
            small = pot_contract("linear", a, b[2:], bits_a=6, bits_b=6, exponent=0, accumulate="counts", out="int64")
            assert small[:, 0].tolist() == [want[0][2], want[1][2]]


@pytest.mark.parametrize("bits", [(6, 6, 6), (6, 5, 6), (5, 6, 5)])
def test_six_bit_counts_round_the_exact_sum_once(isa, bits):
    for kind, (a, b, kw) in problem(np.random.default_rng(19), 3, 4, 5, (5, 4), bits=bits, zeros=0.1).items():
        shape = {k: kw[k] for k in ("stride", "padding", "dilation")}
        exact = oracles.index_loop(kind, a, b, shape, 1, kw.get("size"))
        for exponent in (-60, -160, -200):
            want = oracles.rounded(exact, exponent)
            for backend in ("c", "numpy"):
                with use_backend(backend):
                    got = pot_contract(kind, a, b, exponent=exponent, accumulate="counts", **kw)
                assert (got == want).all(), (kind, backend, exponent)


def test_the_literal_mac_agrees(isa):
    """The scalar loops that read like the paper's MAC give the sums of the binned adds, in int64 and in counts."""
    for bits in (3, 5, 6):
        case = problem(np.random.default_rng(29), 3, 4, 6, (5, 6), (3, 2), (bits,) * 3, (2, 1))
        for kind, (a, b, kw) in case.items():
            g = geometry(kind, a, b, kw["stride"], kw["padding"], kw["dilation"], 1, kw.get("size"))
            fast = pot_contract(kind, a, b, exponent=-40, accumulate="counts", **kw)
            for accumulate in ("int64", "counts")[bits == 6:]:
                assert (pot_c.literal(a, b, g, -40, accumulate, "float32")[0] == fast).all(), (kind, bits, accumulate)


@pytest.mark.parametrize("exponent", [-140, -150, -165, -190, -4000, 60])
def test_scaled_once_to_nearest_even_down_to_subnormals(isa, exponent):
    for kind, (a, b, kw) in problem(np.random.default_rng(21), 19, 3, 4, (4, 4)).items():
        want = oracles.rounded(twin(kind, a, b, kw).astype(object), exponent)
        for backend in ("c", "numpy"):
            with use_backend(backend):
                assert (pot_contract(kind, a, b, exponent=exponent, **kw) == want).all(), backend


def test_a_result_beyond_float32_is_an_error(isa):
    a = np.full((2, 4), 15, np.int8)
    for backend in ("c", "numpy"):
        with use_backend(backend):
            assert pot_contract("linear", a, a, bits_a=5, bits_b=5, exponent=97)[0, 0] == 2.0 ** 127
            for exponent in (98, 4000, 10 ** 9):
                with pytest.raises(OverflowError, match="float32"):
                    pot_contract("linear", a, a, bits_a=5, bits_b=5, exponent=exponent)
            zero = pot_contract("linear", a, np.zeros_like(a), bits_a=5, bits_b=5, exponent=4000)
            assert (zero == 0).all()


def test_linear_is_a_matrix_product(isa):
    rng = np.random.default_rng(23)
    for tokens, features, outputs in ((0, 3, 2), (1, 1, 1), (5, 65, 10), (129, 17, 3), (33, 7, 130)):
        x, w, e = (codes(rng, s, 5) for s in ((tokens, features), (outputs, features), (tokens, outputs)))
        xs, ws, es = (oracles.decode_float64(v) for v in (x, w, e))
        kw = {"bits_a": 5, "bits_b": 5, "exponent": 0}
        assert (pot_contract("linear", x, w, **kw) == (xs @ ws.T).astype(np.float32)).all()
        assert (pot_contract("linear_input_grad", e, w, **kw) == (es @ ws).astype(np.float32)).all()
        assert (pot_contract("linear_weight_grad", e, x, **kw) == (es.T @ xs).astype(np.float32)).all()


def test_the_call_counter_names_what_ran(isa):
    for kind, (a, b, kw) in problem(np.random.default_rng(25), 4, 3, 4, (5, 5)).items():
        with calls() as seen:
            integers(kind, a, b, kw)
        assert list(seen) == [f"pot_shift_{kind}[{isa}]"]
        with calls() as seen, use_backend("numpy"):
            integers(kind, a, b, kw)
        assert list(seen) == [f"pot_int64_{kind}[numpy]"]
        with calls() as seen:
            pot_contract(kind, a, b, exponent=0, accumulate="counts", **{**kw, "bits_a": 6})
            integers(kind, a, b, kw, accumulate="int32")
        assert set(seen) == {f"pot_shift_{kind}_digits[{isa}]", f"pot_shift_{kind}_int32[scalar]"}
