"""The pictures of a report: accuracy against energy, and a bar for each row of a table."""
from __future__ import annotations

import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from minilp import figures

Tables = Mapping[str, Sequence[Mapping[str, Any]]]
"""Title -> rows as :func:`minilp.results.tables.row_of` makes them."""


def shown(kind: str, tables: Tables) -> dict[str, list[Mapping[str, Any]]]:
    """What a picture can show: tables and rows that have the numbers for it.

    Parameters
    ----------
    kind : {"energy", "bars"}
        Which picture.
    tables : mapping
        See :data:`Tables`.
    """
    needed = ("mean", "energy") if kind == "energy" else ("mean",)
    kept = {title: [row for row in rows if all(row[name] is not None for name in needed)]
            for title, rows in tables.items()}
    return {title: rows for title, rows in kept.items() if rows}


def draw(kind: str, tables: Tables, path: pathlib.Path) -> bool:
    """Draw a picture.

    Parameters
    ----------
    kind : {"energy", "bars"}
        Accuracy against energy of a training image, a point a row; or accuracies as bars. Whiskers reach from the
        worst seed to the best.
    tables : mapping
        Each in axes of its own; those without numbers are left out.
    path : pathlib.Path
        PNG file; the same tables give the same bytes.

    Returns
    -------
    bool
        False if there is nothing to draw, or no matplotlib; then no file is written.
    """
    tables = shown(kind, tables)
    if not tables or not figures.available():
        return False
    if kind == "energy":
        figure = figures.new(6.5 * len(tables), 4.5)
        for axes, (title, rows) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
            _energy(axes, title, rows)
    else:
        heights = [len(rows) + 2 for rows in tables.values()]
        figure = figures.new(8, 0.3 * sum(heights))
        panels = figure.subplots(len(tables), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
        for axes, (title, rows) in zip(panels, tables.items(), strict=True):
            _bars(axes, title, rows)
    figures.save(figure, path)
    return True


def _whiskers(rows: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    return [[row["mean"] - row["low"] for row in rows], [row["high"] - row["mean"] for row in rows]]


def _energy(axes: Any, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    axes.errorbar([row["energy"] for row in rows], [row["mean"] for row in rows], yerr=_whiskers(rows), fmt="o",
                  capsize=3)
    for row in rows:
        axes.annotate(row["label"], (row["energy"], row["mean"]), xytext=(5, 4), textcoords="offset points",
                      fontsize="small")
    axes.set(xscale="log", xlabel=f"energy of a training {rows[0]['unit']}, uJ (operations only)",
             ylabel=rows[0]["score"])
    axes.set_title(textwrap.fill(title, 80), fontsize="small")  # a budget in words is longer than the axes
    axes.margins(x=0.2, y=0.1)
    axes.grid(alpha=0.3)


def _bars(axes: Any, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    places = range(len(rows))
    axes.barh(places, [row["mean"] for row in rows], xerr=_whiskers(rows), capsize=3)
    for place, row in zip(places, rows, strict=True):
        axes.text(row["high"], place, f" {row['mean']:.2f}", va="center", fontsize="small")
    axes.set_yticks(places, [row["label"] for row in rows], fontsize="small")
    axes.invert_yaxis()
    low, high = min(row["low"] for row in rows), max(row["high"] for row in rows)
    room = max(high - low, 1.0)
    axes.set_xlim(max(0.0, low - room), high + 0.3 * room)  # bars are cut off at the left: differences are small
    axes.set_xlabel(rows[0]["score"], fontsize="small")
    axes.set_title(title, fontsize="small", loc="left")
