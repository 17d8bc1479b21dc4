"""The C kernel behind linear layers in MLS, for operands that :func:`minilp.kernels.mls.mls_contract` has checked."""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from minilp.kernels.backend import check, count, ffi, lib
from minilp.kernels.layout import empty
from minilp.kernels.mls_c import UNSUPPORTED, dot_tier
from minilp.kernels.pot_geometry import Array

if TYPE_CHECKING:
    from minilp.kernels.mls import Operand

AXES = {"linear": ((0, 1), (0, 1)), "linear_input_grad": ((0, 1), (1, 0)), "linear_weight_grad": ((1, 0), (1, 0))}
"""Of both operands: the axis that the result keeps, and the one that is summed."""
PADDING = 32
MOST = 118
"""The largest sum of two group exponents under which no product is subnormal."""


def contract(kind: str, a: Operand, b: Operand, one: bool, scale: float) -> Array | None:
    """One contraction of a linear layer by fused multiply-adds and byte products: the bits of the definition.

    Parameters
    ----------
    kind : str
        ``"linear"``, ``"linear_input_grad"`` or ``"linear_weight_grad"``.
    a, b : Operand
        Of two axes, not empty.
    one : bool
        The sum is one group; else every product is.
    scale : float
        Multiplies the sums, in float64, before the last rounding.

    Returns
    -------
    np.ndarray or None
        float32, C order. None where the kernel does not apply: a tier without it, integers beyond 127, group scales
        that vary along both axes or are too far apart, a sum that may be too large.
    """
    if max(a.largest, b.largest) > 127 or max(a.exponent.max() + b.exponent.max(), 0) > MOST:
        return None
    call, keep = ffi.new("mlp_mls_matrices *"), []
    for name, op, (outer, depth) in zip("ab", (a, b), AXES[kind], strict=True):
        if (op.varies(outer) and op.varies(depth)) or op.exponent.min() < 0:
            return None
        codes, itemsize = op.codes, 1
        steps = [codes.strides[axis] if codes.shape[axis] > 1 else itemsize for axis in (outer, depth)]
        if itemsize not in steps:
            codes = np.ascontiguousarray(codes)
            steps = [codes.strides[axis] for axis in (outer, depth)]
        factor = np.ldexp(1 + op.mantissa / np.float32(2**op.group_man), -op.exponent.astype(np.int32))
        factor = factor.astype(np.float32).reshape(-1)
        kept = np.ones(-(-codes.shape[outer] // PADDING) * PADDING, np.float32)
        if op.varies(depth):
            setattr(call, f"depth_{name}", ffi.from_buffer("float *", factor))
        else:
            kept[:codes.shape[outer]] = factor
        setattr(call, name, ffi.cast("int8_t *", codes.ctypes.data))
        setattr(call, f"step_{name}", steps)
        setattr(call, f"table_{name}", ffi.from_buffer("int16_t *", op.table))
        setattr(call, f"outer_{name}", ffi.from_buffer("float *", kept))
        keep += [codes, factor, kept]
    call.m, call.k = (a.codes.shape[axis] for axis in AXES[kind][0])
    call.n = b.codes.shape[AXES[kind][1][0]]
    result = empty((call.m, call.n), np.float32)
    call.out, call.scale, call.one = ffi.from_buffer("float *", result), scale, one
    status = lib().mlp_mls_product(call)
    if status == UNSUPPORTED:
        return None
    name = f"mls_{kind}_dot[{dot_tier()}]"
    check(status, name)
    count(name)
    return result
