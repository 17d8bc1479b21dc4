"""NumPy twins of the kernels of small floats: levels, exact sums, and float32 sums in the written order.

A code is a signed level: its magnitude is the bit pattern of exponent and mantissa, which counts the magnitudes of a
small float upwards, subnormals first. In steps of the smallest subnormal every value is an integer of few significant
bits, so every product of two is exact in float32.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from minilp.kernels import reference_pot, reference_quantise
from minilp.kernels.pot_geometry import Array, Geometry

CHUNK = 32
"""Products that are summed before their sum is added to the total."""
RUNS = 8
"""Runs into which a weight gradient's batch is cut, at most."""


def integers(man: int) -> Array:
    """int64 of length 256 by ``code & 255``: the value of each level in steps of the smallest subnormal.

    Parameters
    ----------
    man : int
        Mantissa bits.
    """
    level = np.arange(128)
    octave = np.maximum((level >> man) - 1, 0)
    out = np.zeros(256, np.int64)
    out[:128] = (level - (octave << man)) << octave
    out[:128:-1] = -out[1:128]
    return out


def values(codes: Array, man: int, dtype: Any) -> Array:
    """What codes stand for in steps of the smallest subnormal, in their memory order."""
    return integers(man).astype(dtype)[codes.view(np.uint8)]


def encode(x: Array, exponent: Array, man: int, emin: int, top: int, stream: Any) -> Array:
    """Twin of the C kernel; see :func:`minilp.kernels.minifloat.encode`."""
    largest = np.ldexp(np.float32(integers(man)[top]), emin - man)
    with np.errstate(over="ignore", under="ignore"):
        size = np.minimum(np.ldexp(np.abs(x), -exponent), largest)
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


def run_of(batch: int) -> int:
    """Images in one run of a weight gradient: the smallest multiple of 32 that makes at most eight runs."""
    return CHUNK * max(1, -(-batch // (CHUNK * RUNS)))


def exact(a: Array, b: Array, g: Geometry, largest: int) -> Array:
    """The exact sums of one contraction, as integers.

    Parameters
    ----------
    a, b : np.ndarray
        float64 with integer values, 4-D, in the operand order of a convolution's contraction.
    g : Geometry
    largest : int
        Bound of a product; ``largest`` times the number of products must stay below 2^62.

    Returns
    -------
    np.ndarray
        int64; logical (N, ., ., .) view of CHWN storage, or (O, C / groups, KH, KW).
    """
    step = 2**53 // largest

    def product(left: Array, right: Array) -> Array:
        total = np.zeros((left.shape[0], right.shape[1]), np.int64)
        for start in range(0, left.shape[1], step):
            total += np.matmul(left[:, start:start + step], right[start:start + step]).astype(np.int64)
        return total

    parts = [reference_pot.contract_with(product, x, y, g.group()) for x, y in reference_pot.group_operands(a, b, g)]
    return reference_pot.join_groups(parts, g)


def in_chunks(a: Array, b: Array, g: Geometry) -> Array:
    """The float32 sums of one contraction in the order of :func:`minilp.kernels.minifloat.contract`.

    Parameters
    ----------
    a, b : np.ndarray
        float32 of few bits, 4-D, in the operand order of a convolution's contraction.
    g : Geometry

    Returns
    -------
    np.ndarray
        float32, as :func:`exact`.
    """
    if g.kind == "conv2d_weight_grad":
        parts = [add_runs([_run(x[..., n:n + run_of(g.batch)], y[..., n:n + run_of(g.batch)], g.group())
                           for n in range(0, g.batch, run_of(g.batch))], g.group(), np.float32)
                 for x, y in reference_pot.group_operands(a, b, g)]
    else:
        parts = [reference_pot.contract_with(_rows, x, y, g.group()) for x, y in reference_pot.group_operands(a, b, g)]
    return reference_pot.join_groups(parts, g)


def add_runs(sums: Any, g: Geometry, dtype: Any) -> Array:
    """The sums of all runs added in order: (O, C / groups, KH, KW) of ``dtype``."""
    total = np.zeros((g.features, g.channels // g.groups, *g.kernel), dtype)
    for one in sums:
        total += one.astype(dtype)
    return total


def _rows(left: Array, right: Array) -> Array:
    """(rows, K) times (K, columns), :data:`CHUNK` products at a time, everything in ascending k."""
    total = np.zeros((left.shape[0], right.shape[1]), np.float32)
    for start in range(0, left.shape[1], CHUNK):
        part = np.zeros_like(total)
        for k in range(start, min(start + CHUNK, left.shape[1])):
            part += left[:, k:k + 1] * right[k]
        total += part
    return total


def _run(error: Array, act: Array, g: Geometry) -> Array:
    """One run of a weight gradient: a chunk is a block of images at one pixel; chunks go by (block, y, x)."""
    taps = g.channels * g.kernel[0] * g.kernel[1]
    total = np.zeros((g.features, taps), np.float32)
    for first in range(0, error.shape[3], CHUNK):
        dy = error[..., first:first + CHUNK]
        for y in range(g.out_size[0]):
            x = reference_pot.unfold(act[..., first:first + CHUNK], g, range(y, y + 1))
            x = x.reshape(taps, g.out_size[1], dy.shape[3]).transpose(2, 1, 0)
            part = np.zeros((g.out_size[1], g.features, taps), np.float32)  # one chunk for each pixel of the row
            for n in range(dy.shape[3]):
                part += dy[:, y, :, n].T[:, :, None] * x[n][:, None, :]
            for chunk in part:
                total += chunk
    return total.reshape(g.features, g.channels, *g.kernel)
