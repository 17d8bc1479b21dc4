"""Which code computes: the C core or NumPy; its instruction set, its threads, and a count of the kernels called.

Nothing here knows a number format. The kernel modules beside this file ask :func:`active` and call the C function or
its NumPy twin; both give the same bits.
"""
from __future__ import annotations

import collections
import contextlib
import importlib
import json
import os
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

TIERS = ("portable", "avx2", "avx512", "vnni", "amx")
FAMILIES = ("auto", "shift", "emulate")
STATUS = {1: "bad argument", 2: "out of memory", 3: "the accumulator could overflow",
          4: "not supported by this machine or build", 5: "a code beyond its format"}
OVERFLOW, UNSUPPORTED, BAD_CODE = 3, 4, 5  # statuses that wrappers look for, see minilp_core.h


class KernelError(RuntimeError):
    """A C kernel refused its arguments; the message names the kernel and the reason."""


def _load() -> tuple[Any, Any, str]:
    """The compiled core, its ffi and, where it is missing, the reason."""
    if os.environ.get("MINILP_BACKEND") == "numpy":
        return None, None, "MINILP_BACKEND=numpy"
    # libgomp's threads spin while they wait unless told otherwise, before it is loaded. On a machine that other work
    # shares, a spinning thread takes the core from the one it waits for: measured 7 to 10 times slower steps.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        core: Any = importlib.import_module("minilp._core")
    except ImportError as error:
        record = pathlib.Path(__file__).parent.parent / "_build_info.json"
        reason = json.loads(record.read_text())["reason"] if record.exists() else ""
        return None, None, reason or f"the compiled core is not there ({error})"
    if not any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        core.lib.mlp_keep_freed_memory()  # for the whole process; who has tuned malloc knows better
    return core.lib, core.ffi, ""


_lib, ffi, _reason = _load()
_active = "numpy" if _lib is None else "c"
_calls: collections.Counter[str] = collections.Counter()
_family = os.environ.get("MINILP_KERNELS", "auto")

if _family not in FAMILIES:
    raise ValueError(f"MINILP_KERNELS must be one of {', '.join(FAMILIES)}, got {_family!r}")
if os.environ.get("MINILP_BACKEND", "auto") not in ("auto", "c", "numpy"):
    raise ValueError(f"MINILP_BACKEND must be auto, c or numpy, got {os.environ['MINILP_BACKEND']!r}")
if os.environ.get("MINILP_BACKEND") == "c" and _lib is None:
    raise ImportError(f"MINILP_BACKEND=c, but {_reason}")


@dataclass(frozen=True)
class Backend:
    """What computes, and why.

    Attributes
    ----------
    name : str
        ``"c"`` or ``"numpy"``.
    reason : str
        Why NumPy is used (empty for C).
    isa : str
        Instruction-set tier in force, a name of ``TIERS`` (``numpy`` for the NumPy backend). A kernel without a version
        of its own for ``vnni`` or ``amx`` runs its ``avx512`` one.
    threads : int
        Threads a parallel C kernel uses.
    """

    name: str
    reason: str
    isa: str
    threads: int

    def __str__(self) -> str:
        if self.name == "c":
            return f"C core ({self.isa}, {self.threads} thread{'s' * (self.threads != 1)})"
        return f"NumPy ({self.reason})"


def backend() -> Backend:
    """The backend in force.

    Returns
    -------
    Backend
        Its name, the reason if it is NumPy, the instruction-set tier and the thread count.
    """
    if _active == "c":
        return Backend("c", "", tier(), _lib.mlp_threads())
    return Backend("numpy", _reason or "use_backend('numpy')", "numpy", 1)


def active() -> str:
    """``"c"`` or ``"numpy"``: what the kernel modules dispatch on."""
    return _active


def lib() -> Any:
    """The cffi library of the C core; only for kernel modules, after :func:`active` said ``"c"``."""
    return _lib


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Compute with the C core or with NumPy inside a ``with`` block; what was in force comes back, also after an error.

    Parameters
    ----------
    name : str
        ``"c"``, ``"numpy"`` or ``"auto"`` (C where it was built).

    Raises
    ------
    ValueError
        For any other name.
    RuntimeError
        If ``"c"`` is asked for and the C core is not there; the message says why.
    """
    global _active
    if name not in ("auto", "c", "numpy"):
        raise ValueError(f"use_backend: name must be 'auto', 'c' or 'numpy', got {name!r}")
    if name == "c" and _lib is None:
        raise RuntimeError(f"use_backend('c'): the C core is not there: {_reason}")
    before = _active
    _active = ("c" if _lib is not None else "numpy") if name == "auto" else name
    try:
        yield
    finally:
        _active = before


@contextlib.contextmanager
def use_isa(tier: str) -> Iterator[None]:
    """Force an instruction-set tier inside a ``with`` block, so that every tier can be tested on one machine.

    Parameters
    ----------
    tier : str
        ``"portable"``, ``"avx2"``, ``"avx512"``, ``"vnni"`` or ``"amx"``.

    Raises
    ------
    ValueError
        If the name is unknown, or the build or this machine lacks the tier.
    """
    if tier not in TIERS:
        raise ValueError(f"use_isa: tier must be one of {', '.join(TIERS)}, got {tier!r}")
    if _lib is None:
        raise ValueError(f"use_isa({tier!r}): the C core is not there: {_reason}")
    before = _lib.mlp_tier()
    if _lib.mlp_set_tier(TIERS.index(tier)):
        best = TIERS[_lib.mlp_detected_tier()]
        raise ValueError(f"use_isa: this machine or build has no {tier}; its best tier is {best}")
    try:
        yield
    finally:
        _lib.mlp_set_tier(before)


@contextlib.contextmanager
def use_kernels(family: str) -> Iterator[None]:
    """Choose between the two honest families of integer kernels inside a ``with`` block. Both give the same integers.

    Parameters
    ----------
    family : str
        ``"shift"``: no multiply instruction in an inner loop, as in the papers' hardware. ``"emulate"``: the CPU's
        integer multipliers. ``"auto"``: the faster one. A format that has only one family runs that one.
        PoT of up to 5 bits has both; its faster one is the emulation where the CPU has dot products of int8 (tiers vnni
        and amx), the shift/add kernels elsewhere. PoT of 6 bits and the modelled INT32 accumulator have shift/add
        alone. Without the C core, NumPy computes the same integers in either family. Which one ran is said by
        ``contract.executed()`` and the first line of a training.

    Raises
    ------
    ValueError
        For any other name.
    """
    global _family
    if family not in FAMILIES:
        raise ValueError(f"use_kernels: family must be one of {', '.join(FAMILIES)}, got {family!r}")
    before, _family = _family, family
    try:
        yield
    finally:
        _family = before


def kernel_family() -> str:
    """``"auto"``, ``"shift"`` or ``"emulate"``: what kernels with both families go by."""
    return _family


def tier() -> str:
    """The tier in force, where C is active: the name that kernels with a version for every tier run under."""
    return TIERS[_lib.mlp_tier()]


def vector_tier() -> str:
    """The tier in force, ``avx512`` at most: the name that kernels with no version for vnni and amx run under."""
    return TIERS[_lib.mlp_vector_tier()]


def available_tiers() -> tuple[str, ...]:
    """The tiers this machine and build can run, portable first; empty without the C core."""
    return () if _lib is None else TIERS[: _lib.mlp_detected_tier() + 1]


def threads() -> int:
    """Threads that a parallel C kernel uses; results never depend on it."""
    return 1 if _lib is None else int(_lib.mlp_threads())


def set_num_threads(n: int) -> None:
    """Set the number of threads of the C kernels (NumPy's own threads are left alone).

    Parameters
    ----------
    n : int
        At least 1.

    Raises
    ------
    ValueError
        If ``n`` is smaller than 1.
    """
    if n < 1:
        raise ValueError(f"set_num_threads: n must be at least 1, got {n}")
    if _lib is not None:
        _lib.mlp_set_threads(int(n))


def check(status: int, name: str) -> None:
    """Turn a C status code into an exception.

    Raises
    ------
    KernelError
        If ``status`` is not 0; the message names the kernel.
    """
    if status:
        raise KernelError(f"{name}: {STATUS.get(status, f'status {status}')}")


def count(name: str) -> None:
    """Note that a kernel ran; :func:`calls` reports the totals."""
    _calls[name] += 1


@contextlib.contextmanager
def calls() -> Iterator[collections.Counter[str]]:
    """Count the kernels that run inside a ``with`` block.

    Yields
    ------
    collections.Counter
        Kernel name -> number of calls; filled when the block ends.
    """
    before = _calls.copy()
    seen: collections.Counter[str] = collections.Counter()
    try:
        yield seen
    finally:
        seen.update(_calls - before)


def _apply_isa_from_environment() -> None:
    tier = os.environ.get("MINILP_ISA", "")
    if not tier or tier == "auto" or _lib is None:
        return
    if tier not in TIERS:
        raise ValueError(f"MINILP_ISA must be auto or one of {', '.join(TIERS)}, got {tier!r}")
    if _lib.mlp_set_tier(TIERS.index(tier)):
        raise ValueError(f"MINILP_ISA={tier}: this machine or build has no such tier")


_apply_isa_from_environment()
