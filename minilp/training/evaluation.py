"""From a run directory back to a model and its accuracy."""
from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from minilp import random
from minilp.nn import Module
from minilp.training import checkpoint, rundir
from minilp.training.build import build_model
from minilp.training.config import TrainConfig
from minilp.training.rundir import RunDirectory
from minilp.training.scores import describe_scores, evaluate_model
from minilp.training.session import load_model
from minilp.training.task import Task


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found.

    Attributes
    ----------
    task : Task
        What was evaluated.
    loss, acc : float
        On the task's held-out split: mean loss; share of the images classified right, or of the tokens predicted, in
        [0, 1].
    count : int
        How many images or tokens there were.
    epoch : int
        Epochs the checkpoint had been trained for.
    recorded : float or None
        The accuracy in metrics.csv for that epoch; None if the checkpoint is from the middle of one.
    final : dict
        Of a translation the scores of the test sentences, see :func:`minilp.training.bleu.scores`.
    final_recorded : dict
        The same keys as result.json has them; empty for an unfinished run.
    """

    task: Task
    loss: float
    acc: float
    count: int
    epoch: int
    recorded: float | None
    final: dict[str, Any]
    final_recorded: dict[str, Any]

    def __str__(self) -> str:
        split = self.task.held_out
        scores = describe_scores(self.task, {f"{split}_acc": self.acc, **self.final})
        lines = [f"{scores} ({self.acc!r}), {split} loss {self.loss:.4f}, {self.count} {self.task.unit}s, "
                 f"{self.epoch} epochs trained"]
        if self.recorded is not None:
            lines.append("metrics.csv recorded " + _compared(self.recorded, self.acc))
        lines += [f"result.json recorded {name} " + _compared(value, self.final[name])
                  for name, value in self.final_recorded.items()]
        return "\n".join(lines)


def _compared(recorded: Any, found: Any) -> str:
    return "the same" if recorded == found else f"NOT the same, {recorded!r}"


def evaluate(path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> Evaluation:
    """Evaluate a run's checkpoint on its held-out data, with the batch size and order of its training.

    Parameters
    ----------
    path : path
        A run directory.
    root : path, optional
        Folder of the data sets, if not the one in config.json.

    Returns
    -------
    Evaluation
        The same accuracy, and BLEU, as the training saw, to the last bit.

    Raises
    ------
    ValueError
        If there is no run with a checkpoint, or it is damaged.
    """
    model, run, meta = restore(path)
    config = TrainConfig.load(run.file(rundir.CONFIG))
    task = config.task
    splits = task.load(config, root)
    described = task.describe(splits.train)
    if changed := [name for name, value in described.items() if value != meta[name]]:
        raise ValueError(f"data: {config.data} has the {changed[0]} {described[changed[0]]}, the run was trained on "
                         f"{meta[changed[0]]}")
    for name, content in task.files(splits.train).items():
        if run.file(name).read_bytes() != content:
            raise ValueError(f"data: {config.data} gives another {name} than the run was trained with: is it the same "
                             f"text?")
    scores = evaluate_model(task, model, task.loader(config, splits.held_out, training=False), config.seed)
    assert scores is not None
    at_epoch_end = meta["epoch"] > 0 and meta["batch"] == 0
    recorded = run.rows()[meta["epoch"] - 1][f"{task.held_out}_acc"] if at_epoch_end else None
    final = task.finish(config, model, splits) or {}
    stored = run.read_result() if run.finished else {}
    return Evaluation(task, *scores, task.size(splits.held_out), meta["epoch"], recorded, final,
                      {name: stored[name] for name in ("bleu", "exact_match") if name in stored and name in final})


def load(path: str | os.PathLike[str]) -> Module:
    """The trained model of a run, in evaluation mode, its recipe applied. Needs no data.

    A model that translates has its vocabulary as the attribute ``vocabulary``, and the most tokens of a sentence as
    ``longest``: :func:`minilp.translate` takes it.

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
    config = TrainConfig.load(run.file(rundir.CONFIG))
    try:
        model = build_model(config, meta)
    finally:
        random.set_state(seeds)  # looking at a run does not disturb the caller's streams
    load_model(model, arrays)
    config.task.equip(model, meta, run.file)
    return model.eval(), run, meta
