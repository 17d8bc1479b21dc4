"""Contractions of codes that stand for small integers: the kernel that any format with a ``table()`` gets.

A code's integer is ``table[code & 255]``: of magnitude at most 127, or 0 or a power of two up to 2^14, which takes two
digits. Sums of products are exact integers: int32 in the int8 engine (:mod:`minilp.kernels.dot8`), proven not to
overflow and split into pieces where one could, then scaled and rounded to float32 once.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minilp.kernels import dot8, reference_pot
from minilp.kernels import reference_table as twin
from minilp.kernels.backend import active, check, count, lib, tier
from minilp.kernels.layout import Pair
from minilp.kernels.pot_geometry import KINDS, Array, Geometry, geometry
from minilp.kernels.storage import flat_storage, from_storage

POWER_BITS = 15
"""Levels of a power of two that two digits hold: 2^0 to 2^14."""
POWER_TOP = 2 ** (POWER_BITS - 1)


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
        Of length 256, the integer of each ``code & 255``: int8 within +-127, or int16 where every entry is 0 or
        +- a power of two up to 2^14.
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
        If codes are not of one byte, or a table is neither int8 nor int16 of length 256.
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
        if table.dtype not in (np.int8, np.int16) or table.shape != (256,):
            raise TypeError(f"table contract: table_{name} must be int8 or int16 of shape (256,), got {table.dtype} of "
                            f"shape {table.shape}")
        if table.dtype == np.int8 and table.min() < -twin.TOP:
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
    first, second = Operand.of(a, table_a, "a"), Operand.of(b, table_b, "b")
    result = _c(first, second, g, scales) if active() == "c" and a.size and b.size else None
    if result is None:
        count(f"table_{g.kind}[numpy]")
        result = twin.scaled(twin.sums(first.integers(), second.integers(), g), product(scales, g))
    bound = g.depth * float(scales[0].max(initial=0)) * float(scales[1].max(initial=0))
    for table in (table_a, table_b):
        bound *= twin.TOP if table.dtype == np.int8 else POWER_TOP
    if bound >= 2.0**127 and not np.isfinite(result).all():
        raise OverflowError(f"{kind}: a result is beyond the largest float32")
    return result[:, :, 0, 0] if linear else result


@dataclass(frozen=True)
class Operand:
    """One operand as the int8 engine takes it.

    Attributes
    ----------
    codes : np.ndarray
        int8: the integers themselves, or :attr:`digits`' codes.
    digits : np.ndarray or None
        Of :func:`minilp.kernels.dot8.power_digits`: a code c is then ``sign(c) * 2**(|c| - 1)``.
    """

    codes: Array
    digits: Array | None

    @staticmethod
    def of(x: Array, table: Array, name: str) -> Operand:
        """A format's codes (int8 or uint8) as the engine takes them, by its ``table`` (length 256, int8 or int16).

        Raises
        ------
        ValueError
            If an entry of an int16 table is neither 0 nor +- a power of two up to 2^14; it names the table.
        """
        if table.dtype == np.int8:
            return Operand(values(x, table), None)
        fraction, level = np.frexp(np.abs(table.astype(np.float64)))
        if (wrong := (table != 0) & ((fraction != 0.5) | (level > POWER_BITS))).any():
            raise ValueError(f"table contract: entries of an int16 table_{name} must be 0 or +- a power of two up to "
                             f"{POWER_TOP}, got {table[wrong][0]}")
        return Operand(values(x, (np.sign(table) * level).astype(np.int8)), dot8.power_digits(5))

    def integers(self) -> Array:
        """What the codes stand for, in their shape, for the twin: int8, or float64 for powers of two."""
        return self.codes if self.digits is None else reference_pot.values(self.codes)


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
    check(lib().mlp_dot8_values(dot8.pointer(flat, "int8_t"), dot8.pointer(wide, "int8_t"), flat.size,
                                dot8.pointer(out, "int8_t")), "dot8_values")
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


def _c(a: Operand, b: Operand, g: Geometry, scales: tuple[Array, Array]) -> Array | None:
    """The int8 engine; None where it does not apply."""
    result = dot8.contract(a.codes, b.codes, g, a.digits, b.digits, scales)
    if result is not None:
        count(f"table_{g.kind}[{tier()}]")
        if result.dtype == np.int64:
            result = twin.scaled(result, product(scales, g))
    return result
