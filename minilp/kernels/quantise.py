"""Quantising kernels: the largest magnitude, power-of-two and fixed-point codes, and the values back.

Each function takes float32 (or int8) arrays of any shape and strides, runs the C kernel or its NumPy twin, and returns
arrays in the memory order of its input. Both give the same bits.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from minilp.kernels import reference_quantise as reference


class NotFiniteError(ValueError):
    """A tensor with NaN or infinity was to be encoded; the message names it."""


def kept_axes(keep: Any, ndim: int) -> tuple[int, ...]:
    """Sorted, non-negative axes that keep a scale of their own.

    Parameters
    ----------
    keep : iterable of int
        Axes; negative ones count from the end.
    ndim : int
        Dimensions of the tensor.

    Raises
    ------
    ValueError
        If an axis is out of range or listed twice.
    """
    axes = tuple(int(axis) for axis in keep)
    if any(not -ndim <= axis < ndim for axis in axes) or len({axis % ndim for axis in axes}) != len(axes):
        raise ValueError(f"keep: expected different axes of a {ndim}-dimensional tensor, got {tuple(keep)}")
    return tuple(sorted(axis % ndim for axis in axes))


def absmax(x: np.ndarray, keep: Any = (), name: str = "x") -> np.ndarray:
    """Largest magnitude over the axes not kept, in one pass that also finds NaN and infinity.

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
    _require(x, np.float32, "absmax", name)
    found = reference.absmax_bits(x, kept_axes(keep, x.ndim))
    if found.size and found.max() >= reference.INFINITY_BITS:
        raise _not_finite(x, name)
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
    _require(x, np.float32, "pot_encode", name)
    _check_beta("pot_encode", beta, bits, x.shape)
    if threshold not in reference.THRESHOLDS:
        raise ValueError(f"pot_encode: threshold must be 'log' or 'linear', got {threshold!r}")
    if underflow not in ("rounded", "half"):
        raise ValueError(f"pot_encode: underflow must be 'rounded' or 'half', got {underflow!r}")
    if not np.isfinite(x).all():
        raise _not_finite(x, name)
    return reference.pot_encode(x, beta, bits, stream, reference.THRESHOLDS[threshold], int(underflow == "half"))


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
    _require(codes, np.int8, "pot_decode", "codes")
    _check_beta("pot_decode", beta, bits, codes.shape)
    return reference.pot_decode(codes, beta, bits)


def fixed_encode(x: np.ndarray, exponent: np.ndarray, bits: int, stream: Any = None, name: str = "x") -> np.ndarray:
    """Symmetric fixed-point codes of ``x`` with step 2^exponent, saturating at +-(2^(bits-1) - 1).

    Parameters
    ----------
    x : numpy.ndarray
        float32, any shape and strides.
    exponent : numpy.ndarray
        int32 of ``x``'s shape with 1 where the scale is shared, in [-126, 126].
    bits : int
        2 to 8.
    stream : Stream or None
        None rounds to nearest even; a stream rounds up with probability equal to the fraction (to 2^-24 of a step).
    name : str
        What an error calls the tensor.

    Returns
    -------
    numpy.ndarray
        int8 in the memory order of ``x``.

    Raises
    ------
    TypeError, ValueError
        For a wrong dtype, shape or width, or a scale out of range.
    NotFiniteError
        If ``x`` holds NaN or infinity.
    """
    _require(x, np.float32, "fixed_encode", name)
    _check_scale("fixed_encode", "exponent", exponent, x.shape, -126, 126)
    if not 2 <= bits <= 8:
        raise ValueError(f"fixed_encode: bits must be 2 to 8, got {bits}")
    if not np.isfinite(x).all():
        raise _not_finite(x, name)
    return reference.fixed_encode(x, exponent, bits, stream)


def fixed_decode(codes: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """Values of fixed-point codes: code * 2^exponent.

    Parameters
    ----------
    codes : numpy.ndarray
        int8, any strides.
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
    _require(codes, np.int8, "fixed_decode", "codes")
    _check_scale("fixed_decode", "exponent", exponent, codes.shape, -126, 126)
    return reference.fixed_decode(codes, exponent)


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
    _require(x, np.float32, "outside", "x")
    return reference.outside(in_storage_order(x)[0].reshape(-1), threshold)


def random_bits(shape: tuple[int, ...], stream: Any) -> np.ndarray:
    """uint32 words of a stream for a tensor of ``shape``, in logical C order; ``Stream.uint32`` is the public door."""
    return reference.logical_bits(tuple(shape), stream)


def in_storage_order(x: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """``x`` as a C-contiguous array with its axes in memory order, and that axis order.

    Returns
    -------
    tuple
        The array (a view if ``x`` is contiguous in some axis order, else a copy) and the permutation that leads to it.
    """
    order = tuple(sorted(range(x.ndim), key=lambda axis: (-abs(x.strides[axis]), axis)))
    return np.ascontiguousarray(x.transpose(order)).reshape([x.shape[axis] for axis in order]), order


def _require(x: Any, dtype: Any, function: str, name: str) -> None:
    if not isinstance(x, np.ndarray) or x.dtype != dtype:
        got = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
        raise TypeError(f"{function}: {name} must be a NumPy array of {np.dtype(dtype)}, got {got}")


def _check_beta(function: str, beta: Any, bits: int, shape: tuple[int, ...]) -> None:
    if not 3 <= bits <= 6:
        raise ValueError(f"{function}: bits must be 3 to 6, got {bits}")
    emax = 2 ** (bits - 2) - 1
    _check_scale(function, "beta", beta, shape, emax - 126, 127 - emax)


def _check_scale(function: str, name: str, scale: Any, shape: tuple[int, ...], low: int, high: int) -> None:
    _require(scale, np.int32, function, name)
    if scale.ndim != len(shape) or any(have not in (1, want) for have, want in zip(scale.shape, shape, strict=True)):
        raise ValueError(f"{function}: {name} must have the shape of the tensor, {shape}, with 1 where the scale is "
                         f"shared; got {scale.shape}")
    if scale.size and (scale.min() < low or scale.max() > high):
        raise ValueError(f"{function}: {name} must lie in [{low}, {high}], got {scale.min()} to {scale.max()}")


def _not_finite(x: np.ndarray, name: str) -> NotFiniteError:
    bad = ~np.isfinite(x)
    first = tuple(int(i) for i in np.argwhere(bad)[0])
    return NotFiniteError(f"{name}: cannot encode NaN or infinity; {int(bad.sum())} of {x.size} elements, the first is "
                          f"{x[first]} at index {first}")
