"""Kernels of small floating-point formats: codes of real numbers, exact sums, and float32 sums in a written order.

A code is a signed level: its magnitude is the bit pattern of exponent and mantissa, which counts the magnitudes of a
small float upwards, subnormals first. Every function runs the C kernel or its NumPy twin; both give the same bits.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from minilp.kernels import reference_minifloat as twin
from minilp.kernels import table
from minilp.kernels.backend import UNSUPPORTED, active, check, count, ffi, lib, vector_tier
from minilp.kernels.float32 import pointer
from minilp.kernels.layout import Pair, empty, from_chwn, to_chwn
from minilp.kernels.pot_geometry import Array, Geometry, geometry
from minilp.kernels.pot_round import to_float32
from minilp.kernels.quantise_checks import check_scale, require
from minilp.kernels.quantise_run import by_numpy, encode_c
from minilp.kernels.reference_table import scaled

LANES = 32  # images that C reads scales for at once


def encode(x: Array, exponent: Array, man: int, emin: int, top: int, stream: Any = None, name: str = "x") -> Array:
    """Levels of ``x`` under the scale 2^exponent.

    Parameters
    ----------
    x : np.ndarray
        float32, any shape and strides.
    exponent : np.ndarray
        int32 of ``x``'s shape with 1 where the scale is shared, in [-126, 126].
    man : int
        Mantissa bits, 1 to 5.
    emin : int
        Exponent of the smallest normal number.
    top : int
        Largest level; what is larger saturates.
    stream : Stream or None
        None rounds to nearest even; a stream rounds up with probability equal to the fraction (to 2^-24 of a step).
    name : str
        What an error calls the tensor.

    Returns
    -------
    np.ndarray
        int8 in the memory order of ``x``.

    Raises
    ------
    TypeError, ValueError
        For a wrong dtype or shape, or a scale out of range.
    NotFiniteError
        If ``x`` holds NaN or infinity.
    """
    x = require(x, np.float32, "minifloat encode", name)
    exponent = check_scale("minifloat encode", "exponent", exponent, x.shape, -126, 126)
    if active() == "c" and x.size:
        return encode_c("minifloat_encode", x, exponent, man, stream, name, emin, top)
    return by_numpy(twin.encode, x, exponent, name, man, emin, top, stream)


def contract(kind: str, a: Array, b: Array, *, man_a: int, man_b: int, largest: int, exact: bool, scale_a: Array,
             scale_b: Array, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1), groups: int = 1,
             size: Pair | None = None) -> Array:
    """Contract two arrays of codes: exactly, or with exact products and float32 sums in this order.

    Forward, k runs over (c, ky, kx), for the input gradient over (o, ky, kx): 32 products at a time are added up in
    ascending order, and their sums in ascending order. For the weight gradient, the images are cut into runs of
    ``32 ceil(N / 256)`` and these into blocks of 32. The products of one block at one pixel are added up by ascending
    image; inside a run those sums are added in the order (block, y, x), and then the runs in their order. Taps on the
    padding count as products of zero.

    Parameters
    ----------
    kind : str
        As for :func:`minilp.kernels.table.contract`, which has the shapes of the operands too.
    a, b : np.ndarray
        int8 codes, any strides.
    man_a, man_b : int
        Mantissa bits.
    largest : int
        Bound of a product, in steps of both smallest subnormals; exact sums must stay below 2^62.
    exact : bool
        Exact sums, rounded to float32 once (with the scales applied where these are shared, or sums are below 2^53).
    scale_a, scale_b : np.ndarray
        One-dimensional powers of two, the value of a smallest subnormal: one for the tensor, or one for each slice
        along the axis that the contraction keeps (``Spec.kept``).
    stride, padding, dilation : (int, int)
    groups : int
    size : (int, int), optional

    Returns
    -------
    np.ndarray
        float32, laid out as by :func:`minilp.kernels.table.contract`.

    Raises
    ------
    ValueError
        If a shape or an option is out of range; the message names it.
    OverflowError
        If a result is beyond the largest float32.
    """
    linear = kind.startswith("linear")
    if linear:
        a, b, size = a[:, :, None, None], b[:, :, None, None], None if kind == "linear" else (1, 1)
    g = geometry(kind.replace("linear", "conv2d"), a, b, stride, padding, dilation, groups, size)
    scales = table.on_result(scale_a, scale_b, g)
    name = f"minifloat_{'exact' if exact else 'chunks'}_{g.kind}"
    result = None
    if active() == "c" and a.size and b.size and min(g.out_size) > 0:
        result = (_weight_c if g.kind == "conv2d_weight_grad" else _rows_c)(
            a, b, (man_a, man_b), g, largest, exact, scales)
    count(f"{name}[{'numpy' if result is None else vector_tier()}]")
    if result is None:
        dtype = np.float64 if exact else np.float32
        x, y = twin.values(a, man_a, dtype), twin.values(b, man_b, dtype)
        result = _to_float32(twin.exact(x, y, g, largest) if exact else twin.in_chunks(x, y, g), scales, g, largest)
    bound = g.depth * largest * float(scales[0].max(initial=0)) * float(scales[1].max(initial=0))
    if bound >= 2.0**127 and not np.isfinite(result).all():
        raise OverflowError(f"{kind}: a result is beyond the largest float32")
    return result[:, :, 0, 0] if linear else result


def _to_float32(total: Array, scales: tuple[Array, Array], g: Geometry, largest: int) -> Array:
    """Sums times their scales. float64 holds all but the longest of exact sums, which are rounded by the top scales."""
    if total.dtype == np.float32 or largest * g.depth < 2**53:
        return scaled(total, table.product(scales, g))
    top = [float(scale.max()) for scale in scales]
    result = to_float32(total, sum(int(np.frexp(scale)[1]) - 1 for scale in top))
    if scales[0].size > 1 or scales[1].size > 1:
        result *= table.product((scales[0] / top[0], scales[1] / top[1]), g)
    return result


def _rows_c(a: Array, b: Array, man: Pair, g: Geometry, largest: int, exact: bool, scales: tuple[Array, Array]
            ) -> Array | None:
    """Forward and input gradient in C; None where a sum or a tile would be too large for it."""
    if exact and largest * g.depth >= 2**53:
        return None
    x, w = to_chwn(a), np.ascontiguousarray(b)
    result = empty((g.features, *g.out_size, g.batch) if g.kind == "conv2d" else (g.channels, *g.size, g.batch),
                   np.float32)
    rows, lanes = np.broadcast_to(scales[1], (len(result),)).copy(), np.zeros(-(-g.batch // LANES) * LANES)
    lanes[:g.batch] = scales[0]
    status = getattr(lib(), f"mlp_minifloat_{g.kind}")(
        _sizes(g), exact, pointer(x, "int8_t"), man[0], pointer(w, "int8_t"), man[1], pointer(rows, "double"),
        pointer(lanes, "double"), pointer(result))
    if status == UNSUPPORTED:
        return None
    check(status, f"minifloat_{g.kind}")
    return from_chwn(result)


def _weight_c(a: Array, b: Array, man: Pair, g: Geometry, largest: int, exact: bool, scales: tuple[Array, Array]
              ) -> Array | None:
    """Weight gradient in C; None where a sum or a tile would be too large for it."""
    run = twin.run_of(g.batch)
    if exact and largest * run * g.out_size[0] * g.out_size[1] >= 2**53:
        return None
    dy, x = to_chwn(a), to_chwn(b)
    sums = empty((-(-g.batch // run), g.features, g.channels // g.groups, *g.kernel),
                 np.float64 if exact else np.float32)
    status = lib().mlp_minifloat_conv2d_weight_grad(_sizes(g), exact, pointer(dy, "int8_t"), man[0],
                                                    pointer(x, "int8_t"), man[1], run, pointer(sums, "void"))
    if status == UNSUPPORTED:
        return None
    check(status, f"minifloat_{g.kind}")
    return _to_float32(twin.add_runs(sums, g, np.int64 if exact else np.float32), scales, g, largest)


def _sizes(g: Geometry) -> Any:
    return ffi.new("mlp_f32_geometry *", g.sizes)
