"""Layers as functions, under PyTorch's names. Tensors in and out; the layers of ``minilp.nn`` are thin around these.

What needs no adapting is the engine's own operation: relu, add_relu, gelu, tanh, sigmoid, the poolings, batch_norm,
layer_norm and cross_entropy.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minilp import contract, random
from minilp.autograd import Tensor, ops
from minilp.autograd.conv import pair
from minilp.autograd.ops import (
    adaptive_avg_pool2d,
    add_relu,
    avg_pool2d,
    batch_norm,
    cross_entropy,
    gelu,
    layer_norm,
    max_pool2d,
    relu,
    sigmoid,
    tanh,
)
from minilp.nn.attention_functions import scaled_dot_product_attention
from minilp.nn.loss_functions import mse_loss, nll_loss, one_hot
from minilp.roles import LayerRecipe

Pair = int | tuple[int, int]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, q: LayerRecipe | None = None) -> Tensor:
    """x W^T + b.

    Parameters
    ----------
    x : Tensor
        (..., in features).
    weight : Tensor
        (out features, in features).
    bias : Tensor or None
        (out features,).
    q : LayerRecipe or None
        Numbers of the contractions; None is plain float.

    Returns
    -------
    Tensor
        (..., out features).

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    return ops.linear(x, weight, bias) if q is None else contract.linear(x, weight, bias, q)


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Pair = 1, padding: Pair | str = 0,
           dilation: Pair = 1, groups: int = 1, q: LayerRecipe | None = None) -> Tensor:
    """Two-dimensional cross-correlation.

    Parameters
    ----------
    x : Tensor
        (N, C, H, W).
    weight : Tensor
        (O, C / groups, kernel height, kernel width).
    bias : Tensor or None
        (O,).
    stride, dilation : int or (int, int)
        See :class:`minilp.nn.Conv2d`.
    padding : int, (int, int), "valid" or "same"
        See :class:`minilp.nn.Conv2d`.
    groups : int
        Independent groups of channels.
    q : LayerRecipe or None
        Numbers of the contractions; None is plain float.

    Returns
    -------
    Tensor
        (N, O, H', W'), the batch innermost in memory.

    Raises
    ------
    TypeError, ValueError
        If the shapes or the geometry do not fit.
    """
    steps, taps = pair("stride", stride), pair("dilation", dilation)
    rim = conv_padding(padding, weight.shape[2:], steps, taps)
    if q is None:
        return ops.conv2d(x, weight, bias, steps, rim, taps, groups)
    return contract.conv2d(x, weight, bias, steps, rim, taps, groups, q)


def conv_padding(padding: Pair | str, kernel_size: Sequence[int], stride: Sequence[int],
                 dilation: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of zeros that ``padding`` stands for.

    Parameters
    ----------
    padding : int, (int, int), "valid" or "same"
        "valid" is 0; "same" keeps the size.
    kernel_size, stride, dilation : (int, int)
        Of the convolution.

    Returns
    -------
    (int, int)
        Zeros on each side of the vertical and of the horizontal axis.

    Raises
    ------
    TypeError, ValueError
        If ``padding`` is none of these, or "same" would need a stride of 1 or more zeros on one side than on the other.
    """
    if not isinstance(padding, str):
        return pair("padding", padding)
    if padding == "valid":
        return 0, 0
    if padding != "same":
        raise ValueError(f"padding: expected numbers, 'valid' or 'same', got {padding!r}")
    total = [d * (k - 1) for k, d in zip(kernel_size, dilation, strict=True)]
    if tuple(stride) != (1, 1) or any(n % 2 for n in total):
        raise ValueError(f"padding: 'same' needs stride 1 and an odd kernel (or an even dilation), got stride "
                         f"{tuple(stride)}, kernel {tuple(kernel_size)}, dilation {tuple(dilation)}")
    return total[0] // 2, total[1] // 2


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """exp(x) / sum exp(x) along one axis; same shape."""
    return ops.softmax(x, dim)


def log_softmax(x: Tensor, dim: int = -1) -> Tensor:
    """log(softmax(x)) along one axis, without overflow; same shape."""
    return ops.log_softmax(x, dim)


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Merge the axes ``start_dim`` to ``end_dim``, both included."""
    return ops.flatten(x, start_dim, end_dim)


def pad(x: Tensor, pad: Sequence[int], value: float = 0.0) -> Tensor:
    """Put a constant around the last axes.

    Parameters
    ----------
    x : Tensor
        Any shape.
    pad : sequence of int
        (before, after) of the last axis, then of the one before it, and so on; negative widths cut.
    value : float
        What to fill with.

    Returns
    -------
    Tensor
        The padded tensor.

    Raises
    ------
    ValueError
        If the number of widths is odd or too large.
    """
    return ops.pad(x, pad, value)


def dropout(x: Tensor, p: float = 0.5, training: bool = True, generator: np.random.Generator | None = None) -> Tensor:
    """Zero each element with probability ``p`` and scale the others by 1 / (1 - p).

    Parameters
    ----------
    x : Tensor
        Any shape.
    p : float
        Probability in [0, 1].
    training : bool
        False returns ``x``.
    generator : numpy.random.Generator or None
        Where to draw from; None is a fresh stream of ``minilp.manual_seed``'s seed.

    Returns
    -------
    Tensor
        Same shape.

    Raises
    ------
    ValueError
        If ``p`` is no probability.
    """
    return ops.dropout(x, p, random.spawn() if generator is None else generator, training)


def embedding(index: Any, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """Rows of a table.

    Parameters
    ----------
    index : ndarray or Tensor of integers
        Any shape (...).
    weight : Tensor
        (rows, features).
    padding_idx : int or None
        This row gets no gradient.

    Returns
    -------
    Tensor
        (..., features).

    Raises
    ------
    IndexError, TypeError, ValueError
        If an index is out of range or no integer, or the table is not 2-D.
    """
    return ops.embedding(index, weight, padding_idx)


__all__ = ["adaptive_avg_pool2d", "add_relu", "avg_pool2d", "batch_norm", "conv2d", "conv_padding", "cross_entropy",
           "dropout", "embedding", "flatten", "gelu", "layer_norm", "linear", "log_softmax", "max_pool2d",
           "mse_loss", "nll_loss", "one_hot", "pad", "pair", "relu", "scaled_dot_product_attention", "sigmoid",
           "softmax", "tanh"]
