"""A bar chart of a report: what each recipe's step costs, by role."""
from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from minilp import figures
from minilp.energy import events

if TYPE_CHECKING:
    from minilp.energy.report import Report


def draw(report: Report) -> Any:
    """Draw one stacked bar a recipe; only where matplotlib is installed.

    Parameters
    ----------
    report : Report
        What to draw.

    Returns
    -------
    matplotlib.figure.Figure
    """
    unit, scale = report.unit
    figure = figures.new(8.5, 1.2 + 0.6 * len(report.priced))
    axes = figure.subplots()
    left = dict.fromkeys(report.priced, 0.0)
    for role in (*events.ROLES, "memory"):
        widths = {name: priced.total(role) * scale / report.batch_size for name, priced in report.priced.items()}
        if any(widths.values()):
            axes.barh(list(widths), list(widths.values()), left=list(left.values()), label=role)
            left = {name: left[name] + width for name, width in widths.items()}
    axes.invert_yaxis()
    axes.set_xlabel(f"{unit} an image, one training step ({report.prices.name})")
    axes.set_title(f"{report.model}, batch {report.batch_size}")
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))  # beside the bars, not upon them
    return figure


def plot(report: Report, path: str | os.PathLike[str]) -> bool:
    """Write what :func:`draw` draws.

    Parameters
    ----------
    report : Report
        What to draw.
    path : path
        Where to, PNG by its name.

    Returns
    -------
    bool
        False where matplotlib is not installed; nothing is written then.
    """
    if not figures.available():
        return False
    figures.save(draw(report), path)
    return True
