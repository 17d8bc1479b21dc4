"""NumPy twins of the kernels around the contractions: batch norm, with addition and ReLU behind it, max pooling.

Each states its operations in a fixed order, and the C core performs the same ones: both give the same bits, in every
instruction set and for any thread count. All arrays are in storage order (C, H, W, N) unless said otherwise.

The order of a sum over a channel's plane (H, W, N), the only long sums here, is written down once, in
:func:`ordered_sum`.
"""
from __future__ import annotations

import numpy as np

from minilp.kernels.layout import Array, Pair, output_size

LANES, ROWS = 16, 64
"""A plane is summed in blocks of 64 rows of 16 neighbours."""
CHANNEL_BUDGET = 1 << 17
"""Elements for which the twin holds float64 terms at a time."""


def ordered_sum(terms: Array) -> Array:
    """Sum each row of a float64 matrix in the order that the C core uses too.

    The row is cut into blocks of 64 x 16 neighbours, the last one filled up with zeros. In a block each of the 16
    columns is summed from top to bottom, starting at +0.0; the blocks' 16 sums are added block after block, starting
    at +0.0; last, the 16 become 8, 4, 2 and 1 by adding the upper half to the lower half.

    Parameters
    ----------
    terms : np.ndarray
        float64 (C, L).

    Returns
    -------
    np.ndarray
        float64 (C,).
    """
    count, length = terms.shape
    if length % (LANES * ROWS):
        terms = np.pad(terms, ((0, 0), (0, -length % (LANES * ROWS))))
    blocks = terms.reshape(count, -1, ROWS, LANES)
    columns = np.zeros((count, blocks.shape[1], LANES))
    for row in range(ROWS):
        columns += blocks[:, :, row]
    total = np.zeros((count, LANES))
    for block in range(blocks.shape[1]):
        total += columns[:, block]
    for half in (8, 4, 2, 1):
        total = total[:, :half] + total[:, half:]
    return total[:, 0]


def _channel_blocks(x: Array) -> list[slice]:
    """Slices of channels whose planes together stay within the budget."""
    step = max(1, CHANNEL_BUDGET // max(1, x[0].size))
    return [slice(c, c + step) for c in range(0, x.shape[0], step)]


def _mask(where: Array, like: Array) -> Array:
    """All bits set where true, as integers as wide as ``like``'s elements. Bitwise choices are several times faster
    than np.where and np.copyto(where=), and move NaN and -0.0 untouched."""
    return np.negative(where.astype(f"i{like.dtype.itemsize}"))


def _bits(a: Array) -> Array:
    """The same memory as integers."""
    return a.view(f"i{a.dtype.itemsize}")


def _affine(x: Array, mean: Array, invstd: Array, weight: Array, bias: Array) -> Array:
    """(x - mean) * invstd * weight + bias, from left to right, one rounding an operation; (C,) each."""
    column = (slice(None), None, None, None)
    y = np.subtract(x, mean[column])
    y *= invstd[column]
    y *= weight[column]
    y += bias[column]
    return y


def batch_norm(x: Array, weight: Array, bias: Array, eps: float, relu: bool, residual: Array | None
               ) -> tuple[Array, Array, Array, Array, Array | None]:
    """Normalise each channel by its own mean and (biased) variance: mean first, then the squared distances from it.

    The statistics are float64; the mean and ``1 / sqrt(var + eps)`` are rounded once to the dtype of ``x``, in which
    ``y = (x - mean) * invstd * weight + bias`` is computed from left to right, and ``+ residual`` where there is one.
    With ``relu``, what is not above zero becomes +0.0 (but NaN stays).

    Parameters
    ----------
    x : np.ndarray
        (C, H, W, N), at least one element a channel.
    weight, bias : np.ndarray
        (C,), dtype of ``x``.
    eps : float
        Added to the variance.
    relu : bool
        With the ReLU behind it.
    residual : np.ndarray or None
        Like ``x``.

    Returns
    -------
    (y, mean, var, invstd, positive)
        y like ``x``; then three of (C,), rounded from float64 to the dtype of ``x``; with ``relu`` and a residual the
        bits of y > 0, uint8 (C, L / 8 rounded up), else None.
    """
    c, length = x.shape[0], x[0].size
    mean, var = np.empty(c), np.empty(c)
    for part in _channel_blocks(x):
        plane = x[part].reshape(-1, length)
        mean[part] = ordered_sum(plane.astype(np.float64)) / length
        apart = plane.astype(np.float64) - mean[part, None]
        var[part] = ordered_sum(apart * apart) / length
    invstd = (1.0 / np.sqrt(var + eps)).astype(x.dtype)
    y, positive = _affine(x, mean.astype(x.dtype), invstd, weight, bias), None
    if residual is not None:
        y += residual
    if relu:
        np.maximum(y, 0, out=y)
        y += 0.0  # maximum() may keep the sign of -0.0 or not; adding +0.0 settles it
        if residual is not None:
            positive = np.packbits(y.reshape(c, length) > 0, axis=1, bitorder="little")
    return y, mean.astype(x.dtype), var.astype(x.dtype), invstd, positive


def batch_norm_backward(dy: Array, x: Array, mean: Array, invstd: Array, weight: Array, bias: Array, relu: bool,
                        positive: Array | None) -> tuple[Array, Array, Array, Array]:
    """Gradients of :func:`batch_norm` in training.

    With s1 = sum dy and s2 = sum dy (x - mean), both float64 in the written order, and L the plane's length:
    dbias = s1, dweight = s2 invstd, dx = ((dy - c1) - (x - mean) c2) (invstd weight) in the dtype of ``x``, where
    c1 = s1 / L and c2 = s2 invstd invstd / L are rounded to it once. (Differentiating the forward formula; our own
    arrangement of the standard result.) With ``relu``, dy is +0.0 first where forward's y is not above zero, by the
    bits of ``positive``, or computed again.

    Parameters
    ----------
    dy, x : np.ndarray
        (C, H, W, N), same dtype.
    mean, invstd, weight, bias : np.ndarray
        (C,), same dtype.
    relu : bool
        Forward ended in a ReLU.
    positive : np.ndarray or None
        The bits that :func:`batch_norm` returned.

    Returns
    -------
    (dx, dweight, dbias, dy)
        Like ``x``, (C,) and (C,); and dy behind the ReLU, which is the gradient of a residual.
    """
    c, length = x.shape[0], x[0].size
    dx, s1, s2 = np.empty_like(x), np.empty(c), np.empty(c)
    if relu:
        above = (_affine(x, mean, invstd, weight, bias) > 0 if positive is None else
                 np.unpackbits(positive, axis=1, count=length, bitorder="little").reshape(x.shape) > 0)
        dy = (_bits(dy) & _mask(above, dy)).view(dy.dtype)
    wide_mean, wide_invstd = mean.astype(np.float64), invstd.astype(np.float64)
    for part in _channel_blocks(x):
        plane, grad = x[part].reshape(-1, length).astype(np.float64), dy[part].reshape(-1, length).astype(np.float64)
        s1[part] = ordered_sum(grad)
        s2[part] = ordered_sum(grad * (plane - wide_mean[part, None]))
    column = (slice(None), None, None, None)
    s2 = s2 * wide_invstd
    np.subtract(x, mean[column], out=dx)
    dx *= (s2 * wide_invstd / length).astype(x.dtype)[column]
    np.subtract(dy - (s1 / length).astype(x.dtype)[column], dx, out=dx)
    dx *= (invstd * weight)[column]
    return dx, s2.astype(x.dtype), s1.astype(x.dtype), dy


def _replace(target: Array, where: Array, value: Array) -> None:
    """``target[where] = value[where]``, bit by bit."""
    old = _bits(target)
    old ^= (old ^ _bits(value)) & _mask(where, target)


def _span(size: int, out: int, tap: int, stride: int, padding: int) -> tuple[slice, slice]:
    """Output positions whose window has ``tap`` inside the input, and the input positions it touches there."""
    first = max(0, -(-(padding - tap) // stride))
    last = min(out, (size - 1 + padding - tap) // stride + 1)
    if last <= first:
        return slice(0, 0), slice(0, 0)
    start = first * stride + tap - padding
    return slice(first, last), slice(start, start + (last - first - 1) * stride + 1, stride)


def max_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Pair) -> tuple[Array, Array]:
    """The largest value of each window and the tap it came from.

    Taps are visited row by row; a later one wins if it is greater or NaN, so ties go to the first tap and the last NaN
    is passed on. Taps in the padding do not take part.

    Parameters
    ----------
    x : np.ndarray
        (C, H, W, N).
    kernel, stride, padding : (int, int)
        Vertical and horizontal.

    Returns
    -------
    (y, index)
        (C, OH, OW, N): the values, and as uint8 (int32 for windows of more than 256 taps) ``ky * KW + kx``.
    """
    c, h, w, n = x.shape
    (oh, ow), (kh, kw) = output_size((h, w), kernel, stride, padding), kernel
    y = np.full((c, oh, ow, n), -np.inf, x.dtype)
    ky0 = np.maximum(0, padding[0] - np.arange(oh) * stride[0])
    kx0 = np.maximum(0, padding[1] - np.arange(ow) * stride[1])
    index = np.empty(y.shape, np.uint8 if kh * kw <= 256 else np.int32)
    index[...] = (ky0[:, None] * kw + kx0)[None, :, :, None]  # the first tap inside the input
    for ky in range(kh):
        to_y, from_y = _span(h, oh, ky, stride[0], padding[0])
        for kx in range(kw):
            to_x, from_x = _span(w, ow, kx, stride[1], padding[1])
            value, best = x[:, from_y, from_x], y[:, to_y, to_x]
            wins = (value > best) | (value != value)
            _replace(best, wins, value)
            _replace(index[:, to_y, to_x], wins, np.array(ky * kw + kx, index.dtype))
    return y, index


def max_pool2d_backward(dy: Array, index: Array, size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """Each output's gradient goes to the input that won; a pixel adds up its windows in the order of its taps.

    Parameters
    ----------
    dy, index : np.ndarray
        (C, OH, OW, N): the gradient, and what :func:`max_pool2d` returned.
    size : (int, int)
        H, W of the input.
    kernel, stride, padding : (int, int)
        As forward.

    Returns
    -------
    np.ndarray
        (C, H, W, N).
    """
    (c, oh, ow, n), (h, w) = dy.shape, size
    dx = np.zeros((c, h, w, n), dy.dtype)
    for ky in range(kernel[0]):
        from_y, to_y = _span(h, oh, ky, stride[0], padding[0])
        for kx in range(kernel[1]):
            from_x, to_x = _span(w, ow, kx, stride[1], padding[1])
            hit = index[:, from_y, from_x] == ky * kernel[1] + kx
            dx[:, to_y, to_x] += (_bits(dy[:, from_y, from_x]) & _mask(hit, dy)).view(dy.dtype)
    return dx
