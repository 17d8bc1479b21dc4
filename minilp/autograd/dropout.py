"""Dropout with an explicit random generator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from minilp.autograd.arrays import Array, TensorLike
from minilp.autograd.engine import Context
from minilp.autograd.function import Function, as_tensor

if TYPE_CHECKING:
    from minilp.autograd.tensor import Tensor


class Dropout(Function):
    """Zero each element with probability p and scale the others by 1 / (1 - p); keeps one byte an element."""

    @staticmethod
    def forward(ctx: Context, x: Any, p: float, rng: np.random.Generator) -> Array:
        x = np.asarray(x)
        keep = np.empty_like(x, dtype=np.bool_)  # x's memory order
        # Drawn in logical order, so the draws do not depend on how x lies in memory.
        keep[...] = rng.random(x.shape, dtype=np.float32) >= p
        ctx.save_for_backward(keep)
        ctx.scale = x.dtype.type(1 / (1 - p)) if p < 1 else x.dtype.type(0)
        return _masked(x, keep, ctx.scale)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        (keep,) = ctx.saved
        return _masked(grad, keep, ctx.scale), None, None


def _masked(x: Array, keep: Array, scale: Any) -> Array:
    y = np.asarray(np.multiply(x, keep))
    return np.multiply(y, scale, out=y)


def dropout(x: TensorLike, p: float, rng: np.random.Generator, training: bool = True) -> Tensor:
    """Randomly zero elements during training.

    Parameters
    ----------
    x : Tensor
        Any shape, floating.
    p : float in [0, 1]
        Probability of zeroing an element; the others are divided by 1 - p, so the mean stays.
    rng : numpy.random.Generator
        Where the draws come from.
    training : bool
        False returns x unchanged.

    Returns
    -------
    Tensor
        Same shape, dtype and memory order.

    Raises
    ------
    TypeError, ValueError
        If rng is not a Generator or p is not in [0, 1].
    """
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"dropout: rng is a {type(rng).__name__}, expected a numpy.random.Generator")
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p={p}, expected a probability in [0, 1]")
    if not training or p == 0:
        return as_tensor(x)
    return Dropout.apply(x, p, rng)
