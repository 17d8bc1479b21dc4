"""Contractions in unlimited integers: what every fast kernel is held against. Slow; for tests.

A float32 number is an integer times a power of two, and so is every sum of products of such numbers. Python's integers
hold them whatever their size, so nothing here rounds but the last step, once.
"""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilp.formats import Spec


def contraction(a: np.ndarray, b: np.ndarray, spec: Spec) -> np.ndarray:
    """The contraction of two float arrays, exact until it is rounded once to float32 (nearest even).

    Parameters
    ----------
    a, b : numpy.ndarray
        Finite float32 or float64 operands, in the order that :class:`minilp.formats.Spec` gives.
    spec : Spec
        Kind and geometry.

    Returns
    -------
    numpy.ndarray
        float32.
    """
    (ia, ea), (ib, eb) = as_integers(a), as_integers(b)
    sums = integer_contraction(ia, ib, spec)
    flat = [round_to_float32(int(total), ea + eb) for total in sums.reshape(-1)]
    return np.array(flat, np.float32).reshape(sums.shape)


def as_integers(x: np.ndarray) -> tuple[np.ndarray, int]:
    """``x`` as an object array of Python integers and one exponent: x = integers * 2^exponent, exactly."""
    mantissa, power = np.frexp(x.astype(np.float64))
    whole = (mantissa * 2.0**53).astype(np.int64)
    power = np.where(whole == 0, power.max(initial=0), power) - 53
    exponent = int(power.min(initial=0))
    flat = [int(m) << int(p - exponent) for m, p in zip(whole.reshape(-1), power.reshape(-1), strict=True)]
    out = np.empty(len(flat), object)
    out[:] = flat
    return out.reshape(x.shape), exponent


def round_to_float32(integer: int, exponent: int) -> float:
    """integer * 2^exponent rounded once to float32, nearest even, subnormals and overflow to infinity included."""
    sign, size = (-1 if integer < 0 else 1), abs(integer)
    drop = max(size.bit_length() - 24, -149 - exponent)
    if drop > 0:
        size, rest = size >> drop, size & ((1 << drop) - 1)
        half = 1 << (drop - 1)
        size += rest > half or (rest == half and size & 1)
        exponent += drop
    if size and size.bit_length() + exponent > 128:
        return sign * math.inf
    return sign * math.ldexp(size, exponent) if size else 0.0


def integer_contraction(a: Any, b: Any, spec: Spec) -> Any:
    """The contraction of two object arrays of integers; an object array."""
    if spec.layout is not None:
        return np.matmul(a.swapaxes(1, 2) if spec.layout == "tn" else a, b.swapaxes(1, 2) if spec.layout == "nt" else b)
    if spec.kind == "linear":
        return np.dot(a, b.T)
    if spec.kind == "linear_input_grad":
        return np.dot(a, b)
    if spec.kind == "linear_weight_grad":
        return np.dot(a.T, b)
    return _convolution(a, b, spec)


def _convolution(a: Any, b: Any, spec: Spec) -> Any:
    """One of the three convolutions, tap by tap and group by group, on a padded image."""
    groups, (ph, pw) = spec.groups, spec.padding
    if spec.kind == "conv2d_input_grad":
        assert spec.size is not None
        image_shape, kernel = (a.shape[0], b.shape[1] * groups, *spec.size), b.shape[2:]
        image = _zeros(image_shape[0], image_shape[1], image_shape[2] + 2 * ph, image_shape[3] + 2 * pw)
    else:
        source = a if spec.kind == "conv2d" else b
        kernel = b.shape[2:] if spec.kind == "conv2d" else spec.size
        image = _zeros(*source.shape[:2], source.shape[2] + 2 * ph, source.shape[3] + 2 * pw)
        image[:, :, ph:ph + source.shape[2], pw:pw + source.shape[3]] = source
    assert kernel is not None
    steps = list(zip(spec.stride, spec.dilation, kernel, image.shape[2:], strict=True))
    out = a.shape[2:] if spec.kind != "conv2d" else tuple((n - d * (k - 1) - 1) // s + 1 for s, d, k, n in steps)
    channels = image.shape[1] // groups
    outputs = a.shape[1] if spec.kind == "conv2d_weight_grad" else b.shape[0]
    rows = outputs // groups
    result = image
    if spec.kind == "conv2d":
        result = _zeros(a.shape[0], outputs, *out)
    elif spec.kind == "conv2d_weight_grad":
        result = _zeros(outputs, channels, *kernel)
    for g in range(groups):
        of, cf = slice(g * rows, (g + 1) * rows), slice(g * channels, (g + 1) * channels)
        for ky, kx in np.ndindex(*kernel):
            window = (slice(None), cf, *(slice(tap * d, tap * d + (n - 1) * s + 1, s) for tap, n, (s, d, _, _) in
                                         zip((ky, kx), out, steps, strict=True)))
            if spec.kind == "conv2d":
                result[:, of] += np.moveaxis(np.tensordot(image[window], b[of, :, ky, kx], ([1], [1])), -1, 1)
            elif spec.kind == "conv2d_input_grad":
                image[window] += np.moveaxis(np.tensordot(a[:, of], b[of, :, ky, kx], ([1], [0])), -1, 1)
            else:
                result[of, :, ky, kx] = np.tensordot(a[:, of], image[window], ([0, 2, 3], [0, 2, 3]))
    if spec.kind == "conv2d_input_grad":
        return image[:, :, ph:image.shape[2] - ph, pw:image.shape[3] - pw]
    return result


def _zeros(*shape: int) -> Any:
    return np.zeros(shape, object)
