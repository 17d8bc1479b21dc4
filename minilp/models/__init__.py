"""Models by name."""
from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from minilp.models.encoder import Encoder
from minilp.models.resnet import ResNet
from minilp.models.small_cnn import SmallCNN
from minilp.models.transformer import Transformer
from minilp.models.vgg import VGG
from minilp.nn import Module

_builders: dict[str, Callable[..., Module]] = {
    "small_cnn": SmallCNN,
    **{f"resnet{depth}": partial(ResNet, depth) for depth in (20, 32, 44, 56, 110)},
    "resnet": ResNet,
    "vgg11": VGG,
    "transformer": Transformer,
    "encoder": Encoder,
}


def available() -> list[str]:
    """The names that :func:`build` knows."""
    return list(_builders)


def build(name: str, num_classes: int = 10, in_channels: int = 3, **options: Any) -> Module:
    """Build a model by its name.

    Parameters
    ----------
    name : str
        One of :func:`available`. ``"resnet"`` takes any ``depth`` as an option.
    num_classes : int
        Outputs of a classifier; other models have no such option and leave it alone.
    in_channels : int
        Channels of the pictures, of models that see pictures.
    **options
        Of the model, e.g. ``width=32`` or ``shortcut="A"``.

    Returns
    -------
    Module
        Freshly initialised from ``minilp.manual_seed``'s streams.

    Raises
    ------
    ValueError
        If the name or an option is unknown; the message lists the known ones.
    """
    if name not in _builders:
        raise ValueError(f"name: unknown model {name!r}; available: {', '.join(_builders)}")
    builder = _builders[name]
    takes = inspect.signature(builder).parameters
    common = {key: value for key, value in (("num_classes", num_classes), ("in_channels", in_channels)) if key in takes}
    known = [option for option in takes if option not in ("num_classes", "in_channels")]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"{name}: unknown option {', '.join(unknown)}; it has {', '.join(known)}")
    return builder(**common, **options)


__all__ = ["VGG", "Encoder", "ResNet", "SmallCNN", "Transformer", "available", "build"]
