"""Matrix products: matmul with NumPy's broadcasting, and the linear layer's x W^T + b."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from minilp.autograd.arrays import Array, TensorLike, check_dtype
from minilp.autograd.engine import Context
from minilp.autograd.function import Function

if TYPE_CHECKING:
    from minilp.autograd.tensor import Tensor


def _for_blas(x: Array) -> Array:
    """Copy x if its last two axes have strides that NumPy will not hand to BLAS (e.g. a broadcast gradient).

    NumPy multiplies such arrays with its own loops, which are slower by two orders of magnitude.
    """
    if x.ndim < 2 or x.size == 0:
        return x
    (rows, cols), (by_row, by_col) = x.shape[-2:], x.strides[-2:]
    if (by_col == x.itemsize and by_row >= cols * x.itemsize) or (by_row == x.itemsize and by_col >= rows * x.itemsize):
        return x
    return np.ascontiguousarray(x)


def _product(a: Array, b: Array) -> Array:
    return np.matmul(_for_blas(a), _for_blas(b))


class Matmul(Function):
    """a @ b. A 1-D operand is a row on the left and a column on the right, as in NumPy."""

    counts_as = "matmul"

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> Array:
        shapes = f"shapes {np.shape(a)} and {np.shape(b)}"
        for x in (a, b):
            if not isinstance(x, np.ndarray) or x.ndim == 0:
                raise ValueError(f"matmul: expected tensors of at least 1 axis, got {shapes}")
            check_dtype(x.dtype, "matmul: an operand")
        if a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
            raise ValueError(
                f"matmul: {shapes} do not fit; the last axis of the first ({a.shape[-1]}) must "
                f"equal axis {-2 if b.ndim > 1 else 0} of the second ({b.shape[-2 if b.ndim > 1 else 0]})"
            )
        need_a, need_b = ctx.needs_input_grad
        ctx.save_for_backward(a if need_b else None, b if need_a else None)
        ctx.is_row, ctx.is_column = a.ndim == 1, b.ndim == 1
        try:
            return _product(a, b)
        except ValueError:
            raise ValueError(f"matmul: the leading axes of {shapes} do not broadcast") from None

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        a, b = ctx.saved
        if ctx.is_column:
            grad = grad[..., None]
        if ctx.is_row:
            grad = grad[..., None, :]
        to_a = to_b = None
        if b is not None:
            to_a = _product(grad, (b[:, None] if ctx.is_column else b).swapaxes(-1, -2))
            if ctx.is_row:
                to_a = to_a[..., 0, :]
        if a is not None:
            to_b = _product((a[None, :] if ctx.is_row else a).swapaxes(-1, -2), grad)
            if ctx.is_column:
                to_b = to_b[..., 0]
        return to_a, to_b


class Linear(Function):
    """x W^T + b for x (..., in), W (out, in), b (out,): one node, so the product is not copied to add the bias."""

    counts_as = "linear"

    @staticmethod
    def forward(ctx: Context, x: Array, weight: Array, bias: Array | None) -> Array:
        if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[1]:
            raise ValueError(
                f"linear: x of shape {x.shape} and weight of shape {weight.shape} do not fit; expected "
                "(..., in) and (out, in)"
            )
        if bias is not None and bias.shape != weight.shape[:1]:
            raise ValueError(f"linear: bias has shape {bias.shape}, expected {weight.shape[:1]}")
        need_x, need_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if need_weight else None, weight if need_x else None)
        y = _product(x.reshape(-1, x.shape[-1]), weight.T)
        if bias is not None:
            y = np.add(y, bias, out=y) if np.result_type(y, bias) == y.dtype else y + bias
        return y.reshape(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        x, weight = ctx.saved
        rows = _for_blas(grad.reshape(-1, grad.shape[-1]))
        to_x = None if weight is None else np.matmul(rows, weight).reshape(*grad.shape[:-1], weight.shape[1])
        to_weight = None if x is None else _product(rows.T, x.reshape(-1, x.shape[-1]))
        return to_x, to_weight, (rows.sum(axis=0) if ctx.needs_input_grad[2] else None)


def matmul(a: TensorLike, b: TensorLike) -> Tensor:
    """Matrix product with NumPy's rules.

    Parameters
    ----------
    a, b : Tensor
        (..., n, k) and (..., k, m); leading axes broadcast. A 1-D operand is a vector.

    Returns
    -------
    Tensor
        (..., n, m); the vector axis is left out for 1-D operands.

    Raises
    ------
    ValueError
        If the inner axes differ, leading axes do not broadcast, or an operand is 0-d.
    """
    return Matmul.apply(a, b)


def linear(x: TensorLike, weight: TensorLike, bias: TensorLike | None = None) -> Tensor:
    """Affine map of the last axis: x weight^T + bias.

    Parameters
    ----------
    x : Tensor
        (..., in).
    weight : Tensor
        (out, in).
    bias : Tensor, optional
        (out,).

    Returns
    -------
    Tensor
        (..., out).

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    return Linear.apply(x, weight, bias)
