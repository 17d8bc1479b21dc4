"""Powers of two: a sign, an exponent and a zero, under one adaptive power-of-two scale per tensor (ALS-PoTQ).

After Liu et al. 2023, "Ultra-low Precision Multiplication-free Training for Deep Neural Networks" (arXiv 2302.14458).
The abstract gives the idea: adaptive layer-wise scaling, and products that are an exponent addition and a sign XOR. The
code set, the scale equation and the rounding written here are our re-implementation under stated assumptions.
"""
from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minilp.formats import batched
from minilp.formats.base import Format
from minilp.formats.fixed import Fixed
from minilp.formats.qtensor import QTensor
from minilp.formats.rounding import Stream
from minilp.formats.spec import Spec
from minilp.kernels.backend import active, kernel_family
from minilp.kernels.pot import pot_contract
from minilp.kernels.pot_emulate import WORDS, family
from minilp.kernels.quantise import absmax, kept_axes, pot_decode, pot_encode, pot_encode_clipped
from minilp.kernels.reference_batched import power_values
from minilp.kernels.reference_quantise import THRESHOLDS

INT64_ROOM = 62  # bits of magnitude an int64 accumulator may reach: sign and one bit to spare


def rlog2(x: np.ndarray, threshold: str = "log") -> np.ndarray:
    """The integer nearest to log2 x, from the float32 bits: add, then shift the mantissa out.

    Parameters
    ----------
    x : numpy.ndarray
        float32, positive and normal.
    threshold : {"log", "linear"}
        Up from sqrt 2 (nearest in the log domain; no float32 number is a tie) or from 1.5 on (nearest in value).

    Returns
    -------
    numpy.ndarray
        int32.
    """
    return ((x.view(np.int32) + np.int32(THRESHOLDS[threshold])) >> 23) - np.int32(127)


@dataclass(frozen=True)
class PoT(Format):
    """``0`` and ``+-2^(k + beta)``, k from -emax to emax = 2^(bits-2) - 1: one sign bit and a (bits-1)-bit exponent.

    A code is a signed level: 0, or sign times (k + emax + 1). So a code is monotone in its value, its magnitude less
    one is a left shift, and ``+-2^(|code| - 1)`` is its value in units of the smallest power.

    beta is chosen per tensor (or kept axis) so that the largest magnitude lands on the largest power; it is an INT8
    that also saturates where a value would leave float32's normal range.

    Parameters
    ----------
    bits : int
        3 to 6. Five bits give INT4 exponents, -7 to 7.
    threshold : {"log", "linear"}
        Nearest in the log domain (up from sqrt 2), or nearest in value (up from 1.5 on).
    underflow : {"rounded", "half"}
        Zero where the rounded exponent is below the smallest, or where the magnitude is below half the smallest power.
    accumulate : {"exact", "int32"}
        Exact sums (int64, or a count per exponent where that could overflow), or the paper's INT32, with its overflows
        counted.
    """

    bits: int = 5
    threshold: str = "log"
    underflow: str = "rounded"
    accumulate: str = "exact"
    scale_bits: ClassVar[int] = 8
    batches: ClassVar[bool] = True
    scaling: ClassVar[str] = "2^beta per tensor or kept axis: the largest magnitude lands on the largest power"
    source: ClassVar[str] = "Liu et al. 2023 (arXiv 2302.14458), re-implemented under stated assumptions"

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or self.bits not in (3, 4, 5, 6):
            raise ValueError(f"PoT: bits must be 3, 4, 5 or 6, got {self.bits!r}")
        for field, options in (("threshold", ("log", "linear")), ("underflow", ("rounded", "half")),
                               ("accumulate", ("exact", "int32"))):
            if getattr(self, field) not in options:
                raise ValueError(f"PoT: {field} must be one of {', '.join(options)}, got {getattr(self, field)!r}")

    @functools.cached_property
    def emax(self) -> int:
        """Largest exponent k; the smallest is its negative."""
        return 2 ** (self.bits - 2) - 1

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest positive value at beta = 0."""
        return 2.0**-self.emax, 2.0**self.emax

    def scales_for(self, maximum: np.ndarray) -> tuple[np.ndarray, ...]:
        """beta for a largest magnitude: rlog2(maximum) - emax, saturating; 0 for an all-zero tensor.

        Rounding (not floor or ceiling) puts the maximum exactly on the top code: nothing saturates, no code is wasted.

        Parameters
        ----------
        maximum : numpy.ndarray
            float32, not negative, finite.

        Returns
        -------
        tuple of numpy.ndarray
            beta, int32 of the same shape, in [emax - 126, 127 - emax].
        """
        if maximum.size == 1:  # one scale, the common case: Python's integers take a tenth of the time of NumPy's calls
            bits = maximum.view(np.int32).item()
            exponent = ((bits + THRESHOLDS[self.threshold]) >> 23) - 127 - self.emax
            one = min(max(exponent, self.emax - 126), 127 - self.emax) if bits & 0x7FFFFFFF else 0
            return (np.array(one, np.int32).reshape(maximum.shape),)
        beta = rlog2(maximum, self.threshold) - np.int32(self.emax)
        beta = np.minimum(np.maximum(beta, self.emax - 126), 127 - self.emax).astype(np.int32)
        return (np.where(maximum == 0, np.int32(0), beta),)

    def encode(self, x: np.ndarray, *, keep: Iterable[int] = (), stream: Stream | None = None,
               scales: tuple[np.ndarray, ...] | None = None) -> QTensor:
        """Codes and beta; see :meth:`Format.encode`.

        Stochastic rounding goes by linear distance between neighbouring powers, and between 0 and the smallest power.
        """
        scales = self.scales_for(absmax(x, keep)) if scales is None else scales
        codes = pot_encode(x, scales[0], self.bits, stream, self.threshold, self.underflow)
        return QTensor(self, codes, scales, keep=kept_axes(keep, x.ndim))

    def encode_clipped(self, x: np.ndarray, limit: float, *, keep: Iterable[int] = (), stream: Stream | None = None
                       ) -> tuple[QTensor, np.ndarray]:
        """One pass for the codes and for what lies outside; see :meth:`Format.encode_clipped`."""
        keep = tuple(keep)
        if keep:
            return super().encode_clipped(x, limit, keep=keep, stream=stream)
        scales = self.scales_for(np.array(limit, np.float32).reshape((1,) * x.ndim))
        codes, outside = pot_encode_clipped(x, scales[0], self.bits, limit, stream, self.threshold, self.underflow)
        return QTensor(self, codes, scales), outside

    def decode(self, q: QTensor) -> np.ndarray:
        """sign * 2^(k + beta), float32."""
        return pot_decode(q.codes, q.scales[0], self.bits)

    def arithmetic_with(self, other: Format, batched: bool = False) -> str:
        """``in integers``, and by which family of kernels: ``(shift/add)``, ``(int8 digits)`` or ``(NumPy)``.

        A batch of matrix products has ``(integers in float64)`` in place of the int8 digits: exact as well.
        """
        if not isinstance(other, PoT):
            return self.arithmetic
        if batched and _batched_family(self, other) == "emulate":
            return f"{self.arithmetic} (integers in float64)"
        accumulate = "int32" if "int32" in (self.accumulate, other.accumulate) else "int64"
        return f"{self.arithmetic} ({WORDS[family(self.bits, other.bits, accumulate)]})"

    def contract(self, a: QTensor, b: QTensor, spec: Spec) -> Any:
        """Exact contraction. Only with another PoT operand.

        By sign XOR, exponent add and shift (MF-MAC), or emulated on the CPU's integer multipliers: the same integers;
        see :func:`minilp.use_kernels`.

        A scale that varies along a kept axis multiplies the result by powers of two afterwards, which rounds only where
        the result is subnormal.

        Raises
        ------
        ValueError
            If a scale varies along an axis that the contraction sums over.

        Warns
        -----
        RuntimeWarning
            If ``accumulate="int32"`` and additions overflowed; the message has their number.
        """
        if not (isinstance(a.format, PoT) and isinstance(b.format, PoT)):
            return NotImplemented
        fa, fb = a.format, b.format
        if spec.layout is not None:
            return _batch(a, b, spec)
        along = [_kept_scale(a, spec, 0), _kept_scale(b, spec, 1)]
        common = [beta.item() if beta.size == 1 else int(beta.max(initial=-126)) for beta in along]
        span = 2 * (fa.emax + fb.emax) + max(spec.terms(a.shape, b.shape) - 1, 0).bit_length()
        accumulate = "int64" if span <= INT64_ROOM else "counts"
        if "int32" in (fa.accumulate, fb.accumulate):
            accumulate = "int32"
        result = pot_contract(spec.kind, a.codes, b.codes, bits_a=fa.bits, bits_b=fb.bits,
                              exponent=sum(common) - fa.emax - fb.emax, stride=spec.stride, padding=spec.padding,
                              dilation=spec.dilation, groups=spec.groups, size=spec.size, accumulate=accumulate,
                              return_overflows=accumulate == "int32")
        if accumulate == "int32":
            result, overflows = result
            if overflows:
                warnings.warn(f"{spec.kind}: {overflows} additions overflowed the INT32 accumulator and wrapped",
                              RuntimeWarning, stacklevel=2)
        for position, (beta, top) in enumerate(zip(along, common, strict=True)):
            if beta.size > 1:
                np.ldexp(result, spec.on_result(beta - top, position, result.shape), out=result)
        return result

    def table(self) -> np.ndarray | None:
        """Up to 5 bits: +-2^(|code| - 1), at most 64 with 4 bits and 2^14 with 5. None with a modelled accumulator."""
        if self.bits > 5 or self.accumulate == "int32":
            return None
        codes = self.codes().astype(np.int16)
        table = np.zeros(256, np.int8 if self.bits <= 4 else np.int16)
        table[codes] = np.sign(codes) << np.maximum(np.abs(codes) - 1, 0)
        return table

    def unit(self, q: QTensor) -> np.ndarray:
        """The smallest power, 2^(beta - emax), as float64: it may lie below float32."""
        return np.ldexp(1.0, q.scales[0] - self.emax)

    def cost(self, other: Format) -> dict[str, int]:
        """One MF-MAC: an exponent add, a sign XOR, an accumulator add (64 bits wide where a product may exceed INT32).

        The one-hot decode of the product's exponent is part of the accumulator's input and is not priced. With an
        integer of up to 8 bits it is a shift of that integer by the exponent, still without a product (our assumption;
        up to 5 bits).
        """
        if isinstance(other, Fixed) and other.bits <= 8 and self.bits <= 5:
            return {"int32_shift": 1, "xor1": 1, "int32_add": 1}
        if not isinstance(other, PoT):
            return super().cost(other)
        accumulator = "int32_add" if 2 * (self.emax + other.emax) < 31 else "int64_add"
        return {f"int{max(self.bits, other.bits) - 1}_add": 1, "xor1": 1, accumulator: 1}

    def sum_cost(self, other: Format) -> dict[str, dict[str, int]]:
        """Once an output, the accumulator to float32 (one add) and both scales onto its exponent: our assumption."""
        return {"run": {}, "tree": {}, "output": {"int32_add": 1, "int8_add": 1}}

    def encode_cost(self) -> dict[str, int]:
        """A comparison for the maximum, the exponent rounded by an integer add, the scale off: our assumption."""
        return {"fp32_add": 1, "int32_add": 1, "int8_add": 1}

    def explain(self, a: float, b: float) -> str:
        """One MF-MAC, field by field, each operand encoded as a tensor of its own."""
        width, emax = self.bits - 1, self.emax
        q = [self.encode(np.array([number], np.float32)) for number in (a, b)]
        codes, betas = [int(t.codes[0]) for t in q], [int(t.scales[0][0]) for t in q]
        values = [float(t.decode()[0]) for t in q]
        lines = [f"{self}: value = (-1)^sign * 2^(k + beta), k from {-emax} to {emax}, {self.levels} values"]
        for name, number, code, beta, value in zip("ab", (a, b), codes, betas, values, strict=True):
            k = abs(code) - 1 - emax if code else -emax - 1
            field = f"{k & (2**width - 1):0{width}b}"
            words = f"sign {int(code < 0)}, k = {k} ({field})" if code else f"zero code ({field}), sign 0"
            lines.append(f"{name:<12}{number:g}: {words}, beta = {beta}, decodes to {value:g}")
        exponent = betas[0] + betas[1] - 2 * emax
        if 0 in codes:
            lines.append("zero gate   an operand is zero: the product is gated off, the accumulator stays 0")
            lines.append(f"result      0   (exact product {a * b:g})")
            return "\n".join(lines)
        sign, ks = int((codes[0] ^ codes[1]) < 0), [abs(code) - 1 - emax for code in codes]
        total = sum(ks)
        shift = total + 2 * emax
        integer = -(1 << shift) if sign else 1 << shift
        lines += [
            f"sign        {int(codes[0] < 0)} XOR {int(codes[1] < 0)} = {sign}",
            f"exponent    {ks[0]} + {ks[1]} = {total}   (INT{width} addition, {width + 1}-bit result)",
            f"one-hot     1 << ({total} + {2 * emax}) = {1 << shift}",
            f"accumulator 0 {'-' if sign else '+'} {1 << shift} = {integer}",
            f"scale       * 2^(beta_a + beta_b - {2 * emax}) = 2^{exponent}, once per output",
            f"result      {integer * 2.0**exponent:g}   (exact product {a * b:g})",
        ]
        return "\n".join(lines)


def _batched_family(a: Format, b: Format) -> str:
    """``shift`` or ``emulate`` for a batch; emulating is the faster one on every tier."""
    wanted = kernel_family()
    return "shift" if wanted == "shift" or active() != "c" else "emulate"


def _batch(a: QTensor, b: QTensor, spec: Spec) -> Any:
    """A batch of matrix products, NotImplemented for 6 bits and the modelled accumulator."""
    fa, fb = a.format, b.format
    if any(fmt.bits > 5 or fmt.accumulate == "int32" for fmt in (fa, fb)):  # type: ignore[attr-defined]
        return NotImplemented
    assert spec.layout is not None
    units = [np.ldexp(1.0, q.scales[0] - q.format.emax) for q in (a, b)]  # type: ignore[attr-defined]
    scales = batched.on_result(spec, units, (a, b))
    if _batched_family(fa, fb) == "shift":
        return batched.powers(spec.layout, a.codes, b.codes, *scales)
    return batched.exact(spec.layout, a.codes, b.codes, power_values(), power_values(), *scales)


def _kept_scale(q: QTensor, spec: Spec, position: int) -> np.ndarray:
    """beta as a vector along the operand's kept axis (length 1 if shared)."""
    beta = q.scales[0]
    for axis in spec.axes[position] if beta.size > 1 else ():
        if beta.shape[axis] > 1:
            which = ("first", "second")[position]
            raise ValueError(f"{spec.kind}: the scale of the {which} operand varies along its axis {axis}, which this "
                             f"contraction sums over; PoT needs one scale per sum")
    return beta.reshape(-1)
