"""Where the batch lives in memory, and the geometry of a convolution.

Activations have the logical shape (N, C, H, W) everywhere. Kernels write them in the memory order (C, H, W, N), "CHWN":
neighbouring floats belong to neighbouring images, so a vector register holds one pixel of many images, and a
convolution needs neither im2col nor a transpose, since every neighbour of a pixel is a whole row of lanes away.
"""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilp.kernels.backend import ffi
from minilp.kernels.conversions import converted

Array = np.ndarray[Any, np.dtype[Any]]
Pair = tuple[int, int]

LINE = 64
"""Bytes of a cache line."""


def to_chwn(x: Array) -> Array:
    """The activation as a C-contiguous array in storage order, without a copy where it is stored so already.

    A copy counts in :func:`minilp.kernels.conversions`.

    Parameters
    ----------
    x : np.ndarray
        Logical shape (N, C, H, W), any dtype, any strides.

    Returns
    -------
    np.ndarray
        Shape (C, H, W, N), C-contiguous.

    Raises
    ------
    ValueError
        If ``x`` is not 4-D.
    """
    if x.ndim != 4:
        raise ValueError(f"x must have 4 axes (N, C, H, W), got shape {x.shape}")
    a = x.transpose(1, 2, 3, 0)
    if a.flags.c_contiguous:
        return a
    converted("to (C, H, W, N)", x)
    return np.ascontiguousarray(a)


def from_chwn(a: Array) -> Array:
    """The logical (N, C, H, W) view of an array stored as (C, H, W, N); never copies.

    Raises
    ------
    ValueError
        If ``a`` is not 4-D.
    """
    if a.ndim != 4:
        raise ValueError(f"a must have 4 axes (C, H, W, N), got shape {a.shape}")
    return a.transpose(3, 0, 1, 2)


def stored(x: Array) -> Array:
    """A view of ``x`` in the order in which activations are stored: (C, H, W, N) with 4 axes, else ``x`` itself."""
    return x.transpose(1, 2, 3, 0) if x.ndim == 4 else x


def is_chwn(x: Array) -> bool:
    """Whether a logical (N, C, H, W) array is stored in (C, H, W, N) order without gaps."""
    return x.ndim == 4 and bool(x.transpose(1, 2, 3, 0).flags.c_contiguous)


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """Like np.empty, starting on a cache line: a vector of 16 floats then never straddles two of them."""
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    memory = np.empty(size + LINE, np.uint8)
    address = memory.ctypes.data if ffi is None else int(ffi.cast("uintptr_t", ffi.from_buffer(memory)))  # the faster
    start = -address % LINE
    return np.ndarray(shape, kind, memory, start)


def empty_like_stored(x: Array) -> Array:
    """An uninitialised array of the shape and dtype of ``x``: CHWN storage if 4-D, else the memory order of ``x``."""
    if x.ndim == 4:
        n, c, h, w = x.shape
        return from_chwn(empty((c, h, w, n), x.dtype))
    return np.empty_like(x)


def check_pair(name: str, value: object, least: int) -> Pair:
    """Check a (vertical, horizontal) pair of whole numbers.

    Raises
    ------
    ValueError
        If ``value`` is not a pair of ints, each at least ``least``; the message names the argument.
    """
    if isinstance(value, (tuple, list)) and len(value) == 2:
        first, second = value
        if type(first) is type(second) is int and first >= least and second >= least:  # hundreds of times a step
            return first, second
        if isinstance(first, (int, np.integer)) and isinstance(second, (int, np.integer)) and min(value) >= least:
            return int(first), int(second)
    raise ValueError(f"{name} must be a pair of ints, each at least {least}, got {value!r}")


def output_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = (1, 1)) -> Pair:
    """Height and width of what a convolution or a pooling window gives.

    Parameters
    ----------
    size, kernel, stride, padding, dilation : (int, int)
        Vertical and horizontal, in pixels; padding is added on both sides.

    Returns
    -------
    (int, int)
        ``(size + 2 padding - dilation (kernel - 1) - 1) // stride + 1`` in each direction.

    Raises
    ------
    ValueError
        If the kernel does not fit into the padded input.
    """
    out = []
    for s, k, st, p, d in zip(size, kernel, stride, padding, dilation, strict=True):
        room = s + 2 * p - d * (k - 1) - 1
        if room < 0:
            raise ValueError(f"a kernel of {kernel} with dilation {dilation} does not fit into an input of {size} "
                             f"with padding {padding}")
        out.append(room // st + 1)
    return out[0], out[1]
