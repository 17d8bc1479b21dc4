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
from minilp.nn import Module, functional
from minilp.recipe import Recipe

OPTIMIZERS: dict[str, Any] = {"sgd": default_optimizer, "adamw": optim.AdamW, "madam": optim.Madam}


Batch = tuple[np.ndarray, np.ndarray]


def classify(model: Module, x: np.ndarray, y: np.ndarray) -> Tensor:
    """The logits (N, C) of images (N, C, H, W); their labels are not looked at."""
    return model(Tensor(x))


def classification_loss(model: Module, x: np.ndarray, y: np.ndarray) -> Tensor:
    """Mean cross-entropy of images (N, C, H, W) and their labels (N,)."""
    return functional.cross_entropy(classify(model, x, y), y)


def count_training(model: Module, optimizer: optim.Optimizer, batches: Sequence[Batch],
                   loss: Callable[[Module, np.ndarray, np.ndarray], Tensor] = classification_loss) -> Counts:
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
                     outputs: Callable[[Module, np.ndarray, np.ndarray], Tensor] = classify) -> Counts:
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
        Of :func:`minilp.models.available`: a real step on random 32 x 32 images is counted. Or of
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
        built = recipe.apply(models.build(model, **options or {}))
        rng = np.random.default_rng(0)
        x = rng.standard_normal((batch_size, 3, 32, 32)).astype(np.float32)
        step = optimizer(list(built.parameters()))
        return count_training(built, step, [(x, rng.integers(0, 10, batch_size))]), True
    finally:
        random.set_state(seeds)
