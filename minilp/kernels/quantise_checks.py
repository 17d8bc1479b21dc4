"""What the quantising kernels demand of their arguments, and the errors that say so."""
from __future__ import annotations

from typing import Any

import numpy as np


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
    axes = tuple([int(axis) for axis in keep])
    if not axes:
        return axes
    if any(not -ndim <= axis < ndim for axis in axes) or len({axis % ndim for axis in axes}) != len(axes):
        raise ValueError(f"keep: expected different axes of a {ndim}-dimensional tensor, got {tuple(keep)}")
    return tuple(sorted(axis % ndim for axis in axes))


def require(x: Any, dtype: Any, function: str, name: str) -> np.ndarray:
    """``x`` as an array (NumPy likes to make scalars of arrays without axes) if it has the dtype.

    Raises
    ------
    TypeError
        If it has not; cffi would read its bytes as what they are not.
    """
    if not isinstance(x, (np.ndarray, np.generic)) or x.dtype != dtype:
        got = x.dtype if isinstance(x, (np.ndarray, np.generic)) else type(x).__name__
        raise TypeError(f"{function}: {name} must be a NumPy array of {np.dtype(dtype)}, got {got}")
    return np.asarray(x)


def check_beta(function: str, beta: Any, bits: int, shape: tuple[int, ...]) -> np.ndarray:
    """``beta`` if it is a scale under which every power of a PoT format is a normal float32 number.

    Raises
    ------
    TypeError, ValueError
        If its dtype, shape or range, or ``bits``, is wrong.
    """
    if not 3 <= bits <= 6:
        raise ValueError(f"{function}: bits must be 3 to 6, got {bits}")
    emax = 2 ** (bits - 2) - 1
    return check_scale(function, "beta", beta, shape, emax - 126, 127 - emax)


def check_scale(function: str, name: str, scale: Any, shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
    """``scale`` if it is int32, broadcasts along the tensor's axes, and lies in [low, high].

    Raises
    ------
    TypeError, ValueError
        If its dtype, shape or range is wrong; the message names ``function`` and ``name``.
    """
    scale = require(scale, np.int32, function, name)
    if scale.ndim != len(shape) or any(have not in (1, want) for have, want in zip(scale.shape, shape, strict=True)):
        raise ValueError(f"{function}: {name} must have the shape of the tensor, {shape}, with 1 where the scale is "
                         f"shared; got {scale.shape}")
    smallest, largest = (scale.item(),) * 2 if scale.size == 1 else (scale.min(initial=low), scale.max(initial=high))
    if smallest < low or largest > high:
        raise ValueError(f"{function}: {name} must lie in [{low}, {high}], got {scale.min()} to {scale.max()}")
    return scale


def not_finite(x: np.ndarray, name: str) -> NotFiniteError:
    """The error for a tensor with NaN or infinity: how many, and where the first one is."""
    bad = ~np.isfinite(x)
    first = tuple(int(i) for i in np.argwhere(bad)[0])
    return NotFiniteError(f"{name}: cannot encode NaN or infinity; {int(bad.sum())} of {x.size} elements, the first is "
                          f"{x[first]} at index {first}")
