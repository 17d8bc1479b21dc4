"""Networks without residual sums: small_cnn, AlexNet, VGG-16, GoogLeNet."""
from __future__ import annotations

from minilp.energy.plan import Plan
from minilp.energy.shapes import LayerShape


def small_cnn(num_classes: int = 10, in_channels: int = 3, size: int = 32, width: int = 16) -> list[LayerShape]:
    """The shapes of :class:`minilp.models.SmallCNN`: 2,802,304 multiply-accumulates at the defaults.

    Parameters
    ----------
    num_classes, in_channels, width : int
        Of the model.
    size : int
        Height and width of the pictures.

    Returns
    -------
    list of LayerShape
        In execution order.
    """
    net = Plan(in_channels, size)
    for i in (1, 2, 3):
        net.conv(f"conv{i}", width * 2 ** (i - 1), 3, padding=1)
        net.batch_norm(f"bn{i}")
        net.relu(f"relu{i}")
        if i < 3:
            net.max_pool(f"max_pool{i}", 2, 2)
    net.global_avg_pool("avg_pool1")
    net.linear("fc", num_classes)
    return net.layers


def alexnet(num_classes: int = 1000, size: int = 224) -> list[LayerShape]:
    """AlexNet with one tower, as torchvision has it (Krizhevsky 2014, arXiv 1404.5997): 714 M multiply-accumulates.

    Without local response normalisation, which that version dropped.

    Parameters
    ----------
    num_classes : int
        Outputs.
    size : int
        Height and width of the pictures: 224, or one that leaves a multiple of 6 pixels.

    Returns
    -------
    list of LayerShape
        In execution order.
    """
    net = Plan(3, size)
    for i, (out, kernel, stride, padding) in enumerate(
            ((64, 11, 4, 2), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1)), start=1):
        net.conv(f"conv{i}", out, kernel, stride, padding, bias=True)
        net.relu(f"relu{i}")
        if i in (1, 2, 5):
            net.max_pool(f"max_pool{i}", 3, 2)
    net.adaptive_avg_pool("avg_pool1", 6)
    _classifier(net, num_classes, first=6)
    return net.layers


def vgg16(num_classes: int = 1000, size: int = 224, batch_norm: bool = False) -> list[LayerShape]:
    """VGG-16 (Simonyan & Zisserman 2015, table 1, column D).

    15,346,630,656 multiply-accumulates in its convolutions, 15,470,264,320 with the three linear layers.

    Parameters
    ----------
    num_classes : int
        Outputs.
    size : int
        Height and width of the pictures: a multiple of 224.
    batch_norm : bool
        Batch normalisation behind every convolution, which is not in the publication; our reconstruction of MLS's
        energy ratios has it.

    Returns
    -------
    list of LayerShape
        In execution order.
    """
    net = Plan(3, size)
    for stage, (out, convs) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1):
        for i in range(1, convs + 1):
            net.conv(f"conv{stage}_{i}", out, 3, padding=1, bias=True)
            if batch_norm:
                net.batch_norm(f"bn{stage}_{i}")
            net.relu(f"relu{stage}_{i}")
        net.max_pool(f"max_pool{stage}", 2, 2)
    net.adaptive_avg_pool("avg_pool1", 7)
    _classifier(net, num_classes, first=6)
    return net.layers


def _classifier(net: Plan, num_classes: int, first: int) -> None:
    """Two hidden layers of 4096 and the outputs, as AlexNet and VGG end."""
    for i in (first, first + 1):
        net.linear(f"fc{i}", 4096)
        net.relu(f"fc{i}.relu1")
    net.linear(f"fc{first + 2}", num_classes)


# Szegedy et al. 2015, table 1: 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection.
INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64), "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64), "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128),
}


def googlenet(num_classes: int = 1000, size: int = 224, large_kernel: int = 5, batch_norm: bool = True,
              aux: bool = False) -> list[LayerShape]:
    """GoogLeNet (Szegedy et al. 2015, table 1): 1,582,671,872 multiply-accumulates at the defaults.

    The publication has biases and local response normalisation where this has batch normalisation (as torchvision and
    whoever trains it today), and two auxiliary classifiers in training, off here. ``large_kernel=3`` is torchvision's
    network: 3x3 kernels in place of the publication's 5x5, and a 2x2 pooling behind 4e. The defaults are what our
    reconstruction of MLS's energy ratios takes.

    Parameters
    ----------
    num_classes : int
        Outputs.
    size : int
        Height and width of the pictures.
    large_kernel : int
        Kernel of the third branch of an inception block: 5 in the publication, 3 in torchvision.
    batch_norm : bool
        Batch normalisation behind every convolution; False gives biases, and no normalisation at all.
    aux : bool
        The two auxiliary classifiers behind 4a and 4d, which only training needs.

    Returns
    -------
    list of LayerShape
        In execution order.
    """
    def conv(net: Plan, name: str, out: int, kernel: int, stride: int = 1) -> None:
        net.conv(f"{name}.conv", out, kernel, stride, kernel // 2, bias=not batch_norm)
        if batch_norm:
            net.batch_norm(f"{name}.bn")
        net.relu(f"{name}.relu1")

    net = Plan(3, size)
    conv(net, "conv1", 64, 7, 2)
    net.max_pool("max_pool1", 3, 2, ceil_mode=True)
    conv(net, "conv2", 64, 1)
    conv(net, "conv3", 192, 3)
    net.max_pool("max_pool2", 3, 2, ceil_mode=True)
    for block, (one, reduce3, three, reduce5, five, project) in INCEPTIONS.items():
        name, branches = f"inception{block}", [net.branch() for _ in range(4)]
        conv(branches[0], f"{name}.branch1", one, 1)
        conv(branches[1], f"{name}.branch2.0", reduce3, 1)
        conv(branches[1], f"{name}.branch2.1", three, 3)
        conv(branches[2], f"{name}.branch3.0", reduce5, 1)
        conv(branches[2], f"{name}.branch3.1", five, large_kernel)
        branches[3].max_pool(f"{name}.branch4.max_pool1", 3, 1, padding=1)
        conv(branches[3], f"{name}.branch4.1", project, 1)
        net.concatenate(*branches)
        if aux and block in ("4a", "4d"):
            head, at = net.branch(), f"aux{1 if block == '4a' else 2}"
            head.avg_pool(f"{at}.avg_pool1", 5, 3)
            conv(head, f"{at}.conv", 128, 1)
            head.linear(f"{at}.fc1", 1024)
            head.relu(f"{at}.relu1")
            head.linear(f"{at}.fc2", num_classes)
        if block in ("3b", "4e"):
            torchvision = large_kernel == 3
            net.max_pool(f"max_pool{block[0]}", 2 if torchvision and block == "4e" else 3, 2, ceil_mode=True)
    net.global_avg_pool("avg_pool1")
    net.linear("fc", num_classes)
    return net.layers
