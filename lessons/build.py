"""Notebooks from the lessons' sources: ``python lessons/build.py [NAMES] [--check] [--execute]``.

A lesson is one percent-format source, ``lessons/NN_name.py``. From it come ``student/NN_name.ipynb``, in which the
lines between ``### BEGIN SOLUTION`` and ``### END SOLUTION`` are taken out of the exercises, and
``solutions/NN_name.ipynb``, executed. An exercise is a cell that starts with ``# %% exercise=NUMBER lines=BUDGET``.
"""
from __future__ import annotations

import argparse
import copy
import pathlib
import re
import sys
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
KINDS = ("student", "solutions")
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
LARGEST = 400_000  # bytes of a notebook
SECONDS = 900  # for one cell


class BuildError(Exception):
    """A lesson that cannot be built, differs from what is committed, or does not run."""


def sources(names: list[str]) -> list[pathlib.Path]:
    """Sources of the lessons with these names (``01_numbers`` or its beginning, such as ``01``); of all without any.

    Raises
    ------
    BuildError
        If a name has no lesson.
    """
    every = sorted(HERE.glob("[0-9][0-9]_*.py"))
    for name in names:
        if not any(path.stem.startswith(name) for path in every):
            raise BuildError(f"no lesson {name!r}; there are {', '.join(path.stem for path in every) or 'none'}")
    return [path for path in every if not names or any(path.stem.startswith(name) for name in names)]


def read(source: pathlib.Path) -> Any:
    """The cells of a lesson, markers and all, as a notebook (:mod:`nbformat`)."""
    import jupytext

    notebook = jupytext.read(source, fmt="py:percent")
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    notebook.metadata.clear()
    notebook.metadata.update({"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                              "language_info": {"name": "python"}})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def solution_lines(cell: Any) -> list[str]:
    """The lines between an exercise's markers.

    Raises
    ------
    BuildError
        Unless there is one pair of markers, with lines between, within the cell's budget (comments are free).
    """
    name, text = f"exercise {cell.metadata['exercise']}", cell.source.split("\n")
    begins, ends = ([i for i, line in enumerate(text) if line.strip() == mark] for mark in (BEGIN, END))
    if len(begins) != 1 or len(ends) != 1 or ends[0] <= begins[0] + 1:
        raise BuildError(f"{name}: expected lines between one {BEGIN!r} and one {END!r}")
    lines = text[begins[0] + 1:ends[0]]
    written = [line for line in lines if line.strip() and not line.strip().startswith("#")]
    if len(written) > cell.metadata.get("lines", 0):
        raise BuildError(f"{name}: the solution has {len(written)} lines, its budget is "
                         f"{cell.metadata.get('lines', 'missing (lines=N)')}")
    return lines


def student_source(cell: Any) -> str:
    """An exercise without its lines: in their place a call that says which exercise is empty."""
    first = solution_lines(cell)[0]
    indent = first[:len(first) - len(first.lstrip())]
    number, budget = cell.metadata["exercise"], cell.metadata["lines"]
    enough = f"{budget} lines do" if budget > 1 else "1 line does"
    stub = f"{indent}lab.todo({number})  # your code in place of this line: {enough}"
    return re.sub(rf"^[ ]*{BEGIN}\n.*?{END}$", lambda _: stub, cell.source, flags=re.S | re.M)


def build(notebook: Any, kind: str) -> Any:
    """One kind of notebook, without outputs, of what :func:`read` returned."""
    out = copy.deepcopy(notebook)
    for cell in out.cells:
        if "exercise" in cell.metadata:
            solution_lines(cell)
            cell.source = (student_source(cell) if kind == "student" else
                           re.sub(rf"^[ ]*({BEGIN}|{END})\n?", "", cell.source, flags=re.M).rstrip())
        elif BEGIN in cell.source or END in cell.source:
            raise BuildError(f"a marker outside an exercise, in the cell that begins {cell.source[:60]!r}")
    return out


def inputs(notebook: Any) -> list[tuple[str, str]]:
    """What of a notebook is compared: kind and text of every cell, no outputs."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def execute(notebook: Any, kind: str, name: str) -> None:
    """Run a notebook in a kernel of its own and put the outputs in: a student's up to the first empty exercise.

    Raises
    ------
    BuildError
        If a cell fails, saying which and why; or if a student's notebook has no empty exercise.
    """
    import nbclient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    def where(number: int) -> str:
        return f"{name} ({kind}), cell {number} of {len(notebook.cells)}:\n{notebook.cells[number - 1].source}"

    client = nbclient.NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", record_timing=False,
                                     extra_arguments=["--log-level=40"],  # errors only: the kernel's own messages
                                     resources={"metadata": {"path": str(HERE)}})
    with client.setup_kernel():
        for number, cell in enumerate(notebook.cells):
            try:
                client.execute_cell(cell, number)
            except CellExecutionError as error:
                if kind == "student" and error.ename == "EmptyExercise":
                    print(f"{name}: student's notebook runs to cell {number + 1}: {error.evalue.split(':')[0]}")
                    return
                raise BuildError(f"{where(number + 1)}\n{error.ename}: {error.evalue}") from None
            except CellTimeoutError:
                raise BuildError(f"{where(number + 1)}\ntook more than {SECONDS} s") from None
    if kind == "student":
        raise BuildError(f"{name}: the student's notebook runs to its end, so no exercise is empty")
    notebook.metadata["language_info"] = {"name": "python"}  # no version of the Python that ran it


def committed(path: pathlib.Path) -> Any:
    """A notebook file as it is, or None."""
    import nbformat

    return nbformat.read(path, as_version=4) if path.exists() else None


def write(notebook: Any, path: pathlib.Path) -> None:
    """Write a notebook.

    Raises
    ------
    BuildError
        If it is larger than 400 kB.
    """
    import nbformat

    text = nbformat.writes(notebook) + "\n"
    if len(text) > LARGEST:
        raise BuildError(f"{path.name}: {len(text)} bytes, the limit is {LARGEST}: smaller figures, fewer outputs")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def make(source: pathlib.Path, check: bool, run: bool) -> None:
    """Build, compare or run both notebooks of a lesson; see :func:`main`."""
    lesson = read(source)
    for kind in KINDS:
        notebook, path = build(lesson, kind), HERE / kind / f"{source.stem}.ipynb"
        there = committed(path)
        current = there is not None and inputs(there) == inputs(notebook)
        if check and not current:
            raise BuildError(f"{path.relative_to(HERE.parent)} is not what {source.name} gives: run "
                             f"python lessons/build.py {source.stem} --execute")
        if run:
            execute(notebook, kind, source.stem)
        if check:
            continue
        if kind == "student":
            notebook = build(lesson, kind)  # its outputs are an error on purpose
        elif not run and current:
            continue  # keeps its outputs
        write(notebook, path)
        print(f"wrote {path.relative_to(HERE.parent)}")


def main(arguments: list[str] | None = None) -> int:
    """The command; 1 if a lesson fails."""
    parser = argparse.ArgumentParser(description="Build the lessons' notebooks from their sources.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="lessons, such as 01 or 01_numbers; all without")
    parser.add_argument("--check", action="store_true",
                        help="write nothing: fail where a notebook's inputs are not what its source gives")
    parser.add_argument("--execute", action="store_true",
                        help="run both kinds, the student's up to the first empty exercise (FAST=1 shortens the work); "
                             "without --check, keep the solution's outputs")
    args = parser.parse_args(arguments)
    try:
        for source in sources(args.names):
            make(source, args.check, args.execute)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
