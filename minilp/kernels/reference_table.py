"""NumPy twin of the table kernel: integer contractions as matrix products of integer-valued floats.

Products of int8 are at most 127^2, so float64 holds every sum of fewer than 2^39 of them exactly, in whatever order a
matrix product adds; float32 does so while a sum stays below 2^24. Products with powers of two, at most 2^28, leave room
for 2^25 of them. Scales are applied in float64, and the cast to float32 is the one rounding wherever they are powers
of two.
"""
from __future__ import annotations

import numpy as np

from minilp.kernels import reference_pot
from minilp.kernels.pot_geometry import Array, Geometry

TOP = 127
"""Largest magnitude in a table."""


def sums(a: Array, b: Array, g: Geometry) -> Array:
    """The exact integer sums of one contraction.

    Parameters
    ----------
    a, b : np.ndarray
        4-D, in the operand order of :func:`minilp.kernels.table.contract`: int8 integers of magnitude at most 127, or
        float64 ones up to 2^14.
    g : Geometry

    Returns
    -------
    np.ndarray
        float32 or float64 with integer values; logical (N, ., ., .) view of CHWN storage, or (O, C / groups, KH, KW).
    """
    small = a.dtype == b.dtype == np.int8 and g.depth * TOP * TOP < 2**24
    dtype = np.float32 if small else np.float64
    parts = [reference_pot.contract_with(np.matmul, x.astype(dtype), y.astype(dtype), g.group())
             for x, y in reference_pot.group_operands(a, b, g)]
    return reference_pot.join_groups(parts, g)


def scaled(total: Array, scale: Array) -> Array:
    """Integer sums times a float64 scale that broadcasts against them, as float32 in their memory order."""
    with np.errstate(over="ignore"):  # infinities are the caller's to report
        product: Array = (total * scale).astype(np.float32)
    product += np.float32(0)  # a matrix product may give -0, which no integer is
    return product
