"""From records to the rows of a table: means and spreads over seeds, gaps to float32 of the same budget."""
from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilp.experiments import torch_twin
from minilp.results import record
from minilp.results.plan import Row
from minilp.results.record import Record
from minilp.training import TrainConfig

DATA_NAMES = {"cifar10": "CIFAR-10 (JPEG mirror)"}
"""What tables call a data set: the pictures that were at hand are a JPEG copy of the original."""

NOT_RUN = "not run yet"
SHARED = ("epochs", "batch_size", "accumulate", "label_smoothing", "schedule", "augment", "train_images", "init")
"""Fields of a configuration that all trainings of a budget have in common."""


@dataclass(frozen=True)
class Line:
    """One line of a table: trainings that differ in their seed only.

    Attributes
    ----------
    label : str
        What the table calls it.
    config : TrainConfig
        Of the first seed asked for.
    asked : tuple of int
        Seeds that the plan names; those recorded where there is no plan.
    records : tuple of Record
        Of these seeds, as far as there are any; diverged ones too.
    judged_by : str
        One of :data:`minilp.results.record.MEASURES`; "" is the task's own.
    """

    label: str
    config: TrainConfig
    asked: tuple[int, ...]
    records: tuple[Record, ...]
    judged_by: str = ""

    @property
    def measure(self) -> str:
        """What the trainings are judged by."""
        return self.judged_by or record.SCORES[self.config.task.unit]

    @property
    def scores(self) -> list[float]:
        """Of the trainings that did not diverge: their :attr:`measure`."""
        values = [entry.measured(self.measure) for entry in self.records]
        return [value for value in values if value is not None]

    def mean_of(self, entry: str) -> float | None:
        """Mean of an entry of the results, None where none has it."""
        values = [record.result[entry] for record in self.records if record.result.get(entry) is not None]
        return float(np.mean(values)) if values else None


def budget(config: TrainConfig) -> str:
    """What must be equal for two accuracies to stand in one table, as text.

    Data, model, number of images and epochs, batches, schedule, augmentation, decoding, weights to begin with; not the
    optimizer and its learning rate, which may belong to a recipe.
    """
    return json.dumps([config.data, config.data_options, config.train_images, config.model, config.model_options,
                       config.epochs, config.describe_batches(), config.schedule, config.augment,
                       config.decode_options, config.init], sort_keys=True)


def describe_budget(lines: Sequence[Line]) -> str:
    """The budget of some lines in words."""
    config = lines[0].config
    words = [DATA_NAMES.get(config.data, config.data_name), config.model]
    words += [f"{key} {value}" for options in (config.model_options, config.data_options, config.decode_options)
              for key, value in sorted(options.items())]
    words += [] if config.train_images is None else [f"{config.train_images:,} fixed training images"]
    batches = list(dict.fromkeys(line.config.describe_batches() for line in lines))
    return ", ".join([*words, f"{config.epochs} epoch{'s' * (config.epochs > 1)}",
                      " or ".join(batches) + (" (the optimizer's default)" if len(batches) > 1 else ""),
                      f"schedule {config.schedule}", f"augmentation {config.augment}",
                      *([] if config.init is None else [f"from the weights of {pathlib.Path(config.init).name}"])])


def _own_batches(config: TrainConfig) -> bool:
    """Whether batches are what the optimizer has where nobody says anything."""
    usual = TrainConfig.create(config.data, config.model, config.recipe, optimizer=config.optimizer)
    return config.describe_batches() == usual.describe_batches()


def label(config: TrainConfig) -> str:
    """Recipe, and what departs from its defaults and is not of the budget."""
    ours = [line for line in config.settings if not line.startswith("model.")]
    departures = record.departures(config, but=SHARED)
    return " ".join([config.recipe.name, *(f"`{word}`" for word in [*departures, *ours])])


def planned(row: Row, records: Sequence[Record], judged_by: str = "") -> Line:
    """The line of a plan's entry.

    Parameters
    ----------
    row : Row
        Of a plan.
    records : sequence of Record
        All there are.
    judged_by : str
        Of the :class:`Line`.

    Returns
    -------
    Line
    """
    found = [record.find(list(records), run.config) for run in row.runs]
    config = row.runs[0].config
    return Line(row.label or label(config), config, tuple(run.config.seed for run in row.runs),
                tuple(entry for entry in found if entry is not None), judged_by)


def unplanned(records: Iterable[Record]) -> list[Line]:
    """One line for each training that is recorded, over its seeds; in the order of the records."""
    groups: dict[str, list[Record]] = {}
    for entry in records:
        groups.setdefault(record.but_seed(entry.config), []).append(entry)
    lines = []
    for group in groups.values():
        group.sort(key=lambda entry: entry.config.seed)
        lines.append(Line(label(group[0].config), group[0].config, tuple(entry.config.seed for entry in group),
                          tuple(group)))
    return lines


def baseline(config: TrainConfig, records: Iterable[Record]) -> Line | None:
    """Float32 on the budget of a configuration; None where it is not recorded.

    With the defaults otherwise; if there is none, with the schedule's settings of the configuration. Where batches are
    the optimizer's default and float32 was not trained on such, float32 on its own.

    Parameters
    ----------
    config : TrainConfig
        Whose budget.
    records : iterable of Record
        Where to look.
    """
    there = [entry for entry in records if not entry.diverged]
    options = [f"{owner}.{key}={value}" for owner in ("model", "data", "decode")
               for key, value in getattr(config, f"{owner}_options").items()]
    settings = [line for line in config.settings if line.startswith("schedule.")]
    shared = {name: getattr(config, name) for name in SHARED}
    if config.init is not None and config.optimizer == "sgd":  # nobody's default goes on from trained weights
        shared.update({name: getattr(config, name) for name in ("lr", "momentum", "weight_decay")})
    own = [{**shared, "batch_size": None}] if _own_batches(config) else []
    for given in (shared, *own):
        for schedule in ([], settings):
            plain = TrainConfig.create(config.data, config.model, "fp32", settings=[*options, *schedule], **given)
            same = record.but_seed(plain)
            if lines := unplanned(entry for entry in there if record.but_seed(entry.config) == same):
                return lines[0]
    return None


def table(lines: Sequence[Line], records: Sequence[Record]) -> list[str]:
    """A Markdown table.

    Parameters
    ----------
    lines : sequence of Line
        All of one budget.
    records : sequence of Record
        Where the float32 trainings of that budget are.

    Returns
    -------
    list of str
        Lines of text: the budget, the table, what gaps are against.

    Raises
    ------
    ValueError
        If the budgets differ.
    """
    if len(by_budget(lines)) != 1:
        raise ValueError("lines: expected trainings of one budget, got several")
    chosen = next((line for line in lines if not _own_batches(line.config)), lines[0])  # the least lenient
    base, unit, measure = baseline(chosen.config, records), lines[0].config.task.unit, lines[0].measure
    if base is not None:
        base = dataclasses.replace(base, judged_by=measure)
    gap = "above fp32" if measure == "val_loss" else "gap to fp32, points"
    headings = ("", "seeds", record.MEASURES[measure][1], gap, f"uJ/{unit}", f"{unit}s/s", "minutes", "again")
    text = [f"{describe_budget(lines)}:", "", f"| {' | '.join(headings)} |",
            f"|{'|'.join(['---'] + ['---:'] * (len(headings) - 2) + ['---'])}|"]
    text += [f"| {' | '.join(_cells(line, base))} |" for line in lines]
    if base is None:
        against = "No float32 training of this budget is recorded, so there are no gaps."
    else:
        against = (f"Gaps are against the mean of fp32 over {_seeds(base.records)}, "
                   f"{np.mean(base.scores):.2f}.")
    return [*text, "", against]


def _cells(line: Line, base: Line | None) -> list[str]:
    scores, diverged = line.scores, [entry.config.seed for entry in line.records if entry.diverged]
    accuracy, gap = (NOT_RUN if not line.records else "-"), "-"
    if scores:
        accuracy = spread(scores)
        if base is not None:
            gap = spread([score - float(np.mean(base.scores)) for score in scores], "+")
    if diverged:
        accuracy = f"{accuracy if scores else ''} diverged (seed {', '.join(map(str, diverged))})".strip()
    there = len(line.records)
    seeds = f"{there}" if there == len(line.asked) else f"{there} of {len(line.asked)}"
    energy, speed, seconds = (line.mean_of(entry) for entry in (
        f"energy_pj_per_{line.config.task.unit}", line.config.task.speed, "seconds"))
    return [line.label, seeds, accuracy, gap, "-" if energy is None else f"{energy / 1e6:.4g}",
            "-" if speed is None else f"{speed:.0f}", "-" if seconds is None else f"{seconds / 60:.1f}",
            f"`{command(line)}`".replace("|", "\\|")]


def command(line: Line) -> str:
    """What starts the first of a line's trainings again, and which seeds there are besides."""
    if line.records and "command" in line.records[0].result:
        return line.records[0].result["command"]
    config = dataclasses.replace(line.config, root=None)
    return torch_twin.command(config) if config.recipe.name == torch_twin.NAME else config.command()


def spread(values: Sequence[float], sign: str = "") -> str:
    """A mean, and where there are several values the least and the largest; all signed if ``sign`` is ``"+"``."""
    mean = f"{np.mean(values):{sign}.2f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):{sign}.2f} .. {max(values):{sign}.2f})"


def _seeds(records: Sequence[Record]) -> str:
    seeds = [str(entry.config.seed) for entry in records]
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"


def by_budget(lines: Iterable[Line]) -> list[list[Line]]:
    """Lines apart by budget, in the order in which budgets come first.

    Budgets that differ in the batches alone are one where all batches are their optimizers' defaults: these are part of
    a recipe, as the learning rate is.
    """
    same: dict[str, list[Line]] = {}
    for line in lines:
        same.setdefault(budget(line.config), []).append(line)
    groups: dict[str, list[Line]] = {}
    for key, group in same.items():
        if all(_own_batches(line.config) for line in group):
            key = f"defaults, {budget(dataclasses.replace(group[0].config, batch_size=1))}"
        groups.setdefault(key, []).extend(group)
    return list(groups.values())


def row_of(line: Line) -> dict[str, Any]:
    """A line in numbers, for pictures: ``label``, mean, least and largest score, energy in uJ an image or token; None
    where there is none."""
    scores, energy = line.scores, line.mean_of(f"energy_pj_per_{line.config.task.unit}")
    return {"label": line.label.replace("`", ""), "mean": float(np.mean(scores)) if scores else None,
            "low": min(scores, default=None), "high": max(scores, default=None),
            "energy": None if energy is None else energy / 1e6, "unit": line.config.task.unit,
            "score": record.MEASURES[line.measure][1]}
