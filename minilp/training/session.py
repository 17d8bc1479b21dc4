"""A training in progress: everything that changes from step to step, how one step is made, how all of it is saved."""
from __future__ import annotations

import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minilp import random
from minilp.contract import rounding_context
from minilp.nn import Module, functional
from minilp.training import checkpoint
from minilp.training.build import build_model, build_optimizer, build_schedule
from minilp.training.config import TrainConfig
from minilp.training.diverged import Diverged, find_gradient, find_parameter, find_value, is_about_nan
from minilp.training.task import Batch


class Session:
    """The mutable side of a training.

    Parameters
    ----------
    config : TrainConfig
        What to train.
    train : Dataset or ParallelText
        What to train on.
    start : dict, optional
        Arrays of a checkpoint (:func:`minilp.training.checkpoint.load`) whose parameters are to be trained further.

    Attributes
    ----------
    epoch, batch : int
        The next step: its epoch and its place there. After an epoch's last step, ``batch`` is the number of steps until
        :meth:`next_epoch`.
    steps : int
        Steps of an epoch: batches, or groups of them where gradients are accumulated.
    loss_sum : float
        Sum over the labels (of images, or tokens) of this epoch of their loss at the time they were trained on.
    correct, seen : int
        Labels of this epoch that were predicted, and trained on.
    train_seconds, seconds : float
        Wall-clock time of this epoch: in the training loop, and altogether.
    """

    def __init__(self, config: TrainConfig, train: Any, start: dict[str, Any] | None = None) -> None:
        random.manual_seed(config.seed)
        self.config, self.task = config, config.task
        self.described = self.task.describe(train)
        self.loader = self.task.loader(config, train, training=True)
        self.steps = -(-len(self.loader) // config.accumulate)
        self.model = build_model(config, self.described)
        if start is not None:
            load_model(self.model, start)
        self.optimizer = build_optimizer(config, self.model)
        self.schedule = build_schedule(config, self.optimizer, config.epochs * self.steps)
        self.epoch = self.batch = 0
        self._clear_sums()

    def _clear_sums(self) -> None:
        self.loss_sum, self.correct, self.seen = 0.0, 0, 0
        self.train_seconds = self.seconds = 0.0

    @property
    def step_number(self) -> int:
        """Steps taken since the beginning of the training."""
        return self.epoch * self.steps + self.batch

    def coming(self) -> Iterator[list[Batch]]:
        """The batches of each step that is left of this epoch."""
        batches = self.loader.epoch(self.epoch, start=min(self.batch * self.config.accumulate, len(self.loader)))
        while group := list(itertools.islice(batches, self.config.accumulate)):
            yield group

    def step(self, batches: Sequence[Batch]) -> None:
        """Train on one batch, or on several whose gradients are added up.

        Parameters
        ----------
        batches : sequence of (x, y)
            As the task's loader gives them. Each weighs as much as it has labels.

        Raises
        ------
        Diverged
            If the loss or a gradient is NaN or infinite (the parameters are those before the step), or the update of a
            parameter that lives as codes is.
        """
        counts = [self.task.count(y) for _, y in batches]
        loss, correct = 0.0, 0
        with np.errstate(all="ignore"):  # checked below instead
            self.optimizer.zero_grad()
            for number, ((x, y), count) in enumerate(zip(batches, counts, strict=True)):
                # Microbatch 1 belongs to evaluation.
                with rounding_context(self.config.seed, self.step_number, microbatch=number + (number > 0)):
                    value, found = self._backward(x, y, count / sum(counts))
                loss += value * count
                correct += found
            if (place := find_gradient(self.model)) is not None:
                raise Diverged(self.epoch, self.step_number, f"the loss is {loss / sum(counts)}", place)
            try:
                with rounding_context(self.config.seed, self.step_number):
                    self.optimizer.step()
            except ValueError as error:
                if not is_about_nan(error):
                    raise
                raise Diverged(self.epoch, self.step_number, str(error), None) from error
        self.schedule.step()
        self.batch += 1
        self.loss_sum += loss
        self.correct += correct
        self.seen += sum(counts)

    def _backward(self, x: np.ndarray, y: np.ndarray, share: float) -> tuple[float, int]:
        """Add the gradients of one batch that is that share of a step; its mean loss, and its labels predicted."""
        task, model = self.task, self.model
        try:
            logits = task.outputs(model, x, y)
            loss = functional.cross_entropy(logits, task.labels(y), task.ignore_index,
                                            label_smoothing=self.config.label_smoothing)
            value = loss.item()
            if not np.isfinite(value):
                raise FloatingPointError(f"the loss is {value}")
            (loss if share == 1 else loss * share).backward()
        except (ValueError, ArithmeticError) as error:
            if not is_about_nan(error):
                raise RuntimeError(f"step {self.step_number}: {error}") from error
            place = find_value(model, x, lambda: task.outputs(model, x, y)) or find_gradient(model, broke_off=True)
            raise Diverged(self.epoch, self.step_number, str(error), place) from error
        return value, task.correct(logits.data, y)

    def next_epoch(self) -> None:
        """Go on to the next epoch's first batch."""
        self.epoch, self.batch = self.epoch + 1, 0
        self._clear_sums()

    def save(self, path: pathlib.Path, log_lines: int) -> None:
        """Write a checkpoint.

        Parameters
        ----------
        path : pathlib.Path
            The file.
        log_lines : int
            Lines of the log that belong to it.

        Raises
        ------
        Diverged
            If a parameter is not finite; the file is left as it is.
        """
        if (place := find_parameter(self.model)) is not None:
            raise Diverged(self.epoch, self.step_number, "the last update was too large", place)
        arrays: dict[str, Any] = {f"model.{name}": array for name, array in self.model.state_dict().items()}
        optimizer = checkpoint.pack("optimizer", self.optimizer.state_dict(), arrays)
        sums = {name: getattr(self, name) for name in SUMS}
        checkpoint.save(path, arrays, {
            "config": self.config.to_config(), **self.described,
            "epoch": self.epoch, "batch": self.batch, "step": self.step_number,
            "sums": sums, "log_lines": log_lines, "optimizer": optimizer, "schedule": self.schedule.state_dict(),
            "loader": {"seed": self.loader.seed, "epoch": self.epoch, "batch": self.batch},
            "random": random.get_state(),
            "generators": self.model.generator_states(),
        })

    def restore(self, arrays: dict[str, Any], meta: dict[str, Any]) -> None:
        """Go back to where a checkpoint was written.

        Parameters
        ----------
        arrays, meta
            As :func:`minilp.training.checkpoint.load` returned them.

        Raises
        ------
        ValueError
            If they do not belong to this configuration.
        """
        try:
            load_model(self.model, arrays)
            self.optimizer.load_state_dict(checkpoint.unpack(meta["optimizer"], arrays))
            self.schedule.load_state_dict(meta["schedule"])
            random.set_state(meta["random"])
            self.model.load_generator_states(meta["generators"])
            self.epoch, self.batch = meta["epoch"], meta["batch"]
            for name in SUMS:
                setattr(self, name, meta["sums"][name])
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"the checkpoint does not fit its configuration ({error})") from error


SUMS = ("loss_sum", "correct", "seen", "train_seconds", "seconds")
"""What is summed over an epoch and must survive a stop in the middle of one."""


def load_model(model: Module, arrays: dict[str, Any]) -> None:
    """Copy a checkpoint's parameters and buffers into a model. Raises RuntimeError if they do not fit."""
    model.load_state_dict({name.removeprefix("model."): array for name, array in arrays.items()
                           if name.startswith("model.")})
