"""Training: the function behind ``minilp train``, its loop, and what it writes when."""
from __future__ import annotations

import dataclasses
import os
import pathlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from minilp.kernels import set_num_threads
from minilp.kernels import threads as current_threads
from minilp.nn import Module
from minilp.recipe import Recipe
from minilp.report import describe_recipe
from minilp.training import checkpoint, machine, plots, rundir
from minilp.training.config import MAY_CHANGE, TrainConfig
from minilp.training.diverged import Diverged
from minilp.training.initial import load_weights
from minilp.training.outcome import outcome
from minilp.training.progress import Progress, interruptible
from minilp.training.run_energy import describe
from minilp.training.rundir import RunDirectory
from minilp.training.scores import describe_scores, evaluate_model
from minilp.training.session import Session


@dataclass(frozen=True)
class Result:
    """A finished training.

    Attributes
    ----------
    path : pathlib.Path
        The run directory.
    config : TrainConfig
        What was trained.
    rows : tuple of dict
        One row an epoch, the columns of metrics.csv.
    model : Module
        The trained model, in evaluation mode.
    summary : dict
        What stands in result.json; the properties below read it.
    """

    path: pathlib.Path
    config: TrainConfig
    rows: tuple[dict[str, Any], ...]
    model: Module
    summary: dict[str, Any]

    def _score(name: str, words: str) -> Any:  # type: ignore[misc]
        return property(lambda self: self.summary.get(name), doc=words)

    test_acc = _score("test_acc", "float: share of the test images classified right after the last epoch, in [0, 1].")
    bleu = _score("bleu", "float: BLEU of the test sentences' translations, 0 to 100; None for images.")
    images_per_s = _score("images_per_s", "float: training images a second, evaluation excluded; None for sentences.")
    tokens_per_s = _score("tokens_per_s", "float: target tokens a second in training; None for images.")
    seconds = _score("seconds", "float: wall-clock time of all epochs.")
    energy_pj = _score("energy_pj", "float or None: picojoules of the run with its evaluations, by the default prices.")
    energy_pj_per_image = _score("energy_pj_per_image", "float or None: the same of a training image.")
    energy_pj_per_token = _score("energy_pj_per_token", "float or None: the same of a target token in training.")
    del _score


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended a training after its state was saved; the message says how to go on."""


def train(data: str | None = None, model: str | None = None, recipe: str | Recipe | None = None, *,
          epochs: int | None = None, batch_size: int | None = None, optimizer: str | None = None,
          lr: float | None = None, momentum: float | None = None, weight_decay: float | None = None,
          schedule: str | None = None, accumulate: int | None = None, label_smoothing: float | None = None,
          augment: str | None = None, train_images: int | None = None, seed: int | None = None,
          init: str | os.PathLike[str] | None = None,
          settings: Iterable[str] | Mapping[str, Any] = (),
          root: str | os.PathLike[str] | None = None, threads: int | None = None, save_every: int | None = None,
          out: str | os.PathLike[str] | None = None, resume: bool = False, quiet: bool = False) -> Result:
    """Train a model and leave a run directory behind.

    Parameters
    ----------
    data : str, optional
        ``"shapes10"`` (default), ``"cifar10"``, or a folder or .npz file; ``"multi30k"`` or ``"numbers"`` to translate.
    model : str, optional
        ``"small_cnn"`` (default of images), ``"resnet20"``, ..., ``"transformer"`` (of sentences); see
        :func:`minilp.models.available`.
    recipe : str or Recipe, optional
        ``"potq"`` (default), ``"fp32"``, or a recipe of your own.
    epochs, batch_size, optimizer, lr, momentum, weight_decay, schedule, accumulate, label_smoothing, augment, \
    train_images, seed, settings
        See :class:`~minilp.training.TrainConfig`; None means the default of the data set, the optimizer or the recipe.
    init : path, optional
        Begin with the weights that another run ended with, of any recipe: post-training quantisation and fine-tuning
        from float32.
    root, threads, save_every
        The same; a resumed run may name these anew.
    out : path, optional
        The run directory; default ``runs/<data>-<model>-<recipe>-s<seed>``, with -2, -3, ... if that is taken.
    resume : bool
        Continue the unfinished run in ``out`` (or the latest one of the default name) to exactly the numbers it would
        have had. Its configuration is taken from there.
    quiet : bool
        Print nothing; the log is written all the same.

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        Naming the argument, what came and what was expected.
    FileNotFoundError, ImportError
        If the data, or what they take to be read, are not there; the message says how to get them.
    Diverged
        If a loss or gradient becomes NaN or infinite; result.json says so, and the last checkpoint stays.
    Interrupted
        After Ctrl-C, once the state is saved.
    """
    given: dict[str, Any] = {
        "data": data, "model": model, "recipe": recipe, "epochs": epochs, "batch_size": batch_size,
        "optimizer": optimizer, "lr": lr, "momentum": momentum, "weight_decay": weight_decay, "schedule": schedule,
        "accumulate": accumulate, "label_smoothing": label_smoothing, "augment": augment, "train_images": train_images,
        "seed": seed, "init": None if init is None else os.fspath(init),
        "root": None if root is None else os.fspath(root), "threads": threads, "save_every": save_every}
    config = TrainConfig.create(**{k: v for k, v in given.items() if v is not None}, settings=settings)
    run, hint = rundir.choose(out, config.name, resume)
    if resume:
        config = _stored(run, config, [k for k, v in given.items() if v is not None] + ["settings"] * bool(settings))
    before = current_threads()
    try:
        if config.threads is not None:
            set_num_threads(config.threads)
        with interruptible() as stopped:
            training = _Training(config, run, stopped, quiet)  # nothing is written if the data or the model do not fit
            run.path.mkdir(parents=True, exist_ok=True)
            run.lock()
            return training.run_all(hint)
    finally:
        set_num_threads(before)
        run.unlock()


def _stored(run: RunDirectory, asked: TrainConfig, given: list[str]) -> TrainConfig:
    """The configuration of a run to be resumed; what the user named must agree with it."""
    stored = TrainConfig.load(run.file(rundir.CONFIG))
    changes = {}
    for name in given:
        new, old = getattr(asked, name), getattr(stored, name)
        if name == "recipe" and asked.settings != stored.settings:
            new, old = new.name, old.name  # a resumed run need not repeat its settings
        if name in MAY_CHANGE:
            changes[name] = new
        elif new != old:
            raise ValueError(f"{name}: the run in {run.path} was started with {old!r}, got {new!r}; a resumed run "
                             f"keeps its configuration")
    return dataclasses.replace(stored, **changes)


class _Training:
    """The loop, and the order in which things reach the disk."""

    def __init__(self, config: TrainConfig, run: RunDirectory, stopped: Any, quiet: bool) -> None:
        self.config, self.run, self.stopped, self.quiet = config, run, stopped, quiet
        self.task = config.task
        self.splits = self.task.load(config)
        self.size = self.task.size(self.splits.train)
        self.session = Session(config, self.splits.train)
        self.resumed = self.run.started and self.run.file(rundir.CHECKPOINT).exists()
        self.begun = "" if config.init is None or self.resumed else load_weights(
            self.session.model, config.init, self.task.files(self.splits.train))
        self.log_lines = 0

    def run_all(self, hint: str) -> Result:
        """Train until the last epoch, or until something ends it early."""
        session, run, config = self.session, self.run, self.config
        if self.resumed:
            arrays, meta = checkpoint.load(run.file(rundir.CHECKPOINT))
            session.restore(arrays, meta)
            run.rewind(meta["epoch"], meta["log_lines"])
            self.log_lines = meta["log_lines"]
        else:
            run.begin(config, self.task.files(self.splits.train))
        progress = self.progress = Progress(config.epochs * self.size, session.epoch * self.size + session.seen,
                                            self.task.unit, self.quiet)
        try:
            self._head(hint)
            while session.epoch < config.epochs:
                self._epoch()
            if not run.finished:
                self._finish()
        except Diverged as error:
            self._finish(error)
            raise
        finally:
            progress.close()
        return self._result()

    def _head(self, hint: str) -> None:
        """The first lines: on a resume only for the screen, since the log has them."""
        config = self.config
        parameters = sum(p.size for p in self.session.model.parameters())
        lines = [machine.first_line(config.recipe), f"recipe {describe_recipe(config.recipe)}",
                 *(f"{config.data_name}: {words}" for words in self.task.says(self.splits)),
                 f"{config.model}: {parameters:,} parameters",
                 *([f"weights of {self.begun}"] if self.begun else []),
                 f"{config.epochs} epochs, {config.describe_batches()}, {config.describe_optimizer()}, augment "
                 f"{config.augment}, seed {config.seed}"]
        for line in lines:
            self.progress.line(line)
            if not self.resumed:
                self._log(line)
        if hint:
            self.progress.line(f"note: {hint}")
        if self.resumed:
            self.progress.line(f"resuming {self.run.path} at epoch {self.session.epoch + 1}, "
                               f"batch {self.session.batch + 1}" if self.session.epoch < config.epochs else
                               f"{self.run.path} is finished already")

    def _log(self, line: str) -> None:
        self.run.log(line)
        self.log_lines += 1

    def _save(self) -> None:
        self.session.save(self.run.file(rundir.CHECKPOINT), self.log_lines)

    def _epoch(self) -> None:
        """One epoch: train, evaluate, then row, log line and checkpoint in this order."""
        session, config = self.session, self.config
        label = f"epoch {session.epoch + 1}/{config.epochs}"
        steps = session.coming()
        start, train_before, before = time.perf_counter(), session.train_seconds, session.seconds
        while not self.stopped() and (batches := next(steps, None)) is not None:
            before_step = session.seen
            session.step(batches)
            session.train_seconds = train_before + time.perf_counter() - start
            session.seconds = before + time.perf_counter() - start
            self.progress.step(session.seen - before_step, label, session.loss_sum / session.seen,
                               session.correct / session.seen)
            if config.save_every and session.step_number % config.save_every == 0:
                saving = time.perf_counter()
                self._save()
                train_before -= time.perf_counter() - saving  # a checkpoint is no training time
        if self.stopped():
            self._interrupted()
        task = self.task
        held_out = task.loader(config, self.splits.held_out, training=False)
        scores = evaluate_model(task, session.model, held_out, config.seed, self.stopped)
        if scores is None:
            self._interrupted()
        assert scores is not None
        session.seconds = before + time.perf_counter() - start
        values = (session.epoch + 1, session.loss_sum / session.seen, session.correct / session.seen, *scores,
                  session.seen / session.train_seconds, session.seconds)
        row = dict(zip(task.columns, values, strict=True))
        split = task.held_out
        line = (f"{label}: train loss {values[1]:.4f}, train acc {values[2]:.2%}, {split} loss {values[3]:.4f}, "
                f"{split} acc {values[4]:.2%}, {values[5]:.0f} {task.unit}s/s, {values[6]:.1f} s")
        self.run.add_row(row)
        self._log(line)
        self.progress.line(line)
        session.next_epoch()
        self._save()

    def _interrupted(self) -> None:
        """Save and leave."""
        self._save()
        raise Interrupted(f"stopped at epoch {self.session.epoch + 1}, step {self.session.step_number}; everything is "
                          f"saved. Go on with: minilp train --resume --out {self.run.path}")

    def _finish(self, diverged: Diverged | None = None) -> None:
        """What is measured once, and the picture; then result.json, which marks the run as finished, be it by
        divergence.
        """
        config, rows, task, model = self.config, self.run.rows(), self.task, self.session.model
        final = task.finish(config, model, self.splits, self.stopped) if diverged is None else {}
        if final is None:
            self._interrupted()
        if rows:
            plots.curves(rows, config.name, self.run.file(rundir.CURVES), task.held_out)
        self.run.write_result(outcome(config, rows, model, self.splits, final or {}, diverged))

    def _result(self) -> Result:
        """Read back what was written, and say it."""
        stored, task = self.run.read_result(), self.task
        peak = stored["peak_bytes"]
        for line in (f"{describe_scores(task, stored)}; {stored[task.speed]:.0f} {task.unit}s/s in the training loop "
                     f"(evaluation excluded); {stored['seconds']:.1f} s"
                     + (f"; peak memory {peak / 1e6:.0f} MB" if peak else ""),
                     describe(task, stored), f"run directory: {self.run.path}",
                     f"again: {self.config.command()}",
                     f"check: minilp eval {self.run.path}"):
            self.progress.line(line)
        return Result(self.run.path, self.config, tuple(self.run.rows()), self.session.model.eval(), stored)
