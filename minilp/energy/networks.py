"""Networks of the papers' tables by name: shapes only, no weights, no data."""
from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from minilp.energy.networks_resnet import cifar_resnet, resnet
from minilp.energy.networks_text import bert, transformer_base
from minilp.energy.networks_vision import alexnet, googlenet, small_cnn, vgg16
from minilp.energy.shapes import LayerShape

_networks: dict[str, Callable[..., list[LayerShape]]] = {
    "small_cnn": small_cnn,
    **{f"resnet{depth}": partial(cifar_resnet, depth) for depth in (20, 32, 44, 56, 110)},
    "alexnet": alexnet, "vgg16": vgg16, "googlenet": googlenet,
    **{f"resnet{depth}": partial(resnet, depth) for depth in (18, 34, 50, 101)},
    "transformer_base": transformer_base,
    "bert_base": partial(bert, 12, 768, 12), "bert_large": partial(bert, 24, 1024, 16),
}


def available_networks() -> list[str]:
    """The names that :func:`network` knows."""
    return list(_networks)


def network(name: str, **options: Any) -> tuple[LayerShape, ...]:
    """The layers of a network, for one picture or one sequence.

    Parameters
    ----------
    name : str
        One of :func:`available_networks`.
    **options
        Of the network: ``variant="v1"`` (resnet50, resnet101), ``shortcut="A"`` (resnet20 ... resnet110),
        ``length=128`` (bert_base, bert_large), ``size``, ``num_classes``, ...; the builders in
        ``minilp.energy.networks_*`` describe them.

    Returns
    -------
    tuple of LayerShape
        In execution order.

    Raises
    ------
    ValueError
        If the name, an option or its value is unknown.
    """
    if name not in _networks:
        raise ValueError(f"name: unknown network {name!r}; available: {', '.join(_networks)}")
    builder = _networks[name]
    known = list(inspect.signature(builder).parameters)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"{name}: unknown option {', '.join(unknown)}; it has {', '.join(known)}")
    return tuple(builder(**options))
