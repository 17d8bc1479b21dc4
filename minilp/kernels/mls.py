"""MLS kernels: group scales, rounding to levels under them, and contractions in integers inside a group.

Each function checks its operands, chooses the C kernel or its NumPy twin (:mod:`minilp.kernels.reference_mls`), and
gives the result its layout. Both give the same bits.
"""
from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilp.kernels import magnitude, mls_c, mls_product, reference_mls
from minilp.kernels.backend import active, check, count, ffi, kernel_family, lib, threads
from minilp.kernels.layout import Pair, from_chwn, to_chwn
from minilp.kernels.pot_geometry import KINDS, Array, Geometry, geometry
from minilp.kernels.quantise import PIECE
from minilp.kernels.quantise_checks import not_finite, require
from minilp.kernels.reference_quantise import INFINITY_BITS
from minilp.kernels.storage import Layout, flat_storage, from_storage

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
        """Mantissas and exponents (int32) of every (first axis, second axis)."""
        shape, (mantissa, exponent) = self.codes.shape[:2], (x.reshape(x.shape[:2]).astype(np.int32)
                                                             for x in (self.mantissa, self.exponent))
        if mantissa.shape == exponent.shape == shape:
            return mantissa, exponent
        return np.broadcast_to(mantissa, shape), np.broadcast_to(exponent, shape)

    def varies(self, axis: int) -> bool:
        """Whether group scales vary along one of the first two axes."""
        return self.exponent.shape[axis] > 1 or self.mantissa.shape[axis] > 1

    @functools.cached_property
    def largest(self) -> int:
        """Largest integer."""
        return int(self.table.max())


def mls_scales(maxima: Array, keep: tuple[int, ...], group_exp: int,
               group_man: int) -> tuple[tuple[Array, Array, Array], Array]:
    """Tensor and group scales from the group maxima, group scales rounded up.

    Parameters
    ----------
    maxima : np.ndarray
        float32, not negative: the largest magnitude of every group, with 1 for the axes that share it.
    keep : tuple of int
        Axes whose slices are tensors of their own.
    group_exp, group_man : int
        Bits of a group scale.

    Returns
    -------
    tuple
        (S_t, e_g, m_g): float32 (1 for an all-zero tensor), int16 and int8, ``S_g = (1 + m_g / 2^group_man) 2^-e_g``
        at least the group's maximum over S_t (an all-zero group has S_g = 1); and S_t * S_g, float64, which holds it
        exactly.
    """
    if active() != "c" or keep or not maxima.size or not maxima.flags.c_contiguous:
        return reference_mls.scales(maxima, keep, group_exp, group_man)
    tensor = np.empty((1,) * maxima.ndim, np.float32)
    exponent, mantissa = np.empty(maxima.shape, np.int16), np.empty(maxima.shape, np.int8)
    unit = np.empty(maxima.shape, np.float64)
    status = lib().mlp_mls_scales(ffi.from_buffer("float *", maxima), maxima.size, group_exp, group_man,
                                  ffi.from_buffer("float *", tensor), ffi.from_buffer("int16_t *", exponent),
                                  ffi.from_buffer("int8_t *", mantissa), ffi.from_buffer("double *", unit))
    check(status, "mls_scales")
    count("mls_scales")
    return (tensor, exponent, mantissa), unit


def mls_encode(x: Array, unit: Array, man: int, binades: int, top: int, sudden: bool = False, stream: Any = None,
               name: str = "x", maxima: Array | None = None) -> Array:
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
        No subnormals.
    stream : Stream or None
        None rounds to nearest even, decided on the exact quotient. A stream rounds up with the probability of the
        fraction (to 2^-16 of a step).
    name : str
        What an error calls the tensor.
    maxima : np.ndarray, optional
        The (C, N) maxima that were noted and used, of an activation in (C, H, W, N) storage: what they really are is
        found in passing and reported (:mod:`minilp.kernels.magnitude`).

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
    if active() != "c" or not x.size:
        if not np.isfinite(x).all():
            raise not_finite(x, name)
        whole, scale = np.atleast_1d(x), np.atleast_1d(unit)
        return reference_mls.encode(whole, scale, man, binades, top, sudden, stream).reshape(x.shape)
    flat, order = flat_storage(x)
    codes, largest = np.empty(flat.size, np.int8), ffi.new("uint32_t *")
    layout = Layout.of(x.shape, order, unit.shape, drawing=stream is not None, stored_scale=True)
    key = ffi.NULL if stream is None else ffi.new("uint32_t[]", stream.key)
    workers = min(threads(), -(-flat.size // PIECE))
    found = None if maxima is None else np.zeros((workers, *maxima.shape), np.float32)  # one set a thread
    status = lib().mlp_mls_encode(
        ffi.from_buffer("float[]", flat), ffi.from_buffer("int8_t[]", codes), *layout.arguments(),
        layout.index_argument(), ffi.from_buffer("double[]", np.ascontiguousarray(unit.transpose(order)).reshape(-1)),
        man, binades, top, int(sudden), key, 0 if stream is None else stream.offset, largest, workers,
        ffi.NULL if found is None else ffi.from_buffer("uint32_t[]", found))
    check(status, "mls_encode")
    if largest[0] >= INFINITY_BITS:
        raise not_finite(x, name)
    magnitude.report(x, largest[0], None if found is None else found[0] if workers == 1 else found.max(axis=0))
    count("mls_encode")
    return from_storage(codes, x.shape, order)


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
        float32; storage as ``pot_contract``, or C order for a linear layer.

    Raises
    ------
    ValueError
        If a shape or an option is wrong; the message names it.
    """
    if kind not in KINDS:
        raise ValueError(f"mls_contract: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    codes_a, codes_b = a.codes, b.codes
    scale = _scale(a, b)
    once = float(scale.reshape(())) if scale.size == 1 else None
    linear = kind.startswith("linear")
    if linear:
        codes_a, codes_b = codes_a[:, :, None, None], codes_b[:, :, None, None]
        size = None if kind == "linear" else (1, 1)
    name = kind.replace("linear", "conv2d")
    g = geometry(name, codes_a, codes_b, stride, padding, dilation, groups, size)
    axis_a, axis_b = mls_c.SUMMED[name]
    runs = a.varies(axis_a) or b.varies(axis_b) or codes_a.shape[axis_a] == 1
    inner = g.kernel[0] * g.kernel[1] if name != "conv2d_weight_grad" else g.out_size[0] * g.out_size[1]
    bits = (a.largest * b.largest).bit_length() + (max((inner if runs else g.depth) - 1, 0)).bit_length()
    if linear and active() == "c" and kernel_family() != "shift" and codes_a.size and codes_b.size:
        product = mls_product.contract(kind, a, b, not runs, 1.0 if once is None else once)
        if product is not None:
            return product if once is not None else _scaled(product, scale[:, :, 0, 0])
    groups_a, groups_b = a.groups(), b.groups()
    ca = to_chwn(codes_a)
    cb = to_chwn(codes_b) if name == "conv2d_weight_grad" else np.ascontiguousarray(codes_b)
    parts = []
    for i in range(groups):
        first = slice(i * ca.shape[0] // groups, (i + 1) * ca.shape[0] // groups)
        second = slice(i * cb.shape[0] // groups, (i + 1) * cb.shape[0] // groups)
        scales_a = [x[:, first] for x in groups_a]
        scales_b = [x[:, second] if name == "conv2d_weight_grad" else x[second] for x in groups_b]
        parts.append(_one_group(ca[first], cb[second], a, b, g.group(), runs, scales_a, scales_b, bits, once))
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    result = whole if name == "conv2d_weight_grad" else from_chwn(whole)
    if once is None:
        result = _scaled(result, scale)
    return result[:, :, 0, 0] if linear else result


def _scaled(sums: Array, scale: Array) -> Array:
    return np.multiply(sums, scale, dtype=np.float64).astype(np.float32)


def _scale(a: Operand, b: Operand) -> Array:
    """Tensor scales and fraction bits as float64 (exact), to broadcast against the 4-D result."""
    left = a.tensor.astype(np.float64).reshape(-1, 1, 1, 1)
    right = b.tensor.astype(np.float64).reshape(1, -1, 1, 1)
    return left * right * 2.0 ** -(a.fraction_bits + b.fraction_bits)


def _one_group(x: Array, y: Array, a: Operand, b: Operand, g: Geometry, runs: bool, scales_a: list[Array],
               scales_b: list[Array], bits: int, scale: float | None) -> Array:
    """Stored float32 result of one group of channels; without the tensor scales where ``scale`` is None.

    ``scales_a`` and ``scales_b`` hold the mantissa bits and the exponents of the group scales.
    """
    largest = sum(int(scales[1].max(initial=0)) for scales in (scales_a, scales_b))
    if active() == "c" and x.size and y.size and bits + SIGNIFICAND_BITS <= 63:
        wide = bits + SIGNIFICAND_BITS > 31 or largest > 118
        emulate = bits + SIGNIFICAND_BITS * (g.kind != "conv2d_weight_grad") <= 24 and max(a.largest, b.largest) <= 127
        return mls_c.contract(x, y, a.table, b.table, g, runs, (scales_a[0], scales_b[0]), (scales_a[1], scales_b[1]),
                              a.largest * b.largest, wide, 1.0 if scale is None else scale, emulate=emulate)
    count(f"mls_{g.kind}[numpy]")
    dtype: Any = np.float32 if bits <= 24 - SIGNIFICAND_BITS else np.float64
    left, right = (op.table.astype(dtype)[codes.view(np.uint8)] for op, codes in ((a, x), (b, y)))
    groups = [(2**op.group_man + s[0].astype(np.int64), s[1] + np.int32(op.group_man))
              for op, s in ((a, scales_a), (b, scales_b))]
    total = reference_mls.contract(left, right, g, runs, (groups[0][0], groups[1][0]), (groups[0][1], groups[1][1]),
                                   bits + SIGNIFICAND_BITS)
    return total if scale is None else (total.astype(np.float64) * scale).astype(np.float32)
