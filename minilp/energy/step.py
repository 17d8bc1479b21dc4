"""One real training step and one evaluation of a model, counted."""
from __future__ import annotations

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


def count_step(model: Module, optimizer: optim.Optimizer, x: np.ndarray, y: np.ndarray) -> tuple[Counts, Counts]:
    """Train and then evaluate a model on one batch; the model is changed by the step.

    Parameters
    ----------
    model : Module
        A classifier; left in the mode it was in.
    optimizer : Optimizer
        Of its parameters.
    x, y : ndarray
        float32 images (N, C, H, W) and int64 labels (N,).

    Returns
    -------
    (Counts, Counts)
        Of the training step, and of the evaluation of the same images.
    """
    mode = model.training
    with rounding_context(0, 0), np.errstate(all="ignore"):
        try:
            with count(model) as training:
                optimizer.zero_grad()
                functional.cross_entropy(model.train()(Tensor(x)), y).backward()
                optimizer.step()
            with count(model) as evaluation, no_grad():
                model.eval()(Tensor(x))
        finally:
            model.train(mode)
    return training, evaluation


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
        return count_step(built, step, x, rng.integers(0, 10, batch_size))[0], True
    finally:
        random.set_state(seeds)
