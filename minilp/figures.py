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

STYLES = {
    "fp32": ("#000000", "", "-"),
    "fixed": ("#4a1486", "o", "--"),
    "pot": ("#c0282d", "s", "-"),
    "mls": ("#1f78b4", "^", "-."),
    "minifloat": ("#3da35d", "D", ":"),
    "lns": ("#f0a040", "v", "-"),
    "mx": ("#9fd4ee", "x", "--"),
    "own": ("#6b4226", "P", "-."),
}
"""Colour, marker and stroke of each format in every picture ("own": one that a user wrote): colours differ in lightness
too, so grey prints serve."""


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


def style(name: str) -> dict[str, str]:
    """How a format is drawn: keywords of matplotlib's ``plot``.

    Parameters
    ----------
    name : str
        A key of :data:`STYLES`.

    Returns
    -------
    dict
        ``color``, ``marker``, ``linestyle``.

    Raises
    ------
    ValueError
        For another name.
    """
    if name not in STYLES:
        raise ValueError(f"style: expected one of {', '.join(STYLES)}, got {name!r}")
    return dict(zip(("color", "marker", "linestyle"), STYLES[name], strict=True))


def png(figure: Any) -> bytes:
    """A figure as PNG, 100 dots an inch; the same figure gives the same bytes.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        See :func:`new`.

    Returns
    -------
    bytes
    """
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=100, metadata={"Software": None})  # no version of matplotlib inside
    return out.getvalue()


def save(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure as :func:`png`, in one step.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        See :func:`new`.
    path : path
        A file that is there is replaced.
    """
    files.write_atomic(pathlib.Path(path), png(figure))
