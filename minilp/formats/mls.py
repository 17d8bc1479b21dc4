"""Multi-level scaling: small floats under a group scale under a tensor scale, multiplied in integers inside a group.

After Zhong et al., "Exploring the Potential of Low-bit Training of Convolutional Neural Networks" (arXiv 2006.02804).
A number is ``sign * S_t * S_g * xbar``: S_t one float32 a tensor, S_g an unsigned ``<Eg,Mg>`` float a group, xbar an
unsigned ``<Ex,Mx>`` float below 1 with gradual underflow. An integer times a constant power of two is all that xbar is,
so sums inside a group are sums of integers. Our re-implementation; what is not in the abstracts is assumed and said.
"""
from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minilp.formats import batched, mls_explain
from minilp.formats.base import Format
from minilp.formats.mls_scales import GROUPS, group_axes, unit
from minilp.formats.qtensor import QTensor
from minilp.formats.rounding import Stream
from minilp.formats.spec import Spec
from minilp.kernels.magnitude import noted_maxima
from minilp.kernels.mls import Operand, mls_contract, mls_encode, mls_scales
from minilp.kernels.quantise import absmax, kept_axes
from minilp.kernels.quantise_checks import NotFiniteError, not_finite
from minilp.kernels.storage import storage_order


@dataclass(frozen=True)
class MLS(Format):
    """``sign * S_t * S_g * xbar`` with xbar an ``<exp,man>`` float in [0, 1).

    A code is a signed level, 0 or sign times ``field * 2^man + mantissa`` of xbar's fields: monotone in the value, and
    as wide as sign, exponent and mantissa together. Field 0 is ``mantissa * 2^-(man + B)`` with ``B = 2^exp - 1``;
    field f is ``(2^man + mantissa) * 2^(f - 1)`` of the same unit. :meth:`integers` lists them.

    Parameters
    ----------
    exp, man : int
        Exponent bits, 0 to 3 (0 is plain fixed point), and mantissa bits. Codes fit eight bits.
    group_exp, group_man : int
        Bits of a group scale: exponent 1 to 8; mantissa 0 (powers of two) or 1 (1 or 1.5 times a power of two).
    top : {"saturate", "keep"}
        What rounds up past the largest xbar stays there, or becomes 1.0, which takes one bit more.
    group : {"nc", "n", "c", "none"}
        What shares a group scale in tensors of four axes (images, kernels) and of two (tokens): one scale per pair of
        the first two axes, per index of the first or of the second, or a single one. In tensors of three axes
        (attention's heads) every row has one, unless ``"none"``. Others are one group.
    underflow : {"gradual", "sudden"}
        Subnormals below the smallest normal binade; or, as an ablation, a binade more and then zero, also one bit more.
    least : int
        Groups of fewer elements fall back to ``"n"`` (1x1 kernels and tokens under ``"nc"``). 1 never falls back, which
        spends a group scale on every element of such tensors: at ``<2,1>`` and ``<8,1>`` 13 bits an element instead of
        4, all magnitudes one and the same code, and an error no smaller than that of a single group.
    clamp_grad : bool
        As an activation, pass only gradients within +-S_t, clamping the rest, as the authors' simulator does. It looks
        unintended there and hardly ever acts. The float32 tensor then waits for the backward pass beside its codes.
    """

    exp: int = 2
    man: int = 1
    group_exp: int = 8
    group_man: int = 1
    top: str = "saturate"
    group: str = "nc"
    underflow: str = "gradual"
    least: int = 4
    clamp_grad: bool = False
    sums_in_runs: ClassVar[bool] = True
    batches: ClassVar[bool] = True
    exact_contract: ClassVar[bool] = False  # exact inside a group; groups are summed in float32
    source: ClassVar[str] = "Zhong et al. 2020 (arXiv 2006.02804), re-implemented under stated assumptions"

    def __post_init__(self) -> None:
        if self.group is None:  # what a command line makes of the word none
            object.__setattr__(self, "group", "none")
        for field, low, high in (("exp", 0, 3), ("man", 0, 7), ("group_exp", 1, 8), ("group_man", 0, 1),
                                 ("least", 1, 2**31)):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
                raise ValueError(f"MLS: {field} must be an integer from {low} to {high}, got {value!r}")
        if not isinstance(self.clamp_grad, bool):
            raise ValueError(f"MLS: clamp_grad must be True or False, got {self.clamp_grad!r}")
        for field, options in (("top", ("saturate", "keep")), ("group", GROUPS), ("underflow", ("gradual", "sudden"))):
            if getattr(self, field) not in options:
                raise ValueError(f"MLS: {field} must be one of {', '.join(options)}, got {getattr(self, field)!r}")
        if self.exp + self.man < 1 or self.bits > 8:
            raise ValueError(f"MLS: <exp,man> = <{self.exp},{self.man}> with top={self.top!r} and underflow="
                             f"{self.underflow!r} takes {self.bits} bits, expected 2 to 8")
        if self.underflow == "sudden" and not self.exp:
            raise ValueError("MLS: underflow='sudden' needs exponent bits, got exp=0")

    @property
    def scaling(self) -> str:  # type: ignore[override]
        """How scales come about, and which tensors fall back to one scale per row."""
        group = {"nc": "(row, column) pair", "n": "row", "c": "column", "none": "tensor"}[self.group]
        text = (f"float32 per tensor x <{self.group_exp},{self.group_man}> per {group} ({self.group}), rounded up from "
                f"the largest magnitude")
        if self.group in ("none", "n") or self.least == 1:
            return text
        return f"{text}; groups of fewer than {self.least} elements (1x1 kernels, tokens) fall back to n"

    @property
    def bits(self) -> int:
        """Sign, exponent and mantissa; one more if 1.0 is kept or zero needs a code of its own (sudden underflow)."""
        return 1 + self.exp + self.man + (self.top == "keep" or self.underflow == "sudden")

    @property
    def top_code(self) -> int:
        """The largest code."""
        return 2 ** (self.exp + self.man) - 1 + (self.top == "keep") + (self.underflow == "sudden")

    @property
    def binades(self) -> int:
        """Number of normal binades below 1: B = 2^exp - 1, or 2^exp with sudden underflow."""
        return 2**self.exp - (self.underflow == "gradual")

    @property
    def fraction_bits(self) -> int:
        """xbar is an integer times 2 to the minus this: man + binades."""
        return self.man + self.binades

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest positive value at scales of 1."""
        whole = self.integers()
        return float(whole[1]) / 2**self.fraction_bits, float(whole[-1]) / 2**self.fraction_bits

    def codes(self) -> np.ndarray:
        """Every code, ascending: int8."""
        return np.arange(-self.top_code, self.top_code + 1).astype(np.int8)

    def integers(self) -> np.ndarray:
        """The integer k = xbar * 2^fraction_bits of each code from 0 to the largest: int64."""
        level = np.arange(self.top_code + 1)
        if self.underflow == "sudden":
            field, mantissa = np.maximum(level - 1, 0) >> self.man, np.maximum(level - 1, 0) & (2**self.man - 1)
            return np.where(level == 0, 0, (2**self.man + mantissa) << field)
        field, mantissa = level >> self.man, level & (2**self.man - 1)
        return np.where(field == 0, mantissa, (2**self.man + mantissa) << np.maximum(field - 1, 0))

    @functools.cache  # noqa: B019 (a format is a value: few exist, and equal ones share the table)
    def wide_table(self) -> np.ndarray:
        """int16 of length 256: the integer of each code, indexed by ``code & 255``; read-only."""
        table, whole = np.zeros(256, np.int16), self.integers()
        table[: len(whole)] = whole
        table[257 - len(whole):] = -whole[:0:-1]
        table.flags.writeable = False
        return table

    def table(self) -> np.ndarray | None:
        """The same as int8 where every integer fits +-127."""
        table = self.wide_table()
        return table.astype(np.int8) if table.max() <= 127 else None

    def encode(self, x: np.ndarray, *, keep: Iterable[int] = (), stream: Stream | None = None,
               scales: tuple[np.ndarray, ...] | None = None) -> QTensor:
        """Codes and (S_t float32, e_g int16, m_g int8), ``S_g = (1 + m_g / 2^group_man) * 2^-e_g``.

        ``keep`` names axes whose slices are tensors of their own, with a tensor scale each; groups are the format's.
        Scales come fresh from the tensor. Rounding decides on the exact quotient ``|x| / (S_t S_g)``.
        """
        kept, noted = kept_axes(keep, x.ndim), None
        if scales is None:
            axes = group_axes(x.shape, self.group, self.least)
            order = storage_order(x)  # maxima in storage order: those of neighbours are neighbours
            if (order, axes, kept) == ((1, 2, 3, 0), (0, 1), ()):
                noted = noted_maxima(x)
            if noted is not None:
                maxima = noted[:, None, None]
            else:
                try:
                    maxima = absmax(x.transpose(order), [order.index(axis) for axis in {*kept, *axes}])
                except NotFiniteError:
                    raise not_finite(x, "x") from None  # names the index in x, not in its storage
            fresh, units = mls_scales(maxima, tuple(order.index(axis) for axis in kept), self.group_exp, self.group_man)
            back = [order.index(axis) for axis in range(x.ndim)]
            scales, units = tuple(scale.transpose(back) for scale in fresh), units.transpose(back)
        else:
            units = unit(scales, self.group_man, x.shape)
        codes = mls_encode(x, units, self.man, self.binades, self.top_code, self.underflow == "sudden", stream,
                           maxima=noted)
        return QTensor(self, codes, scales, keep=kept)

    def decode(self, q: QTensor) -> np.ndarray:
        """sign * S_t * S_g * xbar, rounded once to float32."""
        values = q.codes.astype(np.float64)  # keeps the memory order
        np.copyto(values, self.wide_table()[q.codes.view(np.uint8)])
        values *= unit(q.scales, self.group_man, q.shape) * 2.0**-self.fraction_bits
        return values.astype(np.float32)

    @property
    def ste_reads_input(self) -> bool:
        """Only a clamp looks at the tensor."""
        return self.clamp_grad

    def ste(self, x: np.ndarray, grad: np.ndarray) -> np.ndarray:
        """Identity, or with ``clamp_grad`` clamped to S_t of ``x`` (that of the whole tensor, whatever is kept)."""
        if not self.clamp_grad:
            return grad
        limit = absmax(x).reshape(()) or np.float32(1)  # S_t of an all-zero tensor is 1
        return np.clip(grad, -limit, limit)

    def contract(self, a: QTensor, b: QTensor, spec: Spec) -> Any:
        """Integer products inside a group, shifts and one add for two group scales, float32 adds between groups.

        The order is fixed: groups ascending; the integer sum of a group times the significand of the two group scales;
        to float32, nearest even; the power of two by exponent; one float32 add. Tensor scales come once, at the end.
        Only with another MLS operand; NotImplemented too if a tensor scale varies along a summed axis.
        """
        if not (isinstance(a.format, MLS) and isinstance(b.format, MLS)):
            return NotImplemented
        if spec.layout is not None:
            return _batch(a, b, spec)
        for q, kept in zip((a, b), spec.kept, strict=True):
            if any(n > 1 for axis, n in enumerate(q.scales[0].shape) if axis != kept):
                return NotImplemented
            if any(n > 1 for scale in q.scales[1:] for n in scale.shape[2:]):
                return NotImplemented
        if spec.groups > 1 and b.scales[0].size > 1:
            return NotImplemented  # one tensor scale per channel of a grouped convolution: nobody asks for it
        left, right = a.format._operand(a), b.format._operand(b)
        return mls_contract(spec.kind, left, right, stride=spec.stride, padding=spec.padding, dilation=spec.dilation,
                            groups=spec.groups, size=spec.size)

    def _operand(self, q: QTensor) -> Operand:
        tensor, exponent, mantissa = q.scales
        return Operand(q.codes, self.wide_table(), tensor, exponent, mantissa, self.group_man, self.fraction_bits)

    def product_bits(self, other: MLS) -> int:
        """Magnitude bits of a product of two elements, as integers."""
        return (int(self.integers()[-1]) * int(other.integers()[-1])).bit_length()

    def accumulator_bits(self, other: MLS, terms: int) -> int:
        """Bits, sign included, that a sum of ``terms`` products inside a group can need."""
        return self.product_bits(other) + max(terms - 1, 0).bit_length() + 1

    def scales_nbits(self, scales: tuple[np.ndarray, ...]) -> int:
        """32 bits a tensor scale, group_exp + group_man a group scale."""
        return 32 * scales[0].size + (self.group_exp + self.group_man) * scales[1].size

    def cost(self, other: Format) -> dict[str, int]:
        """One MAC inside a group: an integer product as wide as both operands' integers, and an INT32 add.

        What a group costs on top (two shifts, an add, a float32 add) comes once per group, not per MAC.
        """
        if not isinstance(other, MLS):
            return super().cost(other)
        width = max(int(fmt.integers()[-1]).bit_length() for fmt in (self, other))
        return {f"int{width + 1}_mul": 1, "int32_add": 1}

    def sum_cost(self, other: Format) -> dict[str, dict[str, int]]:
        """For every group two shifts and an add for the group scales, and a float32 add; S_t S_t once an output."""
        return {"run": {"int32_shift": 2, "int32_add": 1}, "tree": {"fp32_add": 1}, "output": {"fp32_mul": 1}}

    def encode_cost(self) -> dict[str, int]:
        """Four float32 operations, half of them multiplications: our assumption, as in our check of the paper."""
        return {"fp32_mul": 2, "fp32_add": 2}

    def scale_shapes(self, shape: tuple[int, ...], keep: Iterable[int] = (), axis: int | None = None,
                     run: int | None = None) -> tuple[tuple[int, ...], ...]:
        """One tensor scale for each kept index; a group's exponent and mantissa. See :meth:`Format.scale_shapes`."""
        (tensor,) = super().scale_shapes(shape, keep)
        axes = {*kept_axes(keep, len(shape)), *group_axes(shape, self.group, self.least)}
        group = tuple(n if a in axes else 1 for a, n in enumerate(shape))
        return tensor, group, group

    def explain(self, a: float, b: float) -> str:
        """One MAC: fields, integers, shifts and scales, each operand a group of a tensor whose maximum is 1."""
        return mls_explain.explain(self, a, b)

    @functools.cache  # noqa: B019 (as wide_table: every contraction is counted under its formats' names)
    def __str__(self) -> str:
        """Such as ``MLS(exp=2, man=1)``, and whatever else is not at its default."""
        words = super().__str__()[4:-1].split(", ")
        rest = [word for word in words if word and not word.startswith(("exp=", "man="))]
        return f"MLS({', '.join([f'exp={self.exp}', f'man={self.man}', *rest])})"


def _batch(a: QTensor, b: QTensor, spec: Spec) -> Any:
    """A batch of matrix products with the bits of single ones; NotImplemented where group scales or sums go far.

    Where group scales vary along the sum, every product is a group; its float32 sum is that of the numbers themselves,
    since products of so few bits are exact. Where they do not, the sum of integers is exact and is one group.
    """
    factors, runs, bits = [], False, 4
    for q, axes in zip((a, b), spec.axes, strict=True):
        tensor, exponent, mantissa = q.scales
        if any(tensor.shape[axis] > 1 for axis in axes):
            return NotImplemented
        fmt: MLS = q.format  # type: ignore[assignment]
        factors.append(batched.factors(1 + mantissa / 2**fmt.group_man, -exponent))
        runs |= exponent.shape[axes[0]] > 1 or mantissa.shape[axes[0]] > 1
        bits += int(fmt.integers()[-1]).bit_length()
    terms = spec.terms(a.shape, b.shape)
    if factors[0] is None or factors[1] is None or bits + (0 if runs else (terms - 1).bit_length()) > 24:
        return NotImplemented
    fa: MLS = a.format  # type: ignore[assignment]
    fb: MLS = b.format  # type: ignore[assignment]
    units = [q.scales[0].astype(np.float64) * 2.0**-fmt.fraction_bits for q, fmt in ((a, fa), (b, fb))]
    return batched.runs(spec.layout or "", a.codes, b.codes, fa.wide_table(), fb.wide_table(),
                        1 if runs else max(terms, 1), factors[0], factors[1],
                        *batched.on_result(spec, units, (a, b)))
