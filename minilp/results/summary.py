"""A plan's results in a few columns, kept up to date inside of another text, such as a README."""
from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterable, Sequence

import numpy as np

from minilp import files
from minilp.results import record, tables
from minilp.results.plan import Plan, load_plan
from minilp.results.record import Record
from minilp.results.reporting import PLANS
from minilp.results.sweeping import RESULTS

END = "<!-- end -->"
MARK = re.compile(rf"(<!-- minilp results: ([\w-]+) -->\n).*?({re.escape(END)})", re.DOTALL)
"""Where a table goes: ``<!-- minilp results: headline -->`` for that of ``headline.json``, up to ``<!-- end -->``."""


def summary(plan: Plan, records: Sequence[Record]) -> list[str]:
    """The table of a plan whose rows share one budget, in Markdown.

    Parameters
    ----------
    plan : Plan
        Its first row is what gaps are against.
    records : sequence of Record
        All there are.

    Returns
    -------
    list of str
        Lines: the head, then a row an entry, with its label, how many seeds there are, the mean of their scores and of
        the gaps (their range in brackets), and microjoules an image or token.

    Raises
    ------
    ValueError
        If the plan has several tables: their rows have nothing to be compared by.
    """
    if len(names := {row.table for row in plan.rows}) > 1:
        raise ValueError(f"plan: expected one table, got {plan.name!r} with {len(names)}: {', '.join(sorted(names))}")
    lines = [tables.planned(row, records, plan.score) for row in plan.rows]
    base, measure, unit = lines[0].scores, record.MEASURES[lines[0].measure][1], lines[0].config.task.unit
    rows = [f"| recipe | seeds | {measure} | gap to `{lines[0].label}`, points | uJ/{unit} |", "|---|---|---|---|---|"]
    for line in lines:
        cells, scores = [tables.NOT_RUN, "", ""], line.scores
        if line.records and not scores:
            cells[0] = "diverged"
        elif scores:
            gap = tables.spread([score - float(np.mean(base)) for score in scores], "+") if base else "-"
            energy = tables.row_of(line)["energy"]
            cells = [tables.spread(scores), gap, "-" if energy is None else f"{energy:.1f}"]
        rows.append(f"| {' | '.join([line.label, str(len(line.records)), *cells])} |")
    return rows


def refresh(path: str | os.PathLike[str], results: str | os.PathLike[str] = RESULTS,
            plans: str | os.PathLike[str] = PLANS) -> pathlib.Path:
    """Write the marked tables of a file anew, from the records alone.

    Parameters
    ----------
    path : path
        A text with one or more places as :data:`MARK` says; all else in it stays.
    results, plans : path
        Folders of the records and of the plans.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If nothing in it is marked, or a mark names a plan that is not there or has several tables.
    """
    path = pathlib.Path(path)
    named = (load_plan(plan) for plan in sorted(pathlib.Path(plans).glob("*.json")))
    files.write_atomic(path, replaced(path.read_text(encoding="utf-8"), named, record.read(results)).encode())
    return path


def replaced(text: str, plans: Iterable[Plan], records: Sequence[Record]) -> str:
    """A text with its marked tables as the records give them.

    Parameters
    ----------
    text : str
        See :func:`refresh`.
    plans : iterable of Plan
        Those that marks may name.
    records : sequence of Record
        All there are.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If nothing is marked, or a mark names a plan that is not there or has several tables.
    """
    known = {plan.name: plan for plan in plans}
    names = [found[2] for found in MARK.finditer(text)]
    if not names:
        raise ValueError(f"readme: expected a line '<!-- minilp results: PLAN -->' and after it '{END}', found none")
    if missing := [name for name in names if name not in known]:
        raise ValueError(f"readme: no plan is called {missing[0]!r}; there are {', '.join(sorted(known))}")
    return MARK.sub(lambda found: found[1] + "\n".join(summary(known[found[2]], records)) + "\n" + found[3], text)
