"""NumPy twins of the kernels for batches of matrix products: the same bits, read as matrices."""
from __future__ import annotations

import functools

import numpy as np

from minilp.kernels.pot_geometry import Array


def turned(layout: str, a: Array, b: Array) -> tuple[Array, Array]:
    """Both operands as (B, M, K) and (B, K, N), views; ValueError for shapes that do not belong together.

    Scales of such operands are turned alike: lengths of 1 fit everything.
    """
    if layout not in ("nt", "nn", "tn"):
        raise ValueError(f"layout: expected 'nt', 'nn' or 'tn', got {layout!r}")
    x, y = (a.swapaxes(1, 2) if layout == "tn" else a), (b.swapaxes(1, 2) if layout == "nt" else b)
    if x.ndim != 3 or y.ndim != 3 or any(left != right and 1 not in (left, right) for left, right in
                                         ((x.shape[0], y.shape[0]), (x.shape[2], y.shape[1]))):
        raise ValueError(f"layout {layout!r}: operands of shapes {a.shape} and {b.shape} do not fit")
    return x, y


@functools.cache
def power_values() -> Array:
    """float64 of length 256: the integer of each power-of-two code of at most 5 bits."""
    table = np.zeros(256)
    for code in range(1, 16):
        table[code], table[256 - code] = 2.0 ** (code - 1), -(2.0 ** (code - 1))
    table.flags.writeable = False
    return table


def numbers(codes: Array, table: Array) -> Array:
    """What int8 codes stand for."""
    return table[np.ascontiguousarray(codes).view(np.uint8)]


def exact(x: Array, y: Array, values_a: Array, values_b: Array) -> Array:
    """Sums below 2^53 as float64, exact in whatever order."""
    return np.matmul(numbers(x, values_a), numbers(y, values_b))


def runs(x: Array, y: Array, values_a: Array, values_b: Array, run: int, factor_a: Array, factor_b: Array) -> Array:
    """float32 sums: ``run`` products at a time in ascending order, and these sums in ascending order."""
    def scaled_numbers(codes: Array, table: Array, factor: Array, axis: int) -> Array:
        along = np.arange(codes.shape[axis]) // run if factor.shape[axis] > 1 else np.zeros(codes.shape[axis], int)
        return numbers(codes, table) * factor.take(along, axis)

    left, right = scaled_numbers(x, values_a, factor_a, 2), scaled_numbers(y, values_b, factor_b, 1)
    total = np.zeros((x.shape[0], x.shape[1], y.shape[2]), np.float32)
    for first in range(0, x.shape[2], run):
        part = np.zeros_like(total)
        for k in range(first, min(first + run, x.shape[2])):
            part += left[:, :, k, None] * right[:, None, k]
        total += part
    return total


def scaled(sums: Array, rows: Array, columns: Array) -> Array:
    """Sums times both scales, in float64, rounded once to float32; ``rows`` (B, M), ``columns`` (B, N)."""
    with np.errstate(over="ignore", under="ignore"):
        return (sums.astype(np.float64) * (rows[:, :, None] * columns[:, None, :])).astype(np.float32)
