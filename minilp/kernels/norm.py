"""What surrounds the contractions: batch norm, with addition and ReLU behind it if asked, max pooling, in C or NumPy.

Both give the same bits, and the C core notes the largest magnitudes of what batch norm gives. float64 goes to the twin,
which is what gradient checks use.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from minilp.kernels import reference_norm as twin
from minilp.kernels.backend import check, ffi, lib
from minilp.kernels.float32 import check_floats, in_c, pointer
from minilp.kernels.layout import Array, Pair, check_pair, empty, from_chwn, output_size, to_chwn
from minilp.kernels.magnitude import note


def _check_activation(name: str, a: Array) -> None:
    if a.ndim != 4:
        raise ValueError(f"{name} must have 4 axes (N, C, H, W), got shape {a.shape}")


def _per_channel(name: str, value: Array | None, x: Array, default: float) -> Array:
    """A (C,) array of the dtype of ``x``; None stands for ``default`` in every channel."""
    if value is None:
        return np.full(x.shape[1], default, x.dtype)
    check_floats(x=x, **{name: value})
    if value.shape != (x.shape[1],):
        raise ValueError(f"{name} must have shape ({x.shape[1]},), one value a channel, got {value.shape}")
    return np.ascontiguousarray(value)


def _residual(x: Array, residual: Array | None) -> Array | None:
    """In storage order, if it can be added to what is made of ``x``."""
    if residual is None:
        return None
    check_floats(x=x, residual=residual)
    if residual.shape != x.shape:
        raise ValueError(f"residual must have the shape of x, {x.shape}, got {residual.shape}")
    return to_chwn(residual)


def batch_norm(x: Array, weight: Array | None, bias: Array | None, eps: float, relu: bool = False,
               residual: Array | None = None) -> tuple[Array, Array, Array, Array, Array | None]:
    """Batch normalisation in training: every channel by its own mean and biased variance over batch and plane.

    Parameters
    ----------
    x : np.ndarray
        Logical (N, C, H, W), float32 or float64, any strides.
    weight, bias : np.ndarray or None
        (C,), same dtype; None is 1 and 0.
    eps : float
        Added to the variance, at least 0.
    relu : bool
        Follow it with max(y, 0); every zero comes out as +0.0 and NaN stays NaN.
    residual : np.ndarray or None
        Of the shape and dtype of ``x``: added to the normalised x, before the ReLU.

    Returns
    -------
    (y, mean, var, invstd, positive)
        y like ``x`` in CHWN storage; mean, biased variance and ``1 / sqrt(var + eps)``, each (C,), computed in float64
        and rounded once to the dtype of ``x``. With both ``relu`` and ``residual`` a bit for each element, uint8
        (C, H W N / 8 rounded up), the first in the lowest bit: is it above zero? Else None.

    Raises
    ------
    TypeError
        If the dtypes are not one float type.
    ValueError
        If a shape does not fit, ``eps`` is negative or a channel has no element.
    """
    check_floats(x=x)
    _check_activation("x", x)
    if x.size == 0:
        raise ValueError(f"x has no element to take a mean of (shape {x.shape})")
    if not eps >= 0:
        raise ValueError(f"eps must be at least 0, got {eps!r}")
    w, b = _per_channel("weight", weight, x, 1.0), _per_channel("bias", bias, x, 0.0)
    a, other = to_chwn(x), _residual(x, residual)
    if not in_c("batch_norm", x):
        y, mean, var, invstd, positive = twin.batch_norm(a, w, b, float(eps), relu, other)
        return from_chwn(y), mean, var, invstd, positive
    y, largest = empty(a.shape, np.float32), ffi.new("uint32_t *")
    mean, var, invstd = np.empty((3, len(a)), np.float32)
    positive = np.empty(_bits_shape(a), np.uint8) if relu and other is not None else None
    maxima = _maxima(a)
    check(lib().mlp_f32_batch_norm(pointer(a), _optional(other), len(a), a[0].size, pointer(w), pointer(b), float(eps),
                                   relu, pointer(y), _optional(positive, "uint8_t"), pointer(mean), pointer(var),
                                   pointer(invstd), largest, len(x), _optional(maxima, "uint32_t")), "batch_norm")
    note(y, largest[0], maxima)
    return from_chwn(y), mean, var, invstd, positive


def _maxima(a: Array) -> Array | None:
    """Room for the largest magnitude of each channel and sample of a (C, H, W, N) array, where the core finds them."""
    return None if a.shape[3] % 16 else np.empty((len(a), a.shape[3]), np.float32)


def _bits_shape(a: Array) -> tuple[int, int]:
    """Of a bit for each element of a (C, H, W, N) array, whole bytes a channel."""
    return len(a), -(-a[0].size // 8)


def _optional(a: Array | None, kind: str = "float") -> Any:
    return ffi.NULL if a is None else pointer(a, kind)


def batch_norm_backward(dy: Array, x: Array, mean: Array, invstd: Array, weight: Array | None,
                        bias: Array | None = None, relu: bool = False, positive: Array | None = None,
                        overwrite: bool = False) -> tuple[Array, Array, Array, Array | None]:
    """Gradients of :func:`batch_norm`.

    Parameters
    ----------
    dy, x : np.ndarray
        Logical (N, C, H, W), one float dtype, any strides: the output's gradient and the input of forward.
    mean, invstd : np.ndarray
        (C,), same dtype: what forward returned.
    weight, bias : np.ndarray or None
        (C,), same dtype; None is 1 and 0. The shift matters with ``relu`` only.
    relu : bool
        Forward ended in a ReLU. Where its output was not above zero, ``dy`` counts as 0.
    positive : np.ndarray or None
        The bits that forward returned. None, where there was no residual, computes them again from ``x``.
    overwrite : bool
        What is returned may take the memory of ``dy``: that is less traffic than writing it elsewhere.

    Returns
    -------
    (dx, dweight, dbias, dresidual)
        dx like ``x`` in CHWN storage; (C,) each; the gradient of the residual, stored as dx. That is None where there
        is no ``positive``: without the ReLU it is ``dy`` itself.

    Raises
    ------
    TypeError, ValueError
        As :func:`batch_norm`.
    """
    check_floats(x=x, dy=dy)
    _check_activation("x", x)
    if dy.shape != x.shape:
        raise ValueError(f"dy must have the shape of x, {x.shape}, got {dy.shape}")
    if x.size == 0:
        raise ValueError(f"x has no element (shape {x.shape})")
    m, s = _per_channel("mean", mean, x, 0.0), _per_channel("invstd", invstd, x, 1.0)
    w, b = _per_channel("weight", weight, x, 1.0), _per_channel("bias", bias, x, 0.0)
    grad, a = to_chwn(dy), to_chwn(x)
    if positive is not None and (not relu or positive.dtype != np.uint8 or positive.shape != _bits_shape(a)):
        raise ValueError(f"positive must be the bits of a ReLU, uint8 of shape {_bits_shape(a)} for x {x.shape}, and "
                         f"relu True; got {positive.dtype} {positive.shape} and relu={relu}")
    if not in_c("batch_norm_backward", x):
        dx, dweight, dbias, masked = twin.batch_norm_backward(grad, a, m, s, w, b, relu, positive)
        return from_chwn(dx), dweight, dbias, None if positive is None else from_chwn(masked)
    first = grad if overwrite and grad.flags.writeable else empty(a.shape, np.float32)  # what is written first
    dx, largest = first if positive is None else empty(a.shape, np.float32), ffi.new("uint32_t *")
    dweight, dbias, maxima = np.empty(len(a), np.float32), np.empty(len(a), np.float32), _maxima(a)
    check(lib().mlp_f32_batch_norm_backward(pointer(grad), pointer(a), _optional(positive, "uint8_t"), len(a),
                                            a[0].size, pointer(m), pointer(s), pointer(w), pointer(b),
                                            pointer(first) if relu else ffi.NULL, pointer(dx), pointer(dweight),
                                            pointer(dbias), largest, len(x), _optional(maxima, "uint32_t")),
          "batch_norm_backward")
    note(dx, largest[0], maxima)
    return from_chwn(dx), dweight, dbias, None if positive is None else from_chwn(first)


def _check_window(kernel: Pair, stride: Pair, padding: Pair) -> tuple[Pair, Pair, Pair]:
    kernel, stride = check_pair("kernel", kernel, 1), check_pair("stride", stride, 1)
    padding = check_pair("padding", padding, 0)
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise ValueError(f"padding must be at most half of the kernel {kernel}, got {padding}")
    return kernel, stride, padding


def max_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Pair = (0, 0)) -> tuple[Array, Array]:
    """The largest value of each window; ties go to the first tap, NaN is passed on.

    Parameters
    ----------
    x : np.ndarray
        Logical (N, C, H, W), float32 or float64, any strides.
    kernel, stride, padding : (int, int)
        Vertical and horizontal; padding at most half of the kernel.

    Returns
    -------
    (y, index)
        Logical (N, C, OH, OW) in CHWN storage: the values, and the winning tap ``ky * KW + kx`` as uint8 (int32 where
        the window has more than 256 taps).

    Raises
    ------
    TypeError, ValueError
        If dtype, shape or geometry do not fit.
    """
    check_floats(x=x)
    _check_activation("x", x)
    kernel, stride, padding = _check_window(kernel, stride, padding)
    out = output_size((x.shape[2], x.shape[3]), kernel, stride, padding)
    a = to_chwn(x)
    if not in_c("max_pool2d", x, can=kernel[0] * kernel[1] <= 256):
        y, index = twin.max_pool2d(a, kernel, stride, padding)
        return from_chwn(y), from_chwn(index)
    shape = (len(a), *out, x.shape[0])
    y, index = empty(shape, np.float32), empty(shape, np.uint8)
    window = ffi.new("mlp_f32_window *", [x.shape[0], *a.shape[:3], *out, *kernel, *stride, *padding])
    check(lib().mlp_f32_max_pool2d(window, pointer(a), pointer(y), pointer(index, "uint8_t")), "max_pool2d")
    return from_chwn(y), from_chwn(index)


def max_pool2d_backward(dy: Array, index: Array, input_size: Pair, kernel: Pair, stride: Pair,
                        padding: Pair = (0, 0)) -> Array:
    """Gradient of :func:`max_pool2d`: each output's gradient goes to the input that won.

    Parameters
    ----------
    dy, index : np.ndarray
        Logical (N, C, OH, OW): the gradient, and the index that :func:`max_pool2d` returned.
    input_size : (int, int)
        H, W of the input.
    kernel, stride, padding : (int, int)
        As forward.

    Returns
    -------
    np.ndarray
        Logical (N, C, H, W) in CHWN storage.

    Raises
    ------
    TypeError, ValueError
        If dtypes or shapes do not fit.
    """
    check_floats(dy=dy)
    _check_activation("dy", dy)
    kernel, stride, padding = _check_window(kernel, stride, padding)
    input_size = check_pair("input_size", input_size, 0)
    wanted = np.uint8 if kernel[0] * kernel[1] <= 256 else np.int32
    if index.dtype != wanted or index.shape != dy.shape:
        raise ValueError(f"index must be {np.dtype(wanted)} of shape {dy.shape}, got {index.dtype} {index.shape}")
    out = output_size(input_size, kernel, stride, padding)
    if dy.shape[2:] != out:
        raise ValueError(f"dy must be (N, C, {out[0]}, {out[1]}) for an input of {input_size}, got {dy.shape}")
    grad, taps = to_chwn(dy), to_chwn(index)
    if not in_c("max_pool2d_backward", dy, can=kernel[0] * kernel[1] <= 256):
        return from_chwn(twin.max_pool2d_backward(grad, taps, input_size, kernel, stride, padding))
    dx = empty((len(grad), *input_size, dy.shape[0]), np.float32)
    window = ffi.new("mlp_f32_window *", [dy.shape[0], len(grad), *input_size, *out, *kernel, *stride, *padding])
    check(lib().mlp_f32_max_pool2d_backward(window, pointer(grad), pointer(taps, "uint8_t"), pointer(dx)),
          "max_pool2d_backward")
    return from_chwn(dx)
