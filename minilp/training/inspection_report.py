"""An inspection in words and pictures: the table, histograms in characters, the PNG, the JSON."""
from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilp import figures

SHADES = " .:-=+*#%@"
WIDTH = 28  # binades in a histogram of characters


@dataclass(frozen=True)
class Inspection:
    """What :func:`inspect` found; printing it gives the table.

    Attributes
    ----------
    name, recipe : str
        What was inspected, and the recipe in words.
    rows : tuple of dict
        One a layer and role: ``layer``, ``role``, and what :meth:`minilp.training.inspection_tally.Tally.row` lists.
    compared : bool
        Whether another recipe than the model's own was measured; then ``own_are`` is that of the model's own codes.
    """

    name: str
    recipe: str
    rows: tuple[dict[str, Any], ...]
    compared: bool = False

    def mean_are(self, role: str) -> float | None:
        """Mean over the layers of one role's ARE; None where no layer has it."""
        return _mean([row["are"] for row in self.rows if row["role"] == role])

    def __str__(self) -> str:
        own = ("own ARE",) if self.compared else ()
        table: list[tuple[str, ...]] = [("layer", "role", "format", "elements", "zeros", "lost", "top", "ARE", *own,
                                         "scales", "groups", "median", "10 %")]
        for row in self.rows:
            extra = (f"{row['own_are']:.4f}" if row["own_are"] is not None else "float32",) if own else ()
            grouped = row["group_log2_median"] is not None
            table.append((row["layer"], row["role"], row["format"], str(row["elements"]), f"{row['zeros']:.1%}",
                          f"{row['lost']:.1%}", f"{row['top']:.2%}", f"{row['are']:.4f}", *extra, row["grouping"],
                          str(row["groups"]), f"{row['group_log2_median']:.1f}" if grouped else "-",
                          f"{row['group_log2_low']:.1f}" if grouped else "-"))
        for role in dict.fromkeys(row["role"] for row in self.rows):
            own_mean = _mean([row["own_are"] for row in self.rows if row["role"] == role])
            extra = (f"{own_mean:.4f}" if own_mean is not None else "float32",) if own else ()
            table.append(("mean", role, "", "", "", "", "", f"{self.mean_are(role):.4f}", *extra, "", "", "", ""))
        words = ("ARE = sum |x - Q(x)| / sum |x| (our definition); lost: not 0, coded as 0; top: at a largest code;\n"
                 "median and 10 %: quantiles of log2 of a scale group's maximum over the tensor's.")
        if self.compared:
            words += " own ARE: the model's own codes of the same tensors."
        return f"{self._title()}\n{_aligned(table, 3)}\n{words}"

    def _title(self) -> str:
        return f"{self.name}: {self.recipe}" if self.recipe else self.name

    def groupings(self) -> str:
        """A table of what shares a scale, and what scales cost, per layer and role."""
        table: list[tuple[str, ...]] = [("layer", "role", "format", "elements", "one scale per", "groups",
                                         "elements each", "scale bits/element", "bits/element")]
        for row in self.rows:
            fell = row["grouping"] == "n" and row["asked"] in ("c", "nc")
            table.append((row["layer"], row["role"], row["format"], str(row["elements"]),
                          f"n for {row['asked']}" if fell else row["grouping"],
                          str(row["groups"]), f"{row['group_elements']:g}", f"{row['scale_bits']:.3f}",
                          f"{row['bits'] + row['scale_bits']:.3f}"))
        return (f"{self._title()}\n{_aligned(table, 3)}\n"
                "nc: (sample, channel) map or (output, input) kernel; n: sample, token, output; c: channel, input;\n"
                "n for nc: groups would be smaller than the format's `least`; block: along a sum.")

    def histograms(self) -> str:
        """Text histograms of log2|x|: two lines a row of the table, the numbers and what their codes stand for.

        A column is a binade, the largest number's on the right; the darker, the more numbers, relative to the fullest.
        """
        width = max((len(row["layer"]) for row in self.rows), default=0)
        lines = [f"numbers by binade, {WIDTH} of them, the largest on the right; x: before, Q: decoded; {SHADES!r}"]
        for row in self.rows:
            nonzero = len(row["counts"])
            largest = f"2^{row['log2_low'] + nonzero - 1}" if nonzero else "0"
            zeros = (row["zeros"] - row["lost"], row["zeros"])
            for mark, key, share in zip("xQ", ("counts", "coded"), zeros, strict=True):
                head = f"{row['layer']:<{width}}  {row['role']:<6}" if mark == "x" else " " * (width + 8)
                lines.append(f"{head}  {mark}  zeros {share:6.1%}  |{_shaded(row[key])}|"
                             + (f"  {largest}" if mark == "x" else ""))
        return "\n".join(lines)

    def to_json(self) -> str:
        """Everything as JSON."""
        return json.dumps({"name": self.name, "recipe": self.recipe, "are": "sum |x - Q(x)| / sum |x|",
                           "compared": self.compared, "rows": list(self.rows)}, indent=1) + "\n"

    def plot(self, path: str | os.PathLike[str]) -> bool:
        """Draw the histograms, a picture a layer and role.

        Parameters
        ----------
        path : path
            PNG file to write.

        Returns
        -------
        bool
            False if matplotlib is missing; then no file is written.
        """
        if not figures.available():
            return False
        layers, roles = (list(dict.fromkeys(row[key] for row in self.rows)) for key in ("layer", "role"))
        figure = figures.new(3.6 * len(roles), 1.5 * len(layers) + 0.6)
        axes = figure.subplots(len(layers), len(roles), squeeze=False)
        for ax in axes.flat:
            ax.set_axis_off()
        for row in self.rows:
            ax = axes[layers.index(row["layer"])][roles.index(row["role"])]
            ax.set_axis_on()
            binades = row["log2_low"] + np.arange(len(row["counts"]))
            ax.bar(binades, np.array(row["counts"]) / row["elements"], width=0.9, color="0.75")
            ax.step(binades, np.array(row["coded"]) / row["elements"], where="mid", color="C0", linewidth=1)
            ax.set_title(f"{row['layer']} {row['role']}, ARE {row['are']:.3f}, zeros {row['zeros']:.0%}", fontsize=7)
            ax.tick_params(labelsize=6)
        figure.supxlabel("log2 |x|, whole binades; grey: the numbers, blue: decoded", fontsize=8)
        figures.save(figure, path)
        return True


def _shaded(counts: list[int]) -> str:
    """The last WIDTH binades as characters: blank only where there is nothing."""
    shown = counts[-WIDTH:]
    full = max(shown, default=0)
    text = "".join(SHADES[0 if n == 0 else max(1, round(n / full * (len(SHADES) - 1)))] for n in shown)
    return text.rjust(WIDTH)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _aligned(table: Sequence[tuple[str, ...]], left: int) -> str:
    """Columns of equal width: the first ``left`` ones to the left, numbers to the right."""
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    return "\n".join("  ".join(cell.ljust(width) if i < left else cell.rjust(width)
                               for i, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
                     for line in table)
