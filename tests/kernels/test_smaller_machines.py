"""The installed package on processors that have less: an emulator (qemu-user) runs Python under a smaller CPU model.

What ``use_isa`` cannot show: that nothing executes an instruction the processor lacks, from the library's constructors
on, and that the detection picks the right tier by itself. And for all functions, not only those that ran: the machine
code of each keeps to the tier in its name.
"""
import importlib
import os
import re
import shutil
import subprocess
import sys

import pytest

from minilp.kernels import available_tiers
from minilp.kernels.backend import TIERS

# Every family of kernels once, at a size with whole vectors and a remainder. Prints tier and digests of the bits.
WORK = """
import hashlib
import numpy as np
import minilp
from minilp.formats import LNS, MLS, MX, Fixed, Minifloat, PoT, Spec
from minilp.kernels import calls, elementwise, float32, layout, norm
from minilp.multiply import multiply
minilp.set_num_threads(2)
rng = np.random.default_rng(0)
x = layout.from_chwn(rng.standard_normal((4, 5, 5, 37)).astype(np.float32))
w, dy = rng.standard_normal((6, 4, 3, 3)).astype(np.float32), rng.standard_normal((37, 6, 5, 5)).astype(np.float32)
def say(name, *arrays):
    print(name, hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest())
print(minilp.backend().isa)
with calls() as seen:
    for fmt in (PoT(4), PoT(5), PoT(6), Fixed(8), Minifloat(4, 3), MLS(), LNS(path="bins"), MX("e2m1")):
        results = []
        for a, b, kind, size in ((x, w, "conv2d", None), (dy, w, "conv2d_input_grad", (5, 5)),
                                 (dy, x, "conv2d_weight_grad", (3, 3))):
            spec = Spec(kind, padding=(1, 1), size=size)
            a, b = ((fmt.encode_along(o, spec.run(i, o.shape)[0], run=spec.run(i, o.shape)[1]) if fmt.blocks_along_sum
                     else fmt.encode(o)) for i, o in enumerate((a, b)))
            results += [a.decode(), b.decode(), multiply(a, b, spec)]
        say(str(fmt), *results)
    say("norm", *norm.batch_norm(x, None, None, 1e-5, relu=True, residual=x), *elementwise.add_relu(x, x),
        *norm.max_pool2d(x, (2, 2), (2, 2)))
    exact = np.round(x * 4), np.round(w * 4)  # small integers: the float kernels may fuse, and then no bit differs
    say("float32", float32.conv2d(*exact, (1, 1), (1, 1)))
numpy = [name for name in seen if name.endswith("[numpy]")]
assert not numpy, numpy
"""

# Without NumPy, which has a baseline of its own: the compiled core alone, on buffers.
CORE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("minilp._core", sys.argv[1])
core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core)
ffi, lib = core.ffi, core.lib
n = 1003
x, y = ffi.new("float[]", [i - 500.5 for i in range(n)]), ffi.new("float[]", n)
lib.mlp_set_threads(2)
bits, largest = ffi.new("uint8_t[]", 126), ffi.new("uint32_t *")
assert lib.mlp_f32_relu(x, n, y, bits, largest) == 0 and list(y) == [max(i - 500.5, 0) for i in range(n)]
assert ffi.cast("float *", largest)[0] == 501.5
sizes = ffi.new("mlp_f32_geometry *", [5, 2, 4, 4, 3, 3, 3, 1, 1, 1, 1, 1, 1, 1])
image, weight, out = ffi.new("float[]", [1] * 160), ffi.new("float[]", [1] * 54), ffi.new("float[]", 240)
assert lib.mlp_f32_conv2d(sizes, image, weight, out) == 0
assert sorted(set(out)) == [8, 12, 18] and sum(out) == 5 * 3 * 2 * 100
maxima = ffi.new("uint32_t[2]")
one = ffi.new("int64_t[]", [n]), ffi.new("int64_t[]", [0])
assert lib.mlp_absmax(ffi.cast("uint32_t *", x), 1, *one, 2, 1, maxima) == 0
assert ffi.cast("float *", maxima)[0] == 501.5
print(lib.mlp_tier())
"""


def emulated(cpu, *arguments):
    """Run this interpreter under a CPU model of qemu-user, away from the source tree; what it prints, in lines."""
    command = [] if cpu is None else ["qemu-x86_64", "-cpu", cpu]
    environment = {k: v for k, v in os.environ.items() if k not in ("MINILP_BACKEND", "MINILP_ISA", "MINILP_KERNELS")}
    done = subprocess.run([*command, sys.executable, "-c", *arguments], capture_output=True, text=True, timeout=300,
                          env=environment | {"OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}, cwd="/")
    assert done.returncode == 0, f"{cpu}: exit status {done.returncode}\n{done.stderr[-2000:]}"
    return done.stdout.splitlines()


@pytest.fixture
def qemu(needs_c):
    """Skip where qemu-user is not installed, and for a build that needs the sanitizers' library in front of it."""
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("the sanitizers do not run under qemu-user")
    if shutil.which("qemu-x86_64") is None or os.uname().machine != "x86_64":
        pytest.skip("needs qemu-x86_64 (Debian: qemu-user) on x86-64")


@pytest.fixture(scope="module")
def native():
    return emulated(None, WORK)


@pytest.mark.parametrize(("cpu", "tier"), [("Nehalem", "portable"), ("Haswell", "avx2")])
def test_smaller_processors_pick_their_tier_and_compute_the_same_bits(qemu, native, cpu, tier):
    """Nehalem: SSE4.2, what NumPy itself needs. Haswell: AVX2 and FMA, no AVX-512."""
    if tier not in available_tiers():
        pytest.skip(f"this build has no {tier}")
    here = emulated(cpu, WORK)
    assert here[0] == tier and native[0] == available_tiers()[-1]
    assert here[1:] == native[1:] and len(here) == 11


def test_the_core_alone_runs_on_the_first_x86_64(qemu):
    """qemu64 without SSE3: what every x86-64 has, and so what functions without a tier may use."""
    core = importlib.import_module("minilp._core")
    assert emulated("qemu64,-sse3", CORE, core.__file__) == ["0"]


LEAST = {  # what an instruction is recognised by -> the least tier that has it
    "amx": re.compile(r"\s(tile\w+|tdp\w+|ldtilecfg|sttilecfg)\b"),
    "vnni": re.compile(r"\svpdp\w+"),
    "avx512": re.compile(r"%zmm|%[xy]mm(1[6-9]|2\d|3[01])|%k[0-7]|\sk(mov|or|and|unpck)\w+\s"),
    "avx2": re.compile(r"%ymm|\sv[a-z]\w+\s+.*%xmm|\svzero(upper|all)\b"),
}


def least_tier(instruction):
    """The least tier whose processors know an instruction of the disassembly."""
    return next((tier for tier, pattern in LEAST.items() if pattern.search(instruction)), "portable")


def test_the_disassembly_is_read_right():
    assert [least_tier("  1b: " + text) for text in (
        "movaps %xmm1,%xmm2", "vaddps %xmm1,%xmm2,%xmm2", "vmovdqu (%rax),%ymm1", "vzeroupper",
        "vaddps %zmm0,%zmm1,%zmm1",
        "vmovdqu8 (%rax),%xmm17", "kmovd %eax,%k1", "vpdpbusd %zmm0,%zmm1,%zmm2", "tdpbssd %tmm0,%tmm1,%tmm2",
        "verr %ax")] == ["portable", "avx2", "avx2", "avx2", "avx512", "avx512", "avx512", "vnni", "amx", "portable"]


def test_no_function_uses_more_than_the_tier_in_its_name(needs_c, objdump):
    """An inline helper, a constructor, a clone: what has no tier in its name runs on the first x86-64."""
    library = importlib.import_module("minilp._core").__file__
    listing = subprocess.run([objdump, "-d", "--no-show-raw-insn", library], capture_output=True, text=True, check=True)
    name, tier, seen = "", "portable", set()
    for line in listing.stdout.splitlines():
        if head := re.match(r"^[0-9a-f]+ <(.+)>:$", line):
            name = head.group(1)
            tier = next((t for t in reversed(TIERS) if t in name), "portable")
        elif ":" in line:
            needed = least_tier(line)
            assert TIERS.index(needed) <= TIERS.index(tier), f"{name} ({tier}) holds an instruction of {needed}: {line}"
            seen.add(needed)
    assert {t for t in ("portable", "avx2", "avx512") if t in available_tiers()} <= seen
