"""Weights to begin with: those that another training ended with, whatever its recipe was."""
from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from minilp.nn import Module
from minilp.training import checkpoint, rundir
from minilp.training.config import TrainConfig
from minilp.training.rundir import RunDirectory

LEARNED = re.compile(r"\.(weight|act|error)_[a-z0-9]+_[a-z0-9_]+$")
"""What a transform in front of a role learned, such as ``conv1.act_prc_gamma``: it belongs to the recipe, and not to
what two recipes have in common."""


def load_weights(model: Module, init: str, ours: Mapping[str, bytes]) -> str:
    """Copy the parameters and buffers of a run's last checkpoint into a model.

    Weights that lived as codes are decoded where the model's do not, and encoded where they do. What the run's recipe
    learned in front of its formats is left behind; what this one learns there begins at its own start.

    Parameters
    ----------
    model : Module
        What to fill. Nothing changes if anything does not fit.
    init : str
        The run's directory.
    ours : mapping of str to bytes
        The task's own files (:meth:`~minilp.training.task.Task.files`): a run that has other ones, another vocabulary,
        does not fit.

    Returns
    -------
    str
        What was loaded, in words.

    Raises
    ------
    ValueError
        If there is no such run, it has no checkpoint, or another model, other classes or another vocabulary.
    """
    run = RunDirectory(init)
    if not run.started or not run.file(rundir.CHECKPOINT).exists():
        raise ValueError(f"init: expected a run directory with a {rundir.CHECKPOINT}, got {init!r}")
    for name, content in ours.items():
        if not run.file(name).exists() or run.file(name).read_bytes() != content:
            raise ValueError(f"init: {init} was trained with another {name}; its weights do not fit these data")
    config = TrainConfig.load(run.file(rundir.CONFIG))
    arrays, meta = checkpoint.load(run.file(rundir.CHECKPOINT))
    state: dict[str, Any] = {name.removeprefix("model."): array for name, array in arrays.items()
                             if name.startswith("model.") and not LEARNED.search(name)}
    own = {name: array for name, array in model.state_dict().items() if LEARNED.search(f".{name}")}
    try:
        model.load_state_dict({**state, **own})
    except RuntimeError as error:
        raise ValueError(f"init: {init} holds a {config.model} that does not fit:\n{error}") from error
    return f"{init}: {config.model}, recipe {config.recipe.name}, {meta['epoch']} epochs trained"
