"""The emulated MLS contractions: the bits of the shift kernels and of the NumPy twin, and where they must not run."""
import pathlib
import re
import sys

import numpy as np
import pytest

import minilp
from minilp.formats import MLS, Spec
from minilp.kernels import available_tiers, calls, set_num_threads, threads, use_backend

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from mls_oracles import GEOMETRIES, index_loop, operands, tensor
from test_mls_tiers import MULTIPLY, mnemonics

KINDS = ("conv2d", "conv2d_input_grad", "conv2d_weight_grad")
SMALL = [MLS(2, 1), MLS(2, 1, top="keep"), MLS(1, 2, top="keep"), MLS(0, 3, group_man=0)]
WIDE = [MLS(2, 4), MLS(0, 7), MLS(2, 1), MLS(2, 3, underflow="sudden")]


def ran(family, run):
    """The result, and the kernels that ran."""
    with minilp.use_kernels(family), calls() as seen:
        result = run()
    return result, [name for name in seen if name.startswith("mls")]


def both(a, b, spec):
    """The emulated result (whichever kernel ran) after comparing it with shifts and NumPy, and the kernel's name."""
    run = lambda: a.format.contract(a, b, spec)  # noqa: E731
    (got, names), (shifted, slow) = ran("auto", run), ran("shift", run)
    assert not [name for name in slow if "dot" in name]
    with use_backend("numpy"):
        twin = run()
    assert np.array_equal(got, shifted) and np.array_equal(got, twin), (a.format, b.format, spec, names)
    assert not np.signbit(got[got == 0]).any()
    return got, names[0]


@pytest.mark.parametrize("kind", KINDS)
def test_equals_shifts_and_the_twin(every_isa, kind):
    """Every geometry; batches around the vector lengths, channels around theirs, one and two threads."""
    rng = np.random.default_rng(2)
    before = threads()
    for i, batch in enumerate((1, 3, 8, 16, 17, 33, 5, 12)):
        kernel, stride, padding = GEOMETRIES[i % 6]
        a, b, spec = operands(rng, kind, SMALL[i % 4], SMALL[(i + i // 4) % 4], batch, (3, 17, 8, 16)[i % 4],
                              (9, 2, 17, 8)[i % 4], (7 + i % 3, 6 + i), kernel, stride, padding)
        try:
            for n in (1, 2):
                set_num_threads(n)
                got, name = both(a, b, spec)
                assert ("dot" in name) == (every_isa != "portable"), name
                if every_isa == "amx":
                    assert name.endswith("[amx]" if kind == "conv2d_weight_grad" else "[vnni]")
        finally:
            set_num_threads(before)
        if i == 0:
            assert np.array_equal(got, index_loop(a, b, spec))


@pytest.mark.parametrize("kind", KINDS[:2])
def test_big_results_of_whole_lines_and_of_others(every_isa, kind):
    """From 2^19 numbers on results go past the caches, if a row of samples is whole lines of 16."""
    rng = np.random.default_rng(7)
    before = threads()
    try:
        for batch, stride in ((64, (1, 1)), (72, (1, 1)), (64, (2, 2))):
            a, b, spec = operands(rng, kind, SMALL[0], SMALL[0], batch, 32, 32 * stride[0] ** 2, (16, 16), (3, 3),
                                  stride, (1, 1))
            for n in (1, 2):
                set_num_threads(n)
                got, _ = both(a, b, spec)
                assert got.size >= 2**19
    finally:
        set_num_threads(before)


@pytest.mark.parametrize("kind", KINDS)
def test_wide_integers_channel_groups_and_dilation(every_isa, kind):
    """Up to 127, which only products of four bytes hold; dilated kernels, wide ones, channel groups."""
    rng = np.random.default_rng(3)
    for i, (kernel, stride, dilation, groups) in enumerate([((3, 3), (1, 1), (1, 1), 2), ((3, 2), (2, 1), (1, 3), 1),
                                                            ((1, 7), (1, 3), (2, 1), 1), ((5, 5), (1, 2), (1, 1), 2)]):
        fmt, other = WIDE[i], WIDE[(i + 2) % 4]
        out = tuple((13 + 2 * 2 - d * (k - 1) - 1) // s + 1
                    for k, s, d in zip(kernel, stride, dilation, strict=True))
        act, weight, error = (18, 6, 13, 13), (10, 6 // groups, *kernel), (18, 10, *out)
        x, y, size = {"conv2d": (act, weight, None), "conv2d_input_grad": (error, weight, (13, 13)),
                      "conv2d_weight_grad": (error, act, kernel)}[kind]
        spec = Spec(kind, stride, (2, 2), dilation, groups, size)
        name = both(fmt.encode(tensor(rng, *x)), other.encode(tensor(rng, *y)), spec)[1]
        if every_isa in ("vnni", "amx"):
            assert "dot" in name, (fmt, other)


@pytest.mark.parametrize("kind", KINDS)
def test_bands_and_parts_for_any_number_of_threads(every_isa, kind):
    """More rows than a band, more samples than a task, fewer features than threads; strides that skip rows of input."""
    rng = np.random.default_rng(9)
    before = threads()
    try:
        for batch, size, kernel, stride, features in ((70, (19, 6), (3, 3), (1, 1), 16),
                                                      (65, (21, 7), (1, 1), (2, 2), 5),
                                                      (130, (9, 5), (2, 2), (3, 1), 24)):
            a, b, spec = operands(rng, kind, SMALL[0], SMALL[1], batch, 5, features, size, kernel, stride, (0, 0))
            for n in (1, 2, 3, 5):
                set_num_threads(n)
                both(a, b, spec)
    finally:
        set_num_threads(before)


def test_runs_of_errors_in_whole_and_broken_tiles(every_isa):
    """Maps of up to 16 quads, of more, and of a number that 16 does not divide; rows apart by strides; many taps."""
    rng = np.random.default_rng(8)
    for size, kernel, stride, padding in (((8, 8), (3, 3), (1, 1), (1, 1)), ((9, 20), (3, 3), (1, 1), (0, 1)),
                                          ((5, 68), (1, 7), (1, 1), (0, 3)), ((9, 70), (3, 2), (2, 1), (1, 0)),
                                          ((70, 140), (2, 2), (2, 2), (0, 0)), ((6, 5), (4, 5), (1, 1), (0, 0))):
        a, b, spec = operands(rng, "conv2d_weight_grad", SMALL[1], SMALL[0], 18, 17, 33, size, kernel, stride, padding)
        both(a, b, spec)


@pytest.mark.parametrize("kind", KINDS)
def test_far_scales_and_large_sums_leave_it_to_shifts(every_isa, kind):
    """Where a term might be subnormal or need more than 24 bits, the emulation is not asked; at the edge it is."""
    rng = np.random.default_rng(4)
    a, b, spec = operands(rng, kind, MLS(2, 1), MLS(2, 1), 3, 2, 3, (4, 4), (3, 3), (1, 1), (1, 1))
    for e, dots in ((59, True), (60, False)):
        far = [type(q)(q.format, q.codes, (q.scales[0], np.full_like(q.scales[1], e), q.scales[2])) for q in (a, b)]
        got, name = both(*far, spec)
        assert ("dot" in name) == (dots and every_isa != "portable"), name
        assert got.any()
    keep = MLS(2, 4, top="keep")  # 128 is no signed byte
    q = [keep.encode(tensor(rng, *x.shape)) for x in (a, b)]
    assert "dot" not in both(*q, spec)[1]
    fmt = MLS(0, 7)
    for side in (5, 9):  # 25 or 81 products of 127 x 127 and a significand of 9: the second may pass 2^24
        a, b, spec = operands(rng, kind, fmt, fmt, 2, 2, 2, (side, side), (side, side), (1, 1), (0, 0))
        full = [type(q)(fmt, np.full_like(q.codes, 127), (q.scales[0], q.scales[1], np.ones_like(q.scales[2])))
                for q in (a, b)]
        got, name = both(*full, spec)
        assert ("dot" in name) == (every_isa in ("vnni", "amx") and (side == 5 or kind == "conv2d_weight_grad")), name


def test_weight_gradient_rounds_where_the_definition_does(every_isa, needs_c):
    """Sums up to 2^24 whose product with a significand of 9 needs more: float32(P m), then the add."""
    rng = np.random.default_rng(5)
    fmt = MLS(0, 7)
    error, act = (fmt.encode(np.abs(tensor(rng, *shape))) for shape in ((4, 3, 30, 32), (4, 2, 30, 32)))
    q = [type(x)(fmt, np.where(rng.random(x.shape) < 0.9, 127, x.codes).astype(np.int8),
                 (x.scales[0], x.scales[1], np.ones_like(x.scales[2]))) for x in (error, act)]
    got, name = both(*q, Spec("conv2d_weight_grad", padding=(1, 1), size=(3, 3)))
    assert ("dot" in name) == (every_isa in ("vnni", "amx"))
    assert np.abs(got).max() / np.prod([x.scales[0].item() for x in q]) * 2.0 ** (2 * fmt.fraction_bits) > 2**24


def test_a_step_under_shift_runs_no_emulation(needs_c):
    """Every MLS contraction of a forward and a backward pass, by the names of the kernels that ran."""
    from minilp import nn, recipe
    from minilp.autograd import Tensor
    found = {}
    for family in ("shift", "auto"):
        net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))
        recipe.get("mls").apply(net)
        x = Tensor(np.random.default_rng(6).standard_normal((6, 3, 8, 8)).astype(np.float32))
        with minilp.use_kernels(family), calls() as seen:
            net(x).sum().backward()
        found[family] = {name.split("[")[0] for name in seen if name.startswith("mls_") and "conv2d" in name}
    assert found["shift"] == {f"mls_{kind}" for kind in KINDS}
    if "avx2" in available_tiers():
        assert found["auto"] == {f"mls_{kind}_dot" for kind in KINDS}


def test_the_emulated_loops_multiply(objdump):
    """The control of the shift kernels' disassembly: fused multiply-adds, and byte products of the tier."""
    loops = mnemonics(objdump, "mlp_mls_dot_")
    for tier, product in (("avx2", "vpmaddubsw"), ("avx512", "vpmaddubsw"), ("vnni", "vpdpbusd")):
        if tier in available_tiers():
            for what in ("rows", "wgrad"):
                code = loops[f"mlp_mls_dot_{what}_{tier}"]
                assert product in code and [m for m in code if MULTIPLY.match(m)], (what, tier)
            assert [m for m in loops[f"mlp_mls_dot_rows_{tier}"] if re.match(r"vfmadd\d+ps", m)]
    if "amx" in available_tiers():
        assert "tdpbssd" in mnemonics(objdump, "sums_amx")["sums_amx"]
