"""A training in progress: everything that changes from step to step, how one step is made, how all of it is saved."""
from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from minilp import data as data_sets
from minilp import models, optim, random
from minilp.autograd import Tensor
from minilp.contract import rounding_context
from minilp.data import Dataset, Loader
from minilp.nn import Module, functional
from minilp.training import checkpoint
from minilp.training.config import TrainConfig
from minilp.training.diverged import Diverged, find_gradient, find_parameter, find_value, is_about_nan


def load_data(config: TrainConfig, root: str | os.PathLike[str] | None = None) -> tuple[Dataset, Dataset]:
    """The images of a configuration.

    Parameters
    ----------
    config : TrainConfig
        Names the data set and how many of its training images take part.
    root : path, optional
        Folder of the data sets, if not the configuration's.

    Returns
    -------
    train, test : Dataset

    Raises
    ------
    FileNotFoundError
        If they are not there; the message says how to get them.
    ValueError
        If there are fewer training images.
    """
    train, test = data_sets.load(config.data, root or config.root)
    if config.train_images is None:
        return train, test
    if config.train_images > len(train):
        raise ValueError(f"train_images: {config.data_name} has {len(train)} training images, got "
                         f"{config.train_images}")
    return train.subset(config.train_images), test


def build_model(config: TrainConfig, num_classes: int, in_channels: int) -> Module:
    """The untrained model of a configuration, its recipe applied.

    Parameters
    ----------
    config : TrainConfig
        Names the model, its options and the recipe.
    num_classes, in_channels : int
        What the data set has.

    Returns
    -------
    Module
        Initialised from the streams of :mod:`minilp.random`.

    Raises
    ------
    ValueError
        If the model does not take one of the options, or the recipe does not fit it.
    """
    try:
        model = models.build(config.model, num_classes=num_classes, in_channels=in_channels, **config.model_options)
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


class Session:
    """The mutable side of a training.

    Parameters
    ----------
    config : TrainConfig
        What to train.
    train : Dataset
        The training images.

    Attributes
    ----------
    epoch, batch : int
        The next batch to train on. After an epoch's last batch, ``batch`` is the number of batches until
        :meth:`next_epoch`.
    loss_sum : float
        Sum over the images of this epoch of their loss at the time they were trained on.
    correct, seen : int
        Images of this epoch classified right, and trained on.
    train_seconds, seconds : float
        Wall-clock time of this epoch: in the training loop, and altogether.
    """

    def __init__(self, config: TrainConfig, train: Dataset) -> None:
        random.manual_seed(config.seed)
        self.config = config
        self.loader = Loader(train, config.batch_size, seed=config.seed,
                             augment=None if config.augment == "none" else config.augment)
        self.model = build_model(config, train.num_classes, train.in_channels)
        self.optimizer = build_optimizer(config, self.model)
        self.schedule = self._make_schedule(config, config.epochs * len(self.loader))
        self.epoch = self.batch = 0
        self._clear_sums()

    def _make_schedule(self, config: TrainConfig, steps: int) -> optim.LRScheduler:
        kinds: dict[str, tuple[type[optim.LRScheduler], dict[str, Any]]] = {
            "onecycle": (optim.OneCycleLR, {"max_lr": config.lr, "total_steps": steps, "cycle_momentum": False}),
            "cosine": (optim.CosineAnnealingLR, {"T_max": steps}),
            "step": (optim.MultiStepLR, {"milestones": [steps // 2, steps * 3 // 4], "gamma": 0.1}),
            "constant": (optim.ConstantLR, {"factor": 1.0, "total_iters": 0})}
        kind, options = kinds[config.schedule]
        try:
            return kind(self.optimizer, **{**options, **config.schedule_options})
        except TypeError as error:
            raise ValueError(f"set: schedule {config.schedule} does not take {config.schedule_options} "
                             f"({error})") from error

    def _clear_sums(self) -> None:
        self.loss_sum, self.correct, self.seen = 0.0, 0, 0
        self.train_seconds = self.seconds = 0.0

    @property
    def step_number(self) -> int:
        """Steps taken since the beginning of the training."""
        return self.epoch * len(self.loader) + self.batch

    def step(self, x: np.ndarray, y: np.ndarray) -> None:
        """Train on one batch.

        Parameters
        ----------
        x : ndarray, shape (N, C, H, W)
            Normalised images, float32.
        y : ndarray, shape (N,)
            Labels, int64.

        Raises
        ------
        Diverged
            If the loss or a gradient is NaN or infinite (the parameters are those before the step), or the update of a
            parameter that lives as codes is.
        """
        with rounding_context(self.config.seed, self.step_number), np.errstate(all="ignore"):  # checked below instead
            self.optimizer.zero_grad()
            try:
                logits = self.model(Tensor(x))
                loss = functional.cross_entropy(logits, y)
                value = loss.item()
                if not np.isfinite(value):
                    raise FloatingPointError(f"the loss is {value}")
                loss.backward()
            except (ValueError, ArithmeticError) as error:
                if not is_about_nan(error):
                    raise RuntimeError(f"step {self.step_number}: {error}") from error
                place = find_value(self.model, x) or find_gradient(self.model, broke_off=True)
                raise Diverged(self.epoch, self.step_number, str(error), place) from error
            if (place := find_gradient(self.model)) is not None:
                raise Diverged(self.epoch, self.step_number, f"the loss is {value}", place)
            try:
                self.optimizer.step()
            except ValueError as error:
                if not is_about_nan(error):
                    raise
                raise Diverged(self.epoch, self.step_number, str(error), None) from error
        self.schedule.step()
        self.batch += 1
        self.loss_sum += value * len(y)
        self.correct += int((logits.data.argmax(axis=1) == y).sum())
        self.seen += len(y)

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
        sums, train = {name: getattr(self, name) for name in SUMS}, self.loader.dataset
        checkpoint.save(path, arrays, {
            "config": self.config.to_config(), "classes": list(train.classes), "in_channels": train.in_channels,
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


def evaluate_model(model: Module, dataset: Dataset, batch_size: int, seed: int,
                   stopped: Callable[[], bool] = lambda: False) -> tuple[float, float] | None:
    """Loss and accuracy of a model on a data set, in stored order.

    Dynamic scales depend on the batch, so the same batch size is needed for the same numbers.

    Parameters
    ----------
    model : Module
        Left in the mode (training or evaluation) it was in.
    dataset : Dataset
        What to evaluate on.
    batch_size : int
        Images at a time.
    seed : int
        Of the rounding streams.
    stopped : callable
        Asked before each batch; True ends the evaluation.

    Returns
    -------
    tuple of float, or None
        Mean loss and share of images classified right, in [0, 1]; None if it was stopped.
    """
    from minilp.autograd import no_grad

    mode, loss_sum, correct = model.training, 0.0, 0
    model.eval()
    try:
        with no_grad():
            for index, (x, y) in enumerate(Loader(dataset, batch_size, shuffle=False).epoch(0)):
                if stopped():
                    return None
                # Microbatch 1 keeps these draws apart from those of training step number ``index``.
                with rounding_context(seed, index, microbatch=1), np.errstate(over="ignore", invalid="ignore"):
                    logits = model(Tensor(x))
                    loss_sum += functional.cross_entropy(logits, y).item() * len(y)
                correct += int((logits.data.argmax(axis=1) == y).sum())
    finally:
        model.train(mode)
    return loss_sum / len(dataset), correct / len(dataset)
