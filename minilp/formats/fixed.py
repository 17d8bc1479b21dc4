"""Fixed point: symmetric integers times a power of two. The smallest complete example of a format."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from minilp.formats.base import Format
from minilp.formats.qtensor import QTensor
from minilp.formats.rounding import Stream
from minilp.kernels.quantise import absmax, fixed_decode, fixed_encode, kept_axes


@dataclass(frozen=True)
class Fixed(Format):
    """``code * 2^exponent`` with codes from -(2^(bits-1) - 1) to 2^(bits-1) - 1.

    The exponent is the smallest that holds the largest magnitude, so nothing saturates unless scales are given.

    Parameters
    ----------
    bits : int
        2 to 8.
    """

    bits: int = 8
    scale_bits: ClassVar[int] = 8
    scaling: ClassVar[str] = "power of two per tensor or kept axis, from the largest magnitude"
    source: ClassVar[str] = "textbook"

    def __post_init__(self) -> None:
        if self.bits not in range(2, 9):
            raise ValueError(f"Fixed: bits must be 2 to 8, got {self.bits!r}")

    @property
    def top(self) -> int:
        """The largest code."""
        return 2 ** (self.bits - 1) - 1

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest positive value in steps."""
        return 1.0, float(self.top)

    def scales_for(self, maximum: np.ndarray) -> tuple[np.ndarray, ...]:
        """The smallest power of two that, times the largest code, reaches ``maximum``."""
        fraction, power = np.frexp(maximum / np.float32(self.top))  # in [2^(power-1), 2^power)
        power -= fraction == 0.5  # a power of two is its own step
        return (np.clip(power, -126, min(126, 129 - self.bits)).astype(np.int32),)

    def encode(self, x: np.ndarray, *, keep: Iterable[int] = (), stream: Stream | None = None,
               scales: tuple[np.ndarray, ...] | None = None) -> QTensor:
        """Codes and the step's exponent (int32); see :meth:`Format.encode`."""
        scales = self.scales_for(absmax(x, keep)) if scales is None else scales
        return QTensor(self, fixed_encode(x, scales[0], self.bits, stream), scales, keep=kept_axes(keep, x.ndim))

    def decode(self, q: QTensor) -> np.ndarray:
        """Codes times the step, float32."""
        return fixed_decode(q.codes, q.scales[0])

    def table(self) -> np.ndarray:
        """Codes are their own values."""
        table = np.zeros(256, np.int8)
        table[self.codes()] = self.codes()  # a negative index counts from the end, which is code & 255
        return table

    def unit(self, q: QTensor) -> np.ndarray:
        """The step, 2^exponent."""
        return np.ldexp(np.float32(1), q.scales[0])
