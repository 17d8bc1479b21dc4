"""The report: RESULTS.md and its pictures, from plans and recorded trainings alone."""
from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable
from typing import Any

from minilp import files
from minilp.results import pictures, record, tables
from minilp.results.plan import Plan, load_plan
from minilp.results.record import Record
from minilp.results.sweeping import RESULTS

PLANS = "lessons/plans"
REPORT = "RESULTS.md"
HEAD = """# Results

Made by `minilp results` from the JSON files in this folder and the plans in `lessons/plans`; nothing is typed by hand.
`minilp sweep lessons/plans/NAME.json` runs what is missing. CIFAR-10 is a JPEG mirror of the original, so accuracies
are a little lower than on the original.

Accuracies are those of the last epoch on all test images: the mean over seeds, with the lowest and the highest in
brackets; "seeds" says how many. A positive gap is better than float32. Energy is that of a training image: operations
only, priced by `minilp energy`'s default list. Images/s and minutes are wall-clock on whatever machine and load there
was. The last column repeats the first seed's training; `--seed` chooses another.
"""


def report(results: str | os.PathLike[str] = RESULTS, plans: str | os.PathLike[str] = PLANS) -> pathlib.Path:
    """Write RESULTS.md, and its pictures where matplotlib is installed, into the folder of results.

    A section for each plan, with a table for each of its tables and budgets, and one for what is recorded outside of
    all plans. The same files give the same bytes.

    Parameters
    ----------
    results : path
        Folder of the records.
    plans : path
        Folder of the plans.

    Returns
    -------
    pathlib.Path
        RESULTS.md.

    Raises
    ------
    ValueError
        If there is no such folder, or a plan or a record is damaged.
    """
    folder = pathlib.Path(results)
    for name, path in (("results", folder), ("plans", pathlib.Path(plans))):
        if not path.is_dir():
            raise ValueError(f"{name}: expected a folder, got {str(path)!r}")
    text, drawings = render(record.read(folder), [load_plan(path) for path in pathlib.Path(plans).glob("*.json")])
    for name, (kind, rows) in drawings.items():
        pictures.draw(kind, rows, folder / name)
    files.write_atomic(folder / REPORT, text.encode())
    return folder / REPORT


def render(records: list[Record], plans: Iterable[Plan]) -> tuple[str, dict[str, tuple[str, dict[str, Any]]]]:
    """The text of the report, and what its pictures show.

    Parameters
    ----------
    records : list of Record
        All of them.
    plans : iterable of Plan
        In any order; their own decides.

    Returns
    -------
    str
        Markdown.
    dict
        File name of a picture -> its kind, and its tables for :func:`minilp.results.pictures.draw`.
    """
    parts, drawings, used = [HEAD], {}, set()
    for plan in sorted(plans, key=lambda plan: (plan.order, plan.name)):
        lines, drawing = _section(plan, records)
        name = f"{plan.name}-{plan.plot}.png"
        if plan.plot is not None and pictures.shown(plan.plot, drawing):
            drawings[name] = (plan.plot, drawing)
            lines += [f"![{plan.title}]({name})", ""]
        parts.append("\n".join(lines))
        used |= {record.identity(run.config) for run in plan.runs}
    rest = tables.unplanned(entry for entry in records if record.identity(entry.config) not in used)
    if rest:
        lines = ["## Recorded besides", ""]
        for group in tables.by_budget(rest):
            lines += [*tables.table(group, records), ""]
        parts.append("\n".join(lines))
    return "\n".join(part.rstrip("\n") + "\n" for part in parts), drawings


def _section(plan: Plan, records: list[Record]) -> tuple[list[str], dict[str, Any]]:
    """A plan's heading and tables, and what its picture shows."""
    done = sum(record.find(records, run.config) is not None for run in plan.runs)
    text = [f"## {plan.title}", "", *([plan.about, ""] if plan.about else []),
            f"`minilp sweep lessons/plans/{plan.name}.json`: {done} of {len(plan.runs)} trainings recorded.", ""]
    drawing: dict[str, Any] = {}
    for title in dict.fromkeys(row.table for row in plan.rows):
        rows = [row for row in plan.rows if row.table == title]
        text += [f"### {title}", ""] if title else []
        for group in tables.by_budget(tables.planned(row, records, plan.score) for row in rows):
            text += [*tables.table(group, records), ""]
            drawing[title or tables.describe_budget(group)] = [tables.row_of(line) for line in group]
        text += [line for row in rows if row.note for line in (row.note, "")]
    return text, drawing
