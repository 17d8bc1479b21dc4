"""VGG for 32x32 pictures: configuration A of Simonyan & Zisserman (2015), 11 weighted layers in its CIFAR form 9."""
from __future__ import annotations

from minilp import nn
from minilp.autograd import Tensor
from minilp.nn import functional as F
from minilp.nn import init

STAGES = ((1, 1), (2, 1), (4, 2), (8, 2), (8, 2))
"""Of configuration A, per stage: channels as a multiple of the first convolution's, and how many convolutions."""


class VGG(nn.Module):
    """Eight 3x3 convolutions with BatchNorm and ReLU in five stages, each ended by 2x2 max pooling; a classifier.

    The publication's convolutions are those of its VGG-11 (table 1, column A). As is usual for CIFAR there is batch
    normalisation, which the publication has not, and one linear layer in place of its three: behind the fifth pooling a
    32x32 picture is a single pixel. Width 64: 9,228,362 parameters and 152,769,536 multiply-accumulates a picture;
    width 16, a quarter: 579,098 and 9,880,832. Convolutions start from He's normal distribution (fan-out).

    Parameters
    ----------
    num_classes : int
        Outputs.
    in_channels : int
        Channels of the pictures.
    width : int
        Channels of the first convolution; the others have two, four and eight times as many.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for factor, convolutions in STAGES:
            for _ in range(convolutions):
                layers += [nn.Conv2d(channels, factor * width, 3, padding=1, bias=False),
                           nn.BatchNorm2d(factor * width, relu=True)]
                channels = factor * width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, in_channels, H, W), H and W at least 32, to logits (N, num_classes)."""
        return self.fc(F.flatten(F.adaptive_avg_pool2d(self.features(x), 1), 1))
