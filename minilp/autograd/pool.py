"""Max, average and adaptive average pooling of (N, C, H, W) tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from minilp.autograd.arrays import Array, TensorLike
from minilp.autograd.conv import Pair, pair
from minilp.autograd.engine import Context
from minilp.autograd.function import Function
from minilp.autograd.reductions import mean
from minilp.kernels import layout, norm

if TYPE_CHECKING:
    from minilp.autograd.tensor import Tensor


class MaxPool2d(Function):
    """The largest value of each window; ties go to the first. Keeps the winner's number, one byte an output."""

    @staticmethod
    def forward(
        ctx: Context, x: Array, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
    ) -> Array:
        y, index = norm.max_pool2d(x, kernel, stride, padding)
        ctx.save_for_backward(index)
        ctx.geometry = (x.shape[2:], kernel, stride, padding)
        return y

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        (index,) = ctx.saved
        return norm.max_pool2d_backward(grad, index, *ctx.geometry), None, None, None


class AvgPool2d(Function):
    """The mean of each window, as a sum of shifted pictures; nothing needs to be kept."""

    @staticmethod
    def forward(
        ctx: Context, x: Array, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int],
        count_include_pad: bool,
    ) -> Array:  # fmt: skip
        height, width = layout.output_size(x.shape[2:], kernel, stride, padding)
        ctx.geometry, ctx.size = (kernel, stride, padding), x.shape[2:]
        counts = _counts(x.shape[2:], (height, width), kernel, stride, padding, count_include_pad)
        ctx.inverse = (1 / counts).astype(x.dtype)
        rim = ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0))
        source = layout.to_chwn(x)
        source = np.pad(source, rim) if any(padding) else source
        out = np.zeros((x.shape[1], height, width, x.shape[0]), x.dtype)
        for window in _windows((height, width), kernel, stride):
            out += source[window]
        out *= ctx.inverse[:, :, None]
        return layout.from_chwn(out)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        kernel, stride, (up, left) = ctx.geometry
        rows, cols = ctx.size
        share = layout.to_chwn(grad) * ctx.inverse[:, :, None]
        out = np.zeros((grad.shape[1], rows + 2 * up, cols + 2 * left, grad.shape[0]), grad.dtype)
        for window in _windows(grad.shape[2:], kernel, stride):
            out[window] += share
        return layout.from_chwn(out[:, up : up + rows, left : left + cols]), None, None, None, None


class AdaptiveAvgPool2d(Function):
    """Means over windows [floor(i H / OH), ceil((i + 1) H / OH)): one averaging matrix per axis."""

    @staticmethod
    def forward(ctx: Context, x: Array, size: tuple[int, int]) -> Array:
        ctx.rows, ctx.cols = (_averaging(n, m).astype(x.dtype) for n, m in zip(x.shape[2:], size, strict=True))
        return np.matmul(np.matmul(ctx.rows, x), ctx.cols.T)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        return np.matmul(np.matmul(ctx.rows.T, grad), ctx.cols), None


def _windows(out: Any, kernel: tuple[int, int], stride: tuple[int, int]) -> list[tuple[slice, ...]]:
    """For every tap of the window, where in the padded (C, H, W, N) picture it reads for all outputs at once."""
    everything = slice(None)
    return [
        (
            everything,
            slice(ky, ky + (out[0] - 1) * stride[0] + 1, stride[0]),
            slice(kx, kx + (out[1] - 1) * stride[1] + 1, stride[1]),
            everything,
        )
        for ky in range(kernel[0])
        for kx in range(kernel[1])
    ]


def _counts(
    size: Any, out: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int],
    count_include_pad: bool,
) -> Array:  # fmt: skip
    """Number of elements each window is averaged over, (OH, OW)."""
    counts = []
    for n, m, k, s, p in zip(size, out, kernel, stride, padding, strict=True):
        start = np.arange(m) * s - p
        inside = np.minimum(start + k, n) - np.maximum(start, 0)
        counts.append(np.full(m, k) if count_include_pad else inside)
    return np.outer(counts[0], counts[1])


def _averaging(n: int, m: int) -> Array:
    """Matrix (m, n) that averages n elements down to m, with torch's window bounds."""
    matrix = np.zeros((m, n))
    for i in range(m):
        first, end = i * n // m, -(-(i + 1) * n // m)
        matrix[i, first:end] = 1 / (end - first)
    return matrix


def _check(name: str, x: Any) -> None:
    if len(np.shape(x)) != 4:
        raise ValueError(f"{name}: x has shape {np.shape(x)}, expected (N, C, H, W)")


def max_pool2d(x: TensorLike, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> Tensor:
    """Largest value of each window.

    Parameters
    ----------
    x : Tensor
        (N, C, H, W).
    kernel_size, stride, padding : int or pair of int
        Vertical and horizontal; stride None is kernel_size; padding at most half the kernel, with -inf.

    Returns
    -------
    Tensor
        (N, C, OH, OW); the gradient goes to the first largest element of each window.

    Raises
    ------
    TypeError, ValueError
        If shape or geometry do not fit.
    """
    _check("max_pool2d", x)
    kernel = pair("kernel_size", kernel_size)
    return MaxPool2d.apply(x, kernel, kernel if stride is None else pair("stride", stride), pair("padding", padding))


def avg_pool2d(
    x: TensorLike, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, count_include_pad: bool = True
) -> Tensor:
    """Mean of each window; arguments as for `max_pool2d`, padding with zeros.

    count_include_pad says whether padded zeros count in the divisor (torch's default).
    """
    _check("avg_pool2d", x)
    kernel, rim = pair("kernel_size", kernel_size), pair("padding", padding)
    if any(not 0 <= 2 * p <= k for p, k in zip(rim, kernel, strict=True)):
        raise ValueError(f"avg_pool2d: padding={padding} must be at least 0 and at most half of kernel_size={kernel}")
    steps = kernel if stride is None else pair("stride", stride)
    return AvgPool2d.apply(x, kernel, steps, rim, count_include_pad)


def adaptive_avg_pool2d(x: TensorLike, output_size: Pair) -> Tensor:
    """Mean over windows chosen so that the result is (N, C, *output_size), as in torch.

    Raises
    ------
    TypeError, ValueError
        If x is not 4-D or output_size is not positive.
    """
    _check("adaptive_avg_pool2d", x)
    size = pair("output_size", output_size)
    if min(size) < 1:
        raise ValueError(f"adaptive_avg_pool2d: output_size={output_size} must be positive")
    if size == (1, 1):
        return mean(x, axis=(2, 3), keepdims=True)
    height, width = np.shape(x)[2:]
    if height % size[0] == 0 and width % size[1] == 0:
        kernel = (height // size[0], width // size[1])
        return AvgPool2d.apply(x, kernel, kernel, (0, 0), True)
    return AdaptiveAvgPool2d.apply(x, size)
