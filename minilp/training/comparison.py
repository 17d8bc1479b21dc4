"""Several runs side by side: one table, one plot."""
from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from minilp.recipe import Recipe
from minilp.roles import Role
from minilp.training import plots
from minilp.training.rundir import RunDirectory
from minilp.training.task import Task
from minilp.training.tasks import task_of

SCORES = {"image": {"test_acc": ("test acc", "{:.2%}")},
          "token": {"bleu": ("BLEU", "{:.2f}"), "val_acc": ("val acc", "{:.2%}")}}
"""By what a task counts: name in result.json to heading and form. Gaps are in the first."""


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found; printing it gives the table.

    Attributes
    ----------
    task : Task
        What all the runs were about.
    rows : tuple of dict
        One a run: ``run``, ``test_acc`` in [0, 1] (of translations ``bleu`` and ``val_acc``), ``gap`` of that to the
        first run (positive is better), all None where a run diverged or BLEU was not measured; ``images_per_s``
        or ``tokens_per_s`` (None without a whole epoch), ``diverged`` (True or False), ``bits`` (weight, act, error; 32
        is float32), ``energy_pj_per_image`` or ``energy_pj_per_token`` (training) and ``energy_pj`` (the run,
        evaluations included; both None where unknown), ``seconds``, ``epochs``.
    plot : pathlib.Path or None
        The picture; None without matplotlib.
    """

    task: Task
    rows: tuple[dict[str, Any], ...]
    plot: pathlib.Path | None

    def __str__(self) -> str:
        unit, scores = self.task.unit, SCORES[self.task.unit]
        table = [("run", *(heading for heading, _ in scores.values()), "gap", f"{unit}s/s", "bits w/a/e", f"uJ/{unit}",
                  "J run", "seconds", "epochs")]
        for row in self.rows:
            missing = "diverged" if row["diverged"] else "-"
            gap = "-" if row["gap"] is None else f"{row['gap'] * (100 if unit == 'image' else 1):+.2f}"
            table.append((row["run"], *(missing if row[name] is None else form.format(row[name])
                                        for name, (_, form) in scores.items()), gap,
                          "-" if row[self.task.speed] is None else f"{row[self.task.speed]:.0f}",
                          "/".join(map(str, row["bits"])),
                          _shown(row[f"energy_pj_per_{unit}"], 1e6), _shown(row["energy_pj"], 1e12),
                          f"{row['seconds']:.1f}", str(row["epochs"])))
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        return "\n".join("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w)
                                   for i, (cell, w) in enumerate(zip(line, widths, strict=True))) for line in table)


def compare(paths: Iterable[str | os.PathLike[str]], plot: str | os.PathLike[str] | None = "compare.png") -> Comparison:
    """Put finished runs side by side.

    Parameters
    ----------
    paths : iterable of path
        Run directories; gaps are against the first.
    plot : path or None
        Where to draw the curves, if matplotlib is installed; None draws nothing.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If there is no path, one is no finished run, or they are about different tasks.
    """
    runs = [RunDirectory(path) for path in paths]
    if not runs:
        raise ValueError("runs: expected at least one run directory, got none")
    results = [run.read_result() for run in runs]
    tasks = [task_of(result["config"]["data"]) for result in results]
    task, rows = tasks[0], []
    for run, other in zip(runs, tasks, strict=True):
        if other is not task:
            raise ValueError(f"runs: {runs[0].path} is {task.name}, {run.path} is {other.name}; they have no score in "
                             f"common")
    main = next(iter(SCORES[task.unit]))
    for run, result in zip(runs, results, strict=True):
        recipe = Recipe.from_config(result["config"]["recipe_config"])
        known = None not in (result[main], results[0][main])
        rows.append({"run": str(run.path), **{name: result[name] for name in SCORES[task.unit]},
                     "gap": result[main] - results[0][main] if known else None,
                     "diverged": result.get("diverged") is not None, task.speed: result[task.speed],
                     "bits": tuple(_bits(role) for role in (recipe.weight, recipe.act, recipe.error)),
                     f"energy_pj_per_{task.unit}": result.get(f"energy_pj_per_{task.unit}"),
                     "energy_pj": result.get("energy_pj"),
                     "seconds": result["seconds"], "epochs": len(result["epochs"])})
    drawn = plot is not None and plots.compared(
        {str(run.path): result["epochs"] for run, result in zip(runs, results, strict=True)}, pathlib.Path(plot),
        task.held_out)
    return Comparison(task, tuple(rows), pathlib.Path(plot) if drawn and plot is not None else None)


def _bits(role: Role | None) -> int:
    return 32 if role is None else role.format.bits


def _shown(picojoules: float | None, unit: float) -> str:
    return "-" if picojoules is None else f"{picojoules / unit:.4g}"
