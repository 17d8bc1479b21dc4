"""The convolution layer."""
from __future__ import annotations

import math

import numpy as np

from minilp import random
from minilp.autograd import Tensor
from minilp.autograd.parameter import Parameter
from minilp.nn import functional, init
from minilp.nn.contraction import Contraction
from minilp.recipe import Recipe
from minilp.roles import LayerRecipe

Pair = int | tuple[int, int]


class Conv2d(Contraction):
    """Two-dimensional cross-correlation, as PyTorch's layer of the same name.

    Parameters
    ----------
    in_channels, out_channels : int
        Both divisible by ``groups``.
    kernel_size, stride, dilation : int or (int, int)
        One number for height and width, or one each.
    padding : int, (int, int), "valid" or "same"
        Zeros added on both sides of each axis. "same" keeps the size; it needs stride 1 and an even number of padded
        rows and columns (odd kernels).
    dilation : int or (int, int)
        Distance between the kernel's taps.
    groups : int
        Number of independent groups of channels.
    bias : bool
        Add one number per output channel.
    q : LayerRecipe, Recipe or None
        Numbers of the contractions; None is plain float32.

    Attributes
    ----------
    weight : Parameter
        float32 (out_channels, in_channels / groups, kernel height, kernel width), from U(-b, b) with
        b = 1 / sqrt(fan_in), as PyTorch.
    bias : Parameter or None
        float32 (out_channels,), from the same distribution.

    Raises
    ------
    ValueError
        If the channels are not divisible by the groups, or "same" is impossible.
    """

    bias: Parameter | None

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Pair, stride: Pair = 1,
                 padding: Pair | str = 0, dilation: Pair = 1, groups: int = 1, bias: bool = True, *,
                 q: LayerRecipe | Recipe | None = None) -> None:
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"groups: {groups} does not divide in_channels={in_channels} and "
                             f"out_channels={out_channels}")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = functional.pair("kernel_size", kernel_size)
        self.stride = functional.pair("stride", stride)
        self.dilation = functional.pair("dilation", dilation)
        self.padding = functional.conv_padding(padding, self.kernel_size, self.stride, self.dilation)
        stream = random.spawn()
        self.weight = Parameter(np.empty((out_channels, in_channels // groups, *self.kernel_size), np.float32))
        init.kaiming_uniform_(self.weight, math.sqrt(5), generator=stream)
        if bias:
            bound = 1 / math.sqrt(init.fans(self.weight.shape)[0])
            self.bias = Parameter(np.empty(out_channels, np.float32))
            init.uniform_(self.bias, -bound, bound, stream)
        else:
            self.register_parameter("bias", None)
        self.set_recipe(q)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H', W')."""
        return functional.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups,
                                 self.q)

    def extra_repr(self) -> str:
        """See :meth:`Module.extra_repr`."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0, 0):
            text += f", padding={self.padding}"
        if self.dilation != (1, 1):
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        return text + ("" if self.bias is not None else ", bias=False") + self._q_repr()
