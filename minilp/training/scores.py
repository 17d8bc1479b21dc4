"""Loss and accuracy of a model on held-out data."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minilp.autograd import no_grad
from minilp.contract import rounding_context
from minilp.nn import Module, functional
from minilp.training.task import BatchLoader, Task


def evaluate_model(task: Task, model: Module, loader: BatchLoader, seed: int,
                   stopped: Callable[[], bool] = lambda: False) -> tuple[float, float] | None:
    """Loss and accuracy of a model on the batches of a loader.

    Dynamic scales depend on the batch, so the same batches are needed for the same numbers.

    Parameters
    ----------
    task : Task
        What is scored.
    model : Module
        Left in the mode (training or evaluation) it was in.
    loader : BatchLoader
        Its epoch 0 is what to evaluate on.
    seed : int
        Of the rounding streams.
    stopped : callable
        Asked before each batch; True ends the evaluation.

    Returns
    -------
    tuple of float, or None
        Mean loss, and share of the labels that are predicted, in [0, 1]; None if it was stopped.
    """
    mode, loss_sum, correct, seen = model.training, 0.0, 0, 0
    model.eval()
    try:
        with no_grad():
            for index, (x, y) in enumerate(loader.epoch(0)):
                if stopped():
                    return None
                # Microbatch 1 keeps these draws apart from those of training step number ``index``.
                with rounding_context(seed, index, microbatch=1), np.errstate(over="ignore", invalid="ignore"):
                    logits = task.outputs(model, x, y)
                    loss = functional.cross_entropy(logits, task.labels(y), task.ignore_index)
                count = task.count(y)
                loss_sum += loss.item() * count
                correct += task.correct(logits.data, y)
                seen += count
    finally:
        model.train(mode)
    return loss_sum / seen, correct / seen


def describe_scores(task: Task, found: Mapping[str, Any]) -> str:
    """The scores of a training in words.

    Parameters
    ----------
    task : Task
        Whose they are.
    found : mapping
        ``<held_out>_acc``, and ``bleu`` and ``exact_match`` where they were measured.
    """
    names = {"test": "test", "val": "validation"}
    words = [f"{names[task.held_out]} accuracy {found[f'{task.held_out}_acc']:.2%}"]
    if found.get("bleu") is not None:
        words.append(f"test BLEU {found['bleu']:.2f}")
    if "exact_match" in found:
        words.append(f"{found['exact_match']:.2%} of the test sentences exactly as the reference ({found['decoding']})")
    return ", ".join(words)
