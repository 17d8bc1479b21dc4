"""The run directory: what a training leaves behind, and how a resumed training finds its place in it.

``config.json`` comes first. At the end of each epoch the row goes to ``metrics.csv`` and the line to ``log.txt``, and
only then the checkpoint that knows of them; so a checkpoint never knows of a row that is not there, and what stands
behind its last row when a training is resumed belongs to an epoch that will be computed again, and is cut off.
``result.json`` comes last and marks the run as finished.
"""
from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from minilp import files
from minilp.data import vocabulary
from minilp.training.config import TrainConfig
from minilp.training.tasks import CLASSIFICATION, TRANSLATION

CONFIG, METRICS, LOG = "config.json", "metrics.csv", "log.txt"
CHECKPOINT, RESULT, CURVES = "checkpoint.safetensors", "result.json", "curves.png"
OURS = (CONFIG, METRICS, LOG, CHECKPOINT, RESULT, CURVES, *(kind.file for kind in vocabulary.KINDS))
HEADS = {",".join(task.columns): task.columns for task in (CLASSIFICATION, TRANSLATION)}
"""First lines of metrics.csv, see :attr:`minilp.training.task.Task.columns`."""


class RunDirectory:
    """One run's files.

    Parameters
    ----------
    path : str or pathlib.Path
        The directory; need not exist yet.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path)
        self._lock: int | None = None

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r})"

    def file(self, name: str) -> pathlib.Path:
        """Path of one of the run's files."""
        return self.path / name

    @property
    def started(self) -> bool:
        """Whether a training was begun here."""
        return self.file(CONFIG).exists()

    @property
    def finished(self) -> bool:
        """Whether a training was completed here."""
        return self.file(RESULT).exists()

    def lock(self) -> None:
        """Keep other processes from training here until :meth:`unlock` or the end of the process.

        Raises
        ------
        ValueError
            If another process holds the lock.
        """
        try:
            import fcntl
        except ImportError:  # not a POSIX system: nothing to lock with
            return
        self._lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.unlock()
            raise ValueError(f"out: another process is training in {self.path}") from None

    def unlock(self) -> None:
        """Let others train here."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def begin(self, config: TrainConfig, more: Mapping[str, bytes]) -> None:
        """Start a run: an empty metrics table, an empty log, the configuration.

        Parameters
        ----------
        config : TrainConfig
            Goes to config.json, which from now on marks the run as started.
        more : mapping of str to bytes
            Further files, name to content.
        """
        self.clean()
        files.write_atomic(self.file(LOG), b"")
        files.write_atomic(self.file(METRICS), (",".join(config.task.columns) + "\n").encode())
        for name, data in more.items():
            files.write_atomic(self.file(name), data)
        if not self.started:
            files.write_atomic(self.file(CONFIG), files.to_json(config.to_config()))

    def clean(self) -> None:
        """Remove what a kill left half-written."""
        for name in OURS:
            files.temporary(self.file(name)).unlink(missing_ok=True)

    def rewind(self, rows: int, log_lines: int) -> None:
        """Cut metrics and log to where they were when the checkpoint was written.

        Parameters
        ----------
        rows, log_lines : int
            Epochs in metrics.csv, and lines in log.txt, that stay.

        Raises
        ------
        ValueError
            If there are fewer.
        """
        self.clean()
        files.keep_lines(self.file(METRICS), rows + 1)
        files.keep_lines(self.file(LOG), log_lines)

    def log(self, line: str) -> None:
        """Append a line to log.txt."""
        files.append(self.file(LOG), line + "\n")

    def log_lines(self) -> int:
        """Lines in log.txt."""
        return self.file(LOG).read_bytes().count(b"\n")

    def add_row(self, row: dict[str, Any]) -> None:
        """Append an epoch to metrics.csv: the task's columns in their order, written so that they read back to the same
        bits.
        """
        files.append(self.file(METRICS), ",".join(map(repr, row.values())) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """The epochs in metrics.csv, one dict each.

        Raises
        ------
        ValueError
            If the file is not one of ours; the message names it.
        """
        lines = self.file(METRICS).read_text().splitlines() if self.file(METRICS).exists() else []
        if not lines or lines[0] not in HEADS:
            raise ValueError(f"{self.file(METRICS)}: expected a first line {' or '.join(map(repr, HEADS))}")
        rows, columns = [], HEADS[lines[0]]
        for number, line in enumerate(lines[1:], 2):
            try:
                epoch, *values = line.split(",")
                rows.append(dict(zip(columns, [int(epoch), *map(float, values)], strict=True)))
            except ValueError as error:
                raise ValueError(f"{self.file(METRICS)}: line {number} is no row of {len(columns)} numbers") from error
        return rows

    def write_result(self, result: dict[str, Any]) -> None:
        """Write result.json, which marks the run as finished."""
        files.write_atomic(self.file(RESULT), files.to_json(result))

    def read_result(self) -> dict[str, Any]:
        """Read result.json.

        Raises
        ------
        ValueError
            If the run is not finished, or the file is no JSON; the message names it.
        """
        if not self.finished:
            raise ValueError(f"{self.path}: no finished run there (no {RESULT})")
        try:
            return json.loads(self.file(RESULT).read_text())
        except ValueError as error:
            raise ValueError(f"{self.file(RESULT)}: not JSON ({error})") from error


def choose(out: str | os.PathLike[str] | None, name: str, resume: bool) -> tuple[RunDirectory, str]:
    """Find the directory of a training.

    Parameters
    ----------
    out : path or None
        What the user asked for; None means ``runs/<name>``, with -2, -3, ... if that is taken.
    name : str
        Default name.
    resume : bool
        Whether to continue a run rather than to start one. Without ``out`` that is the latest unfinished one.

    Returns
    -------
    RunDirectory
        Where to train.
    str
        A hint for the user, or "".

    Raises
    ------
    ValueError
        If there is nothing to resume, or ``out`` already holds a run.
    """
    if out is not None:
        run = RunDirectory(out)
        if run.path.exists() and not run.path.is_dir():
            raise ValueError(f"out: expected a directory, got the file {run.path}")
        if resume:
            if not run.started:
                raise ValueError(f"resume: nothing to resume in {run.path} (no {CONFIG}); leave it out to start there")
        elif run.finished or (run.file(CHECKPOINT).exists() and not run.started):
            raise ValueError(f"out: {run.path} holds a finished run; name another directory")
        elif run.started:
            raise ValueError(f"out: {run.path} holds an unfinished run; continue it with --resume (from Python "
                             f"resume=True), or name another directory")
        return run, ""
    number, hint, unfinished = 1, "", None
    while (run := RunDirectory(pathlib.Path("runs") / (name if number == 1 else f"{name}-{number}"))).started:
        if not run.finished:
            unfinished = run
            hint = f"{run.path} holds an unfinished run; minilp train --resume --out {run.path} would continue it"
        number += 1
    if not resume:
        return run, hint
    if unfinished is None:
        raise ValueError(f"resume: no unfinished run called runs/{name}; name its directory with --out")
    return unfinished, ""
