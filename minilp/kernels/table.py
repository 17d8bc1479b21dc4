"""Contractions of codes that stand for small integers: the kernel that any format with a ``table()`` gets.

A code's integer is ``table[code & 255]``, of magnitude at most 127. Sums of products are exact integers: int32 in C,
proven not to overflow and split into pieces where one could, then scaled and rounded to float32 once.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from minilp.kernels import reference_table as twin
from minilp.kernels.backend import active, check, count, ffi, lib, vector_tier
from minilp.kernels.layout import Pair, empty, from_chwn, to_chwn
from minilp.kernels.pot_geometry import KINDS, Array, Geometry, geometry
from minilp.kernels.storage import flat_storage, from_storage

TERMS = 133144
"""The most products of two numbers up to 127 whose sum fits int32."""
UNSUPPORTED = 4


def contract(kind: str, a: Array, b: Array, *, table_a: Array, table_b: Array, scale_a: Array, scale_b: Array,
             stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1), groups: int = 1,
             size: Pair | None = None) -> Array:
    """Contract two arrays of codes exactly.

    Parameters
    ----------
    kind : str
        ``"conv2d"`` (a: activation (N, C, H, W), b: weight (O, C/groups, KH, KW)), ``"conv2d_input_grad"`` (error,
        weight), ``"conv2d_weight_grad"`` (error, activation), or the same three of ``"linear"`` on matrices.
    a, b : np.ndarray
        int8 or uint8 codes, any strides.
    table_a, table_b : np.ndarray
        int8 of length 256, within +-127: the integer of each ``code & 255``.
    scale_a, scale_b : np.ndarray
        float32 or float64, one-dimensional: value of a unit, one for the tensor or one for each slice along the axis
        that the contraction keeps (``Spec.kept``).
    stride, padding, dilation : (int, int)
    groups : int
    size : (int, int), optional
        (H, W) of the input for ``conv2d_input_grad``, (KH, KW) for ``conv2d_weight_grad``; None for the rest.

    Returns
    -------
    np.ndarray
        float32: ``float64(sum) * (scale_a * scale_b)`` rounded to nearest even. Activations and errors as logical
        (N, C, H, W) views of (C, H, W, N) storage ((T, F) views of (F, T) for linear); weight gradients in C order.

    Raises
    ------
    TypeError
        If codes or a table are not of one byte.
    ValueError
        If a shape, an option or a table entry is out of range; the message names it.
    OverflowError
        If a result is beyond the largest float32.
    """
    if kind not in KINDS:
        raise ValueError(f"table contract: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    for name, x, table in (("a", a, table_a), ("b", b, table_b)):
        if x.dtype not in (np.int8, np.uint8):
            raise TypeError(f"table contract: {name} must be an int8 or uint8 array of codes, got {x.dtype}")
        if table.dtype != np.int8 or table.shape != (256,):
            raise TypeError(f"table contract: table_{name} must be int8 of shape (256,), got {table.dtype} of shape "
                            f"{table.shape}")
        if table.min() < -twin.TOP:
            raise ValueError(f"table contract: table_{name} must lie within +-{twin.TOP}, got {table.min()}")
    linear = kind.startswith("linear")
    if linear:
        for name, x in (("a", a), ("b", b)):
            if x.ndim != 2:
                raise ValueError(f"table contract: {kind}: {name} must have 2 axes, got shape {x.shape}")
        a, b = a[:, :, None, None], b[:, :, None, None]
        size = None if kind == "linear" else (1, 1)
    g = geometry(kind.replace("linear", "conv2d"), a, b, stride, padding, dilation, groups, size)
    scales = on_result(scale_a, scale_b, g)
    a, b = values(a, table_a), values(b, table_b)
    result = _c(a, b, g, scales) if active() == "c" and a.size and b.size else None
    if result is None:
        count(f"table_{g.kind}[numpy]")
        result = twin.scaled(twin.sums(a, b, g), product(scales, g))
    bound = g.depth * twin.TOP**2 * float(scales[0].max(initial=0)) * float(scales[1].max(initial=0))
    if bound >= 2.0**127 and not np.isfinite(result).all():
        raise OverflowError(f"{kind}: a result is beyond the largest float32")
    return result[:, :, 0, 0] if linear else result


def values(codes: Array, table: Array) -> Array:
    """The integers that codes stand for.

    Parameters
    ----------
    codes : np.ndarray
        int8 or uint8, any shape and strides.
    table : np.ndarray
        int8 of length 256.

    Returns
    -------
    np.ndarray
        int8 in the memory order of ``codes``; ``codes`` itself where every code in it is its own value.
    """
    flat, order = flat_storage(codes)
    if codes.dtype == np.int8 and flat.size and table[1] == 1 and table[255] == -1:  # perhaps its own values, as Fixed
        present = np.arange(int(flat.min()), int(flat.max()) + 1)
        if np.array_equal(table[present & 255], present):
            return codes
    if active() != "c":
        return from_storage(table[flat.view(np.uint8)], codes.shape, order)
    out, wide = np.empty(flat.size, np.int8), np.ascontiguousarray(table)
    check(lib().mlp_table_values(_pointer(flat, "int8_t"), _pointer(wide, "int8_t"), flat.size,
                                 _pointer(out, "int8_t")), "table_values")
    return from_storage(out, codes.shape, order)


def on_result(scale_a: Array, scale_b: Array, g: Geometry) -> tuple[Array, Array]:
    """Scales along result axis 0 and 1, float64 vectors (length 1 where shared; axis 1 of all groups)."""
    kept_b = {"conv2d": g.features, "conv2d_input_grad": g.channels // g.groups, "conv2d_weight_grad": g.channels}
    kept_a = g.features if g.kind == "conv2d_weight_grad" else g.batch
    out = []
    for name, scale, length in (("scale_a", scale_a, kept_a), ("scale_b", scale_b, kept_b[g.kind])):
        if scale.shape not in ((1,), (length,)):
            raise ValueError(f"table contract: {g.kind}: {name} must hold 1 or {length} values, got {scale.shape}")
        out.append(scale.astype(np.float64))
    if g.kind == "conv2d_input_grad" and out[1].size > 1:
        out[1] = np.tile(out[1], g.groups)  # channel q * I + i has the weight's input channel i
    return out[0], out[1]


def product(scales: tuple[Array, Array], g: Geometry) -> Array:
    """Both scales multiplied, shaped to broadcast against the result."""
    first, second = scales
    if g.kind == "conv2d_weight_grad" and g.groups > 1 and second.size > 1:  # row o sees the channels of its own group
        rows = np.repeat(second.reshape(g.groups, -1), g.features // g.groups, axis=0)
        return (first[:, None] * rows)[:, :, None, None]
    return first[:, None, None, None] * second[:, None, None]


def _c(a: Array, b: Array, g: Geometry, scales: tuple[Array, Array]) -> Array | None:
    """The C kernels; None where a tile would be too large for them."""
    weight = g.kind == "conv2d_weight_grad"
    a, b = to_chwn(a), to_chwn(b) if weight else np.ascontiguousarray(b)
    fits = weight or g.depth <= TERMS
    if weight:
        result = np.empty((g.features, g.channels // g.groups, *g.kernel), np.int64)
        status = lib().mlp_table_conv2d_weight_grad(_sizes(g), _pointer(a, "int8_t"), _pointer(b, "int8_t"),
                                                    _pointer(result, "int64_t"))
    elif fits:
        result = empty((g.features, *g.out_size, g.batch) if g.kind == "conv2d" else
                       (g.channels, *g.size, g.batch), np.float32)
        rows = np.broadcast_to(scales[1], (len(result),)).copy()
        lanes = np.zeros(-(-g.batch // 32) * 32)
        lanes[:g.batch] = scales[0]
        status = getattr(lib(), f"mlp_table_{g.kind}")(
            _sizes(g), _pointer(a, "int8_t"), _pointer(b, "int8_t"), _pointer(rows, "double"),
            _pointer(lanes, "double"), _pointer(result, "float"), ffi.NULL)
    else:
        total = _in_pieces(a, b, g)
        if total is None:
            return None
        result, status = total, 0
    if status == UNSUPPORTED:
        return None
    check(status, f"table_{g.kind}")
    count(f"table_{g.kind}[{vector_tier()}]")
    if weight:
        return twin.scaled(result, product(scales, g))
    return from_chwn(result) if fits else twin.scaled(from_chwn(result), product(scales, g))


def _in_pieces(a: Array, b: Array, g: Geometry) -> Array | None:
    """Sums of more than :data:`TERMS` products: int32 sums of a few channels at a time, added up in int64."""
    taps, forward = g.kernel[0] * g.kernel[1], g.kind == "conv2d"
    step = TERMS // taps
    if g.groups > 1 or step == 0:
        return None
    shape = (g.features, *g.out_size, g.batch) if forward else (g.channels, *g.size, g.batch)
    total, part = np.zeros(shape, np.int64), np.empty(shape, np.int32)
    for start in range(0, len(a), step):
        few = min(step, len(a) - start)
        w = np.ascontiguousarray(b[:, start:start + few] if forward else b[start:start + few])
        piece = Geometry(g.kind, g.batch, few if forward else g.channels, g.features if forward else few, 1, g.size,
                         g.out_size, g.kernel, g.stride, g.padding, g.dilation)
        ones = np.ones(len(total) + -(-g.batch // 32) * 32)
        status = getattr(lib(), f"mlp_table_{g.kind}")(
            _sizes(piece), _pointer(a[start:start + few], "int8_t"), _pointer(w, "int8_t"), _pointer(ones, "double"),
            _pointer(ones, "double"), ffi.NULL, _pointer(part, "int32_t"))
        if status == UNSUPPORTED:
            return None
        check(status, f"table_{g.kind}")
        total += part
    return total


def _sizes(g: Geometry) -> Any:
    return ffi.new("mlp_f32_geometry *", [g.batch, g.channels, *g.size, g.features, *g.kernel, *g.stride, *g.padding,
                                          *g.dilation, g.groups])


def _pointer(x: Array, kind: str) -> Any:
    if not x.flags.c_contiguous:
        raise ValueError(f"a C kernel needs a C-contiguous array, got strides {x.strides} for shape {x.shape}")
    return ffi.cast(f"{kind} *", x.ctypes.data)
