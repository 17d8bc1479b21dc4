"""Fixtures shared by all tests: optional oracles and data, and a guard against leaked state.

``MINILP_REQUIRE=c,torch,objdump,text,lessons,cifar10,multi30k`` turns the skips of those names into failures (what CI
sets).
"""
import importlib.util
import json
import os
import pathlib
import shutil

import numpy as np
import pytest

import minilp
from minilp import kernels as backend_module
from minilp import random as mlp_random

# Interpreters that tests start must import the installed package, not the source tree they are started in.
os.environ.setdefault("PYTHONSAFEPATH", "1")

REQUIRED = set(filter(None, os.environ.get("MINILP_REQUIRE", "").split(",")))


def skip(name, reason):
    """Skip with a reason, or fail where the environment says the thing must be there."""
    if name in REQUIRED:
        pytest.fail(f"MINILP_REQUIRE has {name!r}, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def torch():
    """torch as an oracle, on one thread."""
    try:
        import torch
    except ImportError:
        skip("torch", "torch is not installed (extra 'oracle')")
    torch.set_num_threads(1)
    return torch


@pytest.fixture
def needs_c():
    """Skip where the C core is not built."""
    if not backend_module.available_tiers():
        skip("c", f"no C core: {backend_module.backend().reason}")


def sanitizers():
    """The sanitizers that the C core in use was built with, as ``MINILP_SANITIZE`` named them; usually empty."""
    record = pathlib.Path(minilp.__file__).parent / "_build_info.json"
    return json.loads(record.read_text()).get("sanitizers", "") if record.exists() else ""


@pytest.fixture(scope="session")
def objdump():
    """Path of objdump, on x86-64 only, and with machine code that is our own."""
    if sanitizers():
        pytest.skip("the sanitizers put machine code of their own between ours")
    found = shutil.which("objdump")
    if found is None or os.uname().machine != "x86_64":
        skip("objdump", "needs objdump on x86-64")
    return found


@pytest.fixture(scope="session")
def cifar10_root():
    """Folder that holds cifar-10-batches-bin/."""
    root = pathlib.Path(os.environ.get("MINILP_DATA", pathlib.Path.home() / ".cache" / "minilp"))
    if not (root / "cifar-10-batches-bin" / "test_batch.bin").exists():
        skip("cifar10", f"no CIFAR-10 under {root} (set MINILP_DATA)")
    return root


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """44 training and 20 test images of 8 x 8 in four classes; a class is where the bright spot is."""
    rng = np.random.default_rng(5)
    arrays = {}
    for split, count in (("train", 44), ("test", 20)):
        labels = np.arange(count) % 4
        images = rng.integers(0, 90, (count, 3, 8, 8))
        for image, label in zip(images, labels, strict=True):
            image[:, 4 * (label // 2):4 * (label // 2) + 4, 4 * (label % 2):4 * (label % 2) + 4] += 120
        arrays[f"x_{split}"], arrays[f"y_{split}"] = images.astype(np.uint8), labels
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture
def needs_text(tmp_path, monkeypatch):
    """Skip without sentencepiece and sacrebleu; learned vocabularies are kept in a folder of the test."""
    for module in ("sentencepiece", "sacrebleu"):
        if importlib.util.find_spec(module) is None:
            skip("text", f"{module} is not installed (extra 'text')")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def needs_lessons():
    """Skip where the notebooks' tools are not installed."""
    missing = [name for name in ("jupytext", "nbclient", "ipykernel", "matplotlib")
               if importlib.util.find_spec(name) is None]
    if missing:
        skip("lessons", f"{', '.join(missing)} not installed (extra 'lessons')")


@pytest.fixture(scope="session")
def multi30k_root():
    """Folder that holds multi30k/."""
    root = pathlib.Path(os.environ.get("MINILP_DATA", pathlib.Path.home() / ".cache" / "minilp"))
    if not (root / "multi30k" / "train.en.gz").exists():
        skip("multi30k", f"no Multi30k under {root} (set MINILP_DATA)")
    return root


@pytest.fixture(params=["portable", "avx2", "avx512"])
def isa(request, needs_c):
    """Every vector tier of this machine in turn: what kernels without a vnni or amx version have."""
    if request.param not in backend_module.available_tiers():
        pytest.skip(f"this machine has no {request.param}")
    with backend_module.use_isa(request.param):
        yield request.param


@pytest.fixture(params=["portable", "avx2", "avx512", "vnni", "amx"])
def every_isa(request, needs_c):
    """Every instruction-set tier of this machine in turn, those with dot products and tiles too."""
    if request.param not in backend_module.available_tiers():
        pytest.skip(f"this machine has no {request.param}")
    with backend_module.use_isa(request.param):
        yield request.param


@pytest.fixture(autouse=True)
def no_leaks():
    """Fail a test that leaves the backend, tier, kernel family, threads, gradient switch or seed changed."""
    def state():
        seen = {"backend": backend_module.backend(), "family": backend_module.kernel_family()}
        try:
            from minilp.autograd import is_grad_enabled
            seen["grad"] = is_grad_enabled()
        except ImportError:
            pass
        return seen
    before, seeds = state(), mlp_random.get_state()
    yield
    mlp_random.set_state(seeds)
    assert state() == before, f"the test leaked state: {before} became {state()}"
