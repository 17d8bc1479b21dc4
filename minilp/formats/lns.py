"""Logarithmic numbers: a sign and an exponent in steps of 1/gamma octave, under the group's largest magnitude.

After Zhao et al., "LNS-Madam: Low-Precision Training in Logarithmic Number System Using Multiplicative Weight Update"
(arXiv 2106.13914, IEEE Trans. Computers 71(12), 2022). Only its abstracts were at hand: the formula of the quantizer,
the widths and the treatment of zero written here are our re-implementation under stated assumptions.
"""
from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minilp.formats import lns_contract, lns_explain
from minilp.formats.base import Format
from minilp.formats.qtensor import QTensor
from minilp.formats.rounding import Stream
from minilp.formats.spec import Spec
from minilp.kernels.lns import LARGEST_GAMMA, code_dtype, lns_decode, lns_encode
from minilp.kernels.quantise import absmax, kept_axes

OCTAVES = 253  # between the smallest and the largest power of two that is a normal float32 number


@dataclass(frozen=True)
class LNS(Format):
    """``0`` and ``+-s * 2^(e / gamma)``: one sign bit and an unsigned exponent e of ``bits - 1`` bits.

    A code is 0 for zero, else a signed level: sign times k = e + 1, from 1 to ``top``. The scale is the largest
    magnitude of the group, a float32 number that decodes exactly because it gets the largest level:
    ``value = sign * maximum * 2^((k - top) / gamma)``, which makes ``s = maximum * 2^(-(top - 1) / gamma)``
    (:meth:`s`). To round to nearest is to round the exponent; what is smaller than the smallest level becomes the
    smallest level, not zero (the paper's clamp), and zero stays zero. Values below float32's normal range, under a tiny
    maximum, lose bits as float32 does.

    Parameters
    ----------
    bits : int
        4 to 16.
    gamma : int
        Levels an octave, the paper's base factor: a power of two, 1 to 2^15. Exponents may span 253 octaves at most.
    zero : {"flag", "code"}
        ``"flag"``: all 2^(bits-1) exponents are levels and zero is one value more, a flag beside the bits (stored codes
        take a bit more). ``"code"``: zero takes the place of the smallest level, and everything fits ``bits``.
    draw : {"linear", "exponent"}
        Stochastic rounding by the distance between neighbouring values, which is unbiased; or by the fraction of the
        exponent, which is biased in value.
    path : {"float", "bins"}
        How contractions run. ``"float"``: float32 on the decoded values. ``"bins"``: exponents are added, ones shifted
        by the quotient into a bin per remainder, each bin is multiplied by its constant once. The first operand's
        format decides.
    convert : {"exact", "hybrid"}
        ``path="bins"``: one constant for each of the gamma remainders, or for ``lut`` of them and straight lines
        (1 + r/gamma) between.
    lut : int or None
        Constants of ``convert="hybrid"``: a power of two, 1 to gamma; None is gamma, which makes it exact.
    accumulator : int or None
        ``path="bins"``: bits of the accumulator, 8 to 32 (24 is our model of the paper's); None is exact.
    """

    bits: int = 8
    gamma: int = 8
    zero: str = "flag"
    draw: str = "linear"
    path: str = "float"
    convert: str = "exact"
    lut: int | None = None
    accumulator: int | None = None
    exact_contract: ClassVar[bool] = False  # float32 sums, or sums of rounded irrational constants
    batches: ClassVar[bool] = True
    scaling: ClassVar[str] = "float32 per tensor or kept axis: the largest magnitude, which is the largest level"
    source: ClassVar[str] = "Zhao et al. 2022 (arXiv 2106.13914), re-implemented under stated assumptions"

    def __post_init__(self) -> None:
        for field, low, high in (("bits", 4, 16), ("gamma", 1, LARGEST_GAMMA)):
            if not _integer(getattr(self, field), low, high):
                raise ValueError(f"LNS: {field} must be an integer from {low} to {high}, got {getattr(self, field)!r}")
        if self.gamma & (self.gamma - 1):
            raise ValueError(f"LNS: gamma must be a power of two, got {self.gamma!r}")
        for field, options in (("zero", ("flag", "code")), ("draw", ("linear", "exponent")),
                               ("path", ("float", "bins")), ("convert", ("exact", "hybrid"))):
            if getattr(self, field) not in options:
                raise ValueError(f"LNS: {field} must be one of {', '.join(options)}, got {getattr(self, field)!r}")
        if self.octaves > OCTAVES:
            raise ValueError(f"LNS: bits={self.bits} with gamma={self.gamma} spans {self.octaves:g} octaves, float32's "
                             f"normal numbers {OCTAVES}: expected fewer bits or a larger gamma")
        if self.convert == "exact" and self.lut is not None:
            raise ValueError(f"LNS: lut is for convert='hybrid' and must be None otherwise, got {self.lut!r}")
        if self.lut is not None and self.lut not in [2**i for i in range(self.gamma.bit_length())]:
            raise ValueError(f"LNS: lut must be a power of two from 1 to gamma={self.gamma} for convert='hybrid', got "
                             f"{self.lut!r}")
        if self.accumulator is not None and not _integer(self.accumulator, 8, 32):
            raise ValueError(f"LNS: accumulator must be None or an integer from 8 to 32, got {self.accumulator!r}")

    @property
    def top(self) -> int:
        """The largest level, and how many there are: 2^(bits-1), or one less where zero has a code among them."""
        return int(2 ** (self.bits - 1)) - (self.zero == "code")

    @property
    def steps(self) -> int:
        """The largest exponent e: steps of 2^(1/gamma) from the smallest level to the largest."""
        return self.top - 1

    @property
    def octaves(self) -> float:
        """Octaves from the smallest level to the largest: steps / gamma."""
        return self.steps / self.gamma

    @property
    def stored_bits(self) -> int:
        """``bits``, and one more for the flag of zero."""
        return self.bits + (self.zero == "flag")

    @property
    def unbiased(self) -> bool:  # type: ignore[override]
        """Whether stochastic rounding is right on average; by the exponent's fraction it is not."""
        return self.draw == "linear"

    @property
    def arithmetic(self) -> str:  # type: ignore[override]
        """What runs: float32 on decoded values, or the bins with what they approximate."""
        if self.path == "float":
            return "in float32 on decoded codes (path=float)"
        rounds = ["approximate constants"] if self.lut not in (None, self.gamma) else []
        rounds += [f"a {self.accumulator}-bit accumulator"] if self.accumulator else []
        return f"in integer bins (path=bins{''.join(f', {words}' for words in rounds)})"

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest positive value in units of the largest magnitude."""
        return 2.0**-self.octaves, 1.0

    def s(self, maximum: Any) -> np.ndarray:
        """The paper's scale, ``maximum * 2^(-steps / gamma)``: the smallest level, of which the others are multiples.

        Codes are anchored at the top instead, because s is no float32 number: so the largest magnitude stays as it is.

        Parameters
        ----------
        maximum : float or numpy.ndarray
            Largest magnitudes, such as ``q.scales[0]``.

        Returns
        -------
        numpy.ndarray
            float64.
        """
        return np.asarray(maximum, np.float64) * 2.0**-self.octaves

    def codes(self) -> np.ndarray:
        """Every code, ascending, in the type that :meth:`encode` makes."""
        return np.arange(-self.top, self.top + 1).astype(code_dtype(self.top))

    @property
    def levels(self) -> int:
        """Number of distinct values: both signs, and zero."""
        return 2 * self.top + 1

    def scales_for(self, maximum: np.ndarray) -> tuple[np.ndarray, ...]:
        """The largest magnitude itself; 1 for a group of zeros, where any scale would do."""
        if maximum.size == 1 and maximum.item():
            return (maximum.astype(np.float32),)
        return (np.where(maximum == 0, np.float32(1), maximum).astype(np.float32),)

    def encode(self, x: np.ndarray, *, keep: Iterable[int] = (), stream: Stream | None = None,
               scales: tuple[np.ndarray, ...] | None = None) -> QTensor:
        """Signed levels (int8, int16 from 8 bits with a flag on, int32 for 16 with a flag) and the largest magnitude.

        A stream rounds as ``draw`` says: ``"linear"`` between neighbouring values, and between 0 and the smallest;
        ``"exponent"`` between neighbouring exponents, and nothing but zero becomes zero.
        """
        scales = self.scales_for(absmax(x, keep)) if scales is None else scales
        codes = lns_encode(x, scales[0], self.gamma, self.top, stream, self.draw)
        return QTensor(self, codes, scales, keep=kept_axes(keep, x.ndim))

    def decode(self, q: QTensor) -> np.ndarray:
        """sign * maximum * 2^((level - top) / gamma), taken in float64 and rounded once to float32."""
        return lns_decode(q.codes, q.scales[0], self.gamma, self.top)

    @staticmethod
    def narrow(q: QTensor, target: LNS, keep: Iterable[int] = ()) -> QTensor:
        """The codes of a stored tensor on a coarser lattice under the same largest magnitude: a rounding shift.

        A level d steps below the top becomes ``(d + half) >> shift`` coarse steps below it, not below the smallest
        level; zero stays zero. No float is read. Apart from exact ties (which go to the smaller magnitude) this is
        ``target.encode(q.decode(), scales=q.scales)``.

        Parameters
        ----------
        q : QTensor
            A tensor of some LNS.
        target : LNS
            The format wanted; its gamma is at most that of ``q``.
        keep : iterable of int
            Axes that get a largest magnitude of their own on the way: the value of the largest level found there, from
            which steps are counted then. ``()`` leaves the scales alone.

        Returns
        -------
        QTensor
            Of format ``target``, codes in the memory order of ``q``'s.

        Raises
        ------
        TypeError
            If a format is no LNS.
        ValueError
            If ``target`` is finer.
        """
        return lns_contract.narrow(q, target, kept_axes(keep, q.ndim))

    def contract(self, a: QTensor, b: QTensor, spec: Spec) -> Any:
        """Contract with another LNS operand, of any gamma: in float32 on decoded values, or in bins (``path``).

        Raises
        ------
        ValueError
            If a scale varies along an axis that the contraction sums over.
        """
        if not (isinstance(a.format, LNS) and isinstance(b.format, LNS)):
            return NotImplemented
        return lns_contract.contract(a, b, spec)

    def cost(self, other: Format) -> dict[str, int]:
        """One MAC of the datapath, whichever path simulates it: exponent add, sign XOR, a one shifted into its bin.

        The add into the bin is as wide as the largest product needs (32, 64, ... bits), or as ``accumulator``. The
        constants (lut or gamma multiplications and adds) come once per output, not per MAC.
        """
        if not isinstance(other, LNS):
            return super().cost(other)
        places = self.octaves + other.octaves + (0 if self.lut is None else (self.gamma // self.lut).bit_length() - 1)
        width = self.accumulator or (32 if places < 31 else 64 * -(-(int(places) + 2) // 64))
        return {f"int{max(self.bits, other.bits) - 1}_add": 1, "xor1": 1, f"int{width}_shift": 1, f"int{width}_add": 1}

    def sum_cost(self, other: Format) -> dict[str, dict[str, int]]:
        """Once an output: each bin times its constant, the bins added, both scales multiplied on: our assumption."""
        bins = self.gamma if self.lut is None else self.lut
        return {"run": {}, "tree": {}, "output": {"fp32_mul": bins + 1, "fp32_add": bins}}

    def encode_cost(self) -> dict[str, int]:
        """A comparison for the maximum, one multiplication by 1 / max, log2(gamma) of thresholds: our assumption."""
        return {"fp32_add": 1, "fp32_mul": 1, "int32_add": max(self.gamma - 1, 1).bit_length()}

    def explain(self, a: float, b: float) -> str:
        """One MAC: exponents, their sum, quotient and remainder, shift, bin and constant."""
        return lns_explain.explain(self, a, b)

    def __str__(self) -> str:
        """Such as ``LNS(bits=8, gamma=8)``, and whatever else is not at its default."""
        return self._words

    @functools.cached_property
    def _words(self) -> str:
        words = [word for word in super().__str__()[4:-1].split(", ") if not word.startswith(("bits=", "gamma="))]
        return f"LNS({', '.join([f'bits={self.bits}', f'gamma={self.gamma}', *words])})"


def _integer(value: Any, low: int, high: int) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and low <= int(value) <= high
