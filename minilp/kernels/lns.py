"""LNS kernels: real numbers to signed levels on a logarithmic lattice, and the values back.

Each function takes arrays of any shape and strides, runs the C kernel or its NumPy twin
(:mod:`minilp.kernels.reference_lns`), and returns arrays in the memory order of its input. Both give the same bits.
"""
from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from minilp.kernels import magnitude
from minilp.kernels import reference_lns as reference
from minilp.kernels.backend import BAD_CODE, active, check, count, ffi, lib
from minilp.kernels.quantise_checks import not_finite, require
from minilp.kernels.reference_quantise import INFINITY_BITS
from minilp.kernels.storage import Layout, flat_storage, from_storage

LARGEST_TOP, LARGEST_GAMMA = 2**15, 2**15


def code_dtype(top: int) -> np.dtype[Any]:
    """The smallest signed integer type that holds levels from -top to top: int8, int16 or int32."""
    return np.dtype(np.int8 if top <= 127 else np.int16 if top <= 32767 else np.int32)


def lns_encode(x: np.ndarray, maximum: np.ndarray, gamma: int, top: int, stream: Any = None, draw: str = "linear",
               name: str = "x") -> np.ndarray:
    """Signed levels of ``x``: sign times k in 1 .. top for ``maximum * 2^((k - top) / gamma)``, 0 for zero alone.

    Parameters
    ----------
    x : numpy.ndarray
        float32, any shape and strides.
    maximum : numpy.ndarray
        float32, positive and finite, of ``x``'s shape with 1 where it is shared. Larger magnitudes saturate.
    gamma : int
        Levels an octave: a power of two from 1 to 2^15.
    top : int
        The largest level, 1 to 2^15.
    stream : Stream or None
        None rounds gamma log2(|x| / maximum) to the nearest integer, not below level 1: tiny magnitudes become the
        smallest level, as in the paper's clamp. A stream rounds stochastically, and the draw of an element depends on
        its logical C-order index alone.
    draw : {"linear", "exponent"}
        Up with the probability of the linear distance between neighbouring float32 values, 0 among them (unbiased, to
        2^-32 of a gap); or with the fraction of gamma log2(|x| / maximum), not below level 1 (unbiased in the
        logarithm, biased in value). That fraction comes from a table of 4096 (or gamma) points an octave with
        straight lines between, rounded to 2^-22 octaves.
    name : str
        What an error calls the tensor.

    Returns
    -------
    numpy.ndarray
        int8, int16 or int32 (:func:`code_dtype`) in the memory order of ``x``.

    Raises
    ------
    TypeError, ValueError
        For a wrong dtype, shape, gamma, top or draw, or a maximum that is not positive and finite.
    NotFiniteError
        If ``x`` holds NaN or infinity.
    """
    x = require(x, np.float32, "lns_encode", name)
    maximum = _check("lns_encode", maximum, gamma, top, x.shape)
    if draw not in reference.RULES[1:]:
        raise ValueError(f"lns_encode: draw must be 'linear' or 'exponent', got {draw!r}")
    rule, dtype = "nearest" if stream is None else draw, code_dtype(top)
    if active() != "c" or not x.size:
        if not np.isfinite(x).all():
            raise not_finite(x, name)
        return reference.encode(np.atleast_1d(x), np.atleast_1d(maximum), gamma, top, rule, stream,
                                dtype).reshape(x.shape)
    flat, order = flat_storage(x)
    codes, largest = np.empty(flat.size, dtype), ffi.new("uint32_t *")
    layout = Layout.of(x.shape, order, maximum.shape, drawing=stream is not None)
    lattice = reference.lattice(gamma) if rule == "exponent" else gamma
    key = ffi.NULL if stream is None else ffi.new("uint32_t[]", stream.key)
    status = lib().mlp_lns_encode(
        ffi.from_buffer("float[]", flat), ffi.from_buffer(codes), dtype.itemsize, *layout.arguments(),
        layout.index_argument(), ffi.from_buffer("float[]", np.ascontiguousarray(maximum).reshape(-1)),
        ffi.from_buffer("double[]", reference.edges(lattice, rule == "nearest")),
        ffi.from_buffer("int64_t[]", reference.buckets(lattice, rule == "nearest")),
        ffi.from_buffer("double[]", reference.values(gamma, top)), lattice.bit_length() - 1, gamma.bit_length() - 1,
        top, reference.RULES.index(rule), key, 0 if stream is None else stream.offset, largest)
    check(status, "lns_encode")
    if largest[0] >= INFINITY_BITS:
        raise not_finite(x, name)
    magnitude.report(x, largest[0])
    count("lns_encode")
    return from_storage(codes, x.shape, order)


def lns_decode(codes: np.ndarray, maximum: np.ndarray, gamma: int, top: int) -> np.ndarray:
    """Values of codes: sign times ``maximum * 2^((|code| - top) / gamma)``, a float64 product rounded once; 0 for 0.

    Parameters
    ----------
    codes : numpy.ndarray
        int8, int16 or int32 as :func:`code_dtype` says, from -top to top, any strides.
    maximum, gamma, top
        As for :func:`lns_encode`.

    Returns
    -------
    numpy.ndarray
        float32 in the memory order of ``codes``. Values below float32's normal range lose bits or become 0.

    Raises
    ------
    TypeError, ValueError
        For a wrong dtype, shape, gamma or top, a code beyond top, or a maximum that is not positive and finite.
    """
    codes = require(codes, code_dtype(top), "lns_decode", "codes")
    maximum = _check("lns_decode", maximum, gamma, top, codes.shape)
    flat, order = flat_storage(codes)
    if active() != "c" or not codes.size:
        if flat.size and (flat.max() > top or flat.min() < -top):
            raise _beyond(flat, top)
        return reference.decode(np.atleast_1d(codes), np.atleast_1d(maximum), gamma, top).reshape(codes.shape)
    found = np.empty(flat.size, np.float32)
    status = lib().mlp_lns_decode(
        ffi.from_buffer(flat), ffi.from_buffer("float[]", found), flat.itemsize,
        *Layout.of(codes.shape, order, maximum.shape).arguments(),
        ffi.from_buffer("float[]", np.ascontiguousarray(maximum).reshape(-1)),
        ffi.from_buffer("double[]", reference.values(gamma, top)), top)
    if status == BAD_CODE:
        raise _beyond(flat, top)
    check(status, "lns_decode")
    count("lns_decode")
    return from_storage(found, codes.shape, order)


def _beyond(codes: np.ndarray, top: int) -> ValueError:
    return ValueError(f"lns_decode: codes must lie in [{-top}, {top}], got {codes.min()} to {codes.max()}")


@functools.lru_cache(maxsize=256)
def lns_table(maximum: float, gamma: int, top: int) -> np.ndarray:
    """What the codes -top .. top stand for under one maximum, by the rule of :func:`lns_decode`.

    Parameters
    ----------
    maximum : float
        A float32 number, positive and finite.
    gamma, top : int
        As for :func:`lns_encode`.

    Returns
    -------
    numpy.ndarray
        float32 of length 2 top + 1, read-only: both passes of a step share it.
    """
    upper = (float(maximum) * reference.values(gamma, top)).astype(np.float32)
    table = np.concatenate([-upper[:0:-1], upper])
    table.flags.writeable = False
    return table


def _check(function: str, maximum: Any, gamma: int, top: int, shape: tuple[int, ...]) -> np.ndarray:
    """``maximum`` if it can be the scale of a tensor of ``shape``."""
    maximum = require(maximum, np.float32, function, "maximum")
    if not 1 <= gamma <= LARGEST_GAMMA or gamma & (gamma - 1):
        raise ValueError(f"{function}: gamma must be a power of two from 1 to {LARGEST_GAMMA}, got {gamma}")
    if not 1 <= top <= LARGEST_TOP:
        raise ValueError(f"{function}: top must be 1 to {LARGEST_TOP}, got {top}")
    if maximum.size == 1 and maximum.ndim == len(shape) and 0 < maximum.item() < math.inf:
        return maximum
    if maximum.ndim != len(shape) or any(have not in (1, want)
                                         for have, want in zip(maximum.shape, shape, strict=True)):
        raise ValueError(f"{function}: maximum must have the shape of the tensor, {shape}, with 1 where it is shared; "
                         f"got {maximum.shape}")
    if maximum.size and not (np.isfinite(maximum).all() and maximum.min() > 0):
        raise ValueError(f"{function}: maximum must be positive and finite, got {maximum.min()} to {maximum.max()}")
    return maximum
