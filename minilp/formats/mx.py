"""Microscaling (MX): blocks of 32 small numbers under one power of two, along the axis that a contraction sums over.

After the OCP Microscaling Formats (MX) Specification 1.0. Because blocks lie along the sum, and a layer's three
contractions sum over three different axes, the room encodes an operand once for each contraction, every time from the
float tensor. What OCP leaves open is said below.
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minilp.formats import batched, mx_explain
from minilp.formats.base import Format
from minilp.formats.qtensor import QTensor
from minilp.formats.rounding import Stream
from minilp.formats.spec import Spec
from minilp.kernels.mx import BIAS, Element, Operand, mx_contract, mx_encode, mx_levels
from minilp.kernels.quantise import absmax, kept_axes
from minilp.kernels.reference_mx import block_index, scale_codes

ELEMENTS = {
    "e2m1": Element(bits=4, man=1, emin=0, top=7),  # to 6
    "e2m3": Element(bits=6, man=3, emin=0, top=31),  # to 7.5
    "e3m2": Element(bits=6, man=2, emin=-2, top=31),  # to 28
    "e4m3": Element(bits=8, man=3, emin=-6, top=126),  # to 448; the pattern above is NaN
    "e5m2": Element(bits=8, man=2, emin=-14, top=123),  # to 57344; the patterns above are infinity and NaN
    "int8": Element(bits=8, man=6, emin=0, top=127),  # steps of 2^-6 to 127/64
}


@dataclass(frozen=True)
class MX(Format):
    """``element * 2^exponent`` with one exponent, an E8M0 byte, for each block of neighbours.

    The scale of a block is OCP's ``2^(floor(log2(largest magnitude)) - highest exponent of the element)``, clipped to
    2^-127 from below; what is then beyond the largest element saturates. Elements round to nearest even, or
    stochastically. A code is a signed level as in :class:`~minilp.formats.Minifloat`; for ``int8`` it is the integer.

    Our choices where OCP leaves one: subnormal elements are kept; an all-zero block has the scale 1; ``int8``
    leaves -128 unused, so that it is symmetric; scales end where every value is a finite float32; NaN and infinity are
    refused, so the scale 255 (NaN) and the elements' NaN and infinity patterns never occur. Sums: see :meth:`contract`.

    Parameters
    ----------
    element : {"e2m1", "e2m3", "e3m2", "e4m3", "e5m2", "int8"}
        MXFP4, MXFP6 (two), MXFP8 (two) or MXINT8.
    block : int
        Elements that share a scale, 1 to 65536; 32 is OCP's. The last block of a sum may be shorter, which is the same
        as filling it with zeros.
    scale_rule : {"floor", "ceil"}
        OCP's rule; or the smallest scale under which nothing saturates (after Mishra et al. 2025, arXiv 2506.08027).
    """

    element: str = "e2m1"
    block: int = 32
    scale_rule: str = "floor"
    scale_bits: ClassVar[int] = 8
    sums_in_runs: ClassVar[bool] = True
    batches: ClassVar[bool] = True
    blocks_along_sum: ClassVar[bool] = True
    exact_contract: ClassVar[bool] = False  # exact inside a block; blocks are summed in float32
    arithmetic: ClassVar[str] = "by integer sums inside blocks"
    scaling: ClassVar[str] = ("E8M0 power of two per block of 32 along the sum: 2^(floor(log2(max)) - highest element "
                              "exponent), saturating; coded once per contraction")
    source: ClassVar[str] = "OCP Microscaling Formats (MX) Specification 1.0"

    def __post_init__(self) -> None:
        if self.element not in ELEMENTS:
            raise ValueError(f"MX: element must be one of {', '.join(ELEMENTS)}, got {self.element!r}")
        whole = isinstance(self.block, (int, np.integer)) and not isinstance(self.block, bool)
        if not whole or not 1 <= self.block <= 65536:
            raise ValueError(f"MX: block must be an integer from 1 to 65536, got {self.block!r}")
        if self.scale_rule not in ("floor", "ceil"):
            raise ValueError(f"MX: scale_rule must be 'floor' or 'ceil', got {self.scale_rule!r}")

    def __str__(self) -> str:
        """Such as ``MX(element='e2m1')``, and whatever else is not at its default."""
        rest = [word for word in super().__str__()[3:-1].split(", ") if word and not word.startswith("element=")]
        return f"MX({', '.join([f'element={self.element!r}', *rest])})"

    @property
    def bits(self) -> int:
        """Of an element; the scale adds 8 bits per block."""
        return self.level.bits

    @property
    def level(self) -> Element:
        """The element's numbers."""
        return ELEMENTS[self.element]

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest positive element."""
        return 2.0**self.level.step, self.level.largest

    def codes(self) -> np.ndarray:
        """Levels, ascending: int8."""
        return np.arange(-self.level.top, self.level.top + 1).astype(np.int8)

    def encode(self, x: np.ndarray, *, keep: Iterable[int] = (), stream: Stream | None = None,
               scales: tuple[np.ndarray, ...] | None = None) -> QTensor:
        """Codes and E8M0 scales of a tensor that is one block, however large, or of one block per kept slice.

        This is the block's arithmetic, and what a format does without an axis to sum over; :meth:`encode_along` cuts
        blocks of :attr:`block`.

        Raises
        ------
        ValueError
            If ``scales`` are not what ``encode`` returns for a tensor of this shape.
        """
        x = np.asarray(x)
        if scales is None:
            maximum = absmax(x, keep)
            scales = (scale_codes(maximum, self.level.largest, self.level.highest, self.scale_rule == "ceil"),)
        exponent = self._exponents(scales, x.shape)
        return QTensor(self, mx_levels(x, exponent, self.level, stream), scales, keep=kept_axes(keep, x.ndim))

    def encode_along(self, x: np.ndarray, axis: int = -1, *, run: int | None = None,
                     stream: Stream | None = None) -> QTensor:
        """Codes in blocks along one axis; each block is coded as :meth:`encode` codes it alone.

        Scales are (E8M0 codes, run): uint8 with one entry for each block along the axis, and the run as int32 with 1
        for every axis.
        """
        (axis,) = kept_axes((axis,), x.ndim)
        run = x.shape[axis] if run is None else run
        if run < 0 or x.shape[axis] % max(run, 1):
            raise ValueError(f"encode_along: run must divide the {x.shape[axis]} elements of axis {axis}, got {run}")
        codes, scales = mx_encode(x, axis, run, self.block, self.level, ceil=self.scale_rule == "ceil", stream=stream)
        return QTensor(self, codes, (scales, np.full((1,) * x.ndim, run, np.int32)))

    def decode(self, q: QTensor) -> np.ndarray:
        """element * 2^exponent: float32, exact."""
        values = self.level.integers().astype(np.float32)[q.codes.view(np.uint8)]
        return np.ldexp(values, self._exponents(q.scales, q.shape) + np.int32(self.level.step))

    def _exponents(self, scales: tuple[np.ndarray, ...], shape: tuple[int, ...]) -> np.ndarray:
        """int32 exponents that broadcast against a tensor of ``shape``."""
        codes = scales[0]
        if codes.dtype != np.uint8 or codes.ndim != len(shape) or codes.max(initial=0) == 255:
            raise ValueError(f"MX: scales must be uint8 E8M0 codes below 255 with {len(shape)} axes, got {codes.dtype} "
                             f"of shape {codes.shape}, largest {codes.max(initial=0)}")
        exponent = codes.astype(np.int32) - BIAS
        for axis, (have, want) in enumerate(zip(codes.shape, shape, strict=True)):
            if have not in (1, want):
                index = block_index(want, int(scales[1].reshape(())) if len(scales) > 1 else want, self.block)
                if have != (index[-1] + 1 if want else 0):
                    raise ValueError(f"MX: scales of shape {codes.shape} do not fit a tensor of shape {shape} in "
                                     f"blocks of {self.block}")
                exponent = exponent.take(index, axis)
        return exponent

    def contract(self, a: QTensor, b: QTensor, spec: Spec) -> Any:
        """Integer products inside a block, float32 adds between blocks.

        The integer sum P of a block is exact. Blocks combine in ascending order: P to float32, nearest even; the power
        of two of both scales by exponent; one float32 add. What all scales have in common comes once, at the end. A
        block of a convolution is 32 input channels at one pixel and kernel tap; for the input gradient, 32 output
        channels; for the weight gradient, 32 images at one pixel, as in Microsoft's MX library: N * H * W is cut along
        N, for blocks of both operands must meet whole at every kernel tap. Blocks end with a group of channels.

        With another MX of the same block size; elements may differ. NotImplemented if a scale varies inside a block of
        this contraction, which is so for codes of another one.
        """
        if not (isinstance(a.format, MX) and isinstance(b.format, MX) and a.format.block == b.format.block):
            return NotImplemented
        operands = []
        for position, q in enumerate((a, b)):
            exponent = q.format._blocks(q, *spec.run(position, q.shape))  # type: ignore[attr-defined]
            if exponent is None:
                return NotImplemented
            operands.append(Operand(q.codes, q.format.level, exponent))  # type: ignore[attr-defined]
        left, right = operands
        if spec.layout is not None:
            return _batch(left, right, spec, self.block)
        return mx_contract(spec.kind, left, right, self.block, stride=spec.stride, padding=spec.padding,
                           dilation=spec.dilation, groups=spec.groups, size=spec.size)

    def _blocks(self, q: QTensor, axis: int, run: int) -> np.ndarray | None:
        """int32 exponents, one for each block of ``block`` along ``axis``; None where the codes have other blocks."""
        codes = q.scales[0]
        shape = list(q.shape)
        shape[axis] = q.shape[axis] // max(run, 1) * -(-run // self.block)
        if codes.shape[axis] > 1 and (len(q.scales) < 2 or int(q.scales[1].reshape(())) != run):
            return None
        if any(have not in (1, want) for have, want in zip(codes.shape, shape, strict=True)):
            return None
        return np.broadcast_to(codes.astype(np.int32) - BIAS, shape)

    def scales_nbits(self, scales: tuple[np.ndarray, ...]) -> int:
        """Eight bits a block."""
        return 8 * scales[0].size

    def cost(self, other: Format) -> dict[str, int]:
        """One MAC inside a block: an integer product as wide as both elements' integers, and an integer add.

        What a block costs on top (an exponent add and a float32 add) comes once for 32 MACs.
        """
        if not isinstance(other, MX):
            return super().cost(other)
        widths = [int(fmt.level.integers().max()).bit_length() for fmt in (self, other)]
        return {f"int{max(widths) + 1}_mul": 1, f"int{1 << (sum(widths) + 5).bit_length()}_add": 1}

    def sum_cost(self, other: Format) -> dict[str, dict[str, int]]:
        """For every block, both scales added to the exponent of its sum, and a float32 add."""
        return {"run": {"int8_add": 2}, "tree": {"fp32_add": 1}, "output": {}}

    def encode_cost(self) -> dict[str, int]:
        """A comparison for the maximum, the scale onto the exponent, the element rounded: our assumption."""
        return {"fp32_add": 1, "int32_add": 1, "int8_add": 1}

    def scale_shapes(self, shape: tuple[int, ...], keep: Iterable[int] = (), axis: int | None = None,
                     run: int | None = None) -> tuple[tuple[int, ...], ...]:
        """One scale for each block along ``axis``, and the run; see :meth:`Format.scale_shapes`."""
        if axis is None:
            return super().scale_shapes(shape, keep)
        run = shape[axis] if run is None else run
        blocks = shape[axis] // max(run, 1) * -(-run // self.block)
        return tuple(blocks if a == axis else n for a, n in enumerate(shape)), (1,) * len(shape)

    def explain(self, a: float, b: float) -> str:
        """One MAC: scale, element, integer and exponents, each operand the largest of its block."""
        return mx_explain.explain(self, a, b)


def _batch(a: Operand, b: Operand, spec: Spec, block: int) -> Any:
    """A batch of matrix products with the bits of single ones; NotImplemented where scales or block sums go far."""
    bits = sum(int(q.element.integers().max()).bit_length() for q in (a, b)) + (block - 1).bit_length()
    top = [int(q.exponent.max(initial=-BIAS)) for q in (a, b)]
    factors = [batched.factors(np.ones(1), q.exponent - most) for q, most in zip((a, b), top, strict=True)]
    if bits > 24 or factors[0] is None or factors[1] is None:
        return NotImplemented
    units = [np.full((1, 1, 1), 2.0 ** (most + q.element.step)) for q, most in zip((a, b), top, strict=True)]
    return batched.runs(spec.layout or "", a.codes, b.codes, a.element.integers(), b.element.integers(), block,
                        factors[0], factors[1], units[0], units[1])
