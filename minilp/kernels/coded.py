"""Float32 convolutions that read codes: a table turns a code into float32 on its way into the tile the kernel reads.

The result has the bits of :mod:`minilp.kernels.float32` on the decoded array, which is never written.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minilp.kernels.backend import active, check, count, ffi, lib, vector_tier
from minilp.kernels.float32 import pointer
from minilp.kernels.layout import Pair, empty, from_chwn, to_chwn
from minilp.kernels.pot_geometry import Array, Geometry, geometry


@dataclass(frozen=True)
class Coded:
    """Codes and what they stand for.

    Parameters
    ----------
    codes : np.ndarray
        int8 or int16, 4-D, any strides, from -top to top (a code beyond reads as the nearest of these).
    table : np.ndarray
        float32 of length 2 top + 1: the values of the codes -top .. top.
    """

    codes: Array
    table: Array

    def __post_init__(self) -> None:
        if self.codes.dtype not in (np.int8, np.int16):
            raise TypeError(f"Coded: codes must be int8 or int16, got {self.codes.dtype}")
        if self.table.dtype != np.float32 or self.table.ndim != 1 or self.table.size % 2 == 0 or self.table.size < 3:
            raise ValueError(f"Coded: table must be float32 of length 2 top + 1, got {self.table.dtype} of shape "
                             f"{self.table.shape}")


def contract(kind: str, a: Coded, b: Coded | Array, stride: Pair = (1, 1), padding: Pair = (0, 0),
             dilation: Pair = (1, 1), groups: int = 1, size: Pair | None = None) -> Array:
    """One contraction of a convolution on codes.

    Parameters
    ----------
    kind : {"conv2d", "conv2d_input_grad", "conv2d_weight_grad"}
    a : Coded
        Activations (N, C, H, W), or errors (N, O, OH, OW) for both gradients.
    b : np.ndarray or Coded
        Weights (O, C / groups, KH, KW) in float32; coded activations for the weight gradient.
    stride, padding, dilation : (int, int)
    groups : int
    size : (int, int), optional
        (H, W) of the input for the input gradient, (KH, KW) for the weight gradient.

    Returns
    -------
    np.ndarray
        float32: (N, ., ., .) in CHWN storage, or (O, C / groups, KH, KW).

    Raises
    ------
    RuntimeError
        Without the C core: decode and call :mod:`minilp.kernels.float32` there.
    TypeError, ValueError
        If operands do not belong together; the message names what does not.
    """
    if active() != "c":
        raise RuntimeError("coded.contract runs in the C core alone; the backend in force is numpy")
    other = b.codes if isinstance(b, Coded) else b
    g = geometry(kind, a.codes, other, stride, padding, dilation, groups, size)
    fits = isinstance(b, Coded) if kind == "conv2d_weight_grad" else other is b and other.dtype == np.float32
    if not fits:
        raise TypeError(f"{kind}: b must be {'Coded' if kind == 'conv2d_weight_grad' else 'float32'}, "
                        f"got {type(b).__name__} of {other.dtype}")
    count(f"coded_{kind}[{vector_tier()}]")
    sizes = ffi.new("mlp_f32_geometry *", g.sizes)
    if isinstance(b, Coded):
        dy, x = _record(a), _record(b)
        result = empty((g.features, g.channels // g.groups, *g.kernel), np.float32)
        check(lib().mlp_coded_conv2d_weight_grad(sizes, dy[0], x[0], pointer(result)), kind)
        return result
    record, weight, result = _record(a), np.ascontiguousarray(b), empty(_shape(g), np.float32)
    check(getattr(lib(), f"mlp_coded_{kind}")(sizes, record[0], pointer(weight), pointer(result)), kind)
    return from_chwn(result)


def _shape(g: Geometry) -> tuple[int, ...]:
    return (g.features, *g.out_size, g.batch) if g.kind == "conv2d" else (g.channels, *g.size, g.batch)


def _record(a: Coded) -> tuple[Any, ...]:
    """The C core's record of an operand, and the arrays that must outlive it."""
    codes, table = to_chwn(a.codes), np.ascontiguousarray(a.table)
    kind = "int8_t" if codes.dtype == np.int8 else "int16_t"
    record = ffi.new("mlp_codes *", [pointer(codes, kind), pointer(table), codes.dtype.itemsize, table.size // 2])
    return record, codes, table
