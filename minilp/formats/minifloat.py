"""Small floating-point numbers: E4M3, E5M2 and every other ExMy of at most eight bits, under one scale."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minilp.formats import batched, minifloat_explain
from minilp.formats.base import Format
from minilp.formats.qtensor import QTensor
from minilp.formats.rounding import Stream
from minilp.formats.spec import Spec
from minilp.kernels import minifloat, reference_minifloat
from minilp.kernels.quantise import absmax, kept_axes
from minilp.kernels.reference_minifloat import CHUNK, RUNS


@dataclass(frozen=True)
class Minifloat(Format):
    """Sign, ``exp`` exponent bits and ``man`` mantissa bits with subnormals, times 2^exponent of the tensor.

    Values follow OCP: E4M3 has no infinity and one NaN pattern, so it ends at 448; other formats of eight bits reserve
    the top exponent as IEEE 754 does (E5M2 ends at 57344); below eight bits every pattern is a number (E2M1 ends at 6).
    Patterns that are no numbers, and minus zero, are never used.

    A code is a signed level: its magnitude is the pattern of exponent and mantissa. The exponent of the scale is the
    smallest under which the largest magnitude is in range, so nothing saturates unless scales are given.

    Parameters
    ----------
    exp : int
        2 to 5.
    man : int
        1 to 5; ``1 + exp + man`` is at most 8.
    """

    exp: int = 4
    man: int = 3
    scale_bits: ClassVar[int] = 8
    batches: ClassVar[bool] = True
    scaling: ClassVar[str] = "power of two per tensor or kept axis, from the largest magnitude"
    source: ClassVar[str] = "OCP 8-bit Floating Point Specification (OFP8) 1.0; OCP Microscaling Formats 1.0"

    def __post_init__(self) -> None:
        if self.exp not in range(2, 6) or self.man not in range(1, 6) or self.bits > 8:
            raise ValueError(f"Minifloat: exp must be 2 to 5, man 1 to 5 and 1 + exp + man at most 8, got "
                             f"exp={self.exp!r}, man={self.man!r}")

    @property
    def bits(self) -> int:
        """Sign, exponent and mantissa."""
        return 1 + self.exp + self.man

    @property
    def exact_contract(self) -> bool:  # type: ignore[override]
        """Whether sums are exact; with five exponent bits they are float32 in a fixed order."""
        return self.exp <= 4

    @property
    def arithmetic(self) -> str:  # type: ignore[override]
        """Exact sums, or with five exponent bits exact products and float32 sums."""
        return "by exact sums" if self.exp <= 4 else "by exact products and float32 sums"

    def __str__(self) -> str:
        """``E4M3`` and its like."""
        return f"E{self.exp}M{self.man}"

    @property
    def emin(self) -> int:
        """Exponent of the smallest normal number: 1 less the bias."""
        return 2 - 2 ** (self.exp - 1)

    @property
    def top(self) -> int:
        """The largest level: all patterns but those of NaN and infinity."""
        reserved = 0 if self.bits < 8 else 1 if (self.exp, self.man) == (4, 3) else 2**self.man
        return 2 ** (self.bits - 1) - 1 - reserved

    def codes(self) -> np.ndarray:
        """Levels from -top to top, int8."""
        return np.arange(-self.top, self.top + 1).astype(np.int8)

    def integers(self) -> np.ndarray:
        """int64 of length 256 by ``code & 255``: the value of each code in steps of the smallest subnormal."""
        out = reference_minifloat.integers(self.man)
        out[self.top + 1:256 - self.top] = 0
        return out

    @property
    def step(self) -> int:
        """Exponent of the smallest subnormal at scale 1."""
        return self.emin - self.man

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest positive value at scale 1."""
        return 2.0**self.step, float(self.integers()[self.top] * 2.0**self.step)

    def scales_for(self, maximum: np.ndarray) -> tuple[np.ndarray, ...]:
        """The smallest power of two that, times the largest value, reaches ``maximum``; its exponent, int32."""
        fraction, power = np.frexp(maximum / np.float32(self.range[1]))
        power = power - (fraction == 0.5)
        high = 127 - int(np.log2(self.range[1]))  # every value a finite, normal float32
        return (np.asarray(np.clip(power, -126 - self.step, high), np.int32).reshape(np.shape(maximum)),)

    def encode(self, x: np.ndarray, *, keep: Iterable[int] = (), stream: Stream | None = None,
               scales: tuple[np.ndarray, ...] | None = None) -> QTensor:
        """Levels and the scale's exponent; see :meth:`Format.encode`."""
        scales = self.scales_for(absmax(x, keep)) if scales is None else scales
        codes = minifloat.encode(x, scales[0], self.man, self.emin, self.top, stream)
        return QTensor(self, codes, scales, keep=kept_axes(keep, np.ndim(x)))

    def decode(self, q: QTensor) -> np.ndarray:
        """Values times 2^exponent, float32."""
        return np.ldexp(reference_minifloat.values(q.codes, self.man, np.float32), q.scales[0] + np.int32(self.step))

    def patterns(self, codes: np.ndarray) -> np.ndarray:
        """The bits as OCP stores them: the sign on top, then exponent and mantissa.

        Parameters
        ----------
        codes : numpy.ndarray
            int8 levels.

        Returns
        -------
        numpy.ndarray
            uint8, same shape.
        """
        sign = np.where(codes < 0, 1 << (self.bits - 1), 0)
        return (np.abs(codes.astype(np.int16)) | sign).astype(np.uint8)

    def table(self) -> np.ndarray | None:
        """Values in steps of the smallest subnormal where they stay within 127 (E2M1, E2M3 ...)."""
        integers = self.integers()
        return integers.astype(np.int8) if integers[self.top] <= 127 else None

    def unit(self, q: QTensor) -> np.ndarray:
        """The smallest subnormal under the tensor's scale."""
        return np.ldexp(np.float32(1), q.scales[0] + np.int32(self.step))

    def contract(self, a: QTensor, b: QTensor, spec: Spec) -> Any:
        """Contract with another Minifloat: exact, or with five exponent bits in float32 and a fixed order.

        Up to four exponent bits on both sides, sums are exact and rounded once. With five, products are exact and
        summed in float32, 32 at a time, in the order of :func:`minilp.kernels.minifloat.contract`. Tensor scales stay
        out of the sum. Formats that both have a :meth:`table` are left to the table kernel.

        Raises
        ------
        ValueError
            If a scale varies along an axis that the contraction sums over.
        OverflowError
            If a result is beyond the largest float32.
        """
        fa, fb = a.format, b.format
        if not (isinstance(fa, Minifloat) and isinstance(fb, Minifloat)):
            return NotImplemented
        for q, axes in zip((a, b), spec.axes, strict=True):
            bad = [axis for axis in axes if q.scales[0].shape[axis] > 1]
            if bad:
                raise ValueError(f"{spec.kind}: {q.format} keeps its own scale along axis {bad[0]}, which this "
                                 f"contraction sums over; Minifloat needs one scale per sum")
        largest = int(fa.integers()[fa.top]) * int(fb.integers()[fb.top])
        wide = fa.exp == 5 or fb.exp == 5
        tables = fa.table() is not None and fb.table() is not None
        if not wide and (tables or largest * spec.terms(a.shape, b.shape) >= 2**62):
            return NotImplemented
        if spec.layout is not None:
            return _batch(a, b, spec, wide, largest)
        return minifloat.contract(
            spec.kind, a.codes, b.codes, man_a=fa.man, man_b=fb.man, largest=largest, exact=not wide,
            scale_a=fa.unit(a).reshape(-1), scale_b=fb.unit(b).reshape(-1), stride=spec.stride, padding=spec.padding,
            dilation=spec.dilation, groups=spec.groups, size=spec.size)

    def cost(self, other: Format) -> dict[str, int]:
        """One product of small floats and one addition: float32 with five exponent bits, else of integers.

        The integer accumulator holds products in steps of both smallest subnormals; it counts as 64 bits wide where one
        product can exceed INT32, as with E4M3. Aligning a product to it is part of its input and is not priced.
        """
        if not isinstance(other, Minifloat):
            return super().cost(other)
        largest = int(self.integers()[self.top]) * int(other.integers()[other.top])
        adder = "fp32_add" if 5 in (self.exp, other.exp) else "int32_add" if largest < 2**31 else "int64_add"
        return {f"fp{max(self.bits, other.bits)}_mul": 1, adder: 1}

    def sum_cost(self, other: Format) -> dict[str, dict[str, int]]:
        """Once an output, the sum to float32 (one add) and both scales onto its exponent: our assumption."""
        return {"run": {}, "tree": {}, "output": {"int32_add": 1, "int8_add": 1}}

    def encode_cost(self) -> dict[str, int]:
        """A comparison for the maximum, the scale onto the exponent, the mantissa rounded: our assumption."""
        return {"fp32_add": 1, "int32_add": 1, "int8_add": 1}

    def explain(self, a: float, b: float) -> str:
        """One MAC, field by field, each operand encoded as a tensor of its own."""
        return minifloat_explain.explain(self, a, b)


def _batch(a: QTensor, b: QTensor, spec: Spec, wide: bool, largest: int) -> Any:
    """A batch of matrix products with the sums of single ones; NotImplemented where those are too long for it."""
    terms = spec.terms(a.shape, b.shape)
    fa: Minifloat = a.format  # type: ignore[assignment]
    fb: Minifloat = b.format  # type: ignore[assignment]
    scales = batched.on_result(spec, (fa.unit(a), fb.unit(b)), (a, b))
    if not wide and largest * terms < 2**53:
        return batched.exact(spec.layout or "", a.codes, b.codes, fa.integers(), fb.integers(), *scales)
    if not wide or (spec.layout == "tn" and terms > CHUNK * RUNS):  # a weight gradient sums longer runs
        return NotImplemented
    return batched.runs(spec.layout or "", a.codes, b.codes, fa.integers(), fb.integers(), CHUNK, None, None, *scales)
