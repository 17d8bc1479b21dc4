"""The sweep over update widths as a table and as a picture."""
from __future__ import annotations

import os
from typing import Any

import numpy as np

from minilp import figures
from minilp.experiments.widths import score_name


def scores(record: dict[str, Any]) -> dict[str, dict[str, dict[int | None, list[float | None]]]]:
    """Test accuracies of the sweep proper, without the runs of the search at other learning rates.

    Parameters
    ----------
    record : dict
        As :func:`~minilp.experiments.widths.sweep` returns it.

    Returns
    -------
    dict
        Rounding to optimizer to width (None is float32, which comes first, then falling) to one accuracy a seed, in
        [0, 1]; None where a run diverged.
    """
    found: dict[str, dict[str, dict[int | None, list[float | None]]]] = {}
    for rounding, rates in record["learning_rates"].items():
        for optimizer, lr in rates.items():
            widths: dict[int | None, list[float | None]] = {}
            for row in sorted(record["rows"], key=lambda row: (-(row["bits"] or 99), row["seed"])):
                if (row["optimizer"], row["lr"]) == (optimizer, lr) and row["rounding"] in (None, rounding):
                    widths.setdefault(row["bits"], []).append(row[score_name(row)])
            found.setdefault(rounding, {})[optimizer] = widths
    return found


def _mean(values: list[float | None]) -> float | None:
    """None if a run diverged: there is no accuracy to average."""
    numbers = [value for value in values if value is not None]
    return float(np.mean(numbers)) * 100 if numbers and len(numbers) == len(values) else None


def table(record: dict[str, Any]) -> str:
    """The sweep as text: test accuracy in per cent, mean over seeds, one line an optimizer.

    Parameters
    ----------
    record : dict
        As :func:`~minilp.experiments.widths.sweep` returns it.

    Returns
    -------
    str
        One block a rounding. The last column is the loss in points from the widest to the narrowest update.
    """
    blocks = []
    for rounding, optimizers in scores(record).items():
        columns = sorted({width for widths in optimizers.values() for width in widths}, key=lambda w: -(w or 99))
        stored = [width for width in columns if width is not None]
        ends = f"{stored[0]} to {stored[-1]}" if stored else ""
        lines = [(f"{rounding}", "lr", *("float32" if width is None else str(width) for width in columns), ends)]
        counts = set()
        for optimizer, widths in optimizers.items():
            means = {width: _mean(widths[width]) if width in widths else None for width in columns}
            counts |= {len(values) for values in widths.values()}
            first, last = (means[stored[0]], means[stored[-1]]) if stored else (None, None)
            lines.append((optimizer, f"{record['learning_rates'][rounding][optimizer]:g}",
                          *("diverged" if width in widths and mean is None else "-" if mean is None else f"{mean:.2f}"
                            for width, mean in means.items()),
                          "-" if first is None or last is None else f"{last - first:+.2f}"))
        sizes = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        text = ["  ".join(cell.ljust(size) if i == 0 else cell.rjust(size)
                          for i, (cell, size) in enumerate(zip(line, sizes, strict=True))) for line in lines]
        seeds = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        seeds += " seed" if counts == {1} else " seeds"
        what = score_name(record["rows"][0]).replace("_acc", " accuracy")
        blocks.append("\n".join([*text, f"{what} in %, mean of {seeds}; rounding of updates: {rounding}"]))
    if (before := record.get("before")) is not None:
        blocks.append(f"before any step: {before[score_name(before)]:.2%}")
    return "\n\n".join(blocks)


def plot(record: dict[str, Any], path: str | os.PathLike[str]) -> bool:
    """Draw accuracy against update width: lines for means, dots for runs, dashes for float32 weights.

    Parameters
    ----------
    record : dict
        As :func:`~minilp.experiments.widths.sweep` returns it.
    path : path
        PNG file to write; the same record gives the same bytes.

    Returns
    -------
    bool
        False if matplotlib is missing; then no file is written.
    """
    if not figures.available():
        return False
    found = scores(record)
    figure = figures.new(5.5 * len(found), 4)
    for axes, (rounding, optimizers) in zip(figure.subplots(1, len(found), sharey=True, squeeze=False)[0],
                                            found.items(), strict=True):
        for number, (optimizer, widths) in enumerate(optimizers.items()):
            stored = {width: values for width, values in widths.items() if width is not None}
            means = {width: mean for width, values in stored.items() if (mean := _mean(values)) is not None}
            axes.plot(list(means), list(means.values()), f"C{number}-", label=optimizer)
            dots = [(width, value * 100) for width, values in stored.items() for value in values if value is not None]
            axes.plot([dot[0] for dot in dots], [dot[1] for dot in dots], f"C{number}.")
            if (limit := _mean(widths.get(None, []))) is not None:
                axes.axhline(limit, color=f"C{number}", linestyle="--", linewidth=0.8)
        if (before := record.get("before")) is not None:
            axes.axhline(before[score_name(before)] * 100, color="black", linestyle=":", label="before any step")
        axes.invert_xaxis()
        axes.set(xlabel="bits of stored weights (dashed: float32)", title=f"updates rounded: {rounding}")
        axes.legend()
    figure.axes[0].set_ylabel(score_name(record["rows"][0]).replace("_acc", " accuracy in %"))
    figures.save(figure, path)
    return True
