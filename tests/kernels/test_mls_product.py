"""Linear layers in MLS by fused multiply-adds and byte products: the bits of shifts and of NumPy, and where not to."""
import pathlib
import re
import sys

import numpy as np
import pytest

from minilp.formats import MLS, Spec
from minilp.kernels import available_tiers, set_num_threads, threads

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from mls_oracles import tensor
from test_mls_dot import both
from test_mls_tiers import MULTIPLY, mnemonics

KINDS = ("linear", "linear_input_grad", "linear_weight_grad")
FORMATS = [MLS(2, 1), MLS(2, 4), MLS(1, 2, top="keep"), MLS(0, 7), MLS(2, 3, underflow="sudden"),
           MLS(0, 3, group_man=0), MLS(2, 1, group="c"), MLS(2, 1, group="none")]
SIZES = [(1, 1, 1), (14, 32, 256), (15, 33, 257), (29, 3, 64), (6, 16, 1023), (113, 65, 17), (2, 129, 1025),
         (257, 31, 5)]
"""Rows, inputs and outputs around a tile's rows and columns, and a block of the sum."""


def coded(rng, fmt, *shape):
    """Codes of tokens of very different size, some of them zero."""
    x = tensor(rng, *shape) * np.exp2(rng.integers(-12, 1, (shape[0], 1))).astype(np.float32)
    x[rng.integers(shape[0])] *= shape[0] < 3
    return fmt.encode(x)


def matrices(rng, kind, fmt, other, rows, inputs, outputs):
    act, weight, error = (rows, inputs), (outputs, inputs), (rows, outputs)
    first, second = {"linear": (act, weight), "linear_input_grad": (error, weight),
                     "linear_weight_grad": (error, act)}[kind]
    return coded(rng, fmt, *first), coded(rng, other, *second)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_shifts_and_the_twin(every_isa, kind):
    """Every format and size, one and two threads; results in C order."""
    rng = np.random.default_rng(0)
    before = threads()
    for i, sizes in enumerate(SIZES):
        for turn in range(3):
            rows, inputs, outputs = np.roll(sizes, turn)
            a, b = matrices(rng, kind, FORMATS[i], FORMATS[(i + turn) % 8], rows, inputs, outputs)
            try:
                for n in (1, 2):
                    set_num_threads(n)
                    got, name = both(a, b, Spec(kind))
            finally:
                set_num_threads(before)
            if every_isa == "portable":
                assert not name.startswith("mls_linear")
            elif max(q.format.integers()[-1] for q in (a, b)) < 127 or every_isa in ("vnni", "amx"):
                assert name == f"mls_{kind}_dot[{'vnni' if every_isa == 'amx' else every_isa}]"
                assert got.flags.c_contiguous


@pytest.mark.parametrize("kind", KINDS)
def test_any_memory_order(every_isa, kind):
    """Rows or columns innermost, or neither."""
    rng = np.random.default_rng(1)
    a, b = matrices(rng, kind, MLS(2, 1), MLS(2, 1), 35, 50, 21)
    want = None
    for order in "CFS":
        stored = []
        for q in (a, b):
            codes = np.repeat(q.codes, 2, 1)[:, ::2] if order == "S" else np.array(q.codes, order=order)
            stored.append(type(q)(q.format, codes, q.scales))
        got, name = both(*stored, Spec(kind))
        want = got if want is None else want
        assert np.array_equal(got, want) and name.startswith("mls_linear") == (every_isa != "portable")


@pytest.mark.parametrize("kind", KINDS)
def test_where_it_must_not_run(every_isa, kind):
    """Terms that might be subnormal, 128 as an integer, scales along both axes, sums beyond the accumulator."""
    rng = np.random.default_rng(2)
    has = every_isa != "portable"
    a, b = matrices(rng, kind, MLS(2, 1), MLS(2, 1), 9, 11, 7)
    for e, dots in ((59, has), (60, False)):
        far = [type(q)(q.format, q.codes, (q.scales[0], np.full_like(q.scales[1], e), q.scales[2])) for q in (a, b)]
        got, name = both(*far, Spec(kind))
        assert got.any() and name.startswith("mls_linear") == dots, name
    for fmt in (MLS(2, 4, top="keep"), MLS(2, 1, least=1)):
        name = both(*matrices(rng, kind, fmt, fmt, 9, 11, 7), Spec(kind))[1]
        assert not name.startswith("mls_linear"), fmt


def test_a_sum_that_is_one_integer(every_isa):
    """The largest numbers: bytes take 33286 products, floats 1040; what is rounded is P m, not P."""
    fmt = MLS(0, 7)
    for depth, tiers in ((1040, ("avx2", "avx512", "vnni", "amx")), (1041, ("vnni", "amx")), (33287, ())):
        full = fmt.encode(np.ones((3, depth), np.float32))
        full = type(full)(fmt, np.where(np.arange(depth) % 5 == 4, 126, 127).astype(np.int8)[None].repeat(3, 0),
                          (full.scales[0], full.scales[1] + 1, np.ones_like(full.scales[2])))
        got, name = both(full, full, Spec("linear"))
        assert name.startswith("mls_linear") == (every_isa in tiers), (depth, name)
        assert got.min() > 1


def test_tensor_scales_of_rows(needs_c):
    """A tensor scale for each row of the result."""
    rng = np.random.default_rng(3)
    a, b = (MLS(2, 1).encode(tensor(rng, *shape), keep=(0,)) for shape in ((9, 11), (7, 11)))
    both(a, b, Spec("linear"))


def test_the_loops_multiply(objdump):
    """The control of the shift kernels' disassembly, and that a float sum is fused."""
    loops = mnemonics(objdump, "mlp_mls_product_")
    for tier in available_tiers()[1:4]:
        code = loops[f"mlp_mls_product_floats_{tier}"]
        assert [m for m in code if re.match(r"vfmadd\d+ps", m) and MULTIPLY.match(m)], tier
    if "vnni" in available_tiers():
        assert "vpdpbusd" in loops["mlp_mls_product_quads_vnni"]
