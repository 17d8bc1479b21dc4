"""NumPy twins of the float convolutions: im2col and a matrix product, for float32 and float64.

All three work in storage order: activations (C, H, W, N), so that one row of the im2col matrix is a copy of whole rows
of lanes, and the product's columns are already the output's memory. The im2col matrix is built for a few output rows
at a time, which bounds the scratch memory and changes no result that a caller may rely on: a float32 product is
promised within K 2^-24 sum |a||b| of the float64 one, not bit for bit.
"""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minilp.kernels.layout import Array, Pair, output_size

COLUMN_BUDGET = 1 << 22
"""Elements of one im2col block (16 MiB of float32)."""


def _padded(x: Array, padding: Pair) -> Array:
    """(C, H, W, N) with zeros around each plane."""
    (ph, pw), (c, h, w, n) = padding, x.shape
    if not ph and not pw:
        return x
    out = np.zeros((c, h + 2 * ph, w + 2 * pw, n), x.dtype)
    out[:, ph:ph + h, pw:pw + w] = x
    return out


def _windows(x: Array, kernel: Pair, stride: Pair, dilation: Pair, out: Pair) -> Array:
    """The view (C, KH, KW, OH, OW, N) of a padded (C, H, W, N) array: every tap's picture, nothing copied."""
    c, _, _, n = x.shape
    sc, sy, sx, sn = x.strides
    return np.lib.stride_tricks.as_strided(
        x, (c, *kernel, *out, n), (sc, sy * dilation[0], sx * dilation[1], sy * stride[0], sx * stride[1], sn),
        writeable=False)


def _row_blocks(rows: int, elements_per_row: int) -> Iterator[tuple[int, int]]:
    """Output rows in blocks whose im2col matrix stays within the budget."""
    step = max(1, COLUMN_BUDGET // max(1, elements_per_row))
    for start in range(0, rows, step):
        yield start, min(rows, start + step)


def conv2d(x: Array, w: Array, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Array:
    """Cross-correlation, as every framework's convolution.

    Parameters
    ----------
    x : np.ndarray
        (C, H, W, N), float32 or float64.
    w : np.ndarray
        (O, C / groups, KH, KW), same dtype.
    stride, padding, dilation : (int, int)
        Vertical and horizontal.
    groups : int
        Divides C and O.

    Returns
    -------
    np.ndarray
        (O, OH, OW, N), C-contiguous.
    """
    (_, h, wd, n), (o, cg, *kernel) = x.shape, w.shape
    size = output_size((h, wd), (kernel[0], kernel[1]), stride, padding, dilation)
    view = _windows(_padded(x, padding), (kernel[0], kernel[1]), stride, dilation, size)
    y = np.empty((o, *size, n), x.dtype)
    og, k = o // groups, cg * kernel[0] * kernel[1]
    for g in range(groups):
        weight = w[g * og:(g + 1) * og].reshape(og, k)
        for r0, r1 in _row_blocks(size[0], k * size[1] * n):
            columns = view[g * cg:(g + 1) * cg, :, :, r0:r1].reshape(k, (r1 - r0) * size[1] * n)
            y[g * og:(g + 1) * og, r0:r1] = (weight @ columns).reshape(og, r1 - r0, size[1], n)
    return y


def conv2d_input_grad(dy: Array, w: Array, size: Pair, stride: Pair, padding: Pair, dilation: Pair,
                      groups: int) -> Array:
    """Gradient with respect to the input: the transposed product, its columns added back where they came from.

    Parameters
    ----------
    dy : np.ndarray
        (O, OH, OW, N).
    w : np.ndarray
        (O, C / groups, KH, KW), same dtype.
    size : (int, int)
        H, W of the input.

    Returns
    -------
    np.ndarray
        (C, H, W, N), C-contiguous.
    """
    (o, oh, ow, n), (_, cg, kh, kw) = dy.shape, w.shape
    og, (sh, sw), (ph, pw) = o // groups, stride, padding
    dx = np.zeros((cg * groups, size[0] + 2 * ph, size[1] + 2 * pw, n), dy.dtype)
    for g in range(groups):
        weight = w[g * og:(g + 1) * og].reshape(og, cg * kh * kw)
        target = dx[g * cg:(g + 1) * cg]
        for r0, r1 in _row_blocks(oh, weight.shape[1] * ow * n):
            rows = r1 - r0
            columns = weight.T @ dy[g * og:(g + 1) * og, r0:r1].reshape(og, rows * ow * n)
            columns = columns.reshape(cg, kh, kw, rows, ow, n)
            for ky in range(kh):
                y0 = r0 * sh + ky * dilation[0]
                for kx in range(kw):
                    x0 = kx * dilation[1]
                    target[:, y0:y0 + (rows - 1) * sh + 1:sh, x0:x0 + (ow - 1) * sw + 1:sw] += columns[:, ky, kx]
    return np.ascontiguousarray(dx[:, ph:ph + size[0], pw:pw + size[1]])


def conv2d_weight_grad(dy: Array, x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair,
                       groups: int) -> Array:
    """Gradient with respect to the weight: a reduction over all positions and images.

    Parameters
    ----------
    dy : np.ndarray
        (O, OH, OW, N).
    x : np.ndarray
        (C, H, W, N), same dtype.
    kernel : (int, int)
        KH, KW.

    Returns
    -------
    np.ndarray
        (O, C / groups, KH, KW).
    """
    (o, oh, ow, n), c = dy.shape, x.shape[0]
    og, cg = o // groups, c // groups
    k = cg * kernel[0] * kernel[1]
    view = _windows(_padded(x, padding), kernel, stride, dilation, (oh, ow))
    dw = np.zeros((o, k), x.dtype)
    for g in range(groups):
        for r0, r1 in _row_blocks(oh, k * ow * n):
            columns = view[g * cg:(g + 1) * cg, :, :, r0:r1].reshape(k, (r1 - r0) * ow * n)
            dw[g * og:(g + 1) * og] += dy[g * og:(g + 1) * og, r0:r1].reshape(og, columns.shape[1]) @ columns.T
    return dw.reshape(o, cg, *kernel)
