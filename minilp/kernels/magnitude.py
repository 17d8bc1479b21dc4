"""The largest magnitude of an array, noted by the kernel that wrote it, so that quantising need not look for it.

A scale comes from max|x|, and codes come from the scale: two passes over memory. But who produced ``x`` - batch norm,
the residual addition - had every number in a register. It leaves a note here, in a table beside the arrays: no array
is changed or wrapped for it, every view of the same memory finds it, and it goes when the memory goes.

A note is a hint and never taken on trust for good, because anybody may write into an array afterwards. Every encoder
reads all of ``x`` too, finds the maximum in passing and reports it. :func:`trusting` compares, and does the work again
where the note was wrong. So results are those of a separate pass, to the last bit, and nobody has to remember to
invalidate anything.
"""
from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from minilp.kernels.reference_quantise import INFINITY_BITS
from minilp.kernels.storage import owner

Result = TypeVar("Result")


@dataclass
class _Note:
    owner: weakref.ref[np.ndarray]
    nbytes: int
    bits: int
    maxima: np.ndarray | None
    trusted: bool = False
    reported: int | None = None  # by an encoder, while trusted


DISAGREES = -1  # the bits of no magnitude
_notes: dict[int, _Note] = {}  # by id of the array that owns the memory


def _about(x: np.ndarray) -> _Note | None:
    """The note on the memory of ``x``, if ``x`` is as much of it as the note was written for."""
    memory = owner(x)
    this = _notes.get(id(memory))
    return this if this is not None and this.owner() is memory and this.nbytes == x.nbytes else None


def note(x: np.ndarray, bits: int, maxima: np.ndarray | None = None) -> None:
    """Note the largest magnitude of an array that a kernel has just written.

    Parameters
    ----------
    x : np.ndarray
        float32, the only array in its memory.
    bits : int
        The magnitude's float32 bits. Infinity and NaN are not noted, so that whoever looks for the maximum finds them.
    maxima : np.ndarray, optional
        float32 (C, N), for an activation: the largest magnitude of each channel of each sample.
    """
    memory = owner(x)
    key = id(memory)
    if bits < INFINITY_BITS:
        _notes[key] = _Note(weakref.ref(memory, lambda _: _notes.pop(key, None)), x.nbytes, bits, maxima)


def noted(x: np.ndarray) -> int | None:
    """The bits of the largest magnitude by the note on ``x``, inside :func:`trusting`; else None."""
    this = _about(x)
    return this.bits if this is not None and this.trusted else None


def noted_maxima(x: np.ndarray) -> np.ndarray | None:
    """The (C, N) largest magnitudes by the note on ``x``, inside :func:`trusting`; else None."""
    this = _about(x)
    return this.maxima if this is not None and this.trusted else None


def report(x: np.ndarray, bits: int, maxima: np.ndarray | None = None) -> None:
    """Say what an encoder has found to be the largest magnitude's bits, and the (C, N) maxima where it used those."""
    this = _about(x)
    if this is not None:
        right = maxima is None or (this.maxima is not None and np.array_equal(maxima, this.maxima))
        this.reported = bits if right else DISAGREES


def trusting(x: np.ndarray, work: Callable[[], Result], look: Callable[[], int]) -> Result:
    """Do some work that wants the maximum of ``x`` and encodes it, trusting a note; and again if the note was wrong.

    Parameters
    ----------
    x : np.ndarray
        float32.
    work : callable
        Without arguments; :func:`noted` answers inside.
    look : callable
        Finds the largest magnitude's bits of ``x`` by a pass of its own, where no encoder reported them.

    Returns
    -------
    object
        What ``work`` returned, the second time if there was one.
    """
    this = _about(x)
    if this is None:
        return work()
    this.trusted, this.reported = True, None
    try:
        result = work()
    finally:
        this.trusted = False
    if this.bits == (look() if this.reported is None else this.reported):
        return result
    _notes.pop(id(owner(x)), None)
    return work()
