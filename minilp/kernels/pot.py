"""Contractions of power-of-two codes: the wrapper that checks, chooses a kernel and gives the result its layout.

A code is an int8 signed level: 0 is zero, else ``sign(c) * 2**(|c| - 1)`` in units of the smallest power. A sum
of products of codes is an integer; it is scaled by a power of two and rounded to float32 once.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minilp.kernels import pot_c, reference_pot
from minilp.kernels.backend import KernelError, active, count
from minilp.kernels.layout import Pair
from minilp.kernels.pot_geometry import BITS, KINDS, Array, Geometry, geometry, span, sum_bits, top_code

ACCUMULATE = ("int64", "int32", "counts")
OUT = ("float32", "int64")


def pot_contract(kind: str, a: Array, b: Array, *, bits_a: int, bits_b: int, exponent: int, stride: Pair = (1, 1),
                 padding: Pair = (0, 0), dilation: Pair = (1, 1), groups: int = 1, size: Pair | None = None,
                 accumulate: str = "int64", out: str = "float32", return_overflows: bool = False) -> Any:
    """Contract two arrays of power-of-two codes.

    Without a multiplication, or emulated on the CPU's integer multipliers, as :func:`minilp.use_kernels` says; the
    integers, and so the results, are the same.

    Parameters
    ----------
    kind : str
        ``"conv2d"`` (a: activation (N, C, H, W), b: weight (O, C/groups, KH, KW)), ``"conv2d_input_grad"`` (error
        (N, O, OH, OW), weight), ``"conv2d_weight_grad"`` (error, activation), or the same three of ``"linear"`` with
        activations (T, C), errors (T, O) and weights (O, C).
    a, b : np.ndarray
        int8 codes of any strides, ``|code| <= 2**(bits-1) - 1``.
    bits_a, bits_b : int
        Width of each operand's format, 3 to 6.
    exponent : int
        Result = integer sum * 2**exponent: the sum of both scales' exponents of the least significant power.
    stride, padding, dilation : (int, int)
    groups : int
    size : (int, int), optional
        (H, W) of the input for ``conv2d_input_grad``, (KH, KW) for ``conv2d_weight_grad``; None for the rest.
    accumulate : str
        ``"int64"``: exact; refuses sums that could need more than 62 bits. ``"counts"``: exact for any bits, one signed
        count per exponent sum. ``"int32"``: the paper's accumulator, two's complement in ascending k, overflows counted
        (needs two operands of at most 5 bits).
    out : str
        ``"float32"``, or ``"int64"`` for the integer sums themselves.
    return_overflows : bool
        With ``accumulate="int32"``: return (result, number of overflowing additions).

    Returns
    -------
    np.ndarray or (np.ndarray, int)
        Activations and errors as logical (N, C, H, W) views of (C, H, W, N) storage ((T, F) views of (F, T) storage for
        linear); weight gradients in C order.

    Raises
    ------
    TypeError
        If an operand is not an int8 array.
    ValueError
        If a shape, an option, or a code that the sums take in is out of range; the message names it.
    KernelError
        If int64 (or the modelled int32) cannot hold the sums: use ``accumulate="counts"``.
    OverflowError
        If a result is beyond the largest float32, or does not fit int64 (``"counts"`` with ``out="int64"``).
    """
    if kind not in KINDS:
        raise ValueError(f"pot_contract: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    for name, value, choices in (("accumulate", accumulate, ACCUMULATE), ("out", out, OUT)):
        if value not in choices:
            raise ValueError(f"pot_contract: {name} must be one of {', '.join(choices)}, got {value!r}")
    for name, x, bits in (("a", a, bits_a), ("b", b, bits_b)):
        if not isinstance(x, np.ndarray) or x.dtype != np.int8:
            raise TypeError(f"pot_contract: {name} must be an int8 array of codes, got "
                            f"{x.dtype if isinstance(x, np.ndarray) else type(x).__name__}")
        if bits not in BITS:
            raise ValueError(f"pot_contract: bits_{name} must be 3, 4, 5 or 6, got {bits!r}")
    if not isinstance(exponent, (int, np.integer)):
        raise TypeError(f"pot_contract: exponent must be an int, got {exponent!r}")
    if return_overflows and accumulate != "int32":
        raise ValueError(f"pot_contract: overflows are counted with accumulate='int32' only, got {accumulate!r}")
    linear = kind.startswith("linear")
    if linear:
        if size is not None or groups != 1 or stride != (1, 1) or padding != (0, 0) or dilation != (1, 1):
            raise ValueError(f"pot_contract: {kind} takes no size, stride, padding, dilation or groups")
        a, b = _as_image(kind, "a", a), _as_image(kind, "b", b)
        size = {"linear": None, "linear_input_grad": (1, 1), "linear_weight_grad": (1, 1)}[kind]
    name = kind.replace("linear", "conv2d")
    g = geometry(name, a, b, stride, padding, dilation, groups, size)
    _check_range(kind, g, bits_a, bits_b, accumulate)

    def check_codes() -> None:
        _check_codes(kind, "a", a, bits_a)
        _check_codes(kind, "b", b, bits_b)

    run = pot_c.contract if active() == "c" else _numpy
    exponent = min(max(int(exponent), -4000), 4000)
    result, overflows = run(a, b, g, bits_a, bits_b, exponent, accumulate, out, check_codes)
    if linear:
        result = result[:, :, 0, 0]
    return (result, overflows) if return_overflows else result


def _as_image(kind: str, name: str, x: Array) -> Array:
    """A matrix as a stack of 1x1 images: (T, F) -> (T, F, 1, 1)."""
    if x.ndim != 2:
        raise ValueError(f"pot_contract: {kind}: {name} must have 2 axes, got shape {x.shape}")
    return x[:, :, None, None]


def _check_range(kind: str, g: Geometry, bits_a: int, bits_b: int, accumulate: str) -> None:
    """Refuse a contraction whose accumulator could overflow; nothing wraps silently."""
    spans, needed = span(bits_a) + span(bits_b), sum_bits(bits_a, bits_b, g.depth)
    trouble = ""
    if accumulate == "int64" and needed > 62:
        trouble = f" can need {needed} bits, int64 is proven safe up to 62: use accumulate='counts'"
    if accumulate == "int32" and spans > 30:
        trouble = f": one product can be 2**{spans}, which no INT32 accumulator holds"
    if accumulate == "counts" and g.depth >= 2 ** 31:
        trouble = ": a count per exponent is 32 bits wide"
    if trouble:
        raise KernelError(f"{kind}: operands of {bits_a} and {bits_b} bits with K={g.depth}{trouble}")


def _check_codes(kind: str, name: str, x: Array, bits: int) -> None:
    """Refuse codes outside the format: a shift by such a code would be undefined."""
    top = top_code(bits)
    if x.size and (int(x.max()) > top or int(x.min()) < -top):
        raise ValueError(f"{kind}: {name} must hold codes within +-{top} ({bits} bits), got {x.min()} .. {x.max()}")


def _numpy(a: Array, b: Array, g: Geometry, bits_a: int, bits_b: int, exponent: int, accumulate: str,
           out: str, check_codes: Callable[[], None]) -> tuple[Array, int]:
    """The NumPy twins."""
    check_codes()
    count(f"pot_{accumulate}_{g.kind}[numpy]")
    if accumulate == "int32":
        return reference_pot.contract_int32(a, b, g, exponent, out)
    return reference_pot.contract(a, b, g, bits_a, bits_b, exponent, out), 0
