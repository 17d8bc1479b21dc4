"""Systems under measurement, each in a process of its own, asleep until its turn comes."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from minilp.kernels import available_tiers
from minilp.kernels.backend import FAMILIES


class Unavailable(RuntimeError):
    """A system could not be built; the message says why."""


def environment(threads: int, **more: str) -> dict[str, str]:
    """The environment of a measured process: its number of threads, and waiting threads that sleep.

    OpenBLAS's workers spin after a call and would slow whoever is next; OpenMP's would while they wait.

    Parameters
    ----------
    threads : int
        Of OpenMP, OpenBLAS and torch's compiler alike.
    **more : str
        Further variables.
    """
    count = str(threads)
    # PYTHONSAFEPATH: the process imports the installed package, also when started in a source tree.
    return {**os.environ, "OMP_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count, "OMP_WAIT_POLICY": "PASSIVE",
            "OPENBLAS_THREAD_TIMEOUT": "20", "TORCHINDUCTOR_COMPILE_THREADS": "1", "PYTHONSAFEPATH": "1", **more}


def pin(threads: int) -> None:
    """Keep this process on the first ``threads`` of the processors it may use: all systems alike."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


class System:
    """One worker process (:mod:`minilp.bench.worker`), stepped on request.

    Parameters
    ----------
    job : dict
        What it builds; ``env`` in it is added to its environment.

    Attributes
    ----------
    info : dict
        What the worker says about itself.
    ms : list of float
        Milliseconds of the steps that counted.
    peak_bytes : int
        Peak resident memory above the baseline after import and data.

    Raises
    ------
    Unavailable
        If the worker could not build the system.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.ms: list[float] = []
        self.peak_bytes = 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "minilp.bench.worker", json.dumps(job)], text=True,
            env=environment(job["threads"], **job.get("env", {})), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            self.info = self._record()
            if "error" in self.info:
                raise Unavailable(self.info["error"])
        except BaseException:
            self.close()
            raise

    def _record(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):  # a compiler may print
                return json.loads(line)
        raise Unavailable(f"the worker for {self.job} ended with status {self.process.wait()}")

    def ask(self, command: str) -> dict[str, Any]:
        """Send one command, ``"step"`` or ``"profile"``, and wait for its record."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._record()

    def step(self, counted: bool) -> None:
        """Run one step; keep its time if it counts."""
        record = self.ask("step")
        self.peak_bytes = record["peak_bytes"]
        if counted:
            self.ms.append(record["ms"])

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def take_turns(systems: Sequence[System], steps: int) -> None:
    """One step of each in turn, ``steps`` times, after one round of warm-up that does not count."""
    for turn in range(-1, steps):
        for system in systems:
            system.step(counted=turn >= 0)


def alone(module: str, job: dict[str, Any], threads: int) -> list[dict[str, Any]]:
    """Run a module's ``measure`` in a fresh process and return its rows.

    Parameters
    ----------
    module : str
        Its full name.
    job : dict
        Keyword arguments of its ``measure``.
    threads : int
        Of every library in the process.

    Raises
    ------
    ValueError
        With the words of the process if it found an argument wrong.
    RuntimeError
        If it broke.
    """
    code = f"from minilp.bench import process; import {module} as bench; process.answer(bench.measure)"
    done = subprocess.run([sys.executable, "-c", code, json.dumps(job)], text=True, env=environment(threads),
                          stdout=subprocess.PIPE)
    if done.returncode:
        raise RuntimeError(f"bench: {module} ended with status {done.returncode} for {job}")
    found = json.loads(done.stdout)
    if "error" in found:
        raise ValueError(found["error"])
    return found["rows"]


def answer(measure: Any) -> None:
    """The other end of :func:`alone`: measure what the job on the command line asks for, print the rows as JSON."""
    job = json.loads(sys.argv[1])
    pin(job["threads"])
    try:
        print(json.dumps({"rows": measure(**job)}))
    except ValueError as error:
        print(json.dumps({"error": str(error)}))


def check_tiers(names: Sequence[str]) -> None:
    """Whether this machine and build can force these instruction-set tiers.

    Raises
    ------
    ValueError
        For a name that is neither ``auto`` nor one of them.
    """
    there = ("auto", *available_tiers())
    for name in names:
        if name not in there:
            raise ValueError(f"isa: this machine and build have {', '.join(there)}; got {name!r}")


def check_families(names: Sequence[str]) -> None:
    """Whether these are families of kernels.

    Raises
    ------
    ValueError
        For another name.
    """
    for name in names:
        if name not in FAMILIES:
            raise ValueError(f"kernels: expected one of {', '.join(FAMILIES)}, got {name!r}")
