"""From a configuration to a model, an optimizer and a schedule."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilp import models, optim
from minilp.nn import Module
from minilp.training.config import TrainConfig


def build_model(config: TrainConfig, described: Mapping[str, Any]) -> Module:
    """The untrained model of a configuration, its recipe applied.

    Parameters
    ----------
    config : TrainConfig
        Names the model, its options and the recipe.
    described : mapping
        What the data have, see :meth:`~minilp.training.task.Task.describe`.

    Returns
    -------
    Module
        Initialised from the streams of :mod:`minilp.random`.

    Raises
    ------
    ValueError
        If the model does not take one of the options, or the recipe does not fit it.
    """
    arguments = {**config.task.model_arguments(described), **config.model_options}
    try:
        model = models.build(config.model, **arguments)
    except TypeError as error:
        raise ValueError(f"set: model {config.model} does not take {config.model_options} ({error})") from error
    return config.recipe.apply(model)


def build_optimizer(config: TrainConfig, model: Module) -> optim.Optimizer:
    """The optimizer of a configuration.

    Parameters
    ----------
    config : TrainConfig
        Names it and its options.
    model : Module
        Whose parameters it steps. Madam redraws those that are zero throughout, and fixes the scales of stored codes.

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError
        If it does not take one of the options.
    """
    options: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.momentum is not None:
        options.update(momentum=config.momentum, nesterov=config.momentum > 0)
    kind = {"sgd": optim.SGD, "adamw": optim.AdamW, "madam": optim.Madam}[config.optimizer]
    try:
        return kind(model.parameters(), **{**options, **config.optimizer_options})
    except TypeError as error:
        raise ValueError(f"set: {config.optimizer} does not take {config.optimizer_options} ({error})") from error


def build_schedule(config: TrainConfig, optimizer: optim.Optimizer, steps: int) -> optim.LRScheduler:
    """The learning rate schedule of a configuration.

    Parameters
    ----------
    config : TrainConfig
        Names it and its options.
    optimizer : Optimizer
        Whose rates it sets.
    steps : int
        Of the whole training.

    Returns
    -------
    LRScheduler

    Raises
    ------
    ValueError
        If it does not take one of the options.
    """
    kinds: dict[str, tuple[type[optim.LRScheduler], dict[str, Any]]] = {
        "onecycle": (optim.OneCycleLR, {"max_lr": config.lr, "total_steps": steps, "cycle_momentum": False}),
        "cosine": (optim.CosineAnnealingLR, {"T_max": steps}),
        "step": (optim.MultiStepLR, {"milestones": [steps // 2, steps * 3 // 4], "gamma": 0.1}),
        "inverse_sqrt": (optim.InverseSqrtLR, {"warmup_steps": max(1, steps // 10)}),
        "constant": (optim.ConstantLR, {"factor": 1.0, "total_iters": 0})}
    kind, options = kinds[config.schedule]
    try:
        return kind(optimizer, **{**options, **config.schedule_options})
    except TypeError as error:
        raise ValueError(f"set: schedule {config.schedule} does not take {config.schedule_options} "
                         f"({error})") from error
