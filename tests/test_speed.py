"""The regression guard: ratios of our own kernels inside one run, never absolute times. Alone: ``pytest -m speed``.

Work runs in one thread, and what counts is the processor time of that thread, so that other programs do not; the
functions of a test take turns and the fastest round of each counts; and a ratio has three tries. The bounds lie a third
and more below what was measured: they catch a kernel that falls back to a slower one, not one that loses a tenth.
"""
import time

import numpy as np
import pytest

import minilp
from minilp.bench import kernels
from minilp.bench.stats import interleaved
from minilp.formats import LNS, MLS, Fixed, PoT
from minilp.kernels import available_tiers, use_backend, use_isa
from minilp.kernels.pot import pot_contract

pytestmark = [pytest.mark.speed, pytest.mark.usefixtures("needs_c")]
SHAPE, BATCH = kernels.Shape(32, 32, 8, 3), 64
TRIES = 3


@pytest.fixture(autouse=True)
def one_thread():
    before = minilp.backend().threads
    minilp.set_num_threads(1)
    yield
    minilp.set_num_threads(before)


def ratio_at_least(least, slow, fast, rounds=4):
    """Fail unless ``slow`` takes ``least`` times as long as ``fast`` in one of three tries."""
    seen = []
    for _ in range(TRIES):
        slow_times, fast_times = interleaved([slow, fast], rounds, time.thread_time)
        seen.append(min(slow_times) / min(fast_times))
        if seen[-1] >= least:
            return
    pytest.fail(f"expected a ratio of at least {least}, measured {', '.join(f'{ratio:.2f}' for ratio in seen)}")


def contraction(name, kind, isa):
    tensors = kernels._tensors(SHAPE, BATCH)
    return kernels.forced(isa, "shift", kernels.contraction(name, SHAPE, kind, tensors))


def test_the_guard_fails_on_equal_work():
    with pytest.raises(pytest.fail.Exception, match="at least 3, measured"):
        ratio_at_least(3, lambda: np.arange(50000).sum(), lambda: np.arange(50000).sum())


@pytest.mark.parametrize(("name", "kind", "slower", "faster", "least"), [
    ("pot:bits=4", "forward", "portable", "avx512", 1.4), ("pot:bits=4", "input_grad", "portable", "avx512", 1.4),
    ("pot:bits=4", "weight_grad", "portable", "avx512", 1.1), ("pot:bits=4", "forward", "avx2", "avx512", 1.1),
    ("mls", "forward", "portable", "avx512", 1.5), ("mls", "weight_grad", "portable", "avx512", 1.3),
    ("fixed:bits=8", "forward", "portable", "avx2", 4), ("fixed:bits=8", "weight_grad", "portable", "avx512", 4),
    ("fp32", "forward", "portable", "avx2", 1.5), ("fp32", "input_grad", "avx2", "avx512", 1.2),
    ("fp32", "weight_grad", "portable", "avx512", 2),
])
def test_tier_against_tier(name, kind, slower, faster, least):
    if faster not in available_tiers():
        pytest.skip(f"this machine has no {faster}")
    ratio_at_least(least, contraction(name, kind, slower), contraction(name, kind, faster))


def test_binned_adds_against_the_literal_shift_loop():
    """The same integers, by the loop that models the paper's accumulator."""
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-7, 8, shape).astype(np.int8) for shape in ((256, 256), (64, 256)))

    def run(accumulate):
        return pot_contract("linear", a, b, bits_a=4, bits_b=4, exponent=0, accumulate=accumulate)

    fast, slow = (lambda how=how: run(how) for how in ("int64", "int32"))
    assert np.array_equal(fast(), slow())
    ratio_at_least(3, slow, fast)


@pytest.mark.parametrize("name", ["pot:bits=4", "mls", "fixed:bits=8"])
def test_contractions_in_c_against_numpy(name):
    run = contraction(name, "forward", "auto")

    def twin():
        with use_backend("numpy"):
            run()

    ratio_at_least(1.5, twin, run, rounds=1)  # the twin of pot and fixed is a float64 matrix product, not a loop


@pytest.mark.parametrize("fmt", [PoT(), MLS(), LNS(), Fixed(8)], ids=str)
def test_encoding_in_c_against_numpy(fmt):
    x = np.random.default_rng(0).standard_normal((32, 16, 16, 16), dtype=np.float32)

    def twin():
        with use_backend("numpy"):
            fmt.encode(x)

    ratio_at_least(2, twin, lambda: fmt.encode(x))


def test_encoding_vectorised_against_portable():
    if "avx2" not in available_tiers():
        pytest.skip("this machine has no avx2")
    x = np.random.default_rng(0).standard_normal((64, 16, 16, 16), dtype=np.float32)

    def encode(isa):
        with use_isa(isa):
            PoT().encode(x)

    ratio_at_least(1.2, lambda: encode("portable"), lambda: encode("avx2"))
