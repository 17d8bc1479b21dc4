"""Contractions of power-of-two codes: the wrapper that checks, chooses a kernel and gives the result its layout.

A code is an int8 signed level: 0 is zero, else ``sign(c) * 2**(|c| - 1)`` in units of the smallest power. A sum
of products of codes is an integer; it is scaled by a power of two and rounded to float32 once.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from minilp.kernels import reference_pot
from minilp.kernels.backend import TIERS, KernelError, active, check, count, ffi, lib
from minilp.kernels.layout import Pair
from minilp.kernels.pot_geometry import BITS, KINDS, Array, Geometry, geometry, span, sum_bits, top_code

ACCUMULATE = ("int64", "int32", "counts")
OUT = ("float32", "int64")
OVERFLOW, UNSUPPORTED = 3, 4
C_TYPES = {"int8": "int8_t", "int64": "int64_t", "float32": "float"}


def pot_contract(kind: str, a: Array, b: Array, *, bits_a: int, bits_b: int, exponent: int, stride: Pair = (1, 1),
                 padding: Pair = (0, 0), dilation: Pair = (1, 1), groups: int = 1, size: Pair | None = None,
                 accumulate: str = "int64", out: str = "float32", return_overflows: bool = False) -> Any:
    """Contract two arrays of power-of-two codes without a multiplication.

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
        If a shape, a code, or an option is out of range; the message names it.
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
    for label, x, bits in (("a", a, bits_a), ("b", b, bits_b)):
        _check_codes(kind, label, x, bits)
    run = _c if active() == "c" else _numpy
    result, overflows = run(a, b, g, bits_a, bits_b, int(np.clip(exponent, -4000, 4000)), accumulate, out)
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
    what = f"{kind}: operands of {bits_a} and {bits_b} bits with K={g.depth}"
    if accumulate == "int64" and needed > 62:
        raise KernelError(f"{what} can need {needed} bits, int64 is proven safe up to 62: use accumulate='counts'")
    if accumulate == "int32" and spans > 30:
        raise KernelError(f"{what}: one product can be 2**{spans}, which no INT32 accumulator holds")
    if accumulate == "counts" and g.depth >= 2 ** 31:
        raise KernelError(f"{what}: a count per exponent is 32 bits wide")


def _check_codes(kind: str, name: str, x: Array, bits: int) -> None:
    """Refuse codes outside the format: a shift by such a code would be undefined."""
    top = top_code(bits)
    if x.size and (int(x.max()) > top or int(x.min()) < -top):
        raise ValueError(f"{kind}: {name} must hold codes within +-{top} ({bits} bits), got {x.min()} .. {x.max()}")


def _numpy(a: Array, b: Array, g: Geometry, bits_a: int, bits_b: int, exponent: int, accumulate: str,
           out: str) -> tuple[Array, int]:
    """The NumPy twins."""
    count(f"pot_{accumulate}_{g.kind}[numpy]")
    if accumulate == "int32":
        return reference_pot.contract_int32(a, b, g, exponent, out)
    return reference_pot.contract(a, b, g, bits_a, bits_b, exponent, out), 0


def _c(a: Array, b: Array, g: Geometry, bits_a: int, bits_b: int, exponent: int, accumulate: str,
       out: str) -> tuple[Array, int]:
    """The C kernels: exponent-binned adds where they can, the literal loops elsewhere."""
    if accumulate == "int64" and max(bits_a, bits_b if g.kind == "conv2d_weight_grad" else 0) <= 5 and a.size and b.size:
        result = _bins(a, b, g, bits_a, bits_b, exponent, out)
        if result is not None:
            return result, 0
    return _literal(a, b, g, exponent, accumulate, out)


def _bins(a: Array, b: Array, g: Geometry, bits_a: int, bits_b: int, exponent: int, out: str) -> Array | None:
    """Exponent-binned adds, group by group; None where they do not apply."""
    name = f"pot_shift_{g.kind}[{TIERS[lib().mlp_tier()]}]"
    one, dtype = g.group(), np.float32 if out == "float32" else np.int64
    parts = []
    for x, y in reference_pot.group_operands(a, b, g):
        if g.kind == "conv2d_weight_grad":
            result = np.empty((one.features, one.channels, *g.kernel), np.int64)
            status = _call("mlp_pot_wgrad", error=x, act=y, out=result, bits_error=bits_a, bits_act=bits_b, **_sizes(one),
                           channels=one.channels, features=one.features, size=g.size, out_size=g.out_size)
        else:
            forward = g.kind == "conv2d"
            channels, into = (one.channels, one.features) if forward else (one.features, one.channels)
            sizes = (g.size, g.out_size) if forward else (g.out_size, g.size)
            steps = (one.channels * g.kernel[0] * g.kernel[1], g.kernel[0] * g.kernel[1])
            result = np.empty((into, *sizes[1], g.batch), dtype)
            status = _call("mlp_pot_rows", input=x, weight=y, **{"out_" + ("float" if out == "float32" else "int"): result},
                           bits_input=bits_a, bits_weight=bits_b, input_grad=not forward, exponent=exponent, **_sizes(one),
                           in_channels=channels, out_channels=into, in_size=sizes[0], out_size=sizes[1],
                           weight_out_step=steps[0 if forward else 1], weight_in_step=steps[1 if forward else 0])
        if status == UNSUPPORTED:
            return None
        _check(status, name, out)
        parts.append(result if result.dtype == dtype else _scale(result, exponent, name))
    count(name)
    return reference_pot.join_groups(parts, g)


def _sizes(g: Geometry) -> dict[str, Any]:
    """The fields that both C geometries share."""
    return {"batch": g.batch, "kernel": g.kernel, "stride": g.stride, "padding": g.padding, "dilation": g.dilation}


def _call(struct: str, **fields: Any) -> int:
    """Fill a C geometry, arrays as pointers, and run the contraction that takes it."""
    geometry = ffi.new(f"{struct} *")
    for name, value in fields.items():
        if isinstance(value, np.ndarray):
            value = ffi.from_buffer(f"{C_TYPES[value.dtype.name]} *", value)
        setattr(geometry, name, value)
    return int(getattr(lib(), f"{struct}_contract")(geometry))


def _scale(sums: Array, exponent: int, name: str) -> Array:
    """int64 sums times a power of two as float32, rounded once, in C."""
    sums, scaled = np.ascontiguousarray(sums), np.empty(sums.shape, np.float32)
    _check(lib().mlp_pot_scale(ffi.from_buffer("int64_t *", sums), sums.size, exponent,
                               ffi.from_buffer("float *", scaled)), name, "float32")
    return scaled


def _literal(a: Array, b: Array, g: Geometry, exponent: int, accumulate: str, out: str) -> tuple[Array, int]:
    """The scalar shift/add loops of pot_shift_mac.c, on unfolded rows."""
    name = f"pot_shift_{g.kind}_{accumulate}[scalar]"
    count(name)
    core = lib()
    overflows = np.zeros(1, np.int64)

    def product(left: Array, right: Array) -> Array:
        rows, columns = np.ascontiguousarray(left), np.ascontiguousarray(right.T)
        shape = (len(rows), len(columns))
        result = np.empty(shape, np.float32 if accumulate == "counts" and out == "float32" else np.int64)
        pointers = [ffi.from_buffer("int8_t *", rows), ffi.from_buffer("int8_t *", columns)]
        arguments = (*pointers, *shape, rows.shape[1])
        longs = ffi.from_buffer("int64_t *", result) if result.dtype == np.int64 else ffi.NULL
        if accumulate == "int64":
            status = core.mlp_pot_rows_int64(*arguments, longs)
        elif accumulate == "int32":
            status = core.mlp_pot_rows_int32(*arguments, longs, ffi.from_buffer("int64_t *", overflows))
        else:
            floats = ffi.from_buffer("float *", result) if result.dtype == np.float32 else ffi.NULL
            status = core.mlp_pot_rows_counts(*arguments, exponent, floats, longs)
        _check(status, name, out)
        return result

    parts = []
    for x, y in reference_pot.group_operands(a, b, g):
        # counts are rounded inside the kernel, so the whole sum has to be one row; int32 needs ascending k
        acc = reference_pot.contract_with(product, x, y, g.group(), sample_major=accumulate != "int64")
        parts.append(_scale(acc, exponent, name) if acc.dtype == np.int64 and out == "float32" else acc)
    return reference_pot.join_groups(parts, g), int(overflows[0])


def _check(status: int, name: str, out: str) -> None:
    """Status code to exception; a result that the output type cannot hold is an OverflowError, as in the twins."""
    if status == OVERFLOW:
        raise OverflowError(f"{name}: a result is beyond the largest float32" if out == "float32" else
                            f"{name}: a sum does not fit int64; ask for out='float32'")
    check(status, name)
