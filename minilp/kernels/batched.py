"""Batches of matrix products on int8 codes: attention's contractions, in C or by the twins in ``reference_batched``.

A layout names operands as BLAS does (:attr:`minilp.formats.Spec.layout`): ``"nt"`` is (B, M, K) and (B, N, K), ``"nn"``
(B, M, K) and (B, K, N), ``"tn"`` (B, K, M) and (B, K, N); the result is (B, M, N). Codes may lie in any strides.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from minilp.kernels import reference_batched as twin
from minilp.kernels.backend import active, check, count, ffi, lib, vector_tier
from minilp.kernels.float32 import pointer
from minilp.kernels.layout import empty
from minilp.kernels.pot_geometry import Array

POWER_SPAN = 14
"""Octaves between the smallest and the largest power of two of at most 5 bits."""


def exact(layout: str, a: Array, b: Array, values_a: Array, values_b: Array, scale_a: Array, scale_b: Array) -> Array:
    """Exact sums of integers, scaled and rounded to float32 once.

    Parameters
    ----------
    layout : {"nt", "nn", "tn"}
    a, b : np.ndarray
        int8 or uint8 codes.
    values_a, values_b : np.ndarray
        Length 256: the integer of each ``code & 255``. Sums stay below 2^53.
    scale_a, scale_b : np.ndarray
        Value of a unit; they broadcast to (B, M, 1) and to (B, 1, N).

    Returns
    -------
    np.ndarray
        float32 (B, M, N).

    Raises
    ------
    OverflowError
        If a sum may not be exact, or a result is beyond the largest float32.
    """
    tables = values_a.astype(np.float64), values_b.astype(np.float64)
    x, y = twin.turned(layout, a, b)
    if x.shape[2] * np.abs(tables[0]).max() * np.abs(tables[1]).max() >= 2.0**53:
        raise OverflowError(f"batched exact: sums of {x.shape[2]} such products may exceed 2^53")
    rows, columns = _scales(x, y, scale_a, scale_b)
    if active() == "c":
        result = _run("mlp_batched_exact", x, y, rows, columns, values=tables)
    else:
        result = twin.scaled(twin.exact(x, y, *tables), rows, columns)
    count(f"batched_exact[{_where()}]")
    return _finite(result)


def powers(layout: str, a: Array, b: Array, scale_a: Array, scale_b: Array) -> Array:
    """Exact sums of products of powers of two by shifts and additions in 64-bit integers, rounded to float32 once.

    Parameters
    ----------
    layout : {"nt", "nn", "tn"}
    a, b : np.ndarray
        int8 codes within +-15: 0, or the sign of ``2**(|code| - 1)``.
    scale_a, scale_b : np.ndarray
        As for :func:`exact`.

    Returns
    -------
    np.ndarray
        float32 (B, M, N).

    Raises
    ------
    ValueError
        If a code is out of range.
    OverflowError
        If a sum may exceed 2^53, or a result is beyond the largest float32.
    """
    for name, codes in (("a", a), ("b", b)):
        if codes.size and max(int(codes.max()), -int(codes.min())) > POWER_SPAN + 1:
            raise ValueError(f"batched powers: {name} must hold codes within +-{POWER_SPAN + 1}, got {codes.min()} .. "
                             f"{codes.max()}")
    x, y = twin.turned(layout, a, b)
    if x.shape[2] >= 2 ** (53 - 2 * POWER_SPAN):
        raise OverflowError(f"batched powers: sums of {x.shape[2]} products may exceed 2^53")
    rows, columns = _scales(x, y, scale_a, scale_b)
    if active() == "c":
        result = _run("mlp_batched_shift", x, y, rows, columns)
    else:
        result = twin.scaled(twin.exact(x, y, *[twin.power_values()] * 2), rows, columns)
    count(f"batched_shift[{_where()}]")
    return _finite(result)


def runs(layout: str, a: Array, b: Array, values_a: Array, values_b: Array, run: int, factor_a: Array | None,
         factor_b: Array | None, scale_a: Array, scale_b: Array) -> Array:
    """float32 sums in a fixed order: ``run`` products at a time in ascending order, and these sums in ascending order.

    Parameters
    ----------
    layout : {"nt", "nn", "tn"}
    a, b : np.ndarray
        int8 codes.
    values_a, values_b : np.ndarray
        Length 256: the number of each ``code & 255``, float32.
    run : int
        At least 1.
    factor_a, factor_b : np.ndarray or None
        float32, of the operand's axes with one entry for each run along the sum, or 1 where they are shared: each
        number is multiplied by its factor before anything is summed. None is 1.
    scale_a, scale_b : np.ndarray
        As for :func:`exact`.

    Returns
    -------
    np.ndarray
        float32 (B, M, N), rounded once more by the scales.

    Raises
    ------
    OverflowError
        If a result is beyond the largest float32.
    """
    tables = values_a.astype(np.float32), values_b.astype(np.float32)
    x, y = twin.turned(layout, a, b)
    factors = twin.turned(layout, *(np.ones((1, 1, 1), np.float32) if factor is None else factor
                                    for factor in (factor_a, factor_b)))
    rows, columns = _scales(x, y, scale_a, scale_b)
    if active() == "c":
        result = _run("mlp_batched_runs", x, y, rows, columns, values=tables, run=run, factors=factors)
    else:
        result = twin.scaled(twin.runs(x, y, *tables, run, *factors), rows, columns)
    count(f"batched_runs[{_where()}]")
    return _finite(result)


def _where() -> str:
    return vector_tier() if active() == "c" else "numpy"


def _scales(x: Array, y: Array, scale_a: Array, scale_b: Array) -> tuple[Array, Array]:
    """Both scales as float64 (B, M) and (B, N), contiguous."""
    n, m, columns = x.shape[0], x.shape[1], y.shape[2]
    return (np.ascontiguousarray(np.broadcast_to(np.asarray(scale_a, np.float64), (n, m, 1))[:, :, 0]),
            np.ascontiguousarray(np.broadcast_to(np.asarray(scale_b, np.float64), (n, 1, columns))[:, 0]))


def _run(function: str, x: Array, y: Array, rows: Array, columns: Array, values: tuple[Array, Array] | None = None,
         run: int = 1, factors: tuple[Array, Array] | None = None) -> Array:
    """One call of the C core on (B, M, K) and (B, K, N)."""
    out = empty((x.shape[0], x.shape[1], y.shape[2]), np.float32)
    call = ffi.new("mlp_batched *")
    call.batch, call.m, call.k = x.shape
    call.n, call.run, call.out = y.shape[2], run, pointer(out)
    call.row_scale, call.column_scale = pointer(rows, "double"), pointer(columns, "double")
    keep: list[Any] = []
    for name, codes, order in (("a", x, (0, 1, 2)), ("b", y, (0, 2, 1))):
        setattr(call, name, ffi.cast("int8_t *", codes.ctypes.data))
        setattr(call, f"step_{name}", [codes.strides[axis] for axis in order])
        if values is not None:
            table = np.ascontiguousarray(values[name == "b"])
            keep.append(table)
            setattr(call, f"values_{name}", ffi.cast("void *", table.ctypes.data))
        if factors is not None and factors[name == "b"].size:
            factor = np.ascontiguousarray(factors[name == "b"])
            keep.append(factor)
            setattr(call, f"scale_{name}", pointer(factor))
            setattr(call, f"scale_step_{name}", [factor.strides[axis] // factor.itemsize * (factor.shape[axis] > 1)
                                                 for axis in order])
    check(getattr(lib(), function)(call), function)
    return out


def _finite(result: Array) -> Array:
    if not np.isfinite(result).all():
        raise OverflowError("batched product: a result is beyond the largest float32")
    return result
