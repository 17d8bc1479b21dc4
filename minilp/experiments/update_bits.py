"""How narrow may stored weights be? Madam against SGD and AdamW, all with the same quantised update.

After the update-bit-width figure of LNS-Madam (Zhao et al., arXiv 2106.13914), whose widths are 16 to 10 bits. The task
is our own and much smaller: a small CNN on some of shapes10's images. Weights live between steps as B_U-bit logarithmic
numbers over the same octaves (``gamma_U = gamma 2^(B_U - B)``); every optimizer's result is rounded back to them, and
there is no float copy. Our assumptions, the same for all optimizers:

* rounding of the exponent (``LNS(draw="exponent")``), stochastic by default, or to nearest;
* weights live as codes in every layer, norms and biases included; SGD's and AdamW's scales follow each tensor's
  maximum, Madam's are fixed at the start (its bound on weights);
* momentum and second moments are float32;
* the schedule is one cycle that peaks after three tenths of the steps, Madam's too;
* the learning rate is the best of a search at 16 bits (:func:`search`), or given, and the same for all widths.

The column float32 has float32 weights and everything else alike; Madam's normalised gradients are then not rounded to
integers, so that it is the limit of many bits.

What came out (``lessons/results/update-bits-*.json``; one seed, and neighbouring widths differ by up to three points
without any order): the paper's advantage of Madam does not show here. At the best learning rates no optimizer loses
anything between 16 and 10 bits under stochastic rounding, and Madam is some 14 points behind both at every width. At
small rates (the file ``-slow``), the same under stochastic rounding; to nearest, SGD loses 11 points at 10 bits, Madam
3 and AdamW nothing. The likely reasons, our own reading:

* A few hundred steps from scratch have to move weights by as much as they measure. Such steps are not small beside the
  gap of 10 bits, 2^(1/32) or 2.2 %, and stochastic rounding keeps their mean. In the paper's figure AdamW collapses in
  fine-tuning, where steps are far below a gap; this task has none.
* For the same reason Madam's own error is not small here: the theory's bound (:mod:`~minilp.experiments.lns_theory`)
  favours it only where ``lr * gamma_U`` is well below 1, and at 10 bits that is 4 at its best rate, 1 at the small one.
* SGD's steps differ in size from weight to weight, AdamW's are normalised like Madam's: to nearest, the smallest of
  SGD's are lost first.
"""
from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilp import data, files
from minilp.optim import Optimizer
from minilp.training import Diverged, TrainConfig, machine
from minilp.training.scores import evaluate_model
from minilp.training.session import Session

BITS = (16, 15, 14, 13, 12, 11, 10)
START = {"madam": 2.0**-4, "sgd": 0.1, "adamw": 0.005}
"""Where the search for a learning rate begins, per optimizer: our assumption."""
FACTOR = 2.0
LARGEST_STEPS = 6
KEY = ("optimizer", "lr", "bits", "rounding", "seed")


@dataclass(frozen=True)
class Task:
    """What is trained, apart from the optimizer and the width of its updates.

    Attributes
    ----------
    train_images, test_images : int
        The first so many images of shapes10 (seed 0).
    epochs, batch_size : int
        Passes over the training images; images a step. The schedule is one cycle.
    width : int
        Channels of ``small_cnn``'s first convolution.
    recipe : str
        A preset with an ``update`` of LNS: its contractions are used with every optimizer.
    """

    train_images: int = 2000
    test_images: int = 2000
    epochs: int = 6
    batch_size: int = 32
    width: int = 8
    recipe: str = "lns-madam"

    def config(self, optimizer: str, lr: float, bits: int | None, rounding: str | None, seed: int) -> TrainConfig:
        """The configuration of one run; ``bits`` None is float32 weights. Raises ValueError as TrainConfig does."""
        if bits is None:
            update = ["update=none", *(["optimizer.round_gradient=False"] if optimizer == "madam" else [])]
        else:
            update = [f"update.bits={bits}", f"update.rounding={rounding}", "update.draw=exponent"]
        return TrainConfig.create("shapes10", "small_cnn", self.recipe, optimizer=optimizer, lr=lr, seed=seed,
                                  epochs=self.epochs, batch_size=self.batch_size,
                                  settings=[f"model.width={self.width}", "schedule.pct_start=0.3", *update])


def run_one(task: Task, optimizer: str, lr: float, bits: int | None, rounding: str | None = "stochastic",
            seed: int = 0) -> dict[str, Any]:
    """Train once.

    Parameters
    ----------
    task : Task
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
        The arguments; ``test_acc`` in [0, 1] and ``test_loss`` after the last epoch; ``train_loss``, the mean over the
        last epoch; ``unmoved``, the share of stored exponents (of convolutions and linear layers) that the step halfway
        through left as they were, None for float32; ``diverged``, None or what happened (results are then None);
        ``weight_decay``, ``momentum``, ``settings``, ``commit``, ``seconds``.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """
    config = task.config(optimizer, lr, bits, rounding, seed)
    train, test = data.shapes10.load(0, task.train_images, task.test_images)
    row: dict[str, Any] = {"optimizer": optimizer, "lr": lr, "bits": bits,
                           "rounding": None if bits is None else rounding, "seed": seed,
                           "test_acc": None, "test_loss": None, "train_loss": None, "unmoved": None,
                           "diverged": None, "weight_decay": config.weight_decay, "momentum": config.momentum,
                           "settings": list(config.settings), "commit": machine.commit()}
    start, session = time.perf_counter(), Session(config, train)
    middle, held_out = config.epochs * session.steps // 2, session.task.loader(config, test, training=False)
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
        row["test_loss"], row["test_acc"] = (evaluate_model(session.task, session.model, held_out, seed)
                                               or (None, None))
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


def sweep(bits: Iterable[int] = BITS, optimizers: Iterable[str] = tuple(START), *, rounding: str = "stochastic",
          seeds: Sequence[int] = (0,), rates: Mapping[str, float] | None = None, task: Task | None = None,
          json_file: str | os.PathLike[str] | None = None, say: Callable[[str], None] = lambda line: None,
          ) -> dict[str, Any]:
    """The sweep: for each optimizer a search at 16 bits, then every width and float32, for every seed.

    Parameters
    ----------
    bits : iterable of int
        Widths B_U.
    optimizers : iterable of str
        Some of madam, sgd, adamw.
    rounding : {"stochastic", "nearest"}
        Of updates.
    seeds : sequence of int
        The search uses the first.
    rates : mapping of str to float, or None
        Learning rates of optimizers that are not to be searched. A file holds one per rounding and optimizer.
    task : Task or None
        None is ``Task()``.
    json_file : path or None
        Where to record. Written after every run; runs that are in it already are not repeated, so a sweep that was cut
        off goes on, and one with other widths, seeds or another rounding is added.
    say : callable
        Gets a line of text after every run.

    Returns
    -------
    dict
        Plain JSON: ``task``; ``learning_rates``, rounding to optimizer to learning rate; ``rows``, see
        :func:`run_one`, those of the search among them.

    Raises
    ------
    ValueError
        If an argument is out of range, or the file records another task.
    """
    task, bits, optimizers = task or Task(), tuple(bits), tuple(optimizers)
    if unknown := set(optimizers) - set(START):
        raise ValueError(f"optimizers: expected some of {', '.join(START)}, got {sorted(unknown)[0]!r}")
    rates = dict(rates or {})
    if unknown := set(rates) - set(optimizers):
        raise ValueError(f"rates: expected some of {', '.join(optimizers)}, got {sorted(unknown)[0]!r}")
    if not seeds:
        raise ValueError("seeds: expected at least one, got none")
    for narrow in bits:
        task.config("sgd", 0.1, narrow, rounding, seeds[0])  # all mistakes before the first training
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

    chosen: dict[str, float] = record["learning_rates"].setdefault(rounding, {})
    for name in optimizers:
        def tried(lr: float, name: str = name) -> dict[str, Any]:
            return run(name, lr, 16, seeds[0])

        chosen[name] = rates[name] if name in rates else search(tried, START[name])
        save()
        say(f"{name}: learning rate {chosen[name]:g}")
    for seed in seeds:
        for width in (None, *bits):
            for name in optimizers:
                run(name, chosen[name], width, seed)
    return record


def _recorded(path: pathlib.Path | None, task: Task) -> dict[str, Any]:
    """What the file holds, or an empty record."""
    wanted = dataclasses.asdict(task)
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
    found = "diverged" if row["diverged"] else f"train loss {row['train_loss']:.4f}, test acc {row['test_acc']:.2%}"
    moved = "" if row["unmoved"] is None else f", {row['unmoved']:.0%} unmoved"
    return f"{row['optimizer']} lr {row['lr']:g}, {width}, seed {row['seed']}: {found}{moved}, {row['seconds']:.1f} s"
