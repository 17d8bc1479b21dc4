"""Pictures of measurements, where matplotlib is installed; without it nothing is drawn and nothing fails."""
from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

from minilp import figures


def bars(labels: Sequence[str], values: Sequence[float], title: str, path: str | pathlib.Path,
         target: float | None = None) -> bool:
    """Draw one horizontal bar a row.

    Parameters
    ----------
    labels : sequence of str
        What each bar is; the first one stands at the top.
    values : sequence of float
        Their lengths.
    title : str
        What a length means, with its unit.
    path : str or path
        PNG file to write.
    target : float, optional
        Where to draw a line.

    Returns
    -------
    bool
        False if matplotlib is missing; then no file is written.
    """
    if not figures.available():
        return False
    figure = figures.new(9, max(2.0, 1 + 0.25 * len(labels)))
    axes = figure.subplots()
    axes.barh(range(len(values)), values)
    axes.set_yticks(range(len(values)), labels, fontsize="small")
    axes.invert_yaxis()
    for at, value in enumerate(values):
        axes.text(value, at, f" {value:.3g}", va="center", fontsize="small")
    if target is not None:
        axes.axvline(target, color="k", linestyle="--")
    axes.set(xlabel=title)
    figures.save(figure, path)
    return True


def lines(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], xlabel: str, ylabel: str,
          path: str | pathlib.Path) -> bool:
    """Draw curves over one another, both axes from 0.

    Parameters
    ----------
    series : mapping of str to (sequence of float, sequence of float)
        Name -> x and y.
    xlabel, ylabel : str
        With units.
    path : str or path
        PNG file to write.

    Returns
    -------
    bool
        False if matplotlib is missing; then no file is written.
    """
    if not figures.available():
        return False
    figure = figures.new(9, 4)
    axes = figure.subplots()
    for name, (x, y) in series.items():
        axes.plot(x, y, marker=".", label=name)
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, None), ylim=(0, None))
    axes.legend(fontsize="small")
    figures.save(figure, path)
    return True
