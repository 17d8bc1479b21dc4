"""Pooling layers."""
from __future__ import annotations

from minilp.autograd import Tensor
from minilp.nn import functional
from minilp.nn.module import Module

Pair = int | tuple[int, int]


class MaxPool2d(Module):
    """Largest value in each window; padding never wins.

    Parameters
    ----------
    kernel_size : int or (int, int)
        Window.
    stride : int, (int, int) or None
        Distance between windows; None is the kernel size.
    padding : int or (int, int)
        Rows and columns added on each side.
    """

    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        super().__init__()
        self.kernel_size, self.padding = kernel_size, padding
        self.stride = kernel_size if stride is None else stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H', W')."""
        return functional.max_pool2d(x, self.kernel_size, self.stride, self.padding)

    def extra_repr(self) -> str:
        """See :meth:`Module.extra_repr`."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(Module):
    """Mean of each window, padded zeros counted in.

    Parameters
    ----------
    kernel_size : int or (int, int)
        Window.
    stride : int, (int, int) or None
        Distance between windows; None is the kernel size.
    padding : int or (int, int)
        Rows and columns added on each side.
    """

    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        super().__init__()
        self.kernel_size, self.padding = kernel_size, padding
        self.stride = kernel_size if stride is None else stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H', W')."""
        return functional.avg_pool2d(x, self.kernel_size, self.stride, self.padding)

    def extra_repr(self) -> str:
        """See :meth:`Module.extra_repr`."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AdaptiveAvgPool2d(Module):
    """Mean over windows chosen so that the result has a given size.

    Parameters
    ----------
    output_size : int or (int, int)
        Height and width of the result; 1 is the global mean.
    """

    def __init__(self, output_size: Pair) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, *output_size)."""
        return functional.adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        """See :meth:`Module.extra_repr`."""
        return f"output_size={self.output_size}"
