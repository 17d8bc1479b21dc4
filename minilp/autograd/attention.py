"""What attention adds to matrix products: softmax under a mask, and heads cut out of rows of tokens and put back."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from minilp.autograd.arrays import Array, TensorLike, memory_order, zeros_in_order
from minilp.autograd.engine import Context
from minilp.autograd.function import Function

if TYPE_CHECKING:
    from minilp.autograd.tensor import Tensor


class MaskedSoftmax(Function):
    """softmax(scale x + mask) along the last axis, in one buffer; a row with nothing left is all zeros."""

    @staticmethod
    def forward(ctx: Context, x: Array, mask: Array | None, scale: float) -> Array:
        y = x * x.dtype.type(scale)
        if mask is not None and mask.dtype == np.bool_:
            np.copyto(y, -np.inf, where=~mask)
        elif mask is not None:
            y += mask
        top = y.max(axis=-1, keepdims=True, initial=-np.inf)
        top[np.isneginf(top)] = 0
        y -= top
        np.exp(y, out=y)
        total = y.sum(axis=-1, keepdims=True)
        total[total == 0] = 1
        y /= total
        ctx.scale = x.dtype.type(scale)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        (y,) = ctx.saved
        out = grad * y
        total = out.sum(axis=-1, keepdims=True)
        out -= y * total
        out *= ctx.scale
        return out, None, None


class SplitHeads(Function):
    """One of the parts (query, key, value) that lie side by side in rows of tokens, as (N, heads, L, D).

    The parts share one gradient: the first to run backward makes the buffer and returns it, the others add to it and
    return nothing, for the engine sums what reaches the rows only after all parts, which are younger, have run.
    """

    @staticmethod
    def forward(ctx: Context, rows: Array, part: int, heads: int, tokens: Any, shared: dict[str, Any]) -> Array:
        width = rows.shape[1] // shared["parts"]
        ctx.columns = slice(part * width, (part + 1) * width)
        ctx.part, ctx.heads, ctx.tokens, ctx.shared = part, heads, tokens, shared
        ctx.shape, ctx.order = rows.shape, memory_order(rows)
        dense = tokens.spread(rows[:, ctx.columns])
        return dense.reshape(*dense.shape[:2], heads, width // heads).transpose(0, 2, 1, 3)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        shared = ctx.shared
        buffer = shared["buffer"]()
        new = buffer is None or ctx.part in shared["done"]  # no walk has begun, or a second one of a kept graph
        if buffer is None or new:
            buffer = zeros_in_order(ctx.shape, grad.dtype, ctx.order)
            shared["done"], shared["buffer"] = set(), weakref.ref(buffer)  # the engine's as long as the walk lasts
        shared["done"].add(ctx.part)
        buffer[:, ctx.columns] += ctx.tokens.gather(_side_by_side(grad))
        return buffer if new else None, None, None, None, None


class MergeHeads(Function):
    """(N, heads, L, D) as rows of tokens (T, heads D)."""

    @staticmethod
    def forward(ctx: Context, x: Array, tokens: Any) -> Array:
        ctx.heads, ctx.tokens = x.shape[1], tokens
        return tokens.gather(_side_by_side(x))

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        dense = ctx.tokens.spread(grad)
        return dense.reshape(*dense.shape[:2], ctx.heads, grad.shape[1] // ctx.heads).transpose(0, 2, 1, 3), None


def _side_by_side(x: Array) -> Array:
    """(N, heads, L, D) as (N, L, heads D)."""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], x.shape[1] * x.shape[3])


class Spread(Function):
    """Rows of tokens (T, F) as (N, L, F), zeros at the padding."""

    @staticmethod
    def forward(ctx: Context, rows: Array, tokens: Any) -> Array:
        ctx.tokens = tokens
        return tokens.spread(rows)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        return ctx.tokens.gather(grad), None


class Gather(Function):
    """(N, L, F) as rows (T, F), without the padding."""

    @staticmethod
    def forward(ctx: Context, x: Array, tokens: Any) -> Array:
        ctx.tokens = tokens
        return tokens.gather(x)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        return ctx.tokens.spread(grad), None


class ByFeatures(Function):
    """The same rows (T, F), stored as (F, T)."""

    @staticmethod
    def forward(ctx: Context, rows: Array) -> Array:
        return np.asfortranarray(rows)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        return (grad,)


def masked_softmax(x: TensorLike, mask: Array | None = None, scale: float = 1.0) -> Tensor:
    """softmax(scale x + mask) along the last axis.

    Parameters
    ----------
    x : Tensor
        (..., S), float.
    mask : ndarray, optional
        Broadcasts to ``x``: bool, True where an element takes part; or float, added. It gets no gradient.
    scale : float
        Factor of ``x``.

    Returns
    -------
    Tensor
        Same shape. A row without any element that takes part is all zeros, and so is its gradient.

    Raises
    ------
    ValueError
        If the mask does not broadcast to ``x``, or is neither bool nor of the dtype of ``x``.
    """
    shape = np.shape(x)
    if mask is not None:
        if mask.dtype != np.bool_ and mask.dtype != getattr(x, "dtype", None):
            raise ValueError(f"masked_softmax: mask must be bool or of x's dtype, got {mask.dtype}")
        if np.broadcast_shapes(mask.shape, shape) != shape:
            raise ValueError(f"masked_softmax: a mask of shape {mask.shape} does not broadcast to {shape}")
    return MaskedSoftmax.apply(x, mask, float(scale))


def split_heads(rows: TensorLike, parts: int, heads: int, tokens: Any) -> tuple[Tensor, ...]:
    """Query, key and value out of one projection.

    Parameters
    ----------
    rows : Tensor
        (T, parts E): the parts side by side.
    parts, heads : int
        ``heads`` divides E.
    tokens : Tokens
        Which token of which sentence a row is.

    Returns
    -------
    tuple of Tensor
        ``parts`` tensors (N, heads, L, E / heads), zeros at the padding.
    """
    shared: dict[str, Any] = {"parts": parts, "done": set(), "buffer": lambda: None}
    return tuple(SplitHeads.apply(rows, part, heads, tokens, shared) for part in range(parts))


def merge_heads(x: TensorLike, tokens: Any) -> Tensor:
    """(N, heads, L, D) to rows of tokens (T, heads D); the reverse of :func:`split_heads` for one part."""
    return MergeHeads.apply(x, tokens)


def spread(rows: TensorLike, tokens: Any) -> Tensor:
    """Rows of tokens (T, F) to (N, L, F), zeros at the padding."""
    return Spread.apply(rows, tokens)


def by_features(rows: TensorLike) -> Tensor:
    """The same rows (T, F), stored as (F, T): what comes out of coded linear layers, and adds to it in one order."""
    return ByFeatures.apply(rows)


def gather(x: TensorLike, tokens: Any) -> Tensor:
    """(N, L, F) to rows of tokens (T, F), the padding left out."""
    return Gather.apply(x, tokens)
