"""Pictures of measurements, where matplotlib is installed; without it nothing is drawn and nothing fails."""
from __future__ import annotations

import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from minilp.training import files
from minilp.training.plots import available


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
    if not available():
        return False
    figure, axes = _figure(max(2.0, 1 + 0.25 * len(labels)))
    axes.barh(range(len(values)), values)
    axes.set_yticks(range(len(values)), labels, fontsize="small")
    axes.invert_yaxis()
    for at, value in enumerate(values):
        axes.text(value, at, f" {value:.3g}", va="center", fontsize="small")
    if target is not None:
        axes.axvline(target, color="k", linestyle="--")
    axes.set(xlabel=title)
    _save(figure, path)
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
    if not available():
        return False
    figure, axes = _figure(4.0)
    for name, (x, y) in series.items():
        axes.plot(x, y, marker=".", label=name)
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, None), ylim=(0, None))
    axes.legend(fontsize="small")
    _save(figure, path)
    return True


def _figure(height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _save(figure: Any, path: str | pathlib.Path) -> None:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100, metadata={"Software": None})  # no version inside: same rows, same bytes
    files.write_atomic(pathlib.Path(path), png.getvalue())
