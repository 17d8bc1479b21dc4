"""2-D convolution in float; the array kernels are in `minilp.kernels.float32`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from minilp.autograd.arrays import Array, TensorLike
from minilp.autograd.engine import Context
from minilp.autograd.function import Function
from minilp.kernels import float32
from minilp.kernels.layout import from_chwn, to_chwn

if TYPE_CHECKING:
    from minilp.autograd.tensor import Tensor

Pair: TypeAlias = int | tuple[int, int]


def pair(name: str, value: Any) -> tuple[int, int]:
    """Return (value, value) for an int and a pair of ints as it is.

    Raises
    ------
    TypeError
        If `value` is neither; `name` is the argument's name for the message.
    """
    if isinstance(value, (int, np.integer)):
        return int(value), int(value)
    if isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(v, (int, np.integer)) for v in value):
        return int(value[0]), int(value[1])
    raise TypeError(f"{name}={value!r}, expected an int or a pair of ints")


class Conv2d(Function):
    """Cross-correlation with stride, padding, dilation and groups, plus a bias."""

    counts_as = "conv2d"

    @staticmethod
    def forward(
        ctx: Context, x: Array, weight: Array, bias: Array | None,
        stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int], groups: int,
    ) -> Array:  # fmt: skip
        if bias is not None and bias.shape != weight.shape[:1]:
            raise ValueError(f"conv2d: bias has shape {bias.shape}, expected {weight.shape[:1]}, one value a channel")
        dtype = np.result_type(x, weight) if bias is None else np.result_type(x, weight, bias)
        x, weight = x.astype(dtype, copy=False), weight.astype(dtype, copy=False)
        if x.ndim == 4:
            x = from_chwn(to_chwn(x))  # once, and not in backward again
        y = float32.conv2d(x, weight, stride, padding, dilation, groups)
        if bias is not None:
            np.add(y, bias[:, None, None], out=y)  # y is ours: the kernel has just made it
        need_x, need_weight = ctx.needs_input_grad[:2]
        ctx.geometry = (stride, padding, dilation, groups)
        ctx.input_size, ctx.kernel_size = x.shape[2:], weight.shape[2:]
        ctx.save_for_backward(x if need_weight else None, weight if need_x else None)
        return y

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        x, weight = ctx.saved
        to_x = to_weight = to_bias = None
        if weight is not None:
            to_x = float32.conv2d_input_grad(grad, weight, ctx.input_size, *ctx.geometry)
        if x is not None:
            to_weight = float32.conv2d_weight_grad(grad, x, ctx.kernel_size, *ctx.geometry)
        if ctx.needs_input_grad[2]:
            to_bias = grad.sum(axis=(0, 2, 3))
        return to_x, to_weight, to_bias, None, None, None, None


def conv2d(
    x: TensorLike, weight: TensorLike, bias: TensorLike | None = None,
    stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """2-D convolution, as torch.nn.functional.conv2d.

    Parameters
    ----------
    x : Tensor
        (N, C, H, W), any strides.
    weight : Tensor
        (O, C / groups, KH, KW).
    bias : Tensor, optional
        (O,).
    stride, padding, dilation : int or pair of int
        Vertical and horizontal; padding with zeros on both sides.
    groups : int
        Divides C and O; each group of output channels sees its own group of input channels.

    Returns
    -------
    Tensor
        (N, O, OH, OW), the batch innermost in memory.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes or geometry do not fit; the message names the argument.
    """
    return Conv2d.apply(
        x, weight, bias, pair("stride", stride), pair("padding", padding), pair("dilation", dilation), groups
    )
