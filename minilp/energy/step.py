"""Real training steps and evaluations of a model, counted."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minilp import models, optim, random
from minilp.autograd import Tensor, no_grad
from minilp.energy.counts import Counts
from minilp.energy.networks import available_networks, network
from minilp.energy.recorder import count
from minilp.energy.shapecount import count_shapes, default_optimizer
from minilp.formats.rounding import rounding_context
from minilp.models.specimen import Specimen, specimen
from minilp.nn import Module
from minilp.recipe import Recipe

OPTIMIZERS: dict[str, Any] = {"sgd": default_optimizer, "adamw": optim.AdamW, "madam": optim.Madam}


Batch = tuple[np.ndarray, np.ndarray]


def count_training(model: Module, optimizer: optim.Optimizer, batches: Sequence[Batch],
                   loss: Callable[[Module, np.ndarray, np.ndarray], Tensor] = Specimen.loss) -> Counts:
    """Train a model for one step and count it.

    Parameters
    ----------
    model : Module
        Changed by the step; left in the mode it was in.
    optimizer : Optimizer
        Of its parameters.
    batches : sequence of (x, y)
        Their gradients are added up for the one step.
    loss : callable
        Model and a batch to a scalar Tensor.

    Returns
    -------
    Counts
    """
    mode = model.training
    try:
        with rounding_context(0, 0), np.errstate(all="ignore"), count(model) as counted:
            optimizer.zero_grad()
            for x, y in batches:
                loss(model.train(), x, y).backward()
            optimizer.step()
    finally:
        model.train(mode)
    return counted


def count_evaluation(model: Module, batches: Sequence[Batch],
                     outputs: Callable[[Module, np.ndarray, np.ndarray], Tensor] = Specimen.outputs) -> Counts:
    """Run a model forward on some batches and count that.

    Parameters
    ----------
    model : Module
        Left in the mode it was in.
    batches : sequence of (x, y)
        What goes in.
    outputs : callable
        Model and a batch to logits.

    Returns
    -------
    Counts
    """
    mode = model.training
    try:
        with rounding_context(0, 0), np.errstate(all="ignore"), count(model) as counted, no_grad():
            for x, y in batches:
                outputs(model.eval(), x, y)
    finally:
        model.train(mode)
    return counted


def count_named(model: str, recipe: Recipe, batch_size: int = 1, options: dict[str, Any] | None = None
                ) -> tuple[Counts, bool]:
    """Count a training step of a model or network by its name.

    Parameters
    ----------
    model : str
        Of :func:`minilp.models.available`: a real step on random 32 x 32 images, or sentences of 16 tokens, is counted
        (:mod:`minilp.models.specimen`). Or of
        :func:`minilp.energy.available_networks`: its shapes are.
    recipe : Recipe
        What plays which role, and the optimizer.
    batch_size : int
        Images or sequences.
    options : dict, optional
        Of the model or network.

    Returns
    -------
    (Counts, bool)
        And whether a step was executed.

    Raises
    ------
    ValueError
        If the name or an option is unknown.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: expected an integer >= 1, got {batch_size}")
    optimizer = OPTIMIZERS[recipe.optimizer]
    if model not in models.available():
        if model not in available_networks():
            known = dict.fromkeys([*models.available(), *available_networks()])
            raise ValueError(f"model: expected one of {', '.join(known)}, got {model!r}")
        return count_shapes(network(model, **options or {}), recipe, batch_size, optimizer=optimizer), False
    seeds = random.get_state()
    try:
        made = specimen(model, batch_size, options)
        built = recipe.apply(made.model)
        return count_training(built, optimizer(list(built.parameters())), [(made.x, made.y)]), True
    finally:
        random.set_state(seeds)
