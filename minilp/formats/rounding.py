"""Stochastic rounding without state: a stream is a name, and the random word of an element depends on it alone.

Every draw is a function of (seed, step, microbatch, layer, call, role) and of the element's logical C-order index. So
the same training step draws the same bits whenever it is run again, in C and in NumPy, on any number of threads, in any
memory layout, and in however many pieces a tensor is encoded.
"""
from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from minilp.kernels import quantise
from minilp.kernels.reference_quantise import MASK32, mix32

ROLES = ("weight", "act", "error", "wgrad", "update", "state")
_clock: tuple[int, int, int] = (0, 0, 0)


@contextlib.contextmanager
def rounding_context(seed: int, step: int, microbatch: int = 0) -> Iterator[None]:
    """Name the training step, so that stochastic rounding draws the same bits whenever this step is run again.

    Parameters
    ----------
    seed, step, microbatch : int
        The clock of the rounding streams. Outside any context it stands at (0, 0, 0) and layers count their calls, so
        a hand-written loop still gets fresh draws.
    """
    global _clock
    before = _clock
    _clock = (int(seed), int(step), int(microbatch))
    try:
        yield
    finally:
        _clock = before


def clock() -> tuple[int, int, int]:
    """(seed, step, microbatch) of the innermost :func:`rounding_context`.

    Returns
    -------
    tuple of int
        The same object throughout one context, so that a step that is run again can be told from one that goes on.
    """
    return _clock


@dataclass(frozen=True)
class Stream:
    """The name of a sequence of random 32-bit words.

    Parameters
    ----------
    seed, step, microbatch, layer, call : int
        At least 0 and below 2^64: the run, the training step, the piece of its batch, the layer's place in the model,
        and how often that layer was called before in this step.
    role : str
        One of ``weight, act, error, wgrad, update, state``.
    offset : int
        Index of the first element, for a tensor that is a later part of a longer one.
    """

    seed: int = 0
    step: int = 0
    microbatch: int = 0
    layer: int = 0
    call: int = 0
    role: str = "act"
    offset: int = 0

    def __post_init__(self) -> None:
        for field in ("seed", "step", "microbatch", "layer", "call", "offset"):
            value = getattr(self, field)
            if not isinstance(value, (int, np.integer)) or not 0 <= value < 2**64:
                raise ValueError(f"Stream: {field} must be an integer from 0 to 2^64 - 1, got {value!r}")
        if self.role not in ROLES:
            raise ValueError(f"Stream: role must be one of {', '.join(ROLES)}, got {self.role!r}")

    @property
    def key(self) -> tuple[int, int]:
        """Two 32-bit words that every field but ``offset`` has been mixed into, one after the other."""
        fields = (self.seed, self.step, self.microbatch, self.layer, self.call, ROLES.index(self.role))
        first, second = 0x6D696E69, 0x6C702E31
        for field in fields:
            for word in (int(field) & MASK32, int(field) >> 32):
                first = mix32(first ^ word)
                second = mix32((second + first) & MASK32)
        return first, second

    def at(self, offset: int) -> Stream:
        """The same stream, ``offset`` elements further on."""
        return dataclasses.replace(self, offset=self.offset + int(offset))

    def uint32(self, shape: int | tuple[int, ...]) -> np.ndarray:
        """One random word an element.

        Parameters
        ----------
        shape : int or tuple of int
            Shape of the tensor to round.

        Returns
        -------
        numpy.ndarray
            uint32, C order; element i in logical order holds word ``offset + i`` of the stream.
        """
        return quantise.random_bits((shape,) if isinstance(shape, int) else tuple(shape), self)
