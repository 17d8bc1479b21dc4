"""The same counts without running anything: from the shapes of a network and a recipe."""
from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from minilp import optim
from minilp.autograd.parameter import Parameter
from minilp.energy import events
from minilp.energy.counts import Counts
from minilp.energy.events import Encoding, Normalised, Operand, Product, Updated, parts
from minilp.energy.recorder import count
from minilp.energy.shapes import LayerShape
from minilp.formats import Format, Spec
from minilp.formats.spec import KINDS
from minilp.operands import narrowed
from minilp.recipe import Recipe
from minilp.roles import LayerRecipe, Role, Roles, of_products

Build = Callable[[list[Parameter]], optim.Optimizer]
NORM_KINDS = {"batch_norm": ("norm_training", "norm_eval"), "layer_norm": ("layer_norm", "layer_norm")}


def default_optimizer(params: list[Parameter]) -> optim.Optimizer:
    """SGD with Nesterov momentum and weight decay, what ``minilp train`` takes."""
    return optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)


def count_shapes(layers: Iterable[LayerShape], recipe: Recipe, batch_size: int = 1, *, training: bool = True,
                 optimizer: Build | None = default_optimizer) -> Counts:
    """Count what one step of a network would take, from shapes alone.

    Parameters
    ----------
    layers : iterable of LayerShape
        In the network's order; the first and the last that have weights are the recipe's ``first`` and ``last``.
    recipe : Recipe
        What plays which role. Attention's products follow its ``attention``.
    batch_size : int
        Images (sequences).
    training : bool
        False is an evaluation: forward products only.
    optimizer : callable or None
        Builds the optimizer of a list of parameters, to learn what its update takes; None leaves the update out.

    Returns
    -------
    Counts
        Equal to what :func:`minilp.energy.count` finds around a step of the same network.
    """
    listed = list(layers)
    weighted = [layer for layer in listed if layer.kind in ("conv2d", "linear")]
    tally: collections.Counter[Any] = collections.Counter()
    for layer in listed:
        if layer.is_contraction:
            if layer.kind == "matmul":
                played = of_products(recipe.roles) if recipe.attention == "coded" else None
                roles = None if played is None else dataclasses.replace(played, weight=played.act)
            else:
                roles = recipe.for_layer(layer.name, weighted.index(layer), len(weighted))
            stored = recipe.update if layer.kind != "matmul" else None
            _count_contraction(tally, layer, roles, batch_size, training, stored)
            if training and optimizer is not None:
                _count_learned(tally, layer, roles, optimizer)
        elif layer.kind in NORM_KINDS:
            kind = NORM_KINDS[layer.kind][not training]
            tally[Normalised(layer.name, kind, False)] += layer.elements * batch_size
            if training:
                tally[Normalised(layer.name, kind, True)] += layer.elements * batch_size
        if training and optimizer is not None and layer.params:
            _count_update(tally, layer.name, layer.params, _parameter(recipe), optimizer)
    return Counts().fill(tally, images=batch_size)


def _tensors(layer: LayerShape, n: int) -> tuple[dict[str, tuple[int, ...]], Spec]:
    """Shapes of the act, weight and error tensors of a batch, and the forward contraction."""
    if layer.kind == "conv2d":
        act, out = (n, layer.in_channels, *layer.in_size), (n, layer.out_channels, *layer.out_size)
        weight: tuple[int, ...] = (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel)
        return ({"act": act, "weight": weight, "error": out},
                Spec("conv2d", layer.stride, layer.padding, layer.dilation, layer.groups))
    if layer.kind == "linear":
        act, out = (n * layer.tokens, layer.in_features), (n * layer.tokens, layer.out_features)  # type: ignore[assignment]
        return {"act": act, "weight": (layer.out_features, layer.in_features), "error": out}, Spec("linear")
    products = n * layer.heads
    second = (products, layer.n, layer.k) if layer.keys else (products, layer.k, layer.n)
    return ({"act": (products, layer.m, layer.k), "weight": second, "error": (products, layer.m, layer.n)},
            Spec("scores" if layer.keys else "context"))


def _source(update: Role | None, role: Role, shape: tuple[int, ...]) -> Format | None:
    """The format that a weight's codes come from, where they come straight from those it lives as."""
    if update is None:
        return None
    one = update.format.encode(np.ones((1,) * len(shape), np.float32))
    return None if narrowed(one, role) is None else update.format


def _count_contraction(tally: collections.Counter[Any], layer: LayerShape, roles: Roles | None, n: int,
                       training: bool, update: Role | None) -> None:
    """The products of one layer and what is encoded for them."""
    shapes, spec = _tensors(layer, n)
    played = {name: getattr(roles, name) if roles is not None else None for name in ("act", "weight", "error", "wgrad")}
    names = {"weight": "act"} if layer.kind == "matmul" else {}
    once: set[str] = set()

    def operand(name: str, kind: Spec, position: int) -> tuple[Operand, tuple[int, ...]]:
        shape, role = shapes[name], played[name]
        shown = names.get(name, name)
        if role is None:
            return Operand(shown, None, math.prod(shape)), (1,) * len(shape)
        along = kind.run(position, shape) if role.format.blocks_along_sum else ()
        scales = role.format.scale_shapes(shape, role.keep, *along)
        arrays = tuple(np.broadcast_to(np.empty((), np.uint8), shape) for shape in scales)  # sizes only, no memory
        coded = Operand(shown, role.format, math.prod(shape), role.format.scales_nbits(arrays))
        if along or name not in once:
            once.add(name)
            tally[Encoding(layer.name, role, coded, _source(update, role, shape) if name == "weight" else None)] += 1
        return coded, parts(scales, len(shape))

    for which in events.PRODUCTS if training else (events.FORWARD,):
        if which == events.INPUT_GRAD and not layer.input_grad:
            continue
        pair = events.OPERANDS[which]
        if spec.layout is not None:
            kind = next(Spec(name) for name in KINDS if name.startswith(spec.kind) and Spec(name).product == which)
        else:
            kind = spec if which == events.FORWARD else dataclasses.replace(spec, kind=f"{spec.kind}_{which}")
        places = (1, 0) if kind.kind == "context_value_grad" else (0, 1)
        (a, a_parts), (b, b_parts) = (operand(name, kind, place) for name, place in zip(pair, places, strict=True))
        out = {events.FORWARD: "error", events.INPUT_GRAD: "act", events.WEIGHT_GRAD: "weight"}[which]
        outputs = math.prod(shapes[out])
        order = slice(None, None, -1 if places == (1, 0) else 1)
        runs = kind.runs(*[shapes[name] for name in pair][order], *(a_parts, b_parts)[order])
        tally[Product(layer.name, which, layer.macs * n, outputs, runs, a, b)] += 1
    if training and played["wgrad"] is not None and layer.kind != "matmul":
        shapes["wgrad"] = shapes["weight"]
        operand("wgrad", spec, 1)


def _count_learned(tally: collections.Counter[Any], layer: LayerShape, roles: Roles | None, optimizer: Build) -> None:
    """Updates of what the transforms of one layer learn; an activation's needs the input gradient."""
    if roles is None or layer.kind == "matmul":
        return
    for name, param in LayerRecipe(roles).parameters().items():
        if layer.input_grad or not name.startswith("act_"):
            _count_update(tally, layer.name, 1, param, optimizer)


def _count_update(tally: collections.Counter[Any], layer: str, elements: int, param: Parameter,
                  optimizer: Build) -> None:
    """Step one number to see what a step takes."""
    stepper = optimizer([param])
    param.grad = np.ones_like(param.data)
    with count() as seen:
        stepper.step()
    for event in seen.tally:
        if isinstance(event, Updated):
            tally[event._replace(layer=layer)] += elements


def _parameter(recipe: Recipe) -> Parameter:
    """A single number that lives as the recipe's parameters do."""
    param = Parameter(np.ones(1, np.float32))
    if recipe.update is not None:
        param.live_as(recipe.update.format, rounding=recipe.update.rounding)
    return param


