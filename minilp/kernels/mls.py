"""MLS kernels: rounding to levels under group scales, and contractions in integers inside a group.

Each function checks its operands, chooses the C kernel or its NumPy twin (:mod:`minilp.kernels.reference_mls`), and
gives the result its layout. Both give the same bits.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minilp.kernels import reference_mls
from minilp.kernels.backend import count
from minilp.kernels.layout import Pair, from_chwn, to_chwn
from minilp.kernels.pot_geometry import KINDS, Array, Geometry, geometry
from minilp.kernels.quantise_checks import not_finite, require

SIGNIFICAND_BITS = 4  # of the largest product of two group significands, 9


@dataclass(frozen=True)
class Operand:
    """One operand of a contraction.

    Attributes
    ----------
    codes : np.ndarray
        int8, any strides, logical shape.
    table : np.ndarray
        int16 of length 256: the integer of a code, indexed by ``code & 255``.
    tensor : np.ndarray
        float32 tensor scale, with 1 for every axis but (at most) the one that becomes an axis of the result.
    exponent, mantissa : np.ndarray
        Group scale ``(1 + mantissa / 2^group_man) * 2^-exponent``, varying along the first two axes only.
    group_man, fraction_bits : int
        0 or 1; an element is its integer times ``2^-fraction_bits``.
    """

    codes: Array
    table: Array
    tensor: Array
    exponent: Array
    mantissa: Array
    group_man: int
    fraction_bits: int

    def groups(self) -> tuple[Array, Array]:
        """Significands (1; or 2 and 3) int64 and exponents int32 of every (first axis, second axis)."""
        shape = self.codes.shape[:2]
        significand = 2**self.group_man + self.mantissa.astype(np.int64)
        exponent = self.exponent.astype(np.int32) + np.int32(self.group_man)
        return (np.broadcast_to(significand.reshape(significand.shape[:2]), shape),
                np.broadcast_to(exponent.reshape(exponent.shape[:2]), shape))

    def varies(self, axis: int) -> bool:
        """Whether group scales vary along one of the first two axes."""
        return self.exponent.shape[axis] > 1 or self.mantissa.shape[axis] > 1

    @property
    def largest(self) -> int:
        """Largest integer."""
        return int(self.table.max())


def mls_encode(x: Array, unit: Array, man: int, binades: int, top: int, sudden: bool = False, stream: Any = None,
               name: str = "x") -> Array:
    """Signed levels of ``x`` under the scale ``unit`` = S_t * S_g.

    Parameters
    ----------
    x : np.ndarray
        float32, any shape and strides.
    unit : np.ndarray
        float64, positive, the shape of ``x`` with 1 where it is shared.
    man, binades, top : int
        Mantissa bits, normal binades below 1, largest level.
    sudden : bool
        No denormals.
    stream : Stream or None
        None rounds to nearest even, decided on the exact quotient. A stream rounds up with the probability of the
        fraction (to 2^-16 of a step).
    name : str
        What an error calls the tensor.

    Returns
    -------
    np.ndarray
        int8 in the memory order of ``x``.

    Raises
    ------
    TypeError
        If ``x`` is not float32.
    NotFiniteError
        If ``x`` holds NaN or infinity.
    """
    x = require(x, np.float32, "mls_encode", name)
    if not np.isfinite(x).all():
        raise not_finite(x, name)
    count("mls_encode[numpy]")
    whole, scale = np.atleast_1d(x), np.atleast_1d(unit)
    return reference_mls.encode(whole, scale, man, binades, top, sudden, stream).reshape(x.shape)


def mls_contract(kind: str, a: Operand, b: Operand, *, stride: Pair = (1, 1), padding: Pair = (0, 0),
                 dilation: Pair = (1, 1), groups: int = 1, size: Pair | None = None) -> Array:
    """Contract two MLS operands: integers inside a group, float32 adds between groups, in a fixed order.

    The groups of a sum are the indices of its outermost axis (input channels; output channels for the input gradient;
    samples for the weight gradient), or one for the whole sum where neither operand's group scales vary along it. A
    group's term is ``float32(P * s) * 2^-e``: P the integer sum, s in {1, 2, 3, 4, 6, 9} the product of the
    significands, by at most two shifts and one add, e the sum of the exponents. Terms are added in float32, ascending.
    The result is the total times both tensor scales, a product taken in float64 and rounded once.

    Parameters
    ----------
    kind : str
        As for ``pot_contract``: ``"conv2d"`` (act, weight), ``"conv2d_input_grad"`` (error, weight),
        ``"conv2d_weight_grad"`` (error, act), or the same of ``"linear"``.
    a, b : Operand
    stride, padding, dilation : (int, int)
    groups : int
    size : (int, int), optional
        (H, W) of the input for an input gradient, (KH, KW) for a weight gradient.

    Returns
    -------
    np.ndarray
        float32; storage as ``pot_contract``.

    Raises
    ------
    ValueError
        If a shape or an option is wrong; the message names it.
    """
    if kind not in KINDS:
        raise ValueError(f"mls_contract: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    codes_a, codes_b = a.codes, b.codes
    linear = kind.startswith("linear")
    if linear:
        codes_a, codes_b = codes_a[:, :, None, None], codes_b[:, :, None, None]
        size = None if kind == "linear" else (1, 1)
    name = kind.replace("linear", "conv2d")
    g = geometry(name, codes_a, codes_b, stride, padding, dilation, groups, size)
    axis_a, axis_b = {"conv2d": (1, 1), "conv2d_input_grad": (1, 0), "conv2d_weight_grad": (0, 0)}[name]
    runs = a.varies(axis_a) or b.varies(axis_b)
    inner = g.kernel[0] * g.kernel[1] if name != "conv2d_weight_grad" else g.out_size[0] * g.out_size[1]
    bits = (a.largest * b.largest).bit_length() + (max((inner if runs else g.depth) - 1, 0)).bit_length()
    (sa, ea), (sb, eb) = a.groups(), b.groups()
    scales = _scale(a, b)
    ca = to_chwn(codes_a)
    cb = to_chwn(codes_b) if name == "conv2d_weight_grad" else np.ascontiguousarray(codes_b)
    parts = []
    for i in range(groups):
        first = slice(i * ca.shape[0] // groups, (i + 1) * ca.shape[0] // groups)
        second = slice(i * cb.shape[0] // groups, (i + 1) * cb.shape[0] // groups)
        s = sa[:, first], sb[second] if name != "conv2d_weight_grad" else sb[:, second]
        e = ea[:, first], eb[second] if name != "conv2d_weight_grad" else eb[:, second]
        parts.append(_one_group(ca[first], cb[second], a, b, g.group(), runs, s, e, bits))
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    result = whole if name == "conv2d_weight_grad" else from_chwn(whole)
    if scales.size == 1:
        scales = scales.reshape(())
    result = np.multiply(result, scales, dtype=np.float64).astype(np.float32)
    return result[:, :, 0, 0] if linear else result


def _scale(a: Operand, b: Operand) -> Array:
    """Tensor scales and fraction bits as float64 (exact), to broadcast against the 4-D result."""
    left = a.tensor.astype(np.float64).reshape(-1, 1, 1, 1)
    right = b.tensor.astype(np.float64).reshape(1, -1, 1, 1)
    return left * right * 2.0 ** -(a.fraction_bits + b.fraction_bits)


def _one_group(x: Array, y: Array, a: Operand, b: Operand, g: Geometry, runs: bool, significand: tuple[Array, Array],
               exponent: tuple[Array, Array], bits: int) -> Array:
    """Stored float32 sums of one group of channels, before the tensor scales."""
    count(f"mls_{g.kind}[numpy]")
    dtype: Any = np.float32 if bits <= 24 - SIGNIFICAND_BITS else np.float64
    left, right = (op.table.astype(dtype)[codes.view(np.uint8)] for op, codes in ((a, x), (b, y)))
    return reference_mls.contract(left, right, g, runs, significand, exponent, bits + SIGNIFICAND_BITS)
