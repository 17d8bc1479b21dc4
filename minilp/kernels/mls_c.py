"""The C kernels behind :func:`minilp.kernels.mls.mls_contract`, for operands that it has checked."""
from __future__ import annotations

from typing import Any

import numpy as np

from minilp.kernels.backend import TIERS, check, count, ffi, lib
from minilp.kernels.layout import empty
from minilp.kernels.pot_geometry import Array, Geometry
from minilp.kernels.reference_mls import result_shape

C_TYPES = {"int8": "int8_t", "int16": "int16_t", "int32": "int32_t", "float32": "float"}


def contract(a: Array, b: Array, table_a: Array, table_b: Array, g: Geometry, bits: tuple[Array, Array],
             exponents: tuple[Array, Array], scale: float) -> Array:
    """One contraction of one group of channels, in runs over its outermost index.

    Parameters
    ----------
    a, b : np.ndarray
        int8 codes as stored: (C, H, W, N) activations and errors, (O, C, KH, KW) weights; not empty.
    table_a, table_b : np.ndarray
        int16 of length 256, the integer of each code.
    g : Geometry
        With ``groups == 1``.
    bits, exponents : tuple of np.ndarray
        Group scales ``(1 + bit / 2) * 2^-exponent`` of each operand by its first two logical axes.
    scale : float
        Multiplies the sums, in float64, before the last rounding.

    Returns
    -------
    np.ndarray
        float32 in storage order.
    """
    name = f"mls_{g.kind}[{TIERS[lib().mlp_tier()]}]"
    result = empty(result_shape(g), np.float32)
    shared = {"out": result, "scale": scale, "batch": g.batch, "kernel": g.kernel, "stride": g.stride,
              "padding": g.padding, "dilation": g.dilation}
    (bit_a, bit_b), (exponent_a, exponent_b) = (tuple(map(_int32, pair)) for pair in (bits, exponents))
    if g.kind == "conv2d_weight_grad":
        status = _call("mlp_mls_wgrad", error=a, act=b, table_error=table_a, table_act=table_b,
                       exponent_error=_turned(exponent_a), bit_error=_turned(bit_a), exponent_act=_turned(exponent_b),
                       bit_act=_turned(bit_b), channels=g.channels, features=g.features, size=g.size,
                       out_size=g.out_size, **shared)
    else:
        forward = g.kind == "conv2d"
        weight = table_b[b.view(np.uint8)]
        if not forward:
            weight, exponent_b, bit_b = weight.transpose(1, 0, 2, 3), exponent_b.T, bit_b.T
        channels, sizes = (g.channels, g.features), (g.size, g.out_size)
        status = _call("mlp_mls_rows", input=a, table=table_a, weight=np.ascontiguousarray(weight),
                       exponent_input=_turned(exponent_a), bit_input=_turned(bit_a),
                       exponent_weight=np.ascontiguousarray(exponent_b), bit_weight=np.ascontiguousarray(bit_b),
                       input_grad=not forward, in_channels=channels[not forward], out_channels=channels[forward],
                       in_size=sizes[not forward], out_size=sizes[forward], **shared)
    check(status, name)
    count(name)
    return result


def _int32(x: Array) -> Array:
    return np.ascontiguousarray(x, np.int32)


def _turned(x: Array) -> Array:
    return np.ascontiguousarray(x.T)


def _call(struct: str, **fields: Any) -> int:
    """Fill a C geometry, arrays as pointers, and run the contraction that takes it."""
    geometry = ffi.new(f"{struct} *")
    for name, value in fields.items():
        if isinstance(value, np.ndarray):
            value = ffi.from_buffer(f"{C_TYPES[value.dtype.name]} *", value)
        setattr(geometry, name, value)
    return int(getattr(lib(), f"{struct}_contract")(geometry))
