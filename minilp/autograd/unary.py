"""Functions of one operand, element by element; each result keeps the operand's memory order.

Where the derivative is a simple expression of the result, the result is what is kept for backward.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from minilp.autograd.arrays import FLOATS, Array, TensorLike, check_dtype
from minilp.autograd.engine import Context
from minilp.autograd.function import Function

if TYPE_CHECKING:
    from minilp.autograd.tensor import Tensor


class Abs(Function):
    """|x|; the derivative at 0 is 0, as in torch."""

    @staticmethod
    def forward(ctx: Context, x: Any) -> Array:
        ctx.save_for_backward(x)
        return np.abs(x)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad * np.sign(x),)


class Exp(Function):
    """e^x."""

    @staticmethod
    def forward(ctx: Context, x: Any) -> Array:
        y = np.exp(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        (y,) = ctx.saved
        return (grad * y,)


class Log(Function):
    """Natural logarithm."""

    @staticmethod
    def forward(ctx: Context, x: Any) -> Array:
        ctx.save_for_backward(x)
        return np.log(x)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad / x,)


class Sqrt(Function):
    """Square root: grad / (2 y)."""

    @staticmethod
    def forward(ctx: Context, x: Any) -> Array:
        y = np.sqrt(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        (y,) = ctx.saved
        return (grad / (y + y),)


class Tanh(Function):
    """Hyperbolic tangent: grad (1 - y^2)."""

    @staticmethod
    def forward(ctx: Context, x: Any) -> Array:
        y = np.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        (y,) = ctx.saved
        slope = np.asarray(np.square(y))
        np.subtract(1, slope, out=slope)
        return (np.multiply(slope, grad, out=slope),)


class Sigmoid(Function):
    """1 / (1 + e^-x), with e = e^-|x| as 1 / (1 + e) or e / (1 + e): no overflow, small values stay accurate."""

    @staticmethod
    def forward(ctx: Context, x: Any) -> Array:
        e = np.asarray(np.abs(x))
        np.negative(e, out=e)
        e = np.asarray(np.exp(e, out=e if e.dtype.kind == "f" else None))
        y = np.asarray(np.maximum(e, np.greater_equal(x, 0)))  # e <= 1, so this is 1 where x >= 0; np.where is slow
        np.add(e, 1, out=e)
        np.divide(y, e, out=y)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        (y,) = ctx.saved
        slope = np.asarray(np.subtract(1, y))
        np.multiply(slope, y, out=slope)
        return (np.multiply(slope, grad, out=slope),)


class Clip(Function):
    """x limited to [low, high]; the gradient passes where low <= x <= high, as in torch."""

    @staticmethod
    def forward(ctx: Context, x: Any, low: float | None, high: float | None) -> Array:
        inside = np.ones_like(x, dtype=np.bool_) if low is None else x >= low
        if high is not None:
            inside = np.logical_and(inside, x <= high)
        ctx.save_for_backward(inside)
        return np.clip(x, low, high)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        (inside,) = ctx.saved
        return np.multiply(grad, inside), None, None


class Cast(Function):
    """Another dtype; the gradient comes back in the old one."""

    @staticmethod
    def forward(ctx: Context, x: Any, dtype: Any) -> Array:
        return np.asarray(x).astype(dtype)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        return grad, None  # the engine converts


def abs(x: TensorLike) -> Tensor:
    """Return |x|; same shape and dtype."""
    return Abs.apply(x)


def exp(x: TensorLike) -> Tensor:
    """Return e^x; same shape, floating dtype."""
    return Exp.apply(x)


def log(x: TensorLike) -> Tensor:
    """Return the natural logarithm of x; -inf at 0 and nan below, with NumPy's warning."""
    return Log.apply(x)


def sqrt(x: TensorLike) -> Tensor:
    """Return the square root of x; its derivative at 0 is inf, as in torch, with NumPy's warning."""
    return Sqrt.apply(x)


def tanh(x: TensorLike) -> Tensor:
    """Return the hyperbolic tangent of x; same shape, floating dtype."""
    return Tanh.apply(x)


def sigmoid(x: TensorLike) -> Tensor:
    """Return 1 / (1 + e^-x); no overflow for any x."""
    return Sigmoid.apply(x)


def clip(x: TensorLike, min: float | None = None, max: float | None = None) -> Tensor:
    """Limit x to [min, max].

    Parameters
    ----------
    x : Tensor
        Any shape.
    min, max : float, optional
        Bounds; None is no bound. One of them must be given.

    Returns
    -------
    Tensor
        Same shape and dtype. The gradient passes where min <= x <= max.

    Raises
    ------
    ValueError
        If both bounds are None.
    """
    if min is None and max is None:
        raise ValueError("clip: min and max are both None; give at least one bound")
    return Clip.apply(x, min, max)


def astype(x: TensorLike, dtype: Any) -> Tensor:
    """Return a copy of x in another dtype; the gradient is converted back.

    Raises
    ------
    TypeError
        If `dtype` is not float32, float64, an integer type or bool, or x requires grad and `dtype` is not a float.
    """
    dtype = np.dtype(dtype)
    check_dtype(dtype, "astype: the target")
    if getattr(x, "requires_grad", False) and dtype not in FLOATS:
        raise TypeError(f"astype: a tensor that requires grad cannot become {dtype}; detach() it first")
    return Cast.apply(x, dtype)
