"""How a quantising kernel is run: by C on flat storage, or by its NumPy twin; shared by the formats' wrappers."""
from __future__ import annotations

from typing import Any

import numpy as np

from minilp.kernels import magnitude
from minilp.kernels.backend import check, count, ffi, lib
from minilp.kernels.quantise_checks import not_finite
from minilp.kernels.reference_quantise import INFINITY_BITS
from minilp.kernels.storage import Layout, flat_storage, from_storage


def by_numpy(twin: Any, x: np.ndarray, scale: np.ndarray, name: str, *more: Any) -> np.ndarray:
    """Run a twin; it sees at least one axis, because NumPy makes scalars of arrays without any.

    Parameters
    ----------
    twin : callable
        Takes ``x``, ``scale`` and ``more``.
    x, scale : numpy.ndarray
        The tensor (float32 or codes) and what broadcasts against it.
    name : str
        What an error calls the tensor.
    *more
        Further arguments of the twin.

    Returns
    -------
    numpy.ndarray
        In the shape of ``x``.

    Raises
    ------
    NotFiniteError
        If a float32 ``x`` holds NaN or infinity.
    """
    if x.dtype == np.float32 and not np.isfinite(x).all():
        raise not_finite(x, name)
    return twin(np.atleast_1d(x), np.atleast_1d(scale), *more).reshape(x.shape)


def encode_c(kernel: str, x: np.ndarray, scale: np.ndarray, bits: int, stream: Any, name: str,
             *more: Any) -> np.ndarray:
    """Run a C kernel ``mlp_<kernel>`` that turns float32 into int8 codes under integer scales.

    Parameters
    ----------
    kernel : str
        Such as ``"pot_encode"``.
    x : numpy.ndarray
        float32, any shape and strides, not empty.
    scale : numpy.ndarray
        int32, of ``x``'s shape with 1 where it is shared.
    bits : int
        The kernel's first number, which describes the format.
    stream : Stream or None
        Rounding draws, or None to round to nearest.
    name : str
        What an error calls the tensor.
    *more
        The kernel's further arguments.

    Returns
    -------
    numpy.ndarray
        int8 in the memory order of ``x``.

    Raises
    ------
    NotFiniteError
        If ``x`` holds NaN or infinity.
    """
    flat, order = flat_storage(x)
    codes, largest = np.empty(flat.size, np.int8), ffi.new("uint32_t *")
    layout = Layout.of(x.shape, order, scale.shape, drawing=stream is not None)
    key = ffi.NULL if stream is None else ffi.new("uint32_t[]", stream.key)
    status = getattr(lib(), f"mlp_{kernel}")(
        ffi.from_buffer("uint32_t[]", flat), ffi.from_buffer("int8_t[]", codes), *layout.arguments(),
        layout.index_argument(), ffi.from_buffer("int32_t[]", np.ascontiguousarray(scale).reshape(-1)), bits, *more,
        key, 0 if stream is None else stream.offset, largest)
    check(status, kernel)
    if largest[0] >= INFINITY_BITS:
        raise not_finite(x, name)
    magnitude.report(x, largest[0])
    count(kernel)
    return from_storage(codes, x.shape, order)


def decode_c(kernel: str, codes: np.ndarray, scale: np.ndarray, kind: str, *more: int) -> np.ndarray:
    """Run a C kernel ``mlp_<kernel>`` that turns int8 codes back into float32.

    Parameters
    ----------
    kernel : str
        Such as ``"pot_decode"``.
    codes : numpy.ndarray
        int8, any shape and strides, not empty.
    scale : numpy.ndarray
        int32, of the shape of ``codes`` with 1 where it is shared.
    kind : str
        How the kernel's prototype calls its result, for cffi.
    *more : int
        The kernel's further numbers.

    Returns
    -------
    numpy.ndarray
        float32 in the memory order of ``codes``.
    """
    flat, order = flat_storage(codes)
    values = np.empty(flat.size, np.float32)
    status = getattr(lib(), f"mlp_{kernel}")(
        ffi.from_buffer("int8_t[]", flat), ffi.from_buffer(kind, values),
        *Layout.of(codes.shape, order, scale.shape).arguments(),
        ffi.from_buffer("int32_t[]", np.ascontiguousarray(scale).reshape(-1)), *more)
    check(status, kernel)
    count(kernel)
    return from_storage(values, codes.shape, order)
