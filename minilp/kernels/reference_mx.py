"""NumPy twins of the MX kernels: scales and levels of blocks, and contractions that sum integers block by block.

A contraction is cut into blocks of neighbours along one axis of the sum: input channels forward, output channels for
the input gradient, images for the weight gradient; always at one kernel tap or pixel. A block gives an integer P; its
term is ``float32(P) * 2^e`` with e the sum of both scales' exponents, and terms are added in float32: ascending block,
then ky, kx (forward and input gradient) or y, x of the output (weight gradient).

Where P has at most 53 bits the scales are folded into the operands: a floating-point matrix product of integers times
2^e is exact whatever its order, so each term comes out of it as defined.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minilp.kernels.pot_geometry import Array, Geometry
from minilp.kernels.pot_round import limbs_to_float32
from minilp.kernels.reference_mls import result_shape
from minilp.kernels.reference_pot import unfold, unfold_error

CHUNK_BYTES = 1 << 23  # bound of one piece of unfolded rows, and of the terms of a weight gradient
SPLIT = 15  # bits of the low digit of an integer that is too wide for float64 products
LEAST = -126  # a term 2^e with a smaller e is no normal float32 number


def block_index(length: int, run: int, block: int) -> Array:
    """The block of each of ``length`` neighbours: int64. Blocks start anew every ``run`` elements."""
    place = np.arange(length)
    return place // max(run, 1) * -(-run // block) + place % max(run, 1) // block


def maxima(x: Array, axis: int, run: int, block: int) -> Array:
    """Largest magnitude of each block along ``axis``: float32, that axis shortened to the number of blocks."""
    length = x.shape[axis]
    shape = list(x.shape)
    shape[axis] = length // max(run, 1) * -(-run // block)
    out = np.empty(shape, np.float32)
    left, right = np.moveaxis(x, axis, 0), np.moveaxis(out, axis, 0)
    starts = [first + i for first in range(0, length, max(run, 1)) for i in range(0, run, block)]
    for place, start in enumerate(starts):
        part = left[start:min(start + block, start - start % run + run)]
        np.maximum(part.max(axis=0), -part.min(axis=0), out=right[place, ...])
    return out


def scale_codes(maximum: Array, largest: float, highest: int, ceil: bool) -> Array:
    """E8M0 scale codes (exponent + 127) of blocks by their largest magnitudes.

    Parameters
    ----------
    maximum : np.ndarray
        float32, finite, not negative.
    largest : float
        Largest value of an element.
    highest : int
        Its exponent.
    ceil : bool
        The smallest scale under which nothing saturates, instead of OCP's ``floor(log2(maximum)) - highest``.

    Returns
    -------
    np.ndarray
        uint8, at most 254 - highest (every value is then a finite float32); 127, the scale 1, for an
        all-zero block, so that empty blocks do not widen the range of a tensor's scales.
    """
    fraction, power = np.frexp(maximum.astype(np.float64) / (largest if ceil else 2.0**highest))
    exponent = power - (fraction == 0.5) if ceil else power - 1
    exponent = np.where(maximum == 0, 0, np.clip(exponent, -127, 127 - highest))
    return (exponent + 127).astype(np.uint8)


def levels(x: Array, exponent: Array, man: int, emin: int, top: int, largest: float, draw: Array | None) -> Array:
    """Signed levels of ``x / 2^exponent``.

    Parameters
    ----------
    x : np.ndarray
        float32, finite, C order.
    exponent : np.ndarray
        int32 in [-127, 127], broadcasts against ``x``.
    man, emin, top : int
        Mantissa bits, exponent of the smallest normal number, largest level.
    largest : float
        Value of the largest level; what is larger saturates.
    draw : np.ndarray or None
        None rounds to nearest even; uint32 words of ``x``'s shape round up with the probability of the fraction (to
        2^-24 of a step).

    Returns
    -------
    np.ndarray
        int8.
    """
    with np.errstate(over="ignore", under="ignore"):
        size = np.abs(x) * np.ldexp(np.float32(1), -exponent)
    np.minimum(size, np.float32(largest), out=size)
    octave = (size.view(np.int32) >> 23) - 127
    np.maximum(octave, emin, out=octave)
    steps = size * ((man + 127 - octave) << 23).view(np.float32)  # in steps of its octave: below 2^(man + 1)
    if draw is None:
        level = np.rint(steps)
    else:
        level = np.floor(steps)
        level += (draw >> np.uint32(8)).astype(np.float32) < (steps - level) * np.float32(2**24)
    level += ((octave - emin) << man).astype(np.float32)  # a carry into the next octave is the next level
    np.minimum(level, np.float32(top), out=level)
    return np.copysign(level, x).astype(np.int8)


def contract(a: Array, b: Array, g: Geometry, block: int, exponents: tuple[Array, Array], bits: int) -> Array:
    """One contraction of one group of channels, before the scale that all its terms share.

    Parameters
    ----------
    a, b : np.ndarray
        float64 with integer values: (C, H, W, N) activations and errors, (O, C, KH, KW) weights, in Spec's order.
    g : Geometry
        With ``groups == 1``.
    block : int
        Most products in a block.
    exponents : tuple of np.ndarray
        int32, not positive, of each operand; as the operand with one entry for each block along the blocked axis.
    bits : int
        Bound on the magnitude of P.

    Returns
    -------
    np.ndarray
        float32 (O, OH, OW, N), (C, H, W, N) or (O, C, KH, KW).
    """
    terms = _weight_grad if g.kind == "conv2d_weight_grad" else _rows
    lowest = sum(int(e.min(initial=0)) for e in exponents)
    if bits > 53 or lowest < LEAST:
        return terms(a, b, g, block, _exact_product if bits > 53 else np.matmul, exponents)
    dtype: Any = np.float32 if bits <= 24 else np.float64
    axes = _blocked_axes(g.kind)
    folded = [np.ldexp(x.astype(dtype), e.take(block_index(x.shape[axis], x.shape[axis], block), axis))
              for x, e, axis in zip((a, b), exponents, axes, strict=True)]
    return terms(folded[0], folded[1], g, block, np.matmul, None)


def _blocked_axes(kind: str) -> tuple[int, int]:
    """Which stored axis of each operand the blocks lie along."""
    return {"conv2d": (0, 1), "conv2d_input_grad": (0, 0), "conv2d_weight_grad": (3, 3)}[kind]


def _exact_product(left: Array, right: Array) -> Array:
    """Matrix product of integers of at most 32 bits, block sums below 2^90, rounded once to float32."""
    (low_a, high_a), (low_b, high_b) = (_digits(x) for x in (left, right))
    low = np.matmul(low_a, low_b).astype(np.int64)
    middle = (np.matmul(low_a, high_b) + np.matmul(high_a, low_b)).astype(np.int64)
    low += (middle & ((1 << SPLIT) - 1)) << SPLIT
    high = np.matmul(high_a, high_b).astype(np.int64) + (middle >> SPLIT) + (low >> (2 * SPLIT))
    return limbs_to_float32(high, low & ((1 << (2 * SPLIT)) - 1), 2 * SPLIT, 0)


def _digits(x: Array) -> tuple[Array, Array]:
    low = np.fmod(x, 2.0**SPLIT)
    return low, (x - low) * 2.0**-SPLIT


Product = Callable[[Array, Array], Array]


def _chunks(height: int, bytes_per_row: int) -> list[range]:
    step = max(1, CHUNK_BYTES // max(bytes_per_row, 1))
    return [range(start, min(start + step, height)) for start in range(0, height, step)]


def _rows(a: Array, b: Array, g: Geometry, block: int, product: Product, exponents: Any) -> Array:
    """Forward and input gradient."""
    forward = g.kind == "conv2d"
    look = unfold if forward else unfold_error
    order = (0, 1, 2, 3) if forward else (1, 0, 2, 3)
    weight = b.transpose(order)
    height, width = g.out_size if forward else g.size
    total = np.zeros(result_shape(g), np.float32)
    taps = g.kernel[0] * g.kernel[1]
    for rows in _chunks(height, min(block, len(a)) * taps * width * g.batch * a.itemsize):
        out = total[:, rows.start:rows.stop]
        for k, start in enumerate(range(0, len(a), block)):
            columns = look(a[start:start + block], g, rows)
            scales = None if exponents is None else look(exponents[0][k:k + 1], g, rows)
            for ky, kx in np.ndindex(*g.kernel):
                left = np.ascontiguousarray(weight[:, start:start + block, ky, kx])
                sums = product(left, columns[:, ky, kx].reshape(left.shape[1], -1)).astype(np.float32, copy=False)
                if scales is not None:
                    more = exponents[1].transpose(order)[:, k, ky, kx]
                    sums = _shifted(sums, more[:, None] + scales[0, ky, kx].reshape(1, -1))
                out += sums.reshape(out.shape)
    return total


def _weight_grad(a: Array, b: Array, g: Geometry, block: int, product: Product, exponents: Any) -> Array:
    """Weight gradient: a block is up to ``block`` images at one pixel of the output."""
    outputs = g.channels * g.kernel[0] * g.kernel[1]
    total = np.zeros((g.features, outputs), np.float32)

    def by_pixel(act: Array, rows: range) -> Array:
        """(C, H, W, n) -> (pixels, n, outputs)."""
        columns = unfold(act, g, rows).transpose(3, 4, 5, 0, 1, 2)
        return columns.reshape(-1, act.shape[3], outputs)

    row_bytes = g.out_size[1] * outputs * (g.features + block) * a.itemsize
    for k, start in enumerate(range(0, g.batch, block)):
        images = slice(start, start + block)
        for rows in _chunks(g.out_size[0], row_bytes):
            error = a[:, rows.start:rows.stop, :, images]
            error = error.reshape(g.features, -1, error.shape[3]).transpose(1, 0, 2)
            sums = product(error, by_pixel(b[..., images], rows)).astype(np.float32, copy=False)
            if exponents is not None:
                left = exponents[0][:, rows.start:rows.stop, :, k].reshape(g.features, -1).T
                sums = _shifted(sums, left[:, :, None] + by_pixel(exponents[1][..., k:k + 1], rows))
            for term in sums:
                total += term
    return total.reshape(result_shape(g))


def _shifted(sums: Array, exponent: Array) -> Array:
    """float32 sums times 2^exponent."""
    with np.errstate(under="ignore"):
        return np.ldexp(sums, exponent.astype(np.int32))
