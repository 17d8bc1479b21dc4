"""ReLU, the residual addition, both in one, and SGD's step, element by element, by the C core or its NumPy twin.

Both give the same bits. The C core works on flat float32 memory, and notes the largest magnitude behind a ReLU; float64
and arrays with gaps go to the twin.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minilp.kernels import reference_elementwise as twin
from minilp.kernels.backend import active, check, count, ffi, lib, vector_tier
from minilp.kernels.float32 import FLOATS, check_floats, in_c, pointer
from minilp.kernels.layout import Array, empty_like_stored, from_chwn, stored, to_chwn
from minilp.kernels.magnitude import note


def _all_flat(*arrays: Array) -> bool:
    """Whether all are stored without gaps, in one order: (C, H, W, N) with 4 axes, else C order."""
    return all([stored(a).flags.c_contiguous for a in arrays])


def _bits_for(n: int) -> Array:
    return np.empty(-(-n // 8), np.uint8)


def relu(x: Array) -> tuple[Array, Array]:
    """max(x, 0) element by element; every zero comes out as +0.0 and NaN stays NaN.

    Parameters
    ----------
    x : np.ndarray
        float32 or float64, any shape and strides.

    Returns
    -------
    (y, positive)
        y like ``x``; in CHWN storage if 4-D, else in its memory order. And a bit for each element, uint8 (size / 8
        rounded up,): is it above zero? In the order (C, H, W, N) if 4-D, else in C order, the first in the lowest bit.

    Raises
    ------
    TypeError
        If ``x`` is not float.
    """
    check_floats(x=x)
    if not in_c("relu", x, can=_all_flat(x)):
        return twin.relu(x)
    y, positive, largest = empty_like_stored(x), _bits_for(x.size), ffi.new("uint32_t *")
    check(lib().mlp_f32_relu(pointer(stored(x)), x.size, pointer(stored(y)), pointer(positive, "uint8_t"), largest),
          "relu")
    note(y, largest[0])
    return y, positive


def add_relu(a: Array, b: Array) -> tuple[Array, Array]:
    """max(a + b, 0) of one shape (no broadcasting): how a residual block ends.

    Parameters
    ----------
    a, b : np.ndarray
        One shape and float dtype, any strides.

    Returns
    -------
    (y, positive)
        As :func:`relu` of the sum gives them.

    Raises
    ------
    TypeError, ValueError
        If dtypes or shapes differ.
    """
    _check_alike(a, b)
    if not in_c("add_relu", a, can=_all_flat(a, b)):
        return twin.relu(twin.add(a, b))
    y, positive, largest = empty_like_stored(a), _bits_for(a.size), ffi.new("uint32_t *")
    check(lib().mlp_f32_add_relu(pointer(stored(a)), pointer(stored(b)), a.size, pointer(stored(y)),
                                 pointer(positive, "uint8_t"), largest), "add_relu")
    note(y, largest[0])
    return y, positive


def relu_backward(dy: Array, positive: Array, overwrite: bool = False) -> Array:
    """Gradient of :func:`relu`, and of each operand of :func:`add_relu`: ``dy`` where ``positive`` says so, else +0.0.

    Parameters
    ----------
    dy : np.ndarray
        float32 or float64, any strides.
    positive : np.ndarray
        The bits that forward returned.
    overwrite : bool
        The result may take the memory of ``dy``: half the traffic of writing it elsewhere.

    Returns
    -------
    np.ndarray
        Like ``dy``, stored as :func:`relu` stores.

    Raises
    ------
    TypeError, ValueError
        If ``dy`` is not float, or ``positive`` has not one bit for each of its elements.
    """
    check_floats(dy=dy)
    if positive.dtype != np.uint8 or positive.shape != (-(-dy.size // 8),):
        raise ValueError(f"positive must be uint8 of shape ({-(-dy.size // 8)},), a bit for each element of dy "
                         f"{dy.shape}; got {positive.dtype} {positive.shape}")
    if dy.ndim == 4:
        dy = from_chwn(to_chwn(dy))
    if not in_c("relu_backward", dy, can=_all_flat(dy)):
        return twin.relu_backward(dy, positive)
    dx = dy if overwrite and dy.flags.writeable else empty_like_stored(dy)
    check(lib().mlp_f32_relu_backward(pointer(stored(dy)), pointer(positive, "uint8_t"), dy.size, pointer(stored(dx))),
          "relu_backward")
    return dx


def add(a: Array, b: Array, out: Array | None = None) -> Array:
    """a + b of one shape (no broadcasting): the residual connection, and the sum of two gradients.

    Parameters
    ----------
    a, b : np.ndarray
        One shape and float dtype, any strides.
    out : np.ndarray or None
        Where to write; may be ``a`` or ``b`` itself. None makes a new array.

    Returns
    -------
    np.ndarray
        ``out``, or an array in CHWN storage if 4-D, else in the memory order of ``a``.

    Raises
    ------
    TypeError, ValueError
        If dtypes or shapes differ.
    """
    _check_alike(a, b)
    y = empty_like_stored(a) if out is None else out
    if out is not None and (out.shape != a.shape or out.dtype != a.dtype):
        raise ValueError(f"out must be {a.dtype} of shape {a.shape}, got {out.dtype} {out.shape}")
    if not in_c("add", a, can=_all_flat(a, b, y)):
        return twin.add(a, b, y)
    check(lib().mlp_f32_add(pointer(stored(a)), pointer(stored(b)), a.size, pointer(stored(y))), "add")
    return y


class SGDPart(NamedTuple):
    """One parameter of :func:`sgd`.

    Attributes
    ----------
    p : np.ndarray
        The parameter, float32 or float64, any shape; changed.
    grad : np.ndarray
        Its gradient, same shape and dtype.
    buffer : np.ndarray or None
        Its momentum, same shape and dtype; changed. None goes without.
    weight_decay : float
        Rounded to the dtype of ``p``.
    first : bool
        The buffer holds nothing yet and starts as the gradient.
    """

    p: Array
    grad: Array
    buffer: Array | None = None
    weight_decay: float = 0.0
    first: bool = False


def sgd(parts: Sequence[SGDPart], *, lr: float, momentum: float = 0.0, dampening: float = 0.0,
        nesterov: bool = False) -> None:
    """One step of stochastic gradient descent, in place; the arithmetic of :class:`minilp.optim.SGD`.

    All parameters go to the C core in one call: most are so small that a call takes longer than the step.

    Parameters
    ----------
    parts : sequence of SGDPart
        No two share memory.
    lr, momentum, dampening : float
        Rounded to the dtype of each parameter.
    nesterov : bool
        Look ahead.

    Raises
    ------
    TypeError, ValueError
        If dtypes or shapes of one part differ; no part is changed then.
    """
    for p, grad, buffer, _, _ in parts:
        _check_alike(p, grad)
        if buffer is not None:
            _check_alike(p, buffer)
    rows = []
    for p, grad, buffer, weight_decay, first in parts:
        arrays = (p, grad) if buffer is None else (p, grad, buffer)
        if active() == "c" and p.dtype == np.float32 and all([a.flags.c_contiguous for a in arrays]):
            kept = ffi.NULL if buffer is None else pointer(buffer)
            rows.append((pointer(p), pointer(grad), kept, p.size, weight_decay, first))
        else:
            count(f"f{8 * p.dtype.itemsize}_sgd[numpy]")
            twin.sgd(p, grad, buffer, lr, momentum, dampening, weight_decay, nesterov, first)
    if rows:
        count(f"f32_sgd[{vector_tier()}]")
        check(lib().mlp_f32_sgd(ffi.new("mlp_f32_sgd_part[]", rows), len(rows), lr, momentum, 1 - dampening, nesterov),
              "sgd")


def _check_alike(a: Array, b: Array) -> None:
    if a.dtype not in FLOATS or a.dtype != b.dtype:
        check_floats(a=a, b=b)
    if a.shape != b.shape:
        raise ValueError(f"b must have the shape of a, {a.shape}, got {b.shape}")
