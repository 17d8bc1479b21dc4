"""Pictures of trainings, where matplotlib is installed; without it nothing is drawn and nothing fails."""
from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from minilp import figures


def curves(rows: Sequence[Mapping[str, Any]], title: str, path: pathlib.Path, held_out: str = "test") -> bool:
    """Draw loss and accuracy over the epochs.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of metrics.csv.
    title : str
        Of the picture.
    path : pathlib.Path
        PNG file to write; the same rows give the same bytes.
    held_out : str
        The split that was evaluated, as the columns call it.

    Returns
    -------
    bool
        False if matplotlib is missing; then no file is written.
    """
    return compared({title: rows}, path, held_out)


def compared(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: pathlib.Path, held_out: str = "test"
             ) -> bool:
    """Draw the curves of several runs over each other: train dashed, held-out data solid, one colour a run.

    Parameters
    ----------
    runs : mapping of str to sequence of mapping
        Name -> rows of metrics.csv.
    path : pathlib.Path
        PNG file to write.
    held_out : str
        See :func:`curves`.

    Returns
    -------
    bool
        False if matplotlib is missing; then no file is written.
    """
    if not figures.available():
        return False
    figure = figures.new(10, 4)
    loss, acc = figure.subplots(1, 2)
    for number, (name, rows) in enumerate(runs.items()):
        epochs = [row["epoch"] for row in rows]
        for axes, column in ((loss, "loss"), (acc, "acc")):
            for split, style in (("train", "--"), (held_out, "-")):
                axes.plot(epochs, [row[f"{split}_{column}"] for row in rows], style, color=f"C{number % 10}",
                          marker=".", label=f"{name}, {split}")
    loss.set(xlabel="epoch", ylabel="cross-entropy loss")
    acc.set(xlabel="epoch", ylabel="accuracy")
    acc.legend(fontsize="small")
    figures.save(figure, path)
    return True
