"""Pictures of the lessons, in the colours of :data:`minilp.figures.STYLES`: number lines, and curves over an axis."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minilp import figures


class Picture:
    """A figure as a notebook shows it, its caption for a title; a screen reader (or a terminal) gets the caption.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        See :func:`minilp.figures.new`.
    caption : str
        What there is to see, in a sentence.
    """

    def __init__(self, figure: Any, caption: str) -> None:
        self.figure, self.caption = figure, caption
        figure.suptitle(caption, x=0.01, horizontalalignment="left", fontsize="medium", wrap=True)

    def _repr_png_(self) -> bytes:
        return figures.png(self.figure)

    def __repr__(self) -> str:
        return f"Picture: {self.caption}"


def number_lines(values: Mapping[str, tuple[str, np.ndarray]], xlabel: str, caption: str, log: bool = False) -> Picture:
    """One row of ticks a format: where its values lie.

    Parameters
    ----------
    values : mapping of str to (str, numpy.ndarray)
        Name of the row -> format (a key of :data:`minilp.figures.STYLES`) and its values.
    xlabel, caption : str
        What the axis shows, and the picture's sentence.
    log : bool
        An axis to base 2; zero and negative values are left out.

    Returns
    -------
    Picture
    """
    figure = figures.new(8, 0.7 + 0.55 * len(values))
    axes = figure.subplots()
    for row, (style, numbers) in enumerate(values.values()):
        shown = np.unique(numbers[numbers > 0] if log else numbers)
        axes.hlines(row, shown.min(), shown.max(), color="0.8", linewidth=0.8, zorder=1)
        look = figures.style(style)
        axes.plot(shown, np.full(len(shown), row), linestyle="none", marker="|", markersize=16, markeredgewidth=1.6,
                  color=look["color"])
    if log:
        axes.set_xscale("log", base=2)
    axes.set_yticks(range(len(values)), list(values))
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlabel(xlabel)
    axes.spines[["left", "right", "top"]].set_visible(False)
    return Picture(figure, caption)


def lines(series: Mapping[str, tuple[str, Sequence[float], Sequence[float]]], xlabel: str, ylabel: str, caption: str,
          logx: bool = False, logy: bool = False, markers: bool = True) -> Picture:
    """Curves over one another, told apart by colour, marker and stroke; a format that comes again gets another stroke.

    Parameters
    ----------
    series : mapping of str to (str, sequence of float, sequence of float)
        Label -> format (a key of :data:`minilp.figures.STYLES`), x and y.
    xlabel, ylabel, caption : str
        With units; and the picture's sentence.
    logx, logy : bool
        An axis to base 2 for x, to base 10 for y.
    markers : bool
        Whether points are marked.

    Returns
    -------
    Picture
    """
    figure = figures.new(8, 3.6)
    axes = figure.subplots()
    strokes = {name: [":", "-.", "--", "-"] for name, _, _ in series.values()}
    for label, (style, x, y) in series.items():
        look = figures.style(style)
        left = strokes[style]
        look["linestyle"] = left.pop(left.index(look["linestyle"]) if look["linestyle"] in left else 0)
        if not markers:
            look.pop("marker")
        axes.plot(x, y, label=label, markersize=5, linewidth=1.6, **look)
    if logx:
        axes.set_xscale("log", base=2)
    if logy:
        axes.set_yscale("log")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return Picture(figure, caption)
