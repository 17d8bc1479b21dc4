"""NumPy twins of the elementwise kernels: ReLU, addition, SGD's step. The C core performs the same operations."""
from __future__ import annotations

import numpy as np

from minilp.kernels.layout import Array, empty_like_stored, stored


def relu(x: Array) -> tuple[Array, Array]:
    """max(x, 0) with +0.0 for every zero, NaN stays NaN; and where it is above zero, a bit each in storage order."""
    y = empty_like_stored(x)
    np.maximum(x, 0, out=y)
    y += 0.0  # maximum() may keep the sign of -0.0 or not; adding +0.0 settles it
    return y, np.packbits(stored(y) > 0, bitorder="little")


def relu_backward(dy: Array, positive: Array) -> Array:
    """dy where the bit is set, else +0.0. Any shape; stored like :func:`relu`'s result."""
    keep = np.unpackbits(positive, count=dy.size, bitorder="little").reshape(stored(dy).shape)
    dx, kind = empty_like_stored(dy), f"i{dy.dtype.itemsize}"
    # Bitwise, which leaves NaN and -0.0 alone and turns infinity into 0: all bits set where the bit is.
    np.bitwise_and(stored(dy).view(kind), np.negative(keep.astype(kind)), out=stored(dx).view(kind))
    return dx


def add(a: Array, b: Array, out: Array | None = None) -> Array:
    """a + b of one shape. 4-D comes out in CHWN storage, everything else in the memory order of ``a``."""
    return np.add(a, b, out=empty_like_stored(a) if out is None else out)


def sgd(p: Array, grad: Array, buffer: Array | None, lr: float, momentum: float, dampening: float, weight_decay: float,
        nesterov: bool, first: bool) -> None:
    """One step in place, one rounding an operation: see :func:`minilp.kernels.elementwise.sgd`."""
    kind = p.dtype.type
    g = p * kind(weight_decay) + grad if weight_decay else grad
    if buffer is not None:
        buffer[...] = g if first else buffer * kind(momentum) + g * kind(1 - dampening)
        g = buffer * kind(momentum) + g if nesterov else buffer
    p -= g * kind(lr)
