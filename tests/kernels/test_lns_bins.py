"""Contractions of logarithmic codes: C == twin == Python integers, one per remainder, any shape, width and order."""
import pathlib
import sys

import numpy as np
import pytest

from minilp.kernels import KernelError, calls, lns_bins_c, set_num_threads, threads, use_backend
from minilp.kernels.lns_bins import lns_contract

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import lns_oracles as oracles
from lns_oracles import codes, problem
from pot_oracles import layouts

GEOMETRIES = [
    {"n": 2, "c": 3, "o": 4, "hw": (4, 5)},
    {"n": 3, "c": 2, "o": 3, "hw": (6, 5), "stride": (2, 2)},
    {"n": 2, "c": 2, "o": 2, "hw": (5, 6), "kernel": (5, 5), "padding": (2, 2), "stride": (2, 1)},
    {"n": 3, "c": 5, "o": 3, "hw": (5, 4), "kernel": (1, 1), "padding": (0, 0), "stride": (2, 2)},
    {"n": 2, "c": 2, "o": 3, "hw": (8, 9), "dilation": (2, 3), "padding": (0, 3), "stride": (3, 2)},
    {"n": 2, "c": 4, "o": 6, "hw": (4, 4), "groups": 2},
    {"n": 3, "c": 3, "o": 3, "hw": (4, 5), "groups": 3, "stride": (2, 2)},
    {"n": 1, "c": 1, "o": 1, "hw": (1, 1), "kernel": (1, 1), "padding": (0, 0)},
    {"n": 1, "c": 2, "o": 2, "hw": (8, 8), "kernel": (2, 2), "padding": (0, 0), "stride": (5, 5)},
]
GAMMAS = [(8, 8), (4, 8), (8, 2), (1, 1), (16, 16), (32, 8)]
SCALE = 0.7 * 2.0 ** -33


@pytest.fixture(autouse=True)
def one_thread():
    """One thread is quickest for small arrays; the test of the thread count sets its own."""
    before = threads()
    set_num_threads(1)
    yield
    set_num_threads(before)


def tops(gamma_a, gamma_b):
    """Codes for about 13 octaves of each operand: within the fast kernel's reach."""
    return 13 * gamma_a + 1, 13 * gamma_b + 1


def twin(kind, a, b, **kw):
    with use_backend("numpy"):
        return lns_contract(kind, a, b, **kw)


@pytest.mark.parametrize("case", GEOMETRIES, ids=str)
@pytest.mark.parametrize("gammas", GAMMAS, ids=str)
def test_every_geometry_equals_the_index_loop(needs_c, case, gammas):
    """Activations and errors have the first gamma, weights the second; exact and with the smallest table."""
    first, second = tops(*gammas)
    for kind, (a, b, kw) in problem(np.random.default_rng(3), **case, tops=(first, second, first)).items():
        own = (gammas[0], gammas[0] if kind == "conv2d_weight_grad" else gammas[1])
        gamma = max(own)
        shape = {k: kw[k] for k in ("stride", "padding", "dilation")}
        packed = oracles.index_loop(kind, oracles.pack(a, gamma, own[0]), oracles.pack(b, gamma, own[1]), shape,
                                    kw["groups"], kw.get("size"))
        call = {"gamma_a": own[0], "gamma_b": own[1], "scale": SCALE, **kw}
        for lut in {gamma, 1}:
            want = oracles.closed(packed, gamma, SCALE, lut)
            assert (lns_contract(kind, a, b, lut=lut, **call) == want).all(), (kind, lut)
            assert (twin(kind, a, b, lut=lut, **call) == want).all(), (kind, lut)


LINEAR = {"linear": lambda a, b: a @ b.T, "linear_input_grad": lambda a, b: a @ b, "linear_weight_grad":
          lambda a, b: a.T @ b}


@pytest.mark.parametrize("kind", LINEAR)
@pytest.mark.parametrize(("top", "gamma"), [(16, 1), (16, 4), (128, 8), (128, 4), (128, 2), (512, 16), (512, 8),
                                            (2048, 16), (32767, 256)])
@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_linear_at_any_width_equals_python_integers(needs_c, kind, top, gamma, backend):
    """5 to 16 bits; where a bin would not fit int64, products are counted by exponent sum."""
    rng = np.random.default_rng(5)
    n, k, m = (2, 5, 2) if gamma > 16 else (4, 9, 5)
    shapes = {"linear": ((n, k), (m, k)), "linear_input_grad": ((n, k), (k, m)), "linear_weight_grad": ((k, n), (k, m))}
    a, b = (codes(rng, s, top) for s in shapes[kind])
    octaves = (2 * top - 2) // gamma
    scale = 2.0 ** -octaves
    packed = LINEAR[kind](oracles.pack(a, gamma, gamma), oracles.pack(b, gamma, gamma))
    for lut in {gamma, 1, max(gamma // 2, 1)}:
        with use_backend(backend), calls() as seen:
            got = lns_contract(kind, a, b, gamma_a=gamma, gamma_b=gamma, scale=scale, lut=lut)
        assert (got == oracles.closed(packed, gamma, scale, lut)).all()
        assert any("counts" in name for name in seen) == (octaves > 55)


@pytest.mark.parametrize("backend", ["c", "numpy"])
@pytest.mark.parametrize("gamma", [1, 8])
def test_int64_bins_up_to_their_last_bit(needs_c, backend, gamma):
    """16 equal products of 2^57: 62 bits, sign and one to spare. One octave more and they are counted."""
    for octaves, counted in ((57, False), (58, True)):
        a = np.full((3, 16), (octaves - 40) * gamma + gamma, np.int16)
        b = np.full((2, 16), -40 * gamma - 1, np.int16)
        a[:, 0], b[:, 0] = 1, -1  # the smallest code is present: no octaves can be left out
        with use_backend(backend), calls() as seen:
            got = lns_contract("linear", a, b, gamma_a=gamma, gamma_b=gamma, scale=2.0 ** -octaves)
        assert any("counts" in name for name in seen) == counted
        want = sum([2.0 ** ((gamma - 1) / gamma)] * 15) + 2.0 ** -octaves
        assert np.allclose(got, -want, rtol=2 ** -23, atol=0)


@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_octaves_below_the_smallest_code_cost_nothing(needs_c, backend):
    """Codes far up, but close together, still run in int64 bins, and give the same as codes far down."""
    rng = np.random.default_rng(6)
    a, b = codes(rng, (5, 30), 100), codes(rng, (4, 30), 100)
    call = {"gamma_a": 8, "gamma_b": 8}
    with use_backend(backend), calls() as seen:
        near = lns_contract("linear", a, b, scale=2.0 ** -20, **call)
        far = lns_contract("linear", a + 2000 * np.sign(a), b + 1600 * np.sign(b), scale=2.0 ** -470, **call)
    assert (near == far).all()
    assert not any("counts" in name for name in seen)


def test_c_equals_numpy_at_awkward_lengths(isa):
    rng = np.random.default_rng(7)
    cases = [dict(n=n, c=2, o=3, hw=(3, 2)) for n in (0, 1, 7, 17, 33, 65, 129)]
    cases += [dict(n=3, c=c, o=2, hw=(2, 3)) for c in (1, 7, 16, 33)] + [dict(n=2, c=1, o=65, hw=(2, 2))]
    cases += [dict(n=2, c=130, o=2, hw=(2, 2), kernel=(1, 1), padding=(0, 0))]
    for case in cases:
        for gamma in (1, 2, 4, 8, 16):
            top = 12 * gamma + gamma
            for kind, (a, b, kw) in problem(rng, **case, tops=(top,) * 3).items():
                call = {"gamma_a": gamma, "gamma_b": gamma, "scale": 1e-6, **kw}
                with calls() as seen:
                    got = lns_contract(kind, a, b, **call)
                assert not a.size or list(seen) == [f"lns_bins_{kind}[{isa}]"]
                want = twin(kind, a, b, **call)
                assert got.shape == want.shape and got.dtype == np.float32
                assert (got == want).all(), (kind, case, gamma)


def test_wide_lanes_and_long_lists(isa):
    """22 octaves in the lanes leave 128 terms a segment; the other operand's 28 octaves need several segments."""
    rng = np.random.default_rng(8)
    a, b = codes(rng, (19, 700), 22 * 8 + 8, 0.1), codes(rng, (3, 700), 28 * 8, 0.1)
    with calls() as seen:
        got = lns_contract("linear", a, b, gamma_a=8, gamma_b=8, scale=1e-9)
    assert list(seen) == [f"lns_bins_conv2d[{isa}]"]
    packed = oracles.pack(a, 8, 8) @ oracles.pack(b, 8, 8).T
    assert (got == oracles.closed(packed, 8, 1e-9)).all()


def test_largest_sums_of_the_same_sign(isa):
    """Every product at the top of its range, all of one sign: a lane that could overflow would."""
    for top in (22 * 8 + 8, 15 * 8 + 8):
        a, b = np.full((17, 900), top, np.int16), np.full((2, 900), top, np.int16)
        a[:, 1::2] -= 7
        b[:, ::3] = 1
        got = lns_contract("linear", a, b, gamma_a=8, gamma_b=8, scale=1.0)
        assert (got == twin("linear", a, b, gamma_a=8, gamma_b=8, scale=1.0)).all()
        packed = oracles.pack(a[:1], 8, 8) @ oracles.pack(b[:1], 8, 8).T
        assert (got == oracles.closed(packed, 8, 1.0)).all()


def test_order_does_not_matter(isa):
    """Channels shuffled in both operands, samples shuffled for the weight gradient: the same bits, bins or counts."""
    rng = np.random.default_rng(9)
    for gamma in (8, 2):
        case = problem(rng, 6, 9, 7, (5, 4))
        for kind, (a, b, kw) in case.items():
            call = {"gamma_a": gamma, "gamma_b": gamma, "scale": 1e-20, **kw}
            want = lns_contract(kind, a, b, **call)
            if kind == "conv2d_weight_grad":
                order = rng.permutation(len(a))
                a, b = a[order], b[order]
            elif kind == "conv2d":
                order = rng.permutation(a.shape[1])
                a, b = a[:, order], b[:, order]
            else:
                order = rng.permutation(a.shape[1])
                a, b = a[:, order], b[order]
            assert (lns_contract(kind, a, b, **call) == want).all(), (kind, gamma)
            assert (twin(kind, a, b, **call) == want).all(), (kind, gamma)


def test_layout_dtype_and_threads_do_not_matter(isa):
    rng = np.random.default_rng(10)
    a, b = codes(rng, (6, 5, 7, 4), 120, dtype=np.int8), codes(rng, (3, 5, 3, 3), 120, dtype=np.int8)
    call = {"gamma_a": 8, "gamma_b": 8, "scale": 1e-6, "padding": (1, 1)}
    want = lns_contract("conv2d", a, b, **call)
    assert want.transpose(1, 2, 3, 0).flags.c_contiguous
    for x in layouts(a).values():
        for dtype in (np.int8, np.int16, np.int32):
            assert (lns_contract("conv2d", x.astype(dtype), b.astype(dtype), **call) == want).all()
    set_num_threads(2)
    assert (lns_contract("conv2d", a, b, **call) == want).all()


@pytest.mark.parametrize("kind", ["conv2d", "conv2d_input_grad", "conv2d_weight_grad"])
def test_the_literal_loops_equal_the_planes(needs_c, kind):
    """The scalar MAC, which bins by the table's entries as hardware would, against the vector loops."""
    from minilp.kernels import lns_bins
    a, b, kw = problem(np.random.default_rng(11), 9, 4, 5, (5, 6))[kind]
    g = lns_bins.geometry(kind, a, b, kw["stride"], kw["padding"], kw["dilation"], 1, kw.get("size"))
    for lut in (1, 2, 4, 8):
        constants = np.array([2.0 ** (r / lut) for r in range(lut)]) / (1 if lut == 8 else 8)
        for scale in (1e-5, None):
            plan = lns_bins.Plan(8, lut, 127, 127, 0, constants, scale)
            want, got = (run(a.astype(np.int32), b.astype(np.int32), g, plan)
                         for run in (lns_bins_c.literal, lns_bins_c.contract))
            assert want.dtype == (np.float64 if scale is None else np.float32)
            assert (got == want).all()


@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_zero_contributes_nothing(needs_c, backend):
    rng = np.random.default_rng(12)
    a, b = codes(rng, (4, 20), 128), codes(rng, (3, 20), 128)
    call = {"gamma_a": 8, "gamma_b": 8, "scale": 1e-8}
    with use_backend(backend):
        gone = b.copy()
        gone[:, ::2] = 0
        assert (lns_contract("linear", a, gone, **call)
                == lns_contract("linear", a[:, 1::2], b[:, 1::2], **call)).all()
        for x, y in ((np.zeros_like(a), b), (a, np.zeros_like(b))):
            assert (lns_contract("linear", x, y, **call) == 0).all()


@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_scales_broadcast_and_are_applied_once(needs_c, backend):
    a, b, kw = problem(np.random.default_rng(13), 3, 4, 5, (3, 4))["conv2d"]
    scale = np.exp(np.random.default_rng(1).standard_normal((1, 5, 1, 1))) * 1e-7
    with use_backend(backend):
        got = lns_contract("conv2d", a, b, gamma_a=8, gamma_b=8, scale=scale, **kw)
        for o in range(5):
            want = lns_contract("conv2d", a, b[o:o + 1], gamma_a=8, gamma_b=8, scale=scale[0, o, 0, 0], **kw)
            assert (got[:, o:o + 1] == want).all()
        assert got.transpose(1, 2, 3, 0).flags.c_contiguous and got.dtype == np.float32


@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_what_does_not_fit_is_refused(needs_c, backend):
    a, b = np.array([[32767, 1]], np.int16), np.array([[32767, 1]], np.int16)
    with use_backend(backend):
        with pytest.raises(KernelError, match="octaves"):
            lns_contract("linear", a, b, gamma_a=16, gamma_b=16, scale=1.0)
        with pytest.raises(OverflowError, match="largest float32"):
            lns_contract("linear", a, b, gamma_a=256, gamma_b=256, scale=1.0)
        with pytest.raises(ValueError, match="range of 2"):
            lns_contract("linear", np.array([[2 ** 30]], np.int32), b[:, :1], gamma_a=8, gamma_b=8, scale=1.0)
        with pytest.raises(ValueError, match="64 times finer"):
            lns_contract("linear", np.array([[2 ** 24]], np.int32), b[:, :1], gamma_a=2, gamma_b=128, scale=1.0)
        with pytest.raises(KernelError, match="octaves"):
            lns_contract("linear", np.array([[9000]], np.int16), b[:, :1], gamma_a=8, gamma_b=8, scale=1.0)
