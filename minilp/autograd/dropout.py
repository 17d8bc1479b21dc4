"""Dropout with an explicit random generator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from minilp.autograd.arrays import Array, TensorLike, memory_order
from minilp.autograd.engine import Context
from minilp.autograd.function import Function, as_tensor
from minilp.kernels import elementwise

if TYPE_CHECKING:
    from minilp.autograd.tensor import Tensor


class Dropout(Function):
    """Zero each element with probability p and scale the others by 1 / (1 - p); keeps a bit an element."""

    @staticmethod
    def forward(ctx: Context, x: Any, p: float, rng: np.random.Generator) -> Array:
        x = np.asarray(x)
        ctx.order = memory_order(x)
        # Drawn in logical order, so the draws do not depend on how x lies in memory.
        keep = rng.random(x.shape, dtype=np.float32) >= p
        bits = np.packbits(keep.transpose(ctx.order), bitorder="little")
        ctx.save_for_backward(bits)
        ctx.scale = x.dtype.type(1 / (1 - p)) if p < 1 else x.dtype.type(0)
        return _masked(x, bits, ctx.scale, ctx.order)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        (bits,) = ctx.saved
        return _masked(grad, bits, ctx.scale, ctx.order), None, None


def _masked(x: Array, bits: Array, scale: Any, order: tuple[int, ...]) -> Array:
    """``x`` times ``scale`` where the bit is set, else +0.0; bits and result lie in ``order``."""
    turned = np.ascontiguousarray(x.transpose(order))
    y = elementwise.relu_backward(turned.reshape(-1), bits)
    np.multiply(y, scale, out=y)
    return y.reshape(turned.shape).transpose(np.argsort(order))


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
