"""Softmax and what is built on it: log_softmax, logsumexp, cross_entropy. All shift by the maximum first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from minilp.autograd.arrays import Array, Axis, TensorLike, normalise_axis
from minilp.autograd.engine import Context
from minilp.autograd.function import Function

if TYPE_CHECKING:
    from minilp.autograd.tensor import Tensor


def _log_softmax(x: Array, axis: int) -> Array:
    """x - max - log(sum(exp(x - max))) in two buffers."""
    y = x - x.max(axis=axis, keepdims=True)
    y -= np.log(np.exp(y).sum(axis=axis, keepdims=True))
    return y


class Softmax(Function):
    """exp(x) / sum(exp(x)); backward is y (g - sum(g y))."""

    @staticmethod
    def forward(ctx: Context, x: Array, axis: int) -> Array:
        (ctx.axis,) = normalise_axis("softmax", int(axis), x.ndim)
        y = x - x.max(axis=ctx.axis, keepdims=True)
        np.exp(y, out=y)
        y /= y.sum(axis=ctx.axis, keepdims=True)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        (y,) = ctx.saved
        out = grad * y
        total = out.sum(axis=ctx.axis, keepdims=True)
        out -= y * total
        return out, None


class LogSoftmax(Function):
    """log(softmax(x)); backward is g - softmax(x) sum(g)."""

    @staticmethod
    def forward(ctx: Context, x: Array, axis: int) -> Array:
        (ctx.axis,) = normalise_axis("log_softmax", int(axis), x.ndim)
        y = _log_softmax(x, ctx.axis)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        (y,) = ctx.saved
        out = np.exp(y)
        out *= grad.sum(axis=ctx.axis, keepdims=True)
        return np.subtract(grad, out, out=out), None


class LogSumExp(Function):
    """log(sum(exp(x))); backward is g softmax(x)."""

    @staticmethod
    def forward(ctx: Context, x: Array, axis: Axis, keepdims: bool) -> Array:
        ctx.axes = normalise_axis("logsumexp", axis, x.ndim)
        top = x.max(axis=ctx.axes, keepdims=True)
        top = np.where(np.isfinite(top), top, top.dtype.type(0))  # all -inf gives -inf, not nan
        powers = np.exp(x - top)
        total = powers.sum(axis=ctx.axes, keepdims=True)
        powers /= total
        ctx.save_for_backward(powers)
        y = np.log(total) + top
        return y if keepdims else y.squeeze(ctx.axes)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        (soft,) = ctx.saved
        return soft * (grad if grad.ndim == soft.ndim else np.expand_dims(grad, ctx.axes)), None, None


class CrossEntropy(Function):
    """Log-softmax, the target's entry, label smoothing, mask and reduction in one node that keeps one array."""

    @staticmethod
    def forward(
        ctx: Context, logits: Array, target: Array, ignore_index: int, reduction: str, label_smoothing: float
    ) -> Array:
        ctx.axis = min(1, logits.ndim - 1)  # (C,) or (N, C, ...)
        classes = logits.shape[ctx.axis]
        valid = target != ignore_index
        wrong = valid & ((target < 0) | (target >= classes))
        if wrong.any():
            raise IndexError(
                f"cross_entropy: target {target[wrong].flat[0]} is neither a class in [0, {classes}) nor "
                f"ignore_index={ignore_index}"
            )
        log_p = _log_softmax(logits, ctx.axis)
        index = np.expand_dims(np.where(valid, target, 0), ctx.axis)
        loss = -np.take_along_axis(log_p, index, axis=ctx.axis).squeeze(ctx.axis)
        if label_smoothing:
            loss = (1 - label_smoothing) * loss - label_smoothing * log_p.mean(axis=ctx.axis)
        loss = np.where(valid, loss, logits.dtype.type(0))
        ctx.count = int(valid.sum()) if reduction == "mean" else 1
        ctx.smoothing = label_smoothing
        ctx.save_for_backward(log_p, index, valid)
        if reduction == "none":
            return loss
        total = loss.sum()
        if ctx.count == 0:
            return np.full_like(total, np.nan)  # the mean of nothing, as in torch
        return total / total.dtype.type(ctx.count)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        log_p, index, valid = ctx.saved
        # (softmax - smoothed one-hot target) * grad / count, and exactly zero where the target is ignored.
        out = np.exp(log_p)
        if ctx.smoothing:
            out -= out.dtype.type(ctx.smoothing / out.shape[ctx.axis])
        at_target = np.take_along_axis(out, index, axis=ctx.axis) - out.dtype.type(1 - ctx.smoothing)
        np.put_along_axis(out, index, at_target, axis=ctx.axis)
        scale = np.where(valid, grad / grad.dtype.type(max(ctx.count, 1)), grad.dtype.type(0))
        out *= np.expand_dims(scale, ctx.axis)
        return out, None, None, None, None


def _floating(name: str, x: TensorLike) -> TensorLike:
    if np.shape(x) == () or getattr(x, "dtype", None) not in (np.float32, np.float64):
        raise TypeError(f"{name}: expected a float32 or float64 tensor of at least 1 axis, got {x!r:.80}")
    return x


def softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """Return exp(x) / sum(exp(x)) along `axis`; same shape. ValueError if the axis is out of range."""
    return Softmax.apply(_floating("softmax", x), axis)


def log_softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """Return log(softmax(x)) along `axis` without under- or overflow; same shape."""
    return LogSoftmax.apply(_floating("log_softmax", x), axis)


def logsumexp(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return log(sum(exp(x))) over `axis` (None: all) without overflow."""
    return LogSumExp.apply(_floating("logsumexp", x), axis, keepdims)


def cross_entropy(
    logits: TensorLike,
    target: Any,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross entropy between logits and class indices.

    Parameters
    ----------
    logits : Tensor
        (C,), (N, C) or (N, C, d1, ...), float.
    target : ndarray or Tensor of int
        (), (N,) or (N, d1, ...): the class of each sample, in [0, C), or `ignore_index`.
    ignore_index : int, default -100
        Samples with this target count neither in the loss nor in the mean, and get a gradient of exactly 0.
    reduction : {"mean", "sum", "none"}
        "mean" divides by the number of samples that count; with none it is nan, as in torch.
    label_smoothing : float in [0, 1]
        Share of the target probability spread evenly over all classes.

    Returns
    -------
    Tensor
        A scalar, or target's shape for "none".

    Raises
    ------
    TypeError, ValueError, IndexError
        If dtypes, shapes or options do not fit, or a target is no class.
    """
    _floating("cross_entropy", logits)
    target = target.data if hasattr(target, "requires_grad") else np.asarray(target)
    shape = np.shape(logits)
    if target.dtype.kind not in "iu":
        raise TypeError(f"cross_entropy: target has dtype {target.dtype}, expected integer class indices")
    if target.shape != (shape[:1] + shape[2:] if len(shape) > 1 else ()):
        raise ValueError(
            f"cross_entropy: logits of shape {shape} and target of shape {target.shape} do not fit; expected "
            "(N, C, ...) and (N, ...)"
        )
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"cross_entropy: reduction={reduction!r}, expected 'mean', 'sum' or 'none'")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing={label_smoothing}, expected a number in [0, 1]")
    return CrossEntropy.apply(logits, target, ignore_index, reduction, label_smoothing)
