"""From a run directory back to a model and its accuracy."""
from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from minilp import random
from minilp.nn import Module
from minilp.training import checkpoint, rundir
from minilp.training.config import TrainConfig
from minilp.training.rundir import RunDirectory
from minilp.training.session import build_model, evaluate_model, load_data, load_model


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found.

    Attributes
    ----------
    test_loss, test_acc : float
        Mean loss; share of the images classified right, in [0, 1].
    images : int
        How many there were.
    epoch : int
        Epochs the checkpoint had been trained for.
    recorded : float or None
        The test accuracy in metrics.csv for that epoch; None if the checkpoint is from the middle of one.
    """

    test_loss: float
    test_acc: float
    images: int
    epoch: int
    recorded: float | None


def evaluate(path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> Evaluation:
    """Evaluate a run's checkpoint on the test images, with the batch size and order of its training.

    Parameters
    ----------
    path : path
        A run directory.
    root : path, optional
        Folder of the data sets, if not the one in config.json.

    Returns
    -------
    Evaluation
        The same accuracy as the training saw, to the last bit.

    Raises
    ------
    ValueError
        If there is no run with a checkpoint, or it is damaged.
    """
    model, run, meta = restore(path)
    config = TrainConfig.load(run.file(rundir.CONFIG))
    _, test = load_data(config, root)
    if list(test.classes) != meta["classes"]:
        raise ValueError(f"data: {config.data} has the classes {test.classes}, the run was trained on "
                         f"{meta['classes']}")
    scores = evaluate_model(model, test, config.batch_size, config.seed)
    assert scores is not None
    at_epoch_end = meta["epoch"] > 0 and meta["batch"] == 0
    recorded = run.rows()[meta["epoch"] - 1]["test_acc"] if at_epoch_end else None
    return Evaluation(*scores, len(test), meta["epoch"], recorded)


def load(path: str | os.PathLike[str]) -> Module:
    """The trained model of a run, in evaluation mode, its recipe applied. Needs no data.

    Parameters
    ----------
    path : path
        A run directory.

    Returns
    -------
    Module

    Raises
    ------
    ValueError
        If there is no run with a checkpoint, or it is damaged.
    """
    return restore(path)[0]


def restore(path: str | os.PathLike[str]) -> tuple[Module, RunDirectory, dict[str, Any]]:
    """The model of a run's checkpoint in evaluation mode, the run, and the checkpoint's JSON.

    Raises
    ------
    ValueError
        If there is no run with a checkpoint, or it is damaged.
    """
    run = RunDirectory(path)
    if not run.started:
        raise ValueError(f"run: {run.path} is no run directory (no {rundir.CONFIG})")
    if not run.file(rundir.CHECKPOINT).exists():
        raise ValueError(f"run: {run.path} has no {rundir.CHECKPOINT} yet")
    arrays, meta = checkpoint.load(run.file(rundir.CHECKPOINT))
    seeds = random.get_state()
    try:
        model = build_model(TrainConfig.load(run.file(rundir.CONFIG)), len(meta["classes"]), meta["in_channels"])
    finally:
        random.set_state(seeds)  # looking at a run does not disturb the caller's streams
    load_model(model, arrays)
    return model.eval(), run, meta
