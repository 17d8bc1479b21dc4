"""The C kernels behind :func:`minilp.kernels.mls.mls_contract`, for operands that it has checked."""
from __future__ import annotations

from typing import Any

import numpy as np

from minilp.kernels import structs
from minilp.kernels.backend import UNSUPPORTED, backend, check, count, kernel_family, vector_tier
from minilp.kernels.layout import empty
from minilp.kernels.pot_geometry import Array, Geometry
from minilp.kernels.reference_mls import result_shape

SUMMED = {"conv2d": (1, 1), "conv2d_input_grad": (1, 0), "conv2d_weight_grad": (0, 0)}
"""The axes of both operands that the groups of a sum follow."""


def contract(a: Array, b: Array, table_a: Array, table_b: Array, g: Geometry, runs: bool, bits: tuple[Array, Array],
             exponents: tuple[Array, Array], product: int, wide: bool, scale: float, *, emulate: bool = False) -> Array:
    """One contraction of one group of channels, in runs over its outermost index or in one.

    Parameters
    ----------
    a, b : np.ndarray
        int8 codes as stored: (C, H, W, N) activations and errors, (O, C, KH, KW) weights; not empty.
    table_a, table_b : np.ndarray
        int16 of length 256, the integer of each code.
    g : Geometry
        With ``groups == 1``.
    runs : bool
        As for :func:`minilp.kernels.reference_mls.contract`.
    bits, exponents : tuple of np.ndarray
        Group scales ``(1 + bit / 2) * 2^-exponent`` of each operand by its first two logical axes.
    product : int
        The largest product of two integers.
    wide : bool
        Sums in 64 bits: those of a group, times their significand, may not fit 31, or exponents exceed 118 in sum.
    scale : float
        Multiplies the sums, in float64, before the last rounding.
    emulate : bool
        Group scales may be multiplied in float32: every |P s| fits 24 bits (a weight gradient's |P|). Where the tier
        has kernels that do and :func:`minilp.use_kernels` does not ask for shifts, those run.

    Returns
    -------
    np.ndarray
        float32 in storage order.
    """
    result = empty(result_shape(g), np.float32)
    shared = {"out": result, "scale": scale, "one": not runs, "wide": wide,
              "product": product, "kernel": g.kernel, "stride": g.stride,
              "padding": g.padding, "dilation": g.dilation}
    if not runs:  # scales do not vary along the sum
        axis_a, axis_b = SUMMED[g.kind]
        bits, exponents = ((pair[0].take([0], axis_a), pair[1].take([0], axis_b)) for pair in (bits, exponents))
    (bit_a, bit_b), (exponent_a, exponent_b) = bits, exponents
    if g.kind == "conv2d_weight_grad" and g.size == g.kernel == (1, 1) and g.padding == (0, 0):
        # of a linear layer: the product of error^T and act is a forward one, samples in the place of input channels
        name, status = _run(False, g.kind, "mlp_mls_rows", input=_turned(b[:, 0, 0]), table=table_b,
                            weight=table_a.take(a[:, 0, 0].view(np.uint8)), exponent_input=_straight(exponent_b),
                            bit_input=_straight(bit_b), exponent_weight=_turned(exponent_a), bit_weight=_turned(bit_a),
                            batch=g.channels, in_channels=g.batch, out_channels=g.features, in_size=(1, 1),
                            out_size=(1, 1), **shared)
    elif g.kind == "conv2d_weight_grad":
        name, status = _run(emulate, g.kind, "mlp_mls_wgrad", error=a, act=b, table_error=table_a, table_act=table_b,
                            exponent_error=_turned(exponent_a), bit_error=_turned(bit_a),
                            exponent_act=_turned(exponent_b), bit_act=_turned(bit_b), batch=g.batch,
                            channels=g.channels, features=g.features, size=g.size, out_size=g.out_size, **shared)
    else:
        forward = g.kind == "conv2d"
        if not forward:
            b, exponent_b, bit_b = b.transpose(1, 0, 2, 3), exponent_b.T, bit_b.T
        weight = table_b.take(np.ascontiguousarray(b).view(np.uint8))
        channels, sizes = (g.channels, g.features), (g.size, g.out_size)
        name, status = _run(emulate, g.kind, "mlp_mls_rows",
                            input=a, table=table_a, weight=weight,
                            exponent_input=_turned(exponent_a), bit_input=_turned(bit_a),
                            exponent_weight=_straight(exponent_b), bit_weight=_straight(bit_b),
                            input_grad=not forward, batch=g.batch, in_channels=channels[not forward],
                            out_channels=channels[forward], in_size=sizes[not forward], out_size=sizes[forward],
                            **shared)
    check(status, name)
    count(name)
    return result


def _straight(x: Array) -> Array:
    return np.ascontiguousarray(x, np.int32)


def _turned(x: Array) -> Array:  # activations' scales lie turned already: no copy
    return np.ascontiguousarray(x.T, x.dtype if x.dtype == np.int8 else np.int32)


def _run(emulate: bool, kind: str, struct: str, **fields: Any) -> tuple[str, int]:
    """Fill a C geometry, arrays as pointers, and run the contraction that takes it: the kernel's name and status."""
    if emulate and kernel_family() != "shift":
        status = structs.run(struct, f"{struct.replace('mls', 'mls_dot')}_contract", **fields)
        if status != UNSUPPORTED:
            return f"mls_{kind}_dot[{backend().isa if 'wgrad' in struct else dot_tier()}]", status
    return f"mls_{kind}[{vector_tier()}]", structs.run(struct, f"{struct}_contract", **fields)


def dot_tier() -> str:
    """The tier in force, ``vnni`` at most."""
    tier = backend().isa
    return "vnni" if tier == "amx" else tier
