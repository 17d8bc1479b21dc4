"""A sweep over the width of stored weights: optimizers side by side, each at its best learning rate, recorded.

What is trained is a :class:`Trial`; two of them are :mod:`~minilp.experiments.update_bits` and
:mod:`~minilp.experiments.finetune`.
"""
from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from minilp import files
from minilp.optim import Optimizer
from minilp.training import Diverged, TrainConfig, machine
from minilp.training.scores import evaluate_model
from minilp.training.session import Session
from minilp.training.task import BatchLoader

BITS = (16, 15, 14, 13, 12, 11, 10)
FACTOR = 2.0
LARGEST_STEPS = 6
KEY = ("optimizer", "lr", "bits", "rounding", "seed")


class Trial(ABC):
    """What is trained, apart from the optimizer and the width of its updates; a subclass is a frozen dataclass.

    Attributes
    ----------
    start : mapping of str to float
        Where the search for a learning rate begins, per optimizer: our assumption.
    """

    start: ClassVar[Mapping[str, float]]

    @abstractmethod
    def config(self, optimizer: str, lr: float, bits: int | None, rounding: str | None, seed: int) -> TrainConfig:
        """The configuration of one run; ``bits`` None is float32 weights. Raises ValueError as TrainConfig does."""

    @abstractmethod
    def begin(self, config: TrainConfig) -> tuple[Session, BatchLoader]:
        """A training at its first step, and what it is evaluated on."""

    def before(self) -> dict[str, float] | None:
        """Accuracy and loss before any step, where that is worth knowing."""
        return None

    def record(self) -> dict[str, Any]:
        """What the trial is, as plain JSON: two files with the same of it may be added up."""
        assert dataclasses.is_dataclass(self)
        return dict(json.loads(json.dumps(dataclasses.asdict(self))))


def update_settings(optimizer: str, bits: int | None, rounding: str | None) -> list[str]:
    """The ``key=value`` settings by which weights live between steps as ``bits``-bit codes, or, None, as float32."""
    if bits is not None:
        return [f"update.bits={bits}", f"update.rounding={rounding}", "update.draw=exponent"]
    return ["update=none", *(["optimizer.round_gradient=False"] if optimizer == "madam" else [])]


def run_one(task: Trial, optimizer: str, lr: float, bits: int | None, rounding: str | None = "stochastic",
            seed: int = 0) -> dict[str, Any]:
    """Train once.

    Parameters
    ----------
    task : Trial
        What to train.
    optimizer : {"madam", "sgd", "adamw"}
        Its other options are the defaults of a training.
    lr : float
        The peak of the one-cycle schedule.
    bits : int or None
        B_U; None for float32 weights.
    rounding : {"stochastic", "nearest"} or None
        Of updates; None goes with ``bits`` None.
    seed : int
        Of initialisation, order and rounding.

    Returns
    -------
    dict
        The arguments; ``test_acc`` in [0, 1] and ``test_loss`` after the last epoch (of translations ``val_acc`` and
        ``val_loss``); ``train_loss``, the mean over the last epoch; ``unmoved``, the share of stored exponents (of
        convolutions and linear layers) that the step halfway through left as they were, None for float32; ``diverged``,
        None or what happened (results are then None); ``weight_decay``, ``momentum``, ``settings``, ``commit``,
        ``seconds``.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """
    config = task.config(optimizer, lr, bits, rounding, seed)
    acc, loss = (f"{config.task.held_out}_{name}" for name in ("acc", "loss"))
    row: dict[str, Any] = {"optimizer": optimizer, "lr": lr, "bits": bits,
                           "rounding": None if bits is None else rounding, "seed": seed,
                           acc: None, loss: None, "train_loss": None, "unmoved": None,
                           "diverged": None, "weight_decay": config.weight_decay, "momentum": config.momentum,
                           "settings": list(config.settings), "commit": machine.commit()}
    start = time.perf_counter()
    session, held_out = task.begin(config)
    middle = config.epochs * session.steps // 2
    try:
        for _ in range(config.epochs):
            for batches in session.coming():
                before = _exponents(session.optimizer) if session.step_number == middle else []
                session.step(batches)
                if before:
                    same = [old == new for old, new in zip(before, _exponents(session.optimizer), strict=True)]
                    row["unmoved"] = float(np.mean(np.concatenate(same)))
            row["train_loss"] = session.loss_sum / session.seen
            session.next_epoch()
        row[loss], row[acc] = evaluate_model(session.task, session.model, held_out, seed) or (None, None)
    except Diverged as error:
        row.update(diverged=str(error), train_loss=None, unmoved=None)
    row["seconds"] = round(time.perf_counter() - start, 2)
    return row


def _exponents(optimizer: Optimizer) -> list[np.ndarray]:
    """Flat copies of the stored codes of all weights; none for float32."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    return [param.code.codes.ravel().copy() for param in params if param.ndim > 1 and param.code is not None]


def search(run: Callable[[float], dict[str, Any]], start: float) -> float:
    """Find a learning rate: halve or double while that lowers the last epoch's training loss.

    Parameters
    ----------
    run : callable
        Learning rate to row, as :func:`run_one` makes them.
    start : float
        Where to begin. At least this, its double and its half are tried, and no more than a factor 2^6 either way.

    Returns
    -------
    float
        The best of those tried (the test images take no part). Both its neighbours were tried too, unless it is one of
        the two ends.
    """
    def loss(lr: float) -> float:
        found = run(lr)["train_loss"]
        return np.inf if found is None or not np.isfinite(found) else found

    best = start
    for _ in range(LARGEST_STEPS):
        if loss(best) <= loss(best / FACTOR) and np.isfinite(loss(best)):  # else down, away from divergence
            break
        best /= FACTOR
    for _ in range(LARGEST_STEPS):
        if not loss(best * FACTOR) < loss(best):
            break
        best *= FACTOR
    return best


def sweep(bits: Iterable[int] = BITS, optimizers: Iterable[str] | None = None, *, task: Trial,
          rounding: str = "stochastic", seeds: Sequence[int] = (0,), rates: Mapping[str, float] | None = None,
          json_file: str | os.PathLike[str] | None = None, say: Callable[[str], None] = lambda line: None,
          ) -> dict[str, Any]:
    """The sweep: for each optimizer a search at 16 bits, then every width and float32, for every seed.

    Parameters
    ----------
    bits : iterable of int
        Widths B_U.
    optimizers : iterable of str or None
        Some of those that the trial has rates for; None is all of them.
    task : Trial
        What is trained.
    rounding : {"stochastic", "nearest"}
        Of updates.
    seeds : sequence of int
        The search uses the first.
    rates : mapping of str to float, or None
        Learning rates of optimizers that are not to be searched. A file holds one per rounding and optimizer.
    json_file : path or None
        Where to record. Written after every run; runs that are in it already are not repeated, so a sweep that was cut
        off goes on, and one with other widths, seeds or another rounding is added.
    say : callable
        Gets a line of text after every run.

    Returns
    -------
    dict
        Plain JSON: ``task``; ``learning_rates``, rounding to optimizer to learning rate; ``rows``, see
        :func:`run_one`, those of the search among them; ``before`` where the trial has one.

    Raises
    ------
    ValueError
        If an argument is out of range, or the file records another task.
    """
    bits, optimizers = tuple(bits), tuple(task.start if optimizers is None else optimizers)
    if unknown := set(optimizers) - set(task.start):
        raise ValueError(f"optimizers: expected some of {', '.join(task.start)}, got {sorted(unknown)[0]!r}")
    rates = dict(rates or {})
    if unknown := set(rates) - set(optimizers):
        raise ValueError(f"rates: expected some of {', '.join(optimizers)}, got {sorted(unknown)[0]!r}")
    if not seeds:
        raise ValueError("seeds: expected at least one, got none")
    for narrow in bits:
        task.config(optimizers[0], 0.1, narrow, rounding, seeds[0])  # all mistakes before the first training
    path = None if json_file is None else pathlib.Path(json_file)
    record = _recorded(path, task)
    done = {tuple(row[name] for name in KEY): row for row in record["rows"]}

    def save() -> None:
        if path is not None:
            files.write_atomic(path, files.to_json(record))

    def run(optimizer: str, lr: float, width: int | None, seed: int) -> dict[str, Any]:
        key = (optimizer, lr, width, None if width is None else rounding, seed)
        if key not in done:
            done[key] = run_one(task, optimizer, lr, width, rounding, seed)
            record["rows"].append(done[key])
            save()
            say(describe(done[key]))
        return done[key]

    if "before" not in record and (before := task.before()) is not None:
        record["before"] = before
        save()
    chosen: dict[str, float] = record["learning_rates"].setdefault(rounding, {})
    for name in optimizers:
        def tried(lr: float, name: str = name) -> dict[str, Any]:
            return run(name, lr, 16, seeds[0])

        chosen[name] = rates[name] if name in rates else search(tried, task.start[name])
        save()
        say(f"{name}: learning rate {chosen[name]:g}")
    for seed in seeds:
        for width in (None, *bits):
            for name in optimizers:
                run(name, chosen[name], width, seed)
    return record


def _recorded(path: pathlib.Path | None, task: Trial) -> dict[str, Any]:
    """What the file holds, or an empty record."""
    wanted = task.record()
    if path is None or not path.exists():
        return {"task": wanted, "learning_rates": {}, "rows": []}
    try:
        record = json.loads(path.read_text())
        found, _, _ = record["task"], record["learning_rates"], [[row[name] for name in KEY] for row in record["rows"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"json: {path} is no record of this experiment ({error!r})") from error
    if found != wanted:
        raise ValueError(f"json: {path} records the task {found}, expected {wanted}; name another file")
    return record


def describe(row: dict[str, Any]) -> str:
    """One run in a line.

    Parameters
    ----------
    row : dict
        As :func:`run_one` returns it.

    Returns
    -------
    str
    """
    width = "float32" if row["bits"] is None else f"{row['bits']} bits {row['rounding']}"
    acc = score_name(row)
    found = ("diverged" if row["diverged"] else
             f"train loss {row['train_loss']:.4f}, {acc.replace('_', ' ')} {row[acc]:.2%}")
    moved = "" if row["unmoved"] is None else f", {row['unmoved']:.0%} unmoved"
    return f"{row['optimizer']} lr {row['lr']:g}, {width}, seed {row['seed']}: {found}{moved}, {row['seconds']:.1f} s"


def score_name(row: Mapping[str, Any]) -> str:
    """Under which name a row, or ``before``, has its accuracy."""
    return next(name for name in row if name.endswith("_acc"))
