"""A sweep: train what a plan lists and nobody has recorded, each training in a process of its own."""
from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import minilp
from minilp.results import record
from minilp.results.plan import Plan, Run, load_plan, make_plan
from minilp.training.rundir import METRICS, RunDirectory

RESULTS, RUNS = "lessons/results", "runs"
POLL = 0.1  # seconds between two looks at the processes


@dataclass(frozen=True)
class Sweep:
    """How far a plan is; printing it gives the table.

    Attributes
    ----------
    rows : tuple of dict
        One a training, in the plan's order: ``name``, ``state`` (``"recorded"``, ``"diverged"``, ``"unfinished"``,
        ``"missing"`` or ``"failed"``), ``score`` (test accuracy in per cent, BLEU, or None), ``words`` (for
        people: the record's file, epochs done, or the error).
    """

    rows: tuple[dict[str, Any], ...]

    @property
    def failed(self) -> bool:
        """Whether a training ended with an error (divergence is a result, not an error)."""
        return any(row["state"] == "failed" for row in self.rows)

    def __str__(self) -> str:
        table = [("training", "state", "score", "")]
        for row in self.rows:
            score = "-" if row["score"] is None else f"{row['score']:.2f}"
            table.append((row["name"], row["state"], score, row["words"]))
        widths = [max(len(line[i]) for line in table) for i in range(3)]
        done = sum(row["state"] in ("recorded", "diverged") for row in self.rows)
        lines = [f"{name:<{widths[0]}}  {state:<{widths[1]}}  {score:>{widths[2]}}  {words}".rstrip()
                 for name, state, score, words in table]
        return "\n".join([*lines, f"{done} of {len(self.rows)} recorded"])


def sweep(plan: str | os.PathLike[str] | Mapping[str, Any] | Plan, *, results: str | os.PathLike[str] = RESULTS,
          runs: str | os.PathLike[str] = RUNS, jobs: int = 1, threads: int | None = None,
          root: str | os.PathLike[str] | None = None, only_list: bool = False, quiet: bool = False) -> Sweep:
    """Train what a plan lists and the folder of results does not hold.

    A training counts as recorded if some result.json has its configuration, whatever the file's name. It may be cut off
    at any moment: the same call goes on where it was, an interrupted training from its last checkpoint. What breaks
    one training does not end the others.

    Parameters
    ----------
    plan : path, mapping or Plan
        See :mod:`minilp.results.plan`.
    results : path
        Folder of the records; one JSON file a training is added, named by :func:`minilp.results.record_name`.
    runs : path
        Where the run directories are, under the same names.
    jobs : int
        Trainings at a time.
    threads : int, optional
        Of each; default all for one job, else an equal share of the processors. Changes no number.
    root : path, optional
        Folder of the data sets.
    only_list : bool
        Train nothing.
    quiet : bool
        Print nothing. With one job its training's own output is shown, with more a line a training.

    Returns
    -------
    Sweep

    Raises
    ------
    ValueError
        If the plan, a record or an argument is wrong; nothing is trained then.
    KeyboardInterrupt
        After Ctrl-C, once the trainings under way have saved their states.
    """
    for name, value in (("jobs", jobs), ("threads", 1 if threads is None else threads)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: expected an integer >= 1, got {value!r}")
    if not isinstance(plan, Plan):
        plan = make_plan(plan) if isinstance(plan, Mapping) else load_plan(plan)
    if threads is None and jobs > 1:
        threads = max(1, (os.cpu_count() or 1) // jobs)
    work = _Work(pathlib.Path(results), pathlib.Path(runs), threads, None if root is None else os.fspath(root),
                 jobs == 1 and not quiet, quiet)
    if not only_list:
        work.run(list(plan.runs), jobs)
    return Sweep(tuple(work.states(plan.runs)))


@dataclass
class _Work:
    """The processes of a sweep."""

    results: pathlib.Path
    runs: pathlib.Path
    threads: int | None
    root: str | None
    show: bool
    quiet: bool
    errors: dict[str, str] = dataclasses.field(default_factory=dict)

    def say(self, line: str) -> None:
        if not self.quiet:
            print(line, flush=True)

    def run(self, waiting: list[Run], jobs: int) -> None:
        """Start the trainings in order, at most ``jobs`` at a time."""
        record.read(self.results)  # a damaged record ends the sweep before the first training
        running: list[_Process] = []
        with tempfile.TemporaryDirectory(prefix="minilp-sweep-") as answers:
            try:
                while waiting or running:
                    while waiting and len(running) < jobs:
                        run = waiting.pop(0)
                        if record.find(record.read(self.results), run.config) is None:
                            running.append(self._start(run, pathlib.Path(answers)))
                    for process in [process for process in running if process.ended]:
                        running.remove(process)
                        self._note(process)
                    if running:
                        time.sleep(POLL)
            except KeyboardInterrupt:
                self.say("stopping: trainings under way save their states")
                for process in running:
                    process.interrupt()
                raise KeyboardInterrupt("stopped; the same command goes on") from None
            finally:
                for process in running:
                    process.wait()

    def _start(self, run: Run, answers: pathlib.Path) -> _Process:
        name = record.record_name(run.config)
        self.say(f"training {name}")
        more = {key: value for key, value in (("threads", self.threads), ("root", self.root)) if value is not None}
        return _Process(name, run, answers / f"{name}.json", {
            "arguments": {**run.arguments, **more}, "wanted": record.identity(run.config),
            "out": str(self.runs / name), "results": str(self.results), "quiet": not self.show})

    def _note(self, process: _Process) -> None:
        error = process.error()
        if error is not None:
            self.errors[record.identity(process.run.config)] = error
            self.say(f"failed {process.name}: {error}")
            return
        found = record.find(record.read(self.results), process.run.config)
        assert found is not None  # its process has just written it
        self.say(f"recorded {found.path}: {'diverged' if found.diverged else f'{found.score:.2f}'}")

    def states(self, runs: Iterable[Run]) -> Iterable[dict[str, Any]]:
        """The rows of :class:`Sweep`."""
        records = record.read(self.results)
        for run in runs:
            name, found = record.record_name(run.config), record.find(records, run.config)
            row: dict[str, Any] = {"name": name, "state": "missing", "score": None, "words": ""}
            directory = RunDirectory(self.runs / name)
            if found is not None:
                row.update(state="diverged" if found.diverged else "recorded", score=found.score,
                           words=str(found.path))
            elif (error := self.errors.get(record.identity(run.config))) is not None:
                row.update(state="failed", words=error)
            elif directory.started:
                epochs = len(directory.rows()) if directory.file(METRICS).exists() else 0
                row.update(state="unfinished", words=f"{epochs} of {run.config.epochs} epochs in {directory.path}")
            yield row


class _Process:
    """One training under way (:mod:`minilp.results.worker`).

    Its standard input is a pipe that nothing goes through: when it closes, because the sweep wants to stop or was
    killed, the training saves its state and ends. It has a session of its own, so that a terminal's Ctrl-C reaches it
    by that way only, and once.
    """

    def __init__(self, name: str, run: Run, answer: pathlib.Path, job: dict[str, Any]) -> None:
        self.name, self.run, self.answer = name, run, answer
        here = str(pathlib.Path(minilp.__file__).parent.parent)  # the worker is of the package that runs this
        path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "minilp.results.worker", json.dumps({**job, "answer": str(answer)})],
            stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
            start_new_session=True)

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def interrupt(self) -> None:
        """Ask it to save and stop."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait(self) -> None:
        """Until it has ended; an impatient second Ctrl-C ends it at once, at the cost of some steps."""
        self.interrupt()
        try:
            self.process.wait()
        except KeyboardInterrupt:
            self.process.kill()
            self.process.wait()

    def error(self) -> str | None:
        """What went wrong in the ended process; None if nothing did."""
        self.interrupt()
        if not self.answer.exists():
            return f"its process ended with status {self.process.returncode}"
        return json.loads(self.answer.read_text()).get("error")
