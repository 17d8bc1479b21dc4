"""Kernels of small floating-point formats: codes of real numbers, exact integer sums, and float32 sums in fixed order.

A code is a signed level: its magnitude is the bit pattern of exponent and mantissa, which counts the magnitudes of a
small float upwards, subnormals first. Encoding runs in NumPy on both backends.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from minilp.kernels import reference_pot, reference_quantise
from minilp.kernels.backend import TIERS, active, check, count, ffi, lib, threads
from minilp.kernels.pot_geometry import Array, Geometry
from minilp.kernels.pot_round import to_float32

CHUNK = 32
"""Products that are summed before their sum is added to the total."""
LANES = 16  # columns of one vector in minifloat_rows.c


def encode(x: Array, exponent: Array, man: int, emin: int, top: int, largest: float, stream: Any = None) -> Array:
    """Levels of ``x`` under the scale 2^exponent.

    Parameters
    ----------
    x : np.ndarray
        float32, finite, any shape and strides.
    exponent : np.ndarray
        int32, broadcasts against ``x``.
    man : int
        Mantissa bits.
    emin : int
        Exponent of the smallest normal number.
    top : int
        Largest level.
    largest : float
        Its value; what is larger saturates.
    stream : Stream or None
        None rounds to nearest even; a stream rounds up with probability equal to the fraction (to 2^-24 of a step).

    Returns
    -------
    np.ndarray
        int8 in the memory order of ``x``.
    """
    with np.errstate(over="ignore", under="ignore"):
        size = np.minimum(np.ldexp(np.abs(x), -exponent), np.float32(largest))
    octave = np.maximum((size.view(np.int32) >> 23) - 127, emin)
    steps = np.ldexp(size, man - octave)  # in steps of its octave: exact, below 2^(man + 1)
    if stream is None:
        level = np.rint(steps)
    else:
        level = np.floor(steps)
        draw = (reference_quantise.logical_bits(x.shape, stream) >> np.uint32(8)).astype(np.float32)
        level += draw < (steps - level) * np.float32(2**24)
    level += ((octave - emin) << man).astype(np.float32)  # a carry into the next octave is the next level
    out = np.empty_like(x, np.int8)
    np.copyto(out, np.copysign(np.minimum(level, np.float32(top)), x), casting="unsafe")
    return out


def exact(a: Array, b: Array, g: Geometry, largest: int, exponent: int) -> Array:
    """Exact contraction of integers, rounded to float32 once.

    Parameters
    ----------
    a, b : np.ndarray
        float64 with integer values, 4-D, in the operand order of a convolution's contraction.
    g : Geometry
    largest : int
        Bound of a product; ``largest`` times the number of products must stay below 2^62.
    exponent : int
        The result is the sum times 2^exponent.

    Returns
    -------
    np.ndarray
        float32; logical (N, ., ., .) view of CHWN storage, or (O, C / groups, KH, KW).
    """
    step = 2**53 // largest

    def product(left: Array, right: Array) -> Array:
        total = np.zeros((left.shape[0], right.shape[1]), np.int64)
        for start in range(0, left.shape[1], step):
            total += np.matmul(left[:, start:start + step], right[start:start + step]).astype(np.int64)
        return total

    count(f"minifloat_exact_{g.kind}[numpy]")
    parts = [to_float32(reference_pot.contract_with(product, x, y, g.group()), exponent)
             for x, y in reference_pot.group_operands(a, b, g)]
    return reference_pot.join_groups(parts, g)


def in_chunks(a: Array, b: Array, g: Geometry) -> Array:
    """Contraction with exact products and float32 sums: :data:`CHUNK` products at a time, everything in ascending k.

    k runs over (c, ky, kx) forward, (o, ky, kx) for the input gradient and (n, y, x) for the weight gradient; taps on
    the padding count as products of zero.

    Parameters
    ----------
    a, b : np.ndarray
        float32 of few bits, 4-D, in the operand order of a convolution's contraction.
    g : Geometry

    Returns
    -------
    np.ndarray
        float32, as :func:`exact`; the same bits in C and NumPy.
    """
    here = active() == "c" and a.size > 0 and b.size > 0
    count(f"minifloat_chunks_{g.kind}[{TIERS[lib().mlp_tier()] if here else 'numpy'}]")
    parts = [reference_pot.contract_with(_rows_c if here else _rows, x, y, g.group(), sample_major=True)
             for x, y in reference_pot.group_operands(a, b, g)]
    return reference_pot.join_groups(parts, g)


def _rows(left: Array, right: Array) -> Array:
    """(rows, K) times (K, columns) in the written order: the twin of minifloat_rows.c."""
    total = np.zeros((left.shape[0], right.shape[1]), np.float32)
    for start in range(0, left.shape[1], CHUNK):
        part = np.zeros_like(total)
        for k in range(start, min(start + CHUNK, left.shape[1])):
            part += left[:, k:k + 1] * right[k]
        total += part
    return total


def _rows_c(left: Array, right: Array) -> Array:
    a, b = np.ascontiguousarray(left), np.ascontiguousarray(right)
    (rows, depth), columns = a.shape, b.shape[1]
    out = np.empty((rows, columns), np.float32)
    workers = max(1, min(threads(), -(-columns // LANES)))
    scratch = np.empty(max(1, workers * depth * LANES), np.float32)
    pointers = [ffi.cast("float *", x.ctypes.data) for x in (a, b, scratch, out)]
    check(lib().mlp_minifloat_rows(*pointers[:2], rows, depth, columns, pointers[2], workers, pointers[3]),
          "minifloat_rows")
    return out
