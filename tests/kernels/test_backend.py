"""Choosing the backend, the tier and the threads; a forked child that computes."""
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import pytest

import minilp
from minilp import kernels
from minilp.kernels import elementwise, float32
from minilp.kernels.backend import active, check, kernel_family, vector_tier

X, W = np.ones((2, 3, 4, 4), np.float32), np.ones((2, 3, 3, 3), np.float32)


def python(code, **environment):
    """Run a program in a fresh interpreter, away from the source tree; its output, or the last line of its error."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("MINILP_BACKEND", "MINILP_ISA")}
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run([sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True,
                              timeout=60, cwd=elsewhere)
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def test_use_backend_comes_back_after_an_error():
    before = active()
    with pytest.raises(ZeroDivisionError), minilp.use_backend("numpy"):
        assert active() == "numpy"
        raise ZeroDivisionError
    assert active() == before
    with pytest.raises(ValueError, match="name must be 'auto', 'c' or 'numpy', got 'cuda'"), \
            minilp.use_backend("cuda"):
        pass


def test_use_backend_nests_and_chooses(needs_c):
    with minilp.use_backend("numpy"):
        with minilp.use_backend("c"), kernels.calls() as seen:
            float32.conv2d(X, W)
        assert active() == "numpy"
        with kernels.calls() as also:
            float32.conv2d(X, W)
        with minilp.use_backend("auto"):
            assert active() == "c"
    assert list(seen) == [f"f32_conv2d[{vector_tier()}]"] and list(also) == ["f32_conv2d[numpy]"]


def test_use_isa_comes_back_after_an_error(needs_c):
    before = minilp.backend().isa
    with pytest.raises(ZeroDivisionError), minilp.use_isa("portable"):
        assert minilp.backend().isa == "portable"
        raise ZeroDivisionError
    assert minilp.backend().isa == before
    with pytest.raises(ValueError, match="tier must be one of portable, avx2, avx512, vnni, amx, got 'sse9'"), \
            minilp.use_isa("sse9"):
        pass


def test_a_missing_tier_is_refused(needs_c):
    missing = [t for t in ("avx2", "avx512", "vnni", "amx") if t not in kernels.available_tiers()]
    if not missing:
        pytest.skip("this machine has every tier")
    with pytest.raises(ValueError, match="its best tier is"), minilp.use_isa(missing[0]):
        pass


def test_threads(needs_c):
    before = kernels.threads()
    try:
        minilp.set_num_threads(3)
        assert kernels.threads() == minilp.backend().threads == 3
    finally:
        minilp.set_num_threads(before)
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        minilp.set_num_threads(0)
    assert kernels.threads() == before


def test_calls_counts_only_the_block():
    elementwise.relu(X)
    with kernels.calls() as seen:
        elementwise.relu(X)
        elementwise.relu(X)
    elementwise.relu(X)
    assert sum(seen.values()) == 2


def test_status_codes_become_errors():
    check(0, "conv2d")
    with pytest.raises(kernels.KernelError, match="conv2d: out of memory"):
        check(2, "conv2d")
    with pytest.raises(kernels.KernelError, match="conv2d: status 99"):
        check(99, "conv2d")


def test_c_kernels_refuse_strided_memory(needs_c):
    with pytest.raises(ValueError, match="needs a C-contiguous array"):
        float32.pointer(X[:, :, ::2])


SAY = "import minilp; print(minilp.backend())"
COMPUTE = """
import numpy as np
from minilp.kernels import elementwise, float32, norm
import minilp
x = np.arange(1536, dtype=np.float32).reshape(4, 6, 8, 8) % 7
y = float32.conv2d(x, np.ones((2, 6, 3, 3), np.float32), (1, 1), (1, 1))
print(minilp.backend().name, y.sum(), norm.max_pool2d(x, (2, 2), (2, 2))[0].sum())
"""


def test_environment_chooses_the_backend(needs_c):
    assert python(SAY, MINILP_BACKEND="numpy") == "NumPy (MINILP_BACKEND=numpy)"
    assert python(SAY, MINILP_BACKEND="c").startswith("C core (")
    assert "must be auto, c or numpy, got 'gpu'" in python(SAY, MINILP_BACKEND="gpu")
    for tier in kernels.available_tiers():
        assert python(SAY, MINILP_ISA=tier).startswith(f"C core ({tier}, ")
    assert "MINILP_ISA must be auto or one of" in python(SAY, MINILP_ISA="mmx")


def test_without_the_core_everything_computes_the_same(needs_c):
    """MINILP_BACKEND=numpy never loads the compiled core; whole numbers come out the same either way."""
    name, *numbers = python(COMPUTE, MINILP_BACKEND="numpy").split()
    assert name == "numpy"
    assert python(COMPUTE).split() == ["c", *numbers]
    refused = python("import minilp\nwith minilp.use_backend('c'): pass", MINILP_BACKEND="numpy")
    assert "the C core is not there: MINILP_BACKEND=numpy" in refused
    refused = python("import minilp\nwith minilp.use_isa('portable'): pass", MINILP_BACKEND="numpy")
    assert "the C core is not there" in refused


FORK = """
import os, signal
import numpy as np
import minilp
from minilp.kernels import elementwise, float32, norm, threads
minilp.set_num_threads(2)
rng = np.random.default_rng(0)
x = rng.standard_normal((64, 8, 12, 12)).astype(np.float32)
w = rng.standard_normal((8, 8, 3, 3)).astype(np.float32)
def work():
    y = float32.conv2d(x, w, (1, 1), (1, 1))
    return np.concatenate([a.ravel() for a in (y, float32.conv2d_weight_grad(y, x, (3, 3), (1, 1), (1, 1)),
                           norm.batch_norm(y, None, None, 1e-5)[0], elementwise.relu(y)[0])])
before = work()
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if threads() == 1 and np.array_equal(work(), before) else 1)
status = os.waitpid(child, 0)[1]
print(os.waitstatus_to_exitcode(status), np.array_equal(work(), before), threads())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_computes_the_same_on_one_thread(needs_c):
    """After a parallel call in the parent; libgomp alone would hang here."""
    assert python(FORK, PYTHONWARNINGS="ignore") == "0 True 2"


FORKS = """
import multiprocessing, os, signal
import numpy as np
import minilp
from minilp.formats import LNS, MLS, Fixed, PoT, Spec
from minilp.kernels import available_tiers, threads, use_isa
from minilp.multiply import multiply
minilp.set_num_threads(2)
rng = np.random.default_rng(0)
x = rng.standard_normal((16, 12, 12, 64)).astype(np.float32).transpose(3, 0, 1, 2)
w = rng.standard_normal((16, 16, 3, 3)).astype(np.float32)
def work(tier):
    signal.alarm(40)  # a child that hangs dies
    with use_isa(tier):
        found = [multiply(f.encode(x), f.encode(w), Spec("conv2d", padding=(1, 1))).tobytes()
                 for f in (PoT(5), Fixed(8), MLS(), LNS(path="bins"))]
    return threads(), found
def nested(tier, before):
    child = os.fork()
    if child == 0:
        os._exit(0 if work(tier) == (1, before) else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 and work(tier) == (1, before)
context = multiprocessing.get_context("fork")
for tier in available_tiers():
    count, before = work(tier)
    with context.Pool(2) as pool:
        children = pool.map(work, [tier] * 2)
        grandchildren = pool.apply(nested, (tier, before)) if tier == available_tiers()[-1] else True
    print(count, children == [(1, before)] * 2, grandchildren, work(tier) == (2, before))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_pools_of_forked_processes_and_their_own_children_compute_the_same(needs_c):
    """Every tier's integer kernels after a parallel call, in two children at once, and in a child's child."""
    assert python(FORKS, PYTHONWARNINGS="ignore").splitlines() == ["2 True True True"] * len(kernels.available_tiers())


def test_numpys_own_threads_are_left_alone(needs_c):
    """Neither the import nor set_num_threads nor a parallel kernel changes how many threads OpenBLAS uses."""
    code = """
import ctypes, pathlib
import numpy as np
def blas():
    for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
        path = line.split()[-1]
        if "openblas" in path:
            for name in ("scipy_openblas_get_num_threads64_", "scipy_openblas_get_num_threads",
                         "openblas_get_num_threads64_", "openblas_get_num_threads"):
                if hasattr(ctypes.CDLL(path), name):
                    return getattr(ctypes.CDLL(path), name)()
before = blas()
import minilp
from minilp.kernels import elementwise
minilp.set_num_threads(1)
one = blas()
minilp.set_num_threads(3)
elementwise.add(*np.ones((2, 8, 64, 64), np.float32))
print(before, one, blas())
"""
    if not pathlib.Path("/proc/self/maps").exists():
        pytest.skip("needs /proc/self/maps to find OpenBLAS")
    before, *after = python(code, OPENBLAS_NUM_THREADS="2").split()
    if before == "None":
        pytest.skip("NumPy does not compute with an OpenBLAS that says its threads")
    assert after == [before, before]


def test_the_kernel_family_is_chosen_and_comes_back(needs_c):
    assert kernel_family() == "auto"
    with pytest.raises(ZeroDivisionError), minilp.use_kernels("shift"):
        assert kernel_family() == "shift"
        raise ZeroDivisionError
    assert kernel_family() == "auto"
    with pytest.raises(ValueError, match="family must be one of auto, shift, emulate, got 'fast'"), \
            minilp.use_kernels("fast"):
        pass
    say = "from minilp.kernels.backend import kernel_family; print(kernel_family())"
    assert python(say, MINILP_KERNELS="emulate") == "emulate"
    assert "MINILP_KERNELS must be one of auto, shift, emulate, got 'fast'" in python(say, MINILP_KERNELS="fast")


@pytest.mark.parametrize(("tier", "vector"), [("amx", "avx512"), ("vnni", "avx512"), ("avx512", "avx512"),
                                              ("avx2", "avx2"), ("portable", "portable")])
def test_kernels_without_dot_products_run_their_widest_vectors(needs_c, tier, vector):
    if tier not in kernels.available_tiers():
        pytest.skip(f"this machine has no {tier}")
    with minilp.use_isa(tier):
        assert minilp.backend().isa == tier and vector_tier() == vector
