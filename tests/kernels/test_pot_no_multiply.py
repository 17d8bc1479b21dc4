"""Disassemble the built library: the inner loops of the power-of-two contractions hold no multiply instruction."""
import re
import subprocess

import pytest

from minilp.kernels import available_tiers

MULTIPLY = re.compile(r"^(v?p?i?mul\w*|v?pmadd\w*|v?pdp\w*|v?fn?m(add|sub)\w*|fi?mul\w*|tdp\w*|v?dp\w*|v?pclmul\w*|"
                      r"v?gf2p8\w*|v?i?div\w*|fi?div\w*)$")
INSTRUCTION = re.compile(r"^\s+[0-9a-f]+:\s+(?:(?:\{\w+\}|rep|repz|repnz|lock|bnd|notrack|data16|cs) )*(\S+)(.*)$")
CLONE = r"(\.(constprop|isra|part|cold|lto_priv)\b.*)?$"


@pytest.fixture(scope="module")
def functions(objdump):
    """Function name -> (mnemonics, names of the functions it calls or jumps to), from the library that is imported."""
    if not available_tiers():
        pytest.skip("no C core")
    from minilp import _core
    command = [objdump, "-d", "--no-show-raw-insn", _core.__file__]
    found, name = {}, None
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        head = re.match(r"^[0-9a-f]+ <(.+)>:$", line)
        if head:
            name = head.group(1)
            found[name] = ([], set())
        elif name and (body := INSTRUCTION.match(line)):
            found[name][0].append(body.group(1))
            target = re.search(r"<([^>+]+)>", body.group(2))
            if target and (body.group(1).startswith(("call", "j"))):
                found[name][1].add(target.group(1).removesuffix("@plt"))
    return found


def reached(functions, start):
    """A function and all that it calls, directly or not, within the library."""
    seen, todo = set(), [start]
    while todo:
        name = todo.pop()
        if name in functions and name not in seen:
            seen.add(name)
            todo += functions[name][1]
    return seen


def multiplies(functions, name):
    """Multiplying (or dividing) instructions in a function and its callees."""
    return sorted({m for part in reached(functions, name) for m in functions[part][0] if MULTIPLY.match(m)})


def test_every_tier_has_its_loops(functions):
    """The vector loops exist per tier, and use that tier's registers; the scalar MAC exists for each accumulator."""
    for tier in available_tiers()[:3]:  # the vector tiers
        loops = [n for n in functions if re.match(rf"mlp_pot_shift_walk\d+_i(16|32)_{tier}{CLONE}", n)]
        assert len(loops) >= 10, (tier, loops)
    for mode in ("int64", "int32", "counts"):
        assert any(re.match(rf"mlp_pot_shift_row_{mode}{CLONE}", n) for n in functions), mode


def test_no_multiply_in_any_shift_loop(functions):
    """No multiply, multiply-add, dot-product, tile or divide instruction in mlp_pot_shift_* and whatever it calls."""
    loops = [n for n in functions if n.startswith("mlp_pot_shift_")]
    assert loops
    for name in loops:
        assert len(functions[name][0]) > 10, f"{name} is too short to be a loop"
        assert multiplies(functions, name) == [], name


def test_the_vector_loops_hold_no_shift_either(functions):
    """Between two exponents a sum is added to itself: only scalar address arithmetic shifts."""
    for name in functions:
        if name.startswith("mlp_pot_shift_walk"):
            assert not [m for m in functions[name][0] if re.match(r"v?ps(ll|ra|rl)", m) and not m.endswith("dq")], name


def test_control_the_search_finds_multiplies_elsewhere(functions):
    """The same search finds multiplies in float32, in drivers (addresses), and in every loop of the emulation."""
    assert any(multiplies(functions, n) for n in functions if n.startswith("mlp_f32_"))
    assert "imul" in multiplies(functions, "mlp_pot_rows_contract")
    sought = {"portable": r"v?pmul", "avx2": "vpmaddwd", "avx512": "vpmaddwd", "vnni": "vpdpbusd",
              "amx": "tdpbssd"}
    for tier in available_tiers():
        for loop in ("gather11", "gather12", "gather21", "gather22", "dots6" if tier == "amx" else "dot"):
            names = [n for n in functions if re.match(rf"mlp_dot8_{loop}_{tier}{CLONE}", n)]
            assert names, (loop, tier)
            assert any(re.match(sought[tier], m) for m in multiplies(functions, names[0])), (loop, tier)


@pytest.mark.parametrize("mnemonic", [
    "mul", "imul", "mulx", "vpmulld", "pmullw", "vpmaddubsw", "pmaddwd", "vpdpbusd", "vmulps", "mulss", "mulsd",
    "mulpd", "vfmadd231ps", "vfnmadd213ss", "vfmsub132pd", "tdpbssd", "tdpbf16ps", "vdpbf16ps", "vpmuludq",
    "vpmaddwd", "vpdpwssd", "vpdpbssd",    "vfmaddsub231ps", "fmulp", "div", "idiv", "vdivps"])
def test_control_the_pattern_knows_the_multiplies(mnemonic):
    assert MULTIPLY.match(mnemonic)


@pytest.mark.parametrize("mnemonic", ["vpaddd", "vpsubw", "movslq", "lea", "vmovdqa32", "cmp", "jne", "shl", "vpxord"])
def test_control_the_pattern_lets_the_rest_pass(mnemonic):
    assert not MULTIPLY.match(mnemonic)
