"""MX kernels: small elements under one power of two per block, and contractions in integers inside a block.

Each function checks its operands and gives the result its layout. Encoding in blocks, and contractions whose
block sums fit 53 bits, run in C or in their NumPy twins (:mod:`minilp.kernels.reference_mx`), with the same bits;
contractions of E5M2 run in NumPy.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minilp.kernels import mx_c, reference_mx
from minilp.kernels.backend import active, count
from minilp.kernels.layout import Pair, from_chwn, to_chwn
from minilp.kernels.pot_geometry import KINDS, Array, Geometry, geometry
from minilp.kernels.quantise import random_bits
from minilp.kernels.quantise_checks import not_finite, require
from minilp.kernels.reference_mx import LEAST
from minilp.kernels.storage import storage_order

BIAS = 127
"""An E8M0 scale code less this is the exponent."""


@dataclass(frozen=True)
class Element:
    """A small number: sign, and a level that counts the magnitudes upwards, subnormals first.

    Attributes
    ----------
    bits, man, emin, top : int
        Width, mantissa bits, exponent of the smallest normal number, largest level. A fixed-point element is one whose
        levels end with the first normal octave.
    """

    bits: int
    man: int
    emin: int
    top: int

    def integers(self) -> Array:
        """int64 of length 256 by ``code & 255``: the value of each code in units of 2^:attr:`step`."""
        level = np.arange(self.top + 1)
        octave = np.maximum((level >> self.man) - 1, 0)
        out = np.zeros(256, np.int64)
        out[:self.top + 1] = (level - (octave << self.man)) << octave
        out[:-self.top - 1:-1] = -out[1:self.top + 1]
        return out

    @property
    def step(self) -> int:
        """Exponent of the smallest positive value."""
        return self.emin - self.man

    @property
    def largest(self) -> float:
        """The largest value."""
        return float(self.integers()[self.top]) * 2.0**self.step

    @property
    def highest(self) -> int:
        """Exponent of the largest value."""
        return self.emin + max((self.top >> self.man) - 1, 0)


@dataclass(frozen=True)
class Operand:
    """One operand of a contraction.

    Attributes
    ----------
    codes : np.ndarray
        int8 levels, any strides, logical shape.
    element : Element
        What they are levels of.
    exponent : np.ndarray
        int32 exponents of the scales: the shape of ``codes`` with one entry for each block along the blocked axis.
    """

    codes: Array
    element: Element
    exponent: Array


def mx_encode(x: Array, axis: int, run: int, block: int, element: Element, *, ceil: bool = False, stream: Any = None,
              name: str = "x") -> tuple[Array, Array]:
    """Levels of ``x`` in blocks along one axis, and their scales.

    Parameters
    ----------
    x : np.ndarray
        float32, at least one axis, any strides.
    axis : int
        The axis that blocks lie along, not negative.
    run : int
        Blocks start anew every ``run`` elements; divides the axis.
    block : int
        Elements of a block; the last of a run may be shorter.
    element : Element
    ceil : bool
        The smallest scale under which nothing saturates, instead of OCP's.
    stream : Stream or None
        None rounds to nearest even; a stream rounds up with the probability of the fraction (to 2^-24 of a step).
    name : str
        What an error calls the tensor.

    Returns
    -------
    (np.ndarray, np.ndarray)
        int8 codes in the memory order of ``x``, and uint8 scale codes: the shape of ``x`` with one for each block.

    Raises
    ------
    TypeError
        If ``x`` is not float32.
    NotFiniteError
        If ``x`` holds NaN or infinity.
    """
    x = require(x, np.float32, "mx_encode", name)
    order = storage_order(x)
    stored, place, inverse = np.ascontiguousarray(x.transpose(order)), order.index(axis), np.argsort(order)
    draw = None if stream is None else random_bits(x.shape, stream, order).transpose(order)
    if active() == "c" and x.size:
        codes, scales = mx_c.encode(stored, draw, place, run, block, element, ceil)
        if codes is None:
            raise not_finite(x, name)
        return codes.transpose(inverse), scales.transpose(inverse)
    maximum = reference_mx.maxima(stored, place, run, block)
    if not np.isfinite(maximum).all():
        raise not_finite(x, name)
    scales = reference_mx.scale_codes(maximum, element.largest, element.highest, ceil)
    exponent = scales.astype(np.int32).take(reference_mx.block_index(x.shape[axis], run, block), place) - BIAS
    codes = reference_mx.levels(stored, exponent, element.man, element.emin, element.top, element.largest, draw)
    return codes.transpose(inverse), scales.transpose(inverse)


def mx_levels(x: Array, exponent: Array, element: Element, stream: Any = None, name: str = "x") -> Array:
    """Levels of ``x`` under given scales.

    Parameters
    ----------
    x : np.ndarray
        float32, any strides.
    exponent : np.ndarray
        int32, broadcasts against ``x``.
    element, stream, name
        As for :func:`mx_encode`.

    Returns
    -------
    np.ndarray
        int8 in the memory order of ``x``.

    Raises
    ------
    TypeError
        If ``x`` is not float32.
    NotFiniteError
        If ``x`` holds NaN or infinity.
    """
    x = require(x, np.float32, "mx_levels", name)
    if not np.isfinite(x).all():
        raise not_finite(x, name)
    draw = None if stream is None else random_bits(x.shape, stream).reshape(x.shape or (1,))
    found = reference_mx.levels(np.atleast_1d(x), np.atleast_1d(exponent), element.man, element.emin, element.top,
                                element.largest, draw)
    codes = np.empty_like(x, np.int8)
    codes[...] = found.reshape(x.shape)
    return codes


def mx_contract(kind: str, a: Operand, b: Operand, block: int, *, stride: Pair = (1, 1), padding: Pair = (0, 0),
                dilation: Pair = (1, 1), groups: int = 1, size: Pair | None = None) -> Array:
    """Contract two MX operands: integers inside a block, float32 adds between blocks, in a fixed order.

    Blocks lie along the input channels forward, along the output channels for the input gradient (within a group of
    channels), and along the images for the weight gradient; each at one kernel tap or pixel. A block's term is
    ``float32(P) * 2^e``: P the exact integer sum, e the sum of both scales' exponents less what is common to all.
    Terms are added in float32, by ascending block, then ky, kx (or y, x of the output for the weight gradient). The
    common power of two is applied once, at the end.

    Parameters
    ----------
    kind : str
        As for ``pot_contract``: ``"conv2d"`` (act, weight), ``"conv2d_input_grad"`` (error, weight),
        ``"conv2d_weight_grad"`` (error, act), or the same of ``"linear"``.
    a, b : Operand
    block : int
        At least 1.
    stride, padding, dilation : (int, int)
    groups : int
    size : (int, int), optional
        (H, W) of the input for an input gradient, (KH, KW) for a weight gradient.

    Returns
    -------
    np.ndarray
        float32; storage as ``pot_contract``.

    Raises
    ------
    ValueError
        If a shape or an option is wrong; the message names it.
    OverflowError
        If a result is beyond the largest float32.
    """
    if kind not in KINDS:
        raise ValueError(f"mx_contract: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    linear = kind.startswith("linear")
    arrays = [a.codes, b.codes, a.exponent, b.exponent]
    if linear:
        arrays = [x[:, :, None, None] for x in arrays]
        size = None if kind == "linear" else (1, 1)
    name = kind.replace("linear", "conv2d")
    g = geometry(name, arrays[0], arrays[1], stride, padding, dilation, groups, size)
    longest = {"conv2d": g.channels // groups, "conv2d_input_grad": g.features // groups}.get(name, g.batch)
    largest = int(a.element.integers().max()) * int(b.element.integers().max())
    bits = largest.bit_length() + (max(min(block, longest) - 1, 0)).bit_length()
    base = [int(e.max(initial=-254)) for e in (a.exponent, b.exponent)]
    second = to_chwn if name == "conv2d_weight_grad" else np.ascontiguousarray
    ca, cb, ea, eb = to_chwn(arrays[0]), second(arrays[1]), to_chwn(arrays[2]), second(arrays[3])
    exponent = base[0] + base[1] + a.element.step + b.element.step
    parts = []
    for i in range(groups):
        x, y, left, right = (z[i * len(z) // groups:(i + 1) * len(z) // groups] for z in (ca, cb, ea, eb))
        parts.append(_one_group(x, y, a.element, b.element, g.group(), block, left - base[0], right - base[1], bits,
                                2.0**exponent))
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if exponent + bits + g.depth.bit_length() >= 127 and not np.isfinite(whole).all():
        raise OverflowError(f"mx_contract: a result is beyond the largest float32 (scale exponent {exponent})")
    result = whole if name == "conv2d_weight_grad" else from_chwn(whole)
    return result[:, :, 0, 0] if linear else result


def _one_group(x: Array, y: Array, left: Element, right: Element, g: Geometry, block: int, exponent_x: Array,
               exponent_y: Array, bits: int, scale: float) -> Array:
    """Stored float32 result of one group of channels; ``scale`` is the common power of two."""
    lowest = int(exponent_x.min(initial=0)) + int(exponent_y.min(initial=0))
    if active() == "c" and x.size and y.size and g.batch and lowest >= LEAST:
        length = {"conv2d": g.channels, "conv2d_input_grad": g.features}.get(g.kind, g.batch)
        how = mx_c.kind(left.integers(), right.integers(), block, length)
        if how is not None:
            return mx_c.contract(how, x, y, left.integers(), right.integers(), g, block, exponent_x, exponent_y, scale)
    count(f"mx_{g.kind}[numpy]")
    values = [e.integers().astype(np.float64)[codes.view(np.uint8)] for e, codes in ((left, x), (right, y))]
    total = reference_mx.contract(values[0], values[1], g, block, (exponent_x, exponent_y), bits)
    with np.errstate(over="ignore", under="ignore"):
        return np.multiply(total, scale, dtype=np.float64).astype(np.float32)
