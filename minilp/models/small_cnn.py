"""A small convolutional network: the newcomer's model, seconds per epoch."""
from __future__ import annotations

from minilp import nn
from minilp.autograd import Tensor
from minilp.nn import functional as F


class SmallCNN(nn.Module):
    """Three 3x3 convolutions with BatchNorm and ReLU, halving the picture in between, and a linear classifier.

    On 32x32 pictures 2,802,304 multiply-accumulates for each of them, and 24,346 parameters (ten classes).

    Parameters
    ----------
    num_classes : int
        Outputs.
    in_channels : int
        Channels of the pictures.
    width : int
        Channels of the first convolution; the others have twice and four times as many.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, relu=True)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(2 * width, relu=True)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width, relu=True)
        self.fc = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, in_channels, H, W), H and W at least 4, to logits (N, num_classes)."""
        x = F.max_pool2d(self.bn1(self.conv1(x)), 2)
        x = F.max_pool2d(self.bn2(self.conv2(x)), 2)
        x = self.bn3(self.conv3(x))
        return self.fc(F.flatten(F.adaptive_avg_pool2d(x, 1), 1))
