"""relu, add_relu and gelu."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from minilp.autograd.arrays import FLOATS, Array, TensorLike, by_features
from minilp.autograd.engine import Context
from minilp.autograd.function import Function
from minilp.autograd.gaussian import normal_cdf_pdf
from minilp.kernels import elementwise

if TYPE_CHECKING:
    from minilp.autograd.tensor import Tensor


class ReLU(Function):
    """max(x, 0); the derivative at 0 is 0. Keeps a bit an element and not the result."""

    @staticmethod
    def forward(ctx: Context, x: Any) -> Array:
        x = np.asarray(x)
        if x.dtype not in FLOATS:
            return np.maximum(x, 0)
        ctx.by_features = by_features(x)
        y, positive = elementwise.relu(x.T if ctx.by_features else x)
        ctx.save_for_backward(positive)
        return y.T if ctx.by_features else y

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        (positive,) = ctx.saved
        if ctx.by_features:  # the bits are in the order of forward's memory
            return (elementwise.relu_backward(np.ascontiguousarray(grad.T), positive, ctx.owns_grad).T,)
        return (elementwise.relu_backward(grad, positive, ctx.owns_grad),)


class AddReLU(Function):
    """max(a + b, 0) of one shape; both operands get one and the same gradient."""

    @staticmethod
    def forward(ctx: Context, a: Array, b: Array) -> Array:
        y, positive = elementwise.add_relu(a, b)
        ctx.save_for_backward(positive)
        return y

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        (positive,) = ctx.saved
        dx = elementwise.relu_backward(grad, positive, ctx.owns_grad)
        return dx, dx


class GELU(Function):
    """x Phi(x), or its tanh approximation; keeps the local derivative."""

    @staticmethod
    def forward(ctx: Context, x: Any, approximate: str) -> Array:
        x = np.asarray(x)
        if approximate == "none":
            y, slope = normal_cdf_pdf(x)
            np.multiply(slope, x, out=slope)
            np.add(slope, y, out=slope)  # Phi(x) + x phi(x)
            np.multiply(y, x, out=y)
        else:
            y, slope = _tanh_gelu(x)
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        (slope,) = ctx.saved
        return grad * slope, None


def _tanh_gelu(x: Array) -> tuple[Array, Array]:
    """x s with s = (1 + tanh u) / 2, u = sqrt(2/pi) (x + 0.044715 x^3); and its derivative s + 2 x s (1 - s) u'.

    Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, section 2; the derivative is ours.
    """
    c = x.dtype.type(np.sqrt(2 / np.pi))
    square = np.asarray(np.square(x))
    u = np.asarray(square * x.dtype.type(0.044715))
    np.add(u, 1, out=u)
    np.multiply(u, x, out=u)
    np.multiply(u, c, out=u)
    s = np.tanh(u, out=u)
    np.add(s, 1, out=s)
    np.multiply(s, x.dtype.type(0.5), out=s)
    slope = np.asarray(square * x.dtype.type(3 * 0.044715))
    np.add(slope, 1, out=slope)
    np.multiply(slope, c, out=slope)  # u'
    np.multiply(slope, x, out=slope)
    np.multiply(slope, s, out=slope)
    np.multiply(slope, 2 - (s + s), out=slope)
    np.add(slope, s, out=slope)
    return np.multiply(s, x, out=s), slope


def relu(x: TensorLike) -> Tensor:
    """Return max(x, 0), in x's memory order; the gradient at 0 is 0."""
    return ReLU.apply(x)


def add_relu(a: TensorLike, b: TensorLike) -> Tensor:
    """max(a + b, 0) in one pass: how a residual block ends.

    Parameters
    ----------
    a, b : Tensor
        One shape and one float dtype; there is no broadcasting.

    Returns
    -------
    Tensor
        Same shape: the bits of ``relu(a + b)``.

    Raises
    ------
    TypeError, ValueError
        If the dtypes or the shapes differ.
    """
    return AddReLU.apply(a, b)


def gelu(x: TensorLike, approximate: str = "none") -> Tensor:
    """Gaussian error linear unit, x times the standard normal distribution function.

    Parameters
    ----------
    x : Tensor
        Any shape, floating.
    approximate : {"none", "tanh"}
        The exact function, or the published tanh approximation of it.

    Returns
    -------
    Tensor
        Same shape and dtype.

    Raises
    ------
    ValueError
        If `approximate` is neither.
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate={approximate!r}, expected 'none' or 'tanh'")
    return GELU.apply(x, approximate)
