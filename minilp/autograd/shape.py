"""Operations that move elements without changing them. Most results are views, and so are most gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minilp.autograd.arrays import Array, Axis, TensorLike, normalise_axis
from minilp.autograd.engine import Context
from minilp.autograd.function import Function

if TYPE_CHECKING:
    from minilp.autograd.tensor import Tensor


class Reshape(Function):
    """Same elements in logical (C) order, another shape."""

    @staticmethod
    def forward(ctx: Context, x: Any, shape: tuple[int, ...]) -> Array:
        ctx.shape = np.shape(x)
        try:
            return np.reshape(x, shape)
        except ValueError:
            raise ValueError(f"reshape: a tensor of shape {ctx.shape} has no shape {shape}") from None

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        return grad.reshape(ctx.shape), None


class Permute(Function):
    """Axes in another order."""

    @staticmethod
    def forward(ctx: Context, x: Any, axes: tuple[int, ...]) -> Array:
        ctx.inverse = np.argsort(axes)
        return np.transpose(x, axes)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        return grad.transpose(ctx.inverse), None


class BroadcastTo(Function):
    """Repeat along axes of length 1 and new leading axes; the engine sums the gradient back."""

    @staticmethod
    def forward(ctx: Context, x: Any, shape: tuple[int, ...]) -> Array:
        try:
            return np.broadcast_to(x, shape)
        except ValueError:
            raise ValueError(f"broadcast_to: shape {np.shape(x)} does not broadcast to {shape}") from None

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        return grad, None


class Concat(Function):
    """Join along an existing axis; gradients are slices (views)."""

    @staticmethod
    def forward(ctx: Context, *arrays: Any, axis: int) -> Array:
        ctx.axis = axis
        ctx.ends = np.cumsum([a.shape[axis] for a in arrays]).tolist()
        return np.concatenate(arrays, axis=axis)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        return tuple(np.split(grad, ctx.ends[:-1], axis=ctx.axis))


class Stack(Function):
    """Join along a new axis."""

    @staticmethod
    def forward(ctx: Context, *arrays: Any, axis: int) -> Array:
        ctx.axis = axis
        return np.stack(arrays, axis=axis)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        return tuple(np.moveaxis(grad, ctx.axis, 0))


class Pad(Function):
    """Put a constant around the tensor; negative widths cut."""

    @staticmethod
    def forward(ctx: Context, x: Any, widths: tuple[tuple[int, int], ...], value: float) -> Array:
        ctx.shape = x.shape
        size = tuple(n + before + after for n, (before, after) in zip(x.shape, widths, strict=True))
        if any(n < 0 for n in size):
            raise ValueError(f"pad: widths {widths} cut more than a tensor of shape {x.shape} has")
        # Where the old elements land in the new tensor, and which of them do.
        ctx.into = tuple(slice(max(b, 0), n - max(a, 0)) for n, (b, a) in zip(size, widths, strict=True))
        ctx.of = tuple(slice(max(-b, 0), n - max(-a, 0)) for n, (b, a) in zip(x.shape, widths, strict=True))
        out = np.full_like(x, value, shape=size)  # full_like keeps the memory order
        out[ctx.into] = x[ctx.of]
        return out

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        if all(s == slice(0, n) for s, n in zip(ctx.of, ctx.shape, strict=True)):
            return grad[ctx.into], None, None
        out = np.zeros_like(grad, shape=ctx.shape)
        out[ctx.of] = grad[ctx.into]
        return out, None, None


def _axis(name: str, axis: int, ndim: int) -> int:
    if not isinstance(axis, (int, np.integer)):
        raise TypeError(f"{name}: expected an int as axis, got {axis!r}")
    return normalise_axis(name, axis, ndim)[0]


def reshape(x: TensorLike, shape: int | Sequence[int]) -> Tensor:
    """Return x with another shape; one entry may be -1. ValueError if the number of elements differs."""
    return Reshape.apply(x, (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(shape))


def flatten(x: TensorLike, start_axis: int = 0, end_axis: int = -1) -> Tensor:
    """Merge the axes start_axis ... end_axis (both included) into one."""
    shape = np.shape(x)
    if not shape:
        return reshape(x, (1,))
    first, last = _axis("flatten", start_axis, len(shape)), _axis("flatten", end_axis, len(shape))
    if first > last:
        raise ValueError(f"flatten: start_axis={start_axis} comes after end_axis={end_axis}")
    merged = int(np.prod(shape[first : last + 1], dtype=np.int64))
    return reshape(x, (*shape[:first], merged, *shape[last + 1 :]))


def permute(x: TensorLike, axes: Sequence[int]) -> Tensor:
    """Return x with its axes in the order `axes`; a view. ValueError unless every axis is named once."""
    ndim = len(np.shape(x))
    order = normalise_axis("permute", tuple(axes), ndim)
    if len(order) != ndim:
        raise ValueError(f"permute: axes={tuple(axes)} names {len(order)} axes, the tensor has {ndim}")
    return Permute.apply(x, order)


def transpose(x: TensorLike, axis0: int = -2, axis1: int = -1) -> Tensor:
    """Return x with two axes swapped (the last two unless said otherwise); a view."""
    order = list(range(len(np.shape(x))))
    a, b = _axis("transpose", axis0, len(order)), _axis("transpose", axis1, len(order))
    order[a], order[b] = order[b], order[a]
    return Permute.apply(x, tuple(order))


def squeeze(x: TensorLike, axis: Axis = None) -> Tensor:
    """Remove axes of length 1: all of them, or the named ones (a named axis of another length is kept, as in torch)."""
    shape = np.shape(x)
    named = normalise_axis("squeeze", axis, len(shape))
    return Reshape.apply(x, tuple(n for i, n in enumerate(shape) if n != 1 or i not in named))


def unsqueeze(x: TensorLike, axis: int) -> Tensor:
    """Insert an axis of length 1 so that it becomes axis `axis` of the result."""
    shape = np.shape(x)
    at = _axis("unsqueeze", axis, len(shape) + 1)
    return Reshape.apply(x, (*shape[:at], 1, *shape[at:]))


def broadcast_to(x: TensorLike, shape: Sequence[int]) -> Tensor:
    """Repeat x to `shape` by NumPy's broadcasting rule; a read-only view. ValueError if it does not fit."""
    return BroadcastTo.apply(x, tuple(shape))


def _join(name: str, tensors: Sequence[TensorLike]) -> list[Any]:
    listed = list(tensors)
    if not listed:
        raise ValueError(f"{name}: expected at least one tensor, got an empty sequence")
    return listed


def concat(tensors: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Join tensors along an existing axis.

    Raises
    ------
    ValueError
        If the sequence is empty or the shapes differ anywhere but along `axis`.
    """
    listed = _join("concat", tensors)
    shapes = [np.shape(t) for t in listed]
    at = _axis("concat", axis, len(shapes[0]))
    if any(len(s) != len(shapes[0]) or s[:at] + s[at + 1 :] != shapes[0][:at] + shapes[0][at + 1 :] for s in shapes):
        raise ValueError(f"concat: shapes {shapes} differ outside axis {axis}")
    return Concat.apply(*listed, axis=at)


def stack(tensors: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Join tensors of one shape along a new axis, which becomes axis `axis` of the result.

    Raises
    ------
    ValueError
        If the sequence is empty or the shapes differ.
    """
    listed = _join("stack", tensors)
    shapes = [np.shape(t) for t in listed]
    if len(set(shapes)) != 1:
        raise ValueError(f"stack: shapes {shapes} differ")
    return Stack.apply(*listed, axis=_axis("stack", axis, len(shapes[0]) + 1))


def split(x: Any, sizes: int | Sequence[int], axis: int = 0) -> tuple[Tensor, ...]:
    """Cut x along an axis.

    Parameters
    ----------
    x : Tensor
        At least 1-D.
    sizes : int or sequence of int
        An int is the length of each piece (the last may be shorter); a sequence gives every length.
    axis : int
        Where to cut.

    Returns
    -------
    tuple of Tensor
        Views of x.

    Raises
    ------
    ValueError
        If the lengths do not add up to the axis, or a length is not positive.
    """
    at = _axis("split", axis, len(np.shape(x)))
    n = x.shape[at]
    if isinstance(sizes, (int, np.integer)):
        if sizes <= 0:
            raise ValueError(f"split: the length of a piece must be positive, got {sizes}")
        lengths = [min(int(sizes), n - start) for start in range(0, n, int(sizes))]
    else:
        lengths = list(sizes)
        if any(s < 0 for s in lengths) or sum(lengths) != n:
            raise ValueError(f"split: lengths {lengths} do not add up to {n}, the length of axis {axis}")
    ends = np.cumsum(lengths).tolist()
    lead = (slice(None),) * at
    return tuple(x[(*lead, slice(e - s, e))] for s, e in zip(lengths, ends, strict=True))


def pad(x: TensorLike, widths: Sequence[int], value: float = 0.0) -> Tensor:
    """Put a constant around the last axes, in torch's order of widths.

    Parameters
    ----------
    x : Tensor
        At least len(widths) / 2 axes.
    widths : sequence of int
        (before, after) of the last axis, then of the one before it, and so on; negative widths cut.
    value : float
        What to fill with.

    Returns
    -------
    Tensor
        The padded tensor in x's memory order.

    Raises
    ------
    ValueError
        If `widths` has odd length, names more axes than x has, or cuts more than there is.
    """
    ndim = len(np.shape(x))
    if len(widths) % 2 or len(widths) > 2 * ndim:
        raise ValueError(f"pad: expected pairs (before, after) for at most {ndim} axes, got {tuple(widths)}")
    pairs = [(int(b), int(a)) for b, a in zip(widths[::2], widths[1::2], strict=True)]
    return Pad.apply(x, ((0, 0),) * (ndim - len(pairs)) + tuple(reversed(pairs)), value)
