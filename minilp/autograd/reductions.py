"""Sums, means, extremes and variances over axes, with PyTorch's gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from minilp.autograd.arrays import Array, Axis, TensorLike, normalise_axis
from minilp.autograd.engine import Context
from minilp.autograd.function import Function

if TYPE_CHECKING:
    from minilp.autograd.tensor import Tensor


def _keepdims(value: Array, axes: tuple[int, ...], ndim: int) -> Array:
    """Put length-1 axes back where a reduction over `axes` removed them; a view."""
    return np.expand_dims(value, axes) if np.ndim(value) != ndim else np.asarray(value)


def _count(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    return int(np.prod([shape[a] for a in axes], dtype=np.int64))


class Sum(Function):
    """Sum over axes; backward repeats the gradient (a read-only view, nothing is copied)."""

    @staticmethod
    def forward(ctx: Context, x: Any, axis: Axis, keepdims: bool) -> Array:
        x = np.asarray(x)
        ctx.axes = normalise_axis("sum", axis, x.ndim)
        ctx.shape = x.shape
        return x.sum(axis=ctx.axes, keepdims=keepdims)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        return np.broadcast_to(_keepdims(grad, ctx.axes, len(ctx.shape)), ctx.shape), None, None


class Mean(Function):
    """Mean over axes."""

    @staticmethod
    def forward(ctx: Context, x: Any, axis: Axis, keepdims: bool) -> Array:
        x = np.asarray(x)
        ctx.axes = normalise_axis("mean", axis, x.ndim)
        ctx.shape = x.shape
        return x.mean(axis=ctx.axes, keepdims=keepdims)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        each = _keepdims(grad, ctx.axes, len(ctx.shape)) / grad.dtype.type(_count(ctx.shape, ctx.axes))
        return np.broadcast_to(each, ctx.shape), None, None


class Extreme(Function):
    """max and min. One axis: the gradient goes to the first extreme element. Several axes or all: ties share it."""

    @staticmethod
    def forward(ctx: Context, x: Any, largest: bool, axis: Axis, keepdims: bool) -> Array:
        name = "max" if largest else "min"
        x = np.asarray(x)
        ctx.axes = normalise_axis(name, axis, x.ndim)
        ctx.shape = x.shape
        if _count(x.shape, ctx.axes) == 0:
            raise ValueError(f"{name}: no elements along axis={axis} of a tensor of shape {x.shape}")
        if isinstance(axis, (int, np.integer)):
            (ctx.axis,) = ctx.axes
            index = np.expand_dims((np.argmax if largest else np.argmin)(x, axis=ctx.axis), ctx.axis)
            ctx.save_for_backward(index)
            y = np.take_along_axis(x, index, axis=ctx.axis)
            return y if keepdims else y.squeeze(ctx.axis)
        y = (np.max if largest else np.min)(x, axis=ctx.axes, keepdims=True)
        ties = (x == y) | (np.isnan(x) & np.isnan(y))
        ctx.save_for_backward(ties)
        return y if keepdims else y.squeeze(ctx.axes)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        (which,) = ctx.saved
        grad = _keepdims(grad, ctx.axes, len(ctx.shape))
        if which.dtype == np.bool_:
            share = grad / which.sum(axis=ctx.axes, keepdims=True).astype(grad.dtype)
            return np.where(which, share, grad.dtype.type(0)), None, None, None
        out = np.zeros(ctx.shape, grad.dtype)
        np.put_along_axis(out, which, grad, axis=ctx.axis)
        return out, None, None, None


class Var(Function):
    """Variance over axes: backward is grad * 2 (x - mean) / (n - correction)."""

    @staticmethod
    def forward(ctx: Context, x: Any, axis: Axis, correction: float, keepdims: bool, root: bool) -> Array:
        name = "std" if root else "var"
        x = np.asarray(x)
        ctx.axes = normalise_axis(name, axis, x.ndim)
        ctx.degrees = _count(x.shape, ctx.axes) - correction
        if ctx.degrees <= 0:
            raise ValueError(
                f"{name}: {_count(x.shape, ctx.axes)} elements along axis={axis} with correction={correction} leave no "
                "degree of freedom; reduce over more elements or pass correction=0"
            )
        centred = x - x.mean(axis=ctx.axes, keepdims=True)
        y = np.square(centred).sum(axis=ctx.axes, keepdims=True) / x.dtype.type(ctx.degrees)
        if root:
            y = np.sqrt(y)
        ctx.save_for_backward(centred, y if root else None)
        return y if keepdims else y.squeeze(ctx.axes)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        centred, root = ctx.saved
        scale = _keepdims(grad, ctx.axes, centred.ndim) * grad.dtype.type(2 / ctx.degrees)
        if root is not None:  # d sqrt(v) = dv / (2 sqrt(v)); taken as 0 where the standard deviation is 0
            zero = root == 0
            scale = np.where(zero, grad.dtype.type(0), scale / np.where(zero, 1, root + root).astype(grad.dtype))
        return centred * scale, None, None, None, None


def sum(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Sum of elements.

    Parameters
    ----------
    x : Tensor
        Any shape.
    axis : int, tuple of int or None
        Axes to sum over; None is all.
    keepdims : bool
        Keep the summed axes with length 1.

    Returns
    -------
    Tensor
        The sums, in x's dtype for floats.

    Raises
    ------
    ValueError
        If an axis is out of range.
    """
    return Sum.apply(x, axis, keepdims)


def mean(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Mean of elements; arguments as for `sum`."""
    return Mean.apply(x, axis, keepdims)


def max(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Largest elements; arguments as for `sum`.

    With one axis the gradient goes to the first largest element (torch.max(x, dim)); over several axes or all of them
    it is divided evenly among equal largest elements (torch.amax, torch.max(x)).

    Raises
    ------
    ValueError
        If an axis is out of range or there is nothing to reduce.
    """
    return Extreme.apply(x, True, axis, keepdims)


def min(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Smallest elements; arguments and ties as for `max`."""
    return Extreme.apply(x, False, axis, keepdims)


def var(x: TensorLike, axis: Axis = None, correction: float = 1, keepdims: bool = False) -> Tensor:
    """Variance: squared deviations from the mean, summed and divided by n - correction.

    Parameters
    ----------
    x : Tensor
        Any shape, floating.
    axis : int, tuple of int or None
        Axes to reduce; None is all.
    correction : float, default 1
        1 is the unbiased estimate (torch's default), 0 the plain mean (NumPy's).
    keepdims : bool
        Keep the reduced axes with length 1.

    Returns
    -------
    Tensor
        Variances in x's dtype.

    Raises
    ------
    ValueError
        If an axis is out of range or n <= correction.
    """
    return Var.apply(x, axis, correction, keepdims, False)


def std(x: TensorLike, axis: Axis = None, correction: float = 1, keepdims: bool = False) -> Tensor:
    """Standard deviation, the square root of `var` (same arguments); its gradient is 0 where it is 0, as in torch."""
    return Var.apply(x, axis, correction, keepdims, True)
