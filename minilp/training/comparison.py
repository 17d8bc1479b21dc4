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

HEADINGS = ("run", "test acc", "gap", "images/s", "bits w/a/e", "uJ/image", "J run", "seconds", "epochs")


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found; printing it gives the table.

    Attributes
    ----------
    rows : tuple of dict
        One a run: ``run``, ``test_acc`` in [0, 1], ``gap`` to the first run (positive is better), both None where a
        run diverged; ``images_per_s`` (None without a whole epoch), ``bits`` (weight, act, error; 32 is float32), ``energy_pj_per_image`` (training) and ``energy_pj`` (the run,
        evaluations included; both None where unknown), ``seconds``, ``epochs``.
    plot : pathlib.Path or None
        The picture; None without matplotlib.
    """

    rows: tuple[dict[str, Any], ...]
    plot: pathlib.Path | None

    def __str__(self) -> str:
        table = [HEADINGS]
        for row in self.rows:
            table.append((row["run"], "diverged" if row["test_acc"] is None else f"{row['test_acc']:.2%}",
                          "-" if row["gap"] is None else f"{row['gap'] * 100:+.2f}",
                          "-" if row["images_per_s"] is None else f"{row['images_per_s']:.0f}", "/".join(map(str, row["bits"])),
                          _shown(row["energy_pj_per_image"], 1e6), _shown(row["energy_pj"], 1e12),
                          f"{row['seconds']:.1f}", str(row["epochs"])))
        widths = [max(len(line[i]) for line in table) for i in range(len(HEADINGS))]
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
        If there is no path, or one is no finished run.
    """
    runs = [RunDirectory(path) for path in paths]
    if not runs:
        raise ValueError("runs: expected at least one run directory, got none")
    results = [run.read_result() for run in runs]
    rows = []
    for run, result in zip(runs, results, strict=True):
        recipe = Recipe.from_config(result["config"]["recipe_config"])
        rows.append({"run": str(run.path), "test_acc": result["test_acc"],
                     "gap": _gap(result["test_acc"], results[0]["test_acc"]), "images_per_s": result["images_per_s"],
                     "bits": tuple(_bits(role) for role in (recipe.weight, recipe.act, recipe.error)),
                     "energy_pj_per_image": result.get("energy_pj_per_image"), "energy_pj": result.get("energy_pj"),
                     "seconds": result["seconds"], "epochs": len(result["epochs"])})
    drawn = plot is not None and plots.compared(
        {str(run.path): result["epochs"] for run, result in zip(runs, results, strict=True)}, pathlib.Path(plot))
    return Comparison(tuple(rows), pathlib.Path(plot) if drawn and plot is not None else None)


def _gap(accuracy: float | None, first: float | None) -> float | None:
    return None if accuracy is None or first is None else accuracy - first


def _bits(role: Role | None) -> int:
    return 32 if role is None else role.format.bits


def _shown(picojoules: float | None, unit: float) -> str:
    return "-" if picojoules is None else f"{picojoules / unit:.4g}"
