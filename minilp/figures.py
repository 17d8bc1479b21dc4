"""Pictures, where matplotlib is installed; without it nothing is drawn and nothing fails.

Matplotlib's global state (pyplot, the backend in force) is left alone: a notebook's own pictures go on as they were.
"""
from __future__ import annotations

import importlib.util
import io
import os
import pathlib
from typing import Any

from minilp import files

MISSING = "no plot: matplotlib is not installed (pip install 'minilp[plot]')"
"""What a command says in place of a picture."""


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def new(width: float, height: float) -> Any:
    """An empty figure; only where :func:`available`.

    Parameters
    ----------
    width, height : float
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
        Its layout keeps titles, labels and legends apart.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG, 100 dots an inch, in one step; the same figure gives the same bytes.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        See :func:`new`.
    path : path
        A file that is there is replaced.
    """
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100, metadata={"Software": None})  # no version of matplotlib inside
    files.write_atomic(pathlib.Path(path), png.getvalue())
