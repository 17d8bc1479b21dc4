"""Batch and layer normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minilp.autograd import activations
from minilp.autograd.arrays import Array, TensorLike
from minilp.autograd.engine import Context
from minilp.autograd.function import Function
from minilp.kernels import norm as kernels

if TYPE_CHECKING:
    from minilp.autograd.tensor import Tensor


def _as_4d(x: Array) -> Array:
    """(N, C), (N, C, L) or (N, C, H, W) as (N, C, H, W); a view."""
    return x.reshape(x.shape + (1,) * (4 - x.ndim)) if x.ndim < 4 else x


def _along(channel: Array, ndim: int) -> Array:
    """(C,) so that it broadcasts along axis 1."""
    return channel.reshape(-1, *(1,) * (ndim - 2))


class BatchNormTraining(Function):
    """Normalise by the batch's own mean and biased variance, and update the running statistics.

    With the ReLU behind it nothing more is kept than without: backward finds the sign of the result again from x. With
    a residual in between a bit an element is kept.
    """

    counts_as = "norm_training"

    @staticmethod
    def forward(
        ctx: Context, x: Array, weight: Array | None, bias: Array | None,
        running_mean: Array | None, running_var: Array | None, momentum: float, eps: float, relu: bool,
        residual: Array | None,
    ) -> Array:  # fmt: skip
        count = x.size // x.shape[1] if x.size else 0
        if count < 2:
            raise ValueError(f"batch_norm: training needs more than 1 value a channel, x has shape {x.shape}")
        other = None if residual is None else _as_4d(residual)
        y, mean, var, invstd, positive = kernels.batch_norm(_as_4d(x), weight, bias, eps, relu, other)
        if running_mean is not None:
            running_mean += (momentum * (mean - running_mean)).astype(running_mean.dtype)
        if running_var is not None:  # the running variance is the unbiased one, as in torch
            unbiased = var * (count / (count - 1))
            running_var += (momentum * (unbiased - running_var)).astype(running_var.dtype)
        ctx.save_for_backward(x, mean, invstd, weight, bias, relu, positive)
        return y.reshape(x.shape)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        x, mean, invstd, weight, bias, relu, positive = ctx.saved
        adds = ctx.needs_input_grad[-1]
        dx, dweight, dbias, other = kernels.batch_norm_backward(
            _as_4d(grad), _as_4d(x), mean, invstd, weight, bias, relu, positive,
            overwrite=ctx.owns_grad and (relu or not adds))  # without the ReLU the residual gets grad itself
        to_residual = None if not adds else grad if other is None else other.reshape(x.shape)
        return dx.reshape(x.shape), dweight, dbias, *(None,) * 5, to_residual


class BatchNormEval(Function):
    """Normalise by given statistics: one factor and one shift a channel."""

    counts_as = "norm_eval"

    @staticmethod
    def forward(
        ctx: Context, x: Array, weight: Array | None, bias: Array | None, mean: Array, var: Array, eps: float
    ) -> Array:
        invstd = 1 / np.sqrt(var + var.dtype.type(eps))
        factor = (invstd if weight is None else weight * invstd).astype(x.dtype)
        shift = (-mean * factor if bias is None else bias - mean * factor).astype(x.dtype)
        need_x, need_weight, _ = ctx.needs_input_grad[:3]
        ctx.save_for_backward(
            factor if need_x else None, x if need_weight else None, mean.copy(), invstd.astype(x.dtype)
        )
        y = np.multiply(x, _along(factor, x.ndim))
        return np.add(y, _along(shift, x.ndim), out=y)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        factor, x, mean, invstd = ctx.saved
        axes = (0, *range(2, grad.ndim))
        to_x = None if factor is None else grad * _along(factor, grad.ndim)
        to_bias = grad.sum(axis=axes) if x is not None or ctx.needs_input_grad[2] else None
        to_weight = None
        if x is not None:
            centred = x - _along(mean.astype(x.dtype), grad.ndim)
            to_weight = np.multiply(centred, grad, out=centred).sum(axis=axes) * invstd
        return to_x, to_weight, to_bias, None, None, None


class LayerNorm(Function):
    """Normalise the trailing axes of every sample; keeps the normalised values."""

    counts_as = "layer_norm"

    @staticmethod
    def forward(ctx: Context, x: Array, weight: Array | None, bias: Array | None, count: int, eps: float) -> Array:
        ctx.axes, ctx.leading = tuple(range(x.ndim - count, x.ndim)), tuple(range(x.ndim - count))
        normal = x - x.mean(axis=ctx.axes, keepdims=True)
        invstd = 1 / np.sqrt(np.square(normal).mean(axis=ctx.axes, keepdims=True) + x.dtype.type(eps))
        normal *= invstd
        ctx.save_for_backward(normal, invstd, weight)
        if weight is None:
            return normal if bias is None else normal + bias
        y = normal * weight
        return y if bias is None else np.add(y, bias, out=y) if y.dtype == np.result_type(y, bias) else y + bias

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        normal, invstd, weight = ctx.saved
        _, need_weight, need_bias = ctx.needs_input_grad[:3]
        product = grad * normal
        to_weight = product.sum(axis=ctx.leading) if need_weight else None
        to_bias = grad.sum(axis=ctx.leading) if need_bias else None
        if weight is not None:
            grad = grad * weight
            product *= weight
        # (g - mean(g) - normal mean(g normal)) / std
        along = product.mean(axis=ctx.axes, keepdims=True)
        to_x = np.multiply(normal, along, out=product)
        np.subtract(grad, to_x, out=to_x)
        to_x -= grad.mean(axis=ctx.axes, keepdims=True)
        to_x *= invstd
        return to_x, to_weight, to_bias, None, None


def batch_norm(
    x: TensorLike, running_mean: Any, running_var: Any, weight: TensorLike | None = None,
    bias: TensorLike | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
    relu: bool = False, residual: TensorLike | None = None,
) -> Tensor:  # fmt: skip
    """Batch normalisation over axis 1, as torch.nn.functional.batch_norm, and a ReLU behind it if asked.

    Parameters
    ----------
    x : Tensor
        (N, C), (N, C, L) or (N, C, H, W), float.
    running_mean, running_var : ndarray, Tensor or None
        (C,). In training they are updated in place, momentum times the way to the batch's mean and unbiased variance;
        in evaluation they are what x is normalised by.
    weight, bias : Tensor, optional
        (C,): scale and shift after normalising.
    training : bool
        Use the batch's statistics. Evaluation without running statistics uses them too, as in torch.
    momentum, eps : float
        Share of the new statistics; what is added to the variance.
    relu : bool
        Return relu(batch_norm(x)), the same bits as the two one after the other.
    residual : Tensor, optional
        Of x's shape and dtype: added behind the normalisation, before the ReLU, as a residual block ends; the same bits
        as batch_norm and an addition, or add_relu.

    Returns
    -------
    Tensor
        x's shape; in training the batch is innermost in memory.

    Raises
    ------
    ValueError
        If a shape does not fit, only one running statistic is given, or a channel has a single value in training.
    """
    shape = np.shape(x)
    if not 2 <= len(shape) <= 4:
        raise ValueError(f"batch_norm: x has shape {shape}, expected (N, C), (N, C, L) or (N, C, H, W)")
    named = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for name, value in named.items():
        if value is not None and np.shape(value) != shape[1:2]:
            raise ValueError(f"batch_norm: {name} has shape {np.shape(value)}, expected {shape[1:2]}")
    if (running_mean is None) != (running_var is None):
        raise ValueError("batch_norm: give both running_mean and running_var, or neither")
    if residual is not None and np.shape(residual) != shape:
        raise ValueError(f"batch_norm: residual has shape {np.shape(residual)}, expected that of x, {shape}")
    if not training and running_mean is not None:
        y = BatchNormEval.apply(x, weight, bias, running_mean, running_var, eps)
        if residual is None:
            return activations.relu(y) if relu else y
        return activations.add_relu(y, residual) if relu else y + residual
    kept = (running_mean, running_var) if training else (None, None)
    return BatchNormTraining.apply(x, weight, bias, *kept, momentum, eps, relu, residual)


def layer_norm(
    x: TensorLike, normalized_shape: int | Sequence[int], weight: TensorLike | None = None,
    bias: TensorLike | None = None, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Layer normalisation over the trailing axes, as torch.nn.functional.layer_norm.

    Parameters
    ----------
    x : Tensor
        (..., *normalized_shape), float.
    normalized_shape : int or sequence of int
        Lengths of the axes to normalise together.
    weight, bias : Tensor, optional
        Shape normalized_shape: scale and shift after normalising.
    eps : float
        Added to the biased variance.

    Returns
    -------
    Tensor
        Same shape.

    Raises
    ------
    ValueError
        If normalized_shape is empty or not x's trailing shape, or weight or bias has another shape.
    """
    wanted = (normalized_shape,) if isinstance(normalized_shape, (int, np.integer)) else tuple(normalized_shape)
    if not wanted or np.shape(x)[-len(wanted) :] != wanted:
        raise ValueError(f"layer_norm: x has shape {np.shape(x)}, expected (..., *{wanted})")
    for name, value in {"weight": weight, "bias": bias}.items():
        if value is not None and np.shape(value) != wanted:
            raise ValueError(f"layer_norm: {name} has shape {np.shape(value)}, expected {wanted}")
    return LayerNorm.apply(x, weight, bias, len(wanted), eps)
