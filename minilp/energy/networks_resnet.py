"""Residual networks (He et al. 2016): those for 224x224 pictures, and those for CIFAR."""
from __future__ import annotations

from minilp.energy.plan import Plan
from minilp.energy.shapes import LayerShape

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def resnet(depth: int, num_classes: int = 1000, size: int = 224, variant: str = "v1.5") -> list[LayerShape]:
    """ResNet-18, 34, 50 or 101 with projection shortcuts (option B), under torchvision's names.

    Multiply-accumulates at the defaults: 1,814,073,344 (18), 3,663,761,408 (34), 4,089,184,256 (50), 7,801,405,440
    (101). In variant "v1", the publication's, ResNet-50 has 3,857,973,248.

    Parameters
    ----------
    depth : int
        18 and 34 have blocks of two 3x3 convolutions; 50 and 101 have bottlenecks.
    num_classes : int
        Outputs.
    size : int
        Height and width of the pictures.
    variant : {"v1.5", "v1"}
        Where a bottleneck halves the picture: in its 3x3 convolution (as torchvision) or in the first 1x1 (as the
        publication). Networks without bottlenecks are the same in both.

    Returns
    -------
    list of LayerShape
        In execution order.

    Raises
    ------
    ValueError
        If depth or variant is unknown.
    """
    if depth not in STAGES:
        raise ValueError(f"depth: expected one of {', '.join(map(str, STAGES))}, got {depth}")
    if variant not in ("v1", "v1.5"):
        raise ValueError(f"variant: expected 'v1' (stride in the first 1x1) or 'v1.5' (in the 3x3), got {variant!r}")
    net = Plan(3, size)
    net.conv("conv1", 64, 7, 2, 3)
    net.batch_norm("bn1")
    net.relu("relu1")
    net.max_pool("max_pool1", 3, 2, 1)
    for stage, blocks in enumerate(STAGES[depth]):
        for block in range(blocks):
            name, stride = f"layer{stage + 1}.{block}", 2 if stage and not block else 1
            if depth < 50:
                _block(net, name, ((64 << stage, 3, stride), (64 << stage, 3, 1)), "downsample")
            else:
                first, second = (stride, 1) if variant == "v1" else (1, stride)
                _block(net, name, ((64 << stage, 1, first), (64 << stage, 3, second), (256 << stage, 1, 1)),
                       "downsample")
    net.global_avg_pool("avg_pool1")
    net.linear("fc", num_classes)
    return net.layers


def cifar_resnet(depth: int, num_classes: int = 10, in_channels: int = 3, size: int = 32, width: int = 16,
                 shortcut: str = "B") -> list[LayerShape]:
    """The shapes of :class:`minilp.models.ResNet`, the publication's CIFAR networks.

    Depth 20 and width 16: 40,813,184 multiply-accumulates with projections, 40,551,040 with option A.

    Parameters
    ----------
    depth, num_classes, in_channels, width, shortcut
        Of the model.
    size : int
        Height and width of the pictures.

    Returns
    -------
    list of LayerShape
        In execution order.

    Raises
    ------
    ValueError
        If the depth is not 6 n + 2, or the shortcut unknown.
    """
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth: expected 6 n + 2 (8, 14, 20, 32, 44, 56, 110, ...), got {depth}")
    if shortcut not in ("A", "B"):
        raise ValueError(f"shortcut: expected 'A' (zero channels) or 'B' (projection), got {shortcut!r}")
    net = Plan(in_channels, size)
    net.conv("conv1", width, 3, padding=1)
    net.batch_norm("bn1")
    net.relu("relu1")
    for stage in range(3):
        for block in range((depth - 2) // 6):
            stride = 2 if stage and not block else 1
            _block(net, f"layer{stage + 1}.{block}", ((width << stage, 3, stride), (width << stage, 3, 1)),
                   "shortcut" if shortcut == "B" else None, ends_with_sum=True)
    net.global_avg_pool("avg_pool1")
    net.linear("fc", num_classes)
    return net.layers


def _block(net: Plan, name: str, convs: tuple[tuple[int, int, int], ...], shortcut: str | None,
           ends_with_sum: bool = False) -> None:
    """(channels, kernel, stride) of each convolution, with BatchNorm and, but for the last, ReLU behind it; the sum.

    Where the shape changes, ``shortcut`` names the 1x1 convolution that makes the input fit; None is option A, which
    drops pixels and appends zeros without arithmetic. It runs before the last BatchNorm where that ends with the sum
    (``ends_with_sum``: minilp's own model), else behind it (torchvision's).
    """
    side, before = net.branch(), (net.channels, net.size)

    def fit() -> None:
        if shortcut and before != (net.channels, net.size):
            side.conv(f"{name}.{shortcut}.0", net.channels, 1, side.size[0] // net.size[0])
            side.batch_norm(f"{name}.{shortcut}.1")

    for i, (out, kernel, stride) in enumerate(convs, start=1):
        net.conv(f"{name}.conv{i}", out, kernel, stride, kernel // 2)
        if i == len(convs) and ends_with_sum:
            fit()
        net.batch_norm(f"{name}.bn{i}")
        if i < len(convs):
            net.relu(f"{name}.relu{i}")
    if not ends_with_sum:
        fit()
    net.add(f"{name}.add1")
    net.relu(f"{name}.relu{len(convs)}")
