"""The benchmark's networks written in torch: the rival that every published ratio is measured against.

Only imported by a benchmark worker, and only where torch is installed. Names and shapes are those of
``minilp.models``, so a state dict goes from one to the other.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut: a 1x1 projection where the shape changes."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != width:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Any) -> Any:
        """(N, C, H, W) -> (N, width, H / stride, W / stride)."""
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """The CIFAR ResNet of depth 6n + 2 with projection shortcuts."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        stages, inputs = [], 16
        for width in (16, 32, 64):
            blocks = []
            for index in range((depth - 2) // 6):
                blocks.append(Block(inputs, width, 2 if index == 0 and width > 16 else 1))
                inputs = width
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = stages
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Any) -> Any:
        """(N, 3, 32, 32) -> (N, 10)."""
        y = self.layer3(self.layer2(self.layer1(functional.relu(self.bn1(self.conv1(x))))))
        return self.fc(y.mean((2, 3)))


def build(name: str) -> nn.Module:
    """The torch twin of a minilp model.

    Parameters
    ----------
    name : str
        ``resnet20``, ``resnet32``, ``resnet44``, ``resnet56`` or ``resnet110``.

    Raises
    ------
    ValueError
        For a model without a torch twin.
    """
    if name.startswith("resnet") and name[6:].isdigit():
        return ResNet(int(name[6:]))
    raise ValueError(f"bench: model {name!r} has no torch twin; resnet20/32/44/56/110 have")


def step(name: str, mode: str, images: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    """One training step of the torch twin: SGD with Nesterov momentum, as ours.

    Parameters
    ----------
    name : str
        As :func:`build`.
    mode : str
        A name of :data:`minilp.bench.step.RIVALS`: ``eager`` (float32, NCHW), ``channels_last``, ``compiled``,
        ``bf16`` (autocast, channels last) or ``bf16_compiled``.
    images, labels : numpy.ndarray
        (N, 3, 32, 32) float32 and (N,) int64.

    Returns
    -------
    callable
        Runs one step and returns its loss; a compiled one compiles in its first call.
    """
    model: Any = build(name)  # Any: torch's stubs know no layout in Module.to
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    if mode in ("channels_last", "bf16", "bf16_compiled"):
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    network = torch.compile(model) if mode.endswith("compiled") else model
    narrow = mode.startswith("bf16")

    def run() -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=narrow):
            loss = functional.cross_entropy(network(x), y)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return run
