"""One training of a sweep, in a process of its own: what it breaks and the memory it holds is its own too."""
from __future__ import annotations

import _thread
import json
import os
import pathlib
import sys
import threading
from typing import Any

from minilp import files
from minilp.experiments import torch_twin
from minilp.results import record
from minilp.training import Diverged, TrainConfig, train
from minilp.training.rundir import RESULT, RunDirectory


def run_one(arguments: dict[str, Any], wanted: str, out: str, results: str, quiet: bool = False) -> pathlib.Path:
    """Train, or go on training, until result.json is there; then record it.

    Parameters
    ----------
    arguments : dict
        Of :func:`minilp.train`; the recipe ``torch-fp32`` goes to the torch twin.
    wanted : str
        The identity of their configuration (:func:`minilp.results.record.identity`).
    out : str
        Run directory. An unfinished run in it is resumed; a finished one is recorded as it is.
    results : str
        Folder of the records.
    quiet : bool
        Print nothing.

    Returns
    -------
    pathlib.Path
        The record. A diverged training is recorded as such.

    Raises
    ------
    ValueError
        If an argument is wrong, or ``out`` holds a run of another configuration.
    Interrupted
        After Ctrl-C, once the state is saved.
    """
    run = RunDirectory(out)
    if not run.finished:
        start = torch_twin.train if arguments.get("recipe") == torch_twin.NAME else train
        words = {key: value for key, value in arguments.items() if (key, value) != ("recipe", torch_twin.NAME)}
        try:
            start(**words, out=out, resume=run.started, quiet=quiet)
        except Diverged:
            if not run.finished:
                raise
    config = TrainConfig.from_config(run.read_result()["config"])
    if record.identity(config) != wanted:
        raise ValueError(f"runs: {out} holds a finished run of another configuration; move it away")
    path = record.place(results, config)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomic(path, run.file(RESULT).read_bytes())
    return path


def _stop_with_the_parent() -> None:
    """Wait for the end of standard input, which the sweep keeps open while it lives, then press Ctrl-C."""
    os.read(0, 1)  # not sys.stdin, whose lock the end of the process would wait for
    _thread.interrupt_main()


def main() -> int:
    """The job is the JSON on the command line; ``{"error": ...}`` or ``{"path": ...}`` goes to the file it names."""
    job = json.loads(sys.argv[1])
    answer = pathlib.Path(job.pop("answer"))
    threading.Thread(target=_stop_with_the_parent, daemon=True).start()
    try:
        path = run_one(**job)
    except KeyboardInterrupt as stop:
        files.write_atomic(answer, files.to_json({"error": str(stop) or "stopped"}))
        return 130
    except Exception as error:  # whatever it is, it belongs to this training alone and is told to the sweep
        files.write_atomic(answer, files.to_json({"error": f"{type(error).__name__}: {error}"}))
        return 1
    files.write_atomic(answer, files.to_json({"path": str(path)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
