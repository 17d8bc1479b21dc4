"""Residual networks for 32x32 pictures (He et al. 2016, section 4.2): 20, 32, 44, 56, 110 layers."""
from __future__ import annotations

from minilp import nn
from minilp.autograd import Tensor
from minilp.nn import functional as F
from minilp.nn import init


class Subsample(nn.Module):
    """The shortcut without parameters (the paper's option A): take every ``stride``-th pixel, append zero channels.

    As many zero channels come before as after (the paper does not say; any fixed choice gives the same network up to
    the order of its channels).

    Parameters
    ----------
    in_channels, out_channels : int
        Their difference is the number of zero channels.
    stride : int
        Distance between the pixels that are kept.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.before = (out_channels - in_channels) // 2
        self.after = out_channels - in_channels - self.before
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        return F.pad(x[:, :, ::self.stride, ::self.stride], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """relu(shortcut(x) + bn(conv(relu(bn(conv(x)))))), both convolutions 3x3.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels before and after.
    stride : int
        Of the first convolution.
    shortcut : {"A", "B"}
        How the input is made to fit where its shape changes: zero channels, or a 1x1 convolution with BatchNorm.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels, relu=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels, relu=True)
        self.shortcut: nn.Module
        if stride == 1 and in_channels == out_channels:
            self.shortcut = nn.Identity()
        elif shortcut == "A":
            self.shortcut = Subsample(in_channels, out_channels, stride)
        else:
            self.shortcut = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                                          nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        out = self.conv2(self.bn1(self.conv1(x)))
        return self.bn2(out, residual=self.shortcut(x))


class ResNet(nn.Module):
    """A stem, three stages of ``(depth - 2) / 6`` blocks, global average pooling, a linear classifier.

    The stages have ``width``, 2 ``width`` and 4 ``width`` channels on 32x32, 16x16 and 8x8 pixels. Depth 20 and width
    16: 272,474 parameters and 40,813,184 multiply-accumulates a picture with projections; 269,722 and 40,551,040 with
    option A. Convolutions start from He's normal distribution (fan-out), as the paper's do.

    Parameters
    ----------
    depth : int
        Weighted layers, 6 n + 2.
    num_classes : int
        Outputs.
    in_channels : int
        Channels of the pictures.
    width : int
        Channels of the first stage.
    shortcut : {"B", "A"}
        See :class:`BasicBlock`. The paper's CIFAR networks use "A".

    Raises
    ------
    ValueError
        If ``depth`` is not 6 n + 2, or ``shortcut`` is unknown.
    """

    def __init__(self, depth: int = 20, num_classes: int = 10, in_channels: int = 3, width: int = 16,
                 shortcut: str = "B") -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"depth: expected 6 n + 2 (8, 14, 20, 32, 44, 56, 110, ...), got {depth}")
        if shortcut not in ("A", "B"):
            raise ValueError(f"shortcut: expected 'A' (zero channels) or 'B' (projection), got {shortcut!r}")
        self.depth, self.width = depth, width
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, relu=True)
        self.layer1 = self._stage(width, width, 1, blocks, shortcut)
        self.layer2 = self._stage(width, 2 * width, 2, blocks, shortcut)
        self.layer3 = self._stage(2 * width, 4 * width, 2, blocks, shortcut)
        self.fc = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(in_channels: int, out_channels: int, stride: int, blocks: int, shortcut: str) -> nn.Sequential:
        first = BasicBlock(in_channels, out_channels, stride, shortcut)
        return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, 1, shortcut) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, in_channels, H, W) to logits (N, num_classes)."""
        x = self.bn1(self.conv1(x))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(F.flatten(F.adaptive_avg_pool2d(x, 1), 1))
