"""Fixed point: symmetric integers times a power of two. The smallest complete example of a format."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minilp.formats.base import Format
from minilp.formats.qtensor import QTensor
from minilp.formats.rounding import Stream
from minilp.formats.spec import Spec
from minilp.kernels.quantise import absmax, fixed_decode, fixed_encode, kept_axes
from minilp.kernels.wide import wide_contract


@dataclass(frozen=True)
class Fixed(Format):
    """``code * 2^exponent`` with codes from -(2^(bits-1) - 1) to 2^(bits-1) - 1.

    The exponent is the smallest that holds the largest magnitude, so nothing saturates unless scales are given.

    Contractions are exact in integers: up to 8 bits through the table kernel, in C; above, with codes of int16, through
    float64 matrix products of integers, in NumPy. A kept axis must be one that the contraction does not sum over; else
    it is refused, naming the axis. So weights with a scale per output channel (``keep=(0,)``) work forward, as in
    evaluation, but not in training: the input gradient sums over the output channels. Activations with a scale per
    sample work forward, but the weight gradient sums over the samples.

    Parameters
    ----------
    bits : int
        2 to 16.
    """

    bits: int = 8
    scale_bits: ClassVar[int] = 8
    scaling: ClassVar[str] = "power of two per tensor or kept axis, from the largest magnitude"
    source: ClassVar[str] = "textbook"

    def __post_init__(self) -> None:
        if self.bits not in range(2, 17):
            raise ValueError(f"Fixed: bits must be 2 to 16, got {self.bits!r}")

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
        # in [2^(power-1), 2^power); float64 tells a number just above top * 2^k from that product
        fraction, power = np.frexp(np.asarray(maximum, np.float64) / self.top)
        power = power - (fraction == 0.5)  # a power of two is its own step
        return (np.clip(power, -126, min(126, 129 - self.bits)).astype(np.int32),)

    def encode(self, x: np.ndarray, *, keep: Iterable[int] = (), stream: Stream | None = None,
               scales: tuple[np.ndarray, ...] | None = None) -> QTensor:
        """Codes and the step's exponent (int32); see :meth:`Format.encode`."""
        scales = self.scales_for(absmax(x, keep)) if scales is None else scales
        return QTensor(self, fixed_encode(x, scales[0], self.bits, stream), scales, keep=kept_axes(keep, x.ndim))

    def decode(self, q: QTensor) -> np.ndarray:
        """Codes times the step, float32."""
        return fixed_decode(q.codes, q.scales[0])

    def contract(self, a: QTensor, b: QTensor, spec: Spec) -> Any:
        """Contract with another Fixed where one of the two has more than 8 bits; the table kernel does the rest.

        Raises
        ------
        OverflowError
            If a result is beyond the largest float32.
        """
        pair = (a.format, b.format)
        if not all(isinstance(fmt, Fixed) for fmt in pair) or max(fmt.bits for fmt in pair) <= 8:
            return NotImplemented
        if any(q.scales[0].shape[axis] > 1 for q, axes in zip((a, b), spec.axes, strict=True) for axis in axes):
            return NotImplemented
        return wide_contract(spec.kind, a.codes, b.codes, bits_a=a.format.bits, bits_b=b.format.bits,
                             scale_a=np.ravel(self.unit(a)), scale_b=np.ravel(self.unit(b)), stride=spec.stride,
                             padding=spec.padding, dilation=spec.dilation, groups=spec.groups, size=spec.size)

    def cost(self, other: Format) -> dict[str, int]:
        """One integer product, and an add as wide as 2^16 products of the pair need: 32 or 64 bits (our assumption)."""
        if not isinstance(other, Fixed):
            return super().cost(other)
        wide = self.bits + other.bits - 2 + 16 < 32
        return {f"int{max(self.bits, other.bits)}_mul": 1, "int32_add" if wide else "int64_add": 1}

    def sum_cost(self, other: Format) -> dict[str, dict[str, int]]:
        """Once an output, the sum to float32 (one add) and both scales onto its exponent: our assumption."""
        return {"run": {}, "tree": {}, "output": {"int32_add": 1, "int8_add": 1}}

    def encode_cost(self) -> dict[str, int]:
        """A comparison for the maximum, the scale onto the exponent, rounding: our assumption."""
        return {"fp32_add": 1, "int32_add": 1, "int8_add": 1}

    def table(self) -> np.ndarray | None:
        """Codes are their own values; None above 8 bits."""
        if self.bits > 8:
            return None
        table = np.zeros(256, np.int8)
        table[self.codes()] = self.codes()  # a negative index counts from the end, which is code & 255
        return table

    def unit(self, q: QTensor) -> np.ndarray:
        """The step, 2^exponent."""
        return np.ldexp(np.float32(1), q.scales[0])
