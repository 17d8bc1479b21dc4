"""Disassemble the built library: the inner loops of the logarithmic contractions hold no multiply instruction."""
import pathlib
import re
import sys

from minilp.kernels import available_tiers

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from test_pot_no_multiply import CLONE, functions, multiplies  # noqa: F401  functions is a fixture


def test_every_tier_has_its_loops(functions):  # noqa: F811
    """Walks, expansions and folds exist for five gammas per tier; the scalar MACs once."""
    for tier in available_tiers()[:3]:  # the vector tiers
        for part in ("walk", "expand", "fold"):
            loops = [n for n in functions if re.match(rf"mlp_lns_shift_{part}_g(1|2|4|8|16)_{tier}{CLONE}", n)]
            assert len(loops) >= 5, (tier, part, loops)
    for mode in ("bins", "counts"):
        assert any(re.match(rf"mlp_lns_shift_row_{mode}{CLONE}", n) for n in functions), mode


def test_no_multiply_in_any_shift_loop(functions):  # noqa: F811
    """No multiply, multiply-add, dot-product, tile or divide instruction in mlp_lns_shift_* and whatever it calls."""
    loops = [n for n in functions if n.startswith("mlp_lns_shift_")]
    assert loops
    for name in loops:
        assert len(functions[name][0]) > 10, f"{name} is too short to be a loop"
        assert multiplies(functions, name) == [], name


def test_the_walks_hold_no_vector_shift_either(functions):  # noqa: F811
    """A step down in exponent adds one bin to itself: only scalar address arithmetic shifts."""
    for name in functions:
        if name.startswith("mlp_lns_shift_walk"):
            assert not [m for m in functions[name][0] if re.match(r"v?ps(ll|ra|rl)", m) and not m.endswith("dq")], name


def test_control_the_search_finds_the_closing_multiplies(functions):  # noqa: F811
    """The constants are multiplied where the bins are closed, once a sum; the same search sees it."""
    closing = [n for n in functions if n.startswith("mlp_lns_close_g8_")]
    assert closing
    for name in closing:
        assert any("mulpd" in m or "mulsd" in m for m in multiplies(functions, name)), name
