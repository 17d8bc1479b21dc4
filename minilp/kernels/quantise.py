"""Quantising kernels: the largest magnitude, power-of-two and fixed-point codes, and the values back.

Each function takes float32 (or int8) arrays of any shape and strides, runs the C kernel or its NumPy twin, and returns
arrays in the memory order of its input. Both give the same bits.
"""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilp.kernels import reference_quantise as reference
from minilp.kernels.backend import active, check, count, ffi, lib, threads
from minilp.kernels.magnitude import noted
from minilp.kernels.quantise_checks import NotFiniteError, check_beta, check_scale, kept_axes, not_finite, require
from minilp.kernels.quantise_run import by_numpy, decode_c, encode_c
from minilp.kernels.storage import Layout, flat_storage, from_storage

__all__ = ["NotFiniteError", "absmax", "fixed_decode", "fixed_encode", "kept_axes", "outside", "pot_decode",
           "pot_encode", "pot_encode_clipped", "random_bits"]

PIECE = 16384  # MLP_PIECE of quantise.h: what a thread takes at a time, and what one count of outside() covers


def absmax(x: np.ndarray, keep: Any = (), name: str = "x") -> np.ndarray:
    """Largest magnitude over the axes not kept, in one pass that also finds NaN and infinity.

    Without a pass where the kernel that wrote ``x`` noted it: see :mod:`minilp.kernels.magnitude`.

    Parameters
    ----------
    x : numpy.ndarray
        float32, any shape and strides. Empty reductions give 0.
    keep : iterable of int
        Axes that keep their length; the others become 1.
    name : str
        What an error calls the tensor.

    Returns
    -------
    numpy.ndarray
        float32.

    Raises
    ------
    TypeError
        If ``x`` is not float32.
    NotFiniteError
        If ``x`` holds NaN or infinity.
    """
    x = require(x, np.float32, "absmax", name)
    axes = kept_axes(keep, x.ndim)
    known = None if axes else noted(x)
    if known is not None:
        return np.array(known, np.uint32).view(np.float32).reshape((1,) * x.ndim)
    found = _absmax_c(x, axes) if active() == "c" and x.size else reference.absmax_bits(x, axes)
    if found.size and (found.item() if found.size == 1 else found.max()) >= reference.INFINITY_BITS:
        raise not_finite(x, name)
    return found.view(np.float32)


def pot_encode(x: np.ndarray, beta: np.ndarray, bits: int, stream: Any = None, threshold: str = "log",
               underflow: str = "rounded", name: str = "x") -> np.ndarray:
    """Power-of-two codes of ``x`` under the scale 2^beta.

    Parameters
    ----------
    x : numpy.ndarray
        float32, any shape and strides.
    beta : numpy.ndarray
        int32 of ``x``'s shape with 1 where the scale is shared; every 2^(k + beta) must be a normal float32 number.
    bits : int
        3 to 6.
    stream : Stream or None
        None rounds to nearest. A stream rounds by linear distance between neighbouring powers, and between 0 and the
        smallest power (to 2^-32 of it); the draw of an element depends on its logical C-order index alone.
    threshold : {"log", "linear"}
        Nearest rounding goes up from sqrt 2 (nearest in the log domain) or from 1.5 on.
    underflow : {"rounded", "half"}
        Zero if the rounded exponent is below the smallest, or below half the smallest power.
    name : str
        What an error calls the tensor.

    Returns
    -------
    numpy.ndarray
        int8 in the memory order of ``x``: 0, or sign times (exponent - beta + emax + 1).

    Raises
    ------
    TypeError, ValueError
        For a wrong dtype, shape, width or option, or a scale out of range.
    NotFiniteError
        If ``x`` holds NaN or infinity.
    """
    x, beta, addend, half = _pot_arguments(x, beta, bits, threshold, underflow, name)
    if active() == "c" and x.size:
        return encode_c("pot_encode", x, beta, bits, stream, name, addend, half, 0, ffi.NULL)
    return by_numpy(reference.pot_encode, x, beta, name, bits, stream, addend, half)


def pot_encode_clipped(x: np.ndarray, beta: np.ndarray, bits: int, limit: float, stream: Any = None,
                       threshold: str = "log", underflow: str = "rounded", name: str = "x"
                       ) -> tuple[np.ndarray, np.ndarray]:
    """:func:`pot_encode` and :func:`outside` in one pass over memory.

    Parameters
    ----------
    x, beta, bits, stream, threshold, underflow, name
        As for :func:`pot_encode`; ``beta`` is what saturates.
    limit : float
        The threshold of :func:`outside`.

    Returns
    -------
    (codes, positions)
        As :func:`pot_encode` and :func:`outside` return them.

    Raises
    ------
    TypeError, ValueError, NotFiniteError
        As :func:`pot_encode`.
    """
    x, beta, addend, half = _pot_arguments(x, beta, bits, threshold, underflow, name)
    flat, _ = flat_storage(x)
    if active() != "c" or not x.size:
        codes = by_numpy(reference.pot_encode, x, beta, name, bits, stream, addend, half)
        return codes, reference.outside(flat, limit)
    word, counts = _float_bits(limit), np.zeros(-(-x.size // PIECE), np.int64)
    codes = encode_c("pot_encode", x, beta, bits, stream, name, addend, half, word,
                     ffi.from_buffer("int64_t[]", counts))
    return codes, _positions(flat, word, counts)


def _pot_arguments(x: np.ndarray, beta: np.ndarray, bits: int, threshold: str, underflow: str, name: str
                   ) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Check the arguments; ``x``, ``beta``, and both options as the kernels' numbers."""
    x = require(x, np.float32, "pot_encode", name)
    beta = check_beta("pot_encode", beta, bits, x.shape)
    if threshold not in reference.THRESHOLDS:
        raise ValueError(f"pot_encode: threshold must be 'log' or 'linear', got {threshold!r}")
    if underflow not in ("rounded", "half"):
        raise ValueError(f"pot_encode: underflow must be 'rounded' or 'half', got {underflow!r}")
    return x, beta, reference.THRESHOLDS[threshold], int(underflow == "half")


def pot_decode(codes: np.ndarray, beta: np.ndarray, bits: int) -> np.ndarray:
    """Values of power-of-two codes: sign * 2^(|code| - 1 - emax + beta), 0 for the zero code.

    Parameters
    ----------
    codes : numpy.ndarray
        int8 in [-(2^(bits-1) - 1), 2^(bits-1) - 1], any strides.
    beta, bits
        As for :func:`pot_encode`.

    Returns
    -------
    numpy.ndarray
        float32 in the memory order of ``codes``.

    Raises
    ------
    TypeError, ValueError
        For a wrong dtype, shape or width, or a scale out of range.
    """
    codes = require(codes, np.int8, "pot_decode", "codes")
    beta = check_beta("pot_decode", beta, bits, codes.shape)
    if active() == "c" and codes.size:
        return decode_c("pot_decode", codes, beta, "uint32_t[]", bits)
    return by_numpy(reference.pot_decode, codes, beta, "codes", bits)


def fixed_encode(x: np.ndarray, exponent: np.ndarray, bits: int, stream: Any = None, name: str = "x") -> np.ndarray:
    """Symmetric fixed-point codes of ``x`` with step 2^exponent, saturating at +-(2^(bits-1) - 1).

    Parameters
    ----------
    x : numpy.ndarray
        float32, any shape and strides.
    exponent : numpy.ndarray
        int32 of ``x``'s shape with 1 where the scale is shared, in [-126, 126].
    bits : int
        2 to 16; above 8 in NumPy only.
    stream : Stream or None
        None rounds to nearest even; a stream rounds up with probability equal to the fraction (to 2^-24 of a step).
    name : str
        What an error calls the tensor.

    Returns
    -------
    numpy.ndarray
        int8, above 8 bits int16, in the memory order of ``x``.

    Raises
    ------
    TypeError, ValueError
        For a wrong dtype, shape or width, or a scale out of range.
    NotFiniteError
        If ``x`` holds NaN or infinity.
    """
    x = require(x, np.float32, "fixed_encode", name)
    exponent = check_scale("fixed_encode", "exponent", exponent, x.shape, -126, 126)
    if not 2 <= bits <= 16:
        raise ValueError(f"fixed_encode: bits must be 2 to 16, got {bits}")
    if active() == "c" and x.size and bits <= 8:
        return encode_c("fixed_encode", x, exponent, bits, stream, name)
    return by_numpy(reference.fixed_encode, x, exponent, name, bits, stream)


def fixed_decode(codes: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """Values of fixed-point codes: code * 2^exponent.

    Parameters
    ----------
    codes : numpy.ndarray
        int8 or int16, any strides.
    exponent : numpy.ndarray
        As for :func:`fixed_encode`.

    Returns
    -------
    numpy.ndarray
        float32 in the memory order of ``codes``.

    Raises
    ------
    TypeError, ValueError
        For a wrong dtype or shape, or a scale out of range.
    """
    wide = getattr(codes, "dtype", None) == np.int16
    codes = require(codes, np.int16 if wide else np.int8, "fixed_decode", "codes")
    exponent = check_scale("fixed_decode", "exponent", exponent, codes.shape, -126, 126)
    if active() == "c" and codes.size and not wide:
        return decode_c("fixed_decode", codes, exponent, "float[]")
    return by_numpy(reference.fixed_decode, codes, exponent, "codes")


def outside(x: np.ndarray, threshold: float) -> np.ndarray:
    """Where |x| > threshold, as positions in storage order.

    Parameters
    ----------
    x : numpy.ndarray
        float32, any strides.
    threshold : float
        Compared in float32.

    Returns
    -------
    numpy.ndarray
        int64, ascending: indices into ``x`` laid out flat with its axes sorted by descending stride (its memory, if
        ``x`` is contiguous in some axis order).

    Raises
    ------
    TypeError
        If ``x`` is not float32.
    """
    x = require(x, np.float32, "outside", "x")
    flat, _ = flat_storage(x)
    if active() != "c" or not flat.size:
        return reference.outside(flat, threshold)
    word, counts = _float_bits(threshold), np.zeros(-(-flat.size // PIECE), np.int64)
    check(lib().mlp_outside_count(ffi.from_buffer("uint32_t[]", flat), flat.size, word,
                                  ffi.from_buffer("int64_t[]", counts)), "outside")
    count("outside")
    return _positions(flat, word, counts)


def _float_bits(value: float) -> int:
    """The bits of a number as float32; +0.0 for both zeros, which are one to a comparison."""
    return int(np.float32(value + 0.0).view(np.uint32))


def _positions(flat: np.ndarray, limit: int, counts: np.ndarray) -> np.ndarray:
    """Where magnitudes are above ``limit``, a float's bits, given how many there are in each piece."""
    positions = np.empty(counts.sum(), np.int64)
    if positions.size:
        check(lib().mlp_outside_list(ffi.from_buffer("uint32_t[]", flat), flat.size, limit,
                                     ffi.from_buffer("int64_t[]", counts),
                                     ffi.from_buffer("int64_t[]", positions)), "outside")
    return positions


def random_bits(shape: tuple[int, ...], stream: Any, order: tuple[int, ...] | None = None) -> np.ndarray:
    """Words of a stream for a tensor of ``shape``; ``Stream.uint32`` is the public door.

    Parameters
    ----------
    shape : tuple of int
        Word k belongs to the element with logical C-order index k.
    stream : Stream
    order : tuple of int, optional
        The axis permutation in which the words shall lie in memory; as they are by default.

    Returns
    -------
    numpy.ndarray
        uint32 of ``shape``; ``words.transpose(order)`` is C-contiguous.
    """
    shape = tuple(shape)
    order = tuple(range(len(shape))) if order is None else order
    if active() != "c" or 0 in shape:
        stored = np.ascontiguousarray(reference.logical_bits(shape, stream).transpose(order)).reshape(-1)
        return from_storage(stored, shape, order)
    words = np.empty(math.prod(shape), np.uint32)
    layout = Layout.of(shape, order, (1,) * len(shape), drawing=True)
    status = lib().mlp_random_bits(ffi.from_buffer("uint32_t[]", words), *layout.arguments(), layout.index_argument(),
                                   ffi.new("uint32_t[]", stream.key), stream.offset)
    check(status, "random_bits")
    count("random_bits")
    return from_storage(words, shape, order)


def _absmax_c(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    flat, order = flat_storage(x)
    shape = tuple(n if axis in axes else 1 for axis, n in enumerate(x.shape))
    workers = min(threads(), -(-flat.size // PIECE))
    maxima = np.zeros((workers, *shape), np.uint32)  # one set a thread, so that none waits for another
    status = lib().mlp_absmax(ffi.from_buffer("uint32_t[]", flat), *Layout.of(x.shape, order, shape).arguments(),
                                      workers, maxima[0].size, ffi.from_buffer("uint32_t[]", maxima.reshape(-1)))
    check(status, "absmax")
    count("absmax")
    return maxima[0] if workers == 1 else maxima.max(axis=0)
