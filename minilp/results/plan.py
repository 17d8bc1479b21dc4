"""A plan: a JSON file that lists trainings in the words of ``minilp train``, and what tables they belong to.

::

    {
     "title": "Bits of powers of two",
     "about": "One paragraph for the reader of the report.",
     "order": 1,
     "plot": "bars",
     "defaults": {"data": "cifar10", "model": "resnet20", "epochs": 3, "train_images": 10000},
     "runs": [
      {"recipe": "fp32", "seeds": [0, 1]},
      {"table": "bits", "recipe": "potq", "set": ["pot.bits=4"]},
      {"table": "bits", "recipe": "potq", "label": "5 bits, as published"}
     ]
    }

An entry is one row of a table. It has the options of ``minilp train`` with underscores (``batch_size``), ``set`` as a
list, and ``seeds``; ``defaults`` holds for all entries, and its ``set`` goes before theirs. ``table``, ``label`` and
``note`` (a sentence under the table) are for the report, as are ``order`` (of the sections), ``score`` (what trainings
are judged by if not by test accuracy or BLEU: ``"val_loss"``) and ``plot``: ``"energy"`` for accuracy against energy,
``"bars"`` for a bar a row. The recipe ``torch-fp32`` is the same network trained by torch
(:mod:`minilp.experiments.torch_twin`).
"""
from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minilp.experiments import torch_twin
from minilp.recipe import Recipe
from minilp.results import record
from minilp.training import TrainConfig

OPTIONS = ("data", "model", "recipe", "epochs", "batch_size", "accumulate", "optimizer", "lr", "momentum",
           "weight_decay", "schedule", "label_smoothing", "augment", "train_images", "init", "save_every")
FOR_THE_REPORT = ("table", "label", "note")
ENTRY = (*OPTIONS, "set", "seed", "seeds", *FOR_THE_REPORT)
PLAN = ("title", "about", "order", "score", "plot", "defaults", "runs")
PLOTS = ("energy", "bars")


@dataclass(frozen=True)
class Run:
    """One training of a plan.

    Attributes
    ----------
    arguments : dict
        Of :func:`minilp.train`.
    config : TrainConfig
        What they make.
    """

    arguments: dict[str, Any]
    config: TrainConfig


@dataclass(frozen=True)
class Row:
    """One entry of a plan: trainings that differ in their seed only.

    Attributes
    ----------
    runs : tuple of Run
        One a seed.
    table, label, note : str
        For the report; "" where the plan says nothing.
    """

    runs: tuple[Run, ...]
    table: str = ""
    label: str = ""
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """A list of trainings.

    Attributes
    ----------
    name : str
        The file's, without its ending.
    rows : tuple of Row
        In the order of the file, which is the order of training.
    title, about : str
        For the report.
    order : float
        Sorts the report's sections.
    plot : {"energy", "bars", None}
        The report's picture.
    score : str
        What trainings are judged by, one of :data:`minilp.results.record.MEASURES`; "" is their task's own.
    """

    name: str
    rows: tuple[Row, ...]
    title: str = ""
    about: str = ""
    order: float = 0
    plot: str | None = None
    score: str = ""

    @property
    def runs(self) -> tuple[Run, ...]:
        """All trainings, each once, in the order in which they come first."""
        runs = [run for row in self.rows for run in row.runs]
        return tuple(list({record.identity(run.config): run for run in reversed(runs)}.values())[::-1])


def make_plan(content: Mapping[str, Any], name: str = "plan") -> Plan:
    """Check a plan and work out its trainings.

    Parameters
    ----------
    content : mapping
        See the module.
    name : str
        What messages and pictures call it.

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        Naming the entry and the word that is wrong.
    """
    _check_words(f"{name}", content, PLAN)
    defaults, entries = content.get("defaults", {}), content.get("runs")
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{name}: runs: expected a list of trainings, got {entries!r}")
    if content.get("plot") not in (None, *PLOTS):
        raise ValueError(f"{name}: plot: expected one of {', '.join(PLOTS)}, got {content['plot']!r}")
    if content.get("score", "") not in ("", *record.MEASURES):
        raise ValueError(f"{name}: score: expected one of {', '.join(record.MEASURES)}, got {content['score']!r}")
    _check_words(f"{name}: defaults", defaults, ENTRY)
    rows = []
    for number, entry in enumerate(entries, 1):
        where = f"{name}: entry {number}"
        _check_words(where, entry, ENTRY)
        try:
            rows.append(_row({**defaults, **entry, "set": [*_settings(defaults), *_settings(entry)]}))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{where}: {error}") from error
    return Plan(name, tuple(rows), content.get("title", name), content.get("about", ""), content.get("order", 0),
                content.get("plot"), content.get("score", ""))


def load_plan(path: str | os.PathLike[str]) -> Plan:
    """Read a plan.

    Parameters
    ----------
    path : path
        A JSON file; the module says what it holds.

    Returns
    -------
    Plan

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is no plan; the message names file, entry and word.
    """
    path = pathlib.Path(path)
    try:
        content = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected an object with {', '.join(PLAN)}, got {type(content).__name__}")
    return make_plan(content, path.stem)


def _check_words(where: str, content: Any, known: tuple[str, ...]) -> None:
    if not isinstance(content, Mapping):
        raise ValueError(f"{where}: expected an object, got {content!r}")
    if unknown := [word for word in content if word not in known]:
        raise ValueError(f"{where}: unknown word {unknown[0]!r}; there are {', '.join(known)}")


def _settings(entry: Mapping[str, Any]) -> list[str]:
    lines = entry.get("set", [])
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise ValueError(f"set: expected a list of \"key=value\", got {lines!r}")
    return lines


def _row(entry: dict[str, Any]) -> Row:
    if "seed" in entry and "seeds" in entry:
        raise ValueError("seed and seeds: expected one of the two")
    seeds = entry.get("seeds", [entry.get("seed", 0)])
    if not isinstance(seeds, list) or not seeds or len(set(map(str, seeds))) < len(seeds):
        raise ValueError(f"seeds: expected a list of different integers, got {seeds!r}")
    arguments = {word: entry[word] for word in OPTIONS if entry.get(word) is not None}
    runs = []
    for seed in seeds:
        given = {**arguments, "seed": seed, "settings": list(entry["set"])}
        named = given.get("recipe")
        config = TrainConfig.create(**{**given, "recipe": Recipe(name=named)} if named == torch_twin.NAME else given)
        runs.append(Run(given, config))
    return Row(tuple(runs), *(str(entry.get(word, "")) for word in FOR_THE_REPORT))
