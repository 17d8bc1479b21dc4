"""A picture on its way through a network, written down layer by layer."""
from __future__ import annotations

import math

from minilp.energy.shapes import LayerShape, Pair, conv_size


def both(value: int | Pair) -> Pair:
    """One number for height and width, or one each, as a pair."""
    return (value, value) if isinstance(value, int) else value


class Plan:
    """A list of layers under construction, and the shape of what comes out of the last one.

    Every method adds one layer and changes ``channels`` and ``size`` to what that layer puts out. The first contraction
    of a plan sees the data, so nobody needs the gradient of its input.

    Parameters
    ----------
    channels : int
        Of the pictures.
    size : int or (int, int)
        Height and width of the pictures.
    layers : list of LayerShape or None
        Where to add; None starts a new list.

    Attributes
    ----------
    layers : list of LayerShape
        All layers so far, in execution order, those of branches too.
    channels : int
        Channels here; behind a linear layer, its features.
    size : (int, int)
        Height and width here; (1, 1) behind a linear layer.
    """

    def __init__(self, channels: int, size: int | Pair, layers: list[LayerShape] | None = None) -> None:
        self.channels, self.size = channels, both(size)
        self.layers = [] if layers is None else layers

    @property
    def elements(self) -> int:
        """int: elements of the tensor here."""
        return self.channels * math.prod(self.size)

    def branch(self) -> Plan:
        """A second way from here on; its layers join the same list in the order they are added."""
        return Plan(self.channels, self.size, self.layers)

    def concatenate(self, *branches: Plan) -> None:
        """Go on with the channels of several branches side by side. No arithmetic, no layer."""
        self.channels, self.size = sum(branch.channels for branch in branches), branches[0].size

    def conv(self, name: str, out_channels: int, kernel: int | Pair, stride: int | Pair = 1, padding: int | Pair = 0,
             groups: int = 1, bias: bool = False) -> None:
        """A convolution; parameters as :class:`minilp.nn.Conv2d`."""
        k, s, p = both(kernel), both(stride), both(padding)
        out = conv_size(self.size[0], k[0], s[0], p[0]), conv_size(self.size[1], k[1], s[1], p[1])
        self.layers.append(LayerShape(
            name=name, kind="conv2d", in_channels=self.channels, out_channels=out_channels, kernel=k, stride=s,
            padding=p, groups=groups, in_size=self.size, out_size=out, bias=bias, input_grad=self._seen_before()))
        self.channels, self.size = out_channels, out

    def linear(self, name: str, out_features: int, bias: bool = True) -> None:
        """A linear layer on everything that is here, flattened."""
        self.layers.append(LayerShape(name=name, kind="linear", in_features=self.elements, out_features=out_features,
                                      bias=bias, input_grad=self._seen_before()))
        self.channels, self.size = out_features, (1, 1)

    def batch_norm(self, name: str) -> None:
        """Batch normalisation with a learned scale and shift per channel."""
        self._elementwise(name, "batch_norm", features=self.channels, bias=True)

    def relu(self, name: str) -> None:
        """max(x, 0)."""
        self._elementwise(name, "relu")

    def add(self, name: str) -> None:
        """The sum with another tensor of the same shape."""
        self._elementwise(name, "add")

    def max_pool(self, name: str, kernel: int, stride: int, padding: int = 0, ceil_mode: bool = False) -> None:
        """Maxima of windows; ``ceil_mode`` lets the last window hang over the edge, as in PyTorch."""
        self._pool(name, "max_pool", kernel, stride, padding, ceil_mode)

    def avg_pool(self, name: str, kernel: int, stride: int) -> None:
        """Means of windows."""
        self._pool(name, "avg_pool", kernel, stride, 0, False)

    def global_avg_pool(self, name: str) -> None:
        """The mean of each channel."""
        self.adaptive_avg_pool(name, 1)

    def adaptive_avg_pool(self, name: str, out: int) -> None:
        """Means of windows chosen so that ``out`` by ``out`` remain; the size must be a multiple of it.

        No layer where that is the size already.
        """
        if self.size == (out, out):
            return
        kernel = self.size[0] // out, self.size[1] // out
        if (kernel[0] * out, kernel[1] * out) != self.size:
            raise ValueError(f"{name}: {self.size} pixels do not divide into {out} x {out} windows")
        self._spatial(name, "avg_pool", kernel, kernel, (0, 0), (out, out))

    def _seen_before(self) -> bool:
        return any(layer.is_contraction for layer in self.layers)

    def _elementwise(self, name: str, kind: str, features: int = 0, bias: bool = False) -> None:
        self.layers.append(LayerShape(name=name, kind=kind, elements=self.elements, features=features, bias=bias))

    def _pool(self, name: str, kind: str, kernel: int, stride: int, padding: int, ceil_mode: bool) -> None:
        def length(size: int) -> int:
            out = conv_size(size + (stride - 1) * ceil_mode, kernel, stride, padding)
            # A window that would begin in the padding behind the picture is left out.
            return out - (ceil_mode and (out - 1) * stride >= size + padding)
        out = length(self.size[0]), length(self.size[1])
        self._spatial(name, kind, both(kernel), both(stride), both(padding), out)

    def _spatial(self, name: str, kind: str, kernel: Pair, stride: Pair, padding: Pair, out: Pair) -> None:
        self.layers.append(LayerShape(name=name, kind=kind, in_channels=self.channels, out_channels=self.channels,
                                      kernel=kernel, stride=stride, padding=padding, in_size=self.size, out_size=out))
        self.size = out
