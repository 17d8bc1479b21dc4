"""``minilp bench step``: whole training steps, ours against torch, interleaved.

These machines drift, and other work shares them. So the systems take turns, one step each, and what is published is the
median of the round-by-round ratios. Absolute milliseconds are for orientation.
"""
from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
from typing import Any


class _System:
    """One worker process: started asleep, stepped on request."""

    def __init__(self, job: dict[str, Any]) -> None:
        threads = str(job["threads"])
        # PYTHONSAFEPATH: the worker imports the installed package, also when started in a source tree.
        settings = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE",
                    "OPENBLAS_THREAD_TIMEOUT": "20", "PYTHONSAFEPATH": "1", **job.get("env", {})}
        self.job = job
        self.process = subprocess.Popen(
            [sys.executable, "-m", "minilp.bench.worker", json.dumps(job)], text=True, env={**os.environ, **settings},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.info = self._record()
        self.ms: list[float] = []
        self.peak_bytes = 0

    def _record(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"bench: the worker for {self.job} ended with status {self.process.wait()}")
        return json.loads(line)

    def step(self, counted: bool) -> None:
        """Run one step; keep its time if it counts."""
        assert self.process.stdin is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        record = self._record()
        self.peak_bytes = record["peak_bytes"]
        if counted:
            self.ms.append(record["ms"])

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


def median_interval(values: list[float]) -> tuple[float, float, float]:
    """Median and its 95 % interval from order statistics (binomial, normal approximation).

    Parameters
    ----------
    values : list of float
        At least one measurement.

    Returns
    -------
    tuple of float
        (median, low, high); with fewer than 6 values the interval is the whole range.
    """
    ordered, n = sorted(values), len(values)
    half = 1.96 * n**0.5 / 2
    low, high = max(0, int(n / 2 - half)), min(n - 1, int(n / 2 + half))
    return statistics.median(ordered), ordered[low], ordered[high]


def bench_step(model: str = "resnet20", recipes: tuple[str, ...] = ("fp32", "potq"), *, batch_size: int = 128,
               steps: int = 31, threads: int = 2, isa: str = "auto", rival: bool = True) -> list[dict[str, Any]]:
    """Measure training steps side by side.

    Parameters
    ----------
    model : str
        A model of ``minilp.models``; the rival has the residual networks only.
    recipes : tuple of str
        Preset names.
    batch_size : int
        Images a step.
    steps : int
        Interleaved rounds that count; one round of warm-up precedes them. At least 31 for a ratio worth quoting.
    threads : int
        Threads of each system.
    isa : str
        Instruction-set tier to force, or ``auto``.
    rival : bool
        Measure torch's eager float32 step too, where torch is installed.

    Returns
    -------
    list of dict
        A row per recipe: model, recipe, isa, kernels, batch_size, threads, steps, ms_median, ms_low, ms_high (95 %
        interval of the median), peak_bytes (above the import and data baseline); with torch also torch_ms_median,
        ratio, ratio_low, ratio_high (of the round-by-round ratios) and torch_peak_bytes, else None in their place.

    Raises
    ------
    ValueError
        If ``steps`` or ``batch_size`` is smaller than 1.
    """
    for name, value in (("steps", steps), ("batch_size", batch_size), ("threads", threads)):
        if value < 1:
            raise ValueError(f"bench_step: {name} must be at least 1, got {value}")
    shared = {"model": model, "batch_size": batch_size, "threads": threads}
    systems: list[_System] = []
    try:
        for name in recipes:
            systems.append(_System({**shared, "system": "minilp", "recipe": name, "env": {"MINILP_ISA": isa}}))
        torch = None
        if rival and importlib.util.find_spec("torch") is not None:
            torch = _System({**shared, "system": "torch"})
            systems.append(torch)
        for turn in range(-1, steps):
            for system in systems:
                system.step(counted=turn >= 0)
    finally:
        for system in systems:
            system.close()
    return [_row(system, torch) for system in systems if system is not torch]


def _row(ours: _System, torch: _System | None) -> dict[str, Any]:
    median, low, high = median_interval(ours.ms)
    row = {"model": ours.job["model"], "recipe": ours.job["recipe"], **ours.info, "batch_size": ours.job["batch_size"],
           "threads": ours.job["threads"], "steps": len(ours.ms), "ms_median": median, "ms_low": low, "ms_high": high,
           "peak_bytes": ours.peak_bytes, "torch_ms_median": None, "ratio": None, "ratio_low": None,
           "ratio_high": None, "torch_peak_bytes": None}
    if torch is not None:
        ratios = [mine / theirs for mine, theirs in zip(ours.ms, torch.ms, strict=True)]
        row["torch_ms_median"] = statistics.median(torch.ms)
        row["ratio"], row["ratio_low"], row["ratio_high"] = median_interval(ratios)
        row["torch_peak_bytes"] = torch.peak_bytes
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """The rows of :func:`bench_step` as a text table."""
    lines = [f"{'model':<10} {'recipe':<8} {'isa':<9} {'batch':>5} {'ms/step':>8} {'95 %':>15} {'torch ms':>9} "
             f"{'ratio':>6} {'95 %':>12} {'peak MB':>8} {'torch MB':>9}"]
    for row in rows:
        rival = (f"{row['torch_ms_median']:9.1f} {row['ratio']:6.2f} {row['ratio_low']:5.2f}..{row['ratio_high']:5.2f}"
                 if row["ratio"] is not None else f"{'-':>9} {'-':>6} {'-':>12}")
        theirs = f"{row['torch_peak_bytes'] / 1e6:9.0f}" if row["torch_peak_bytes"] is not None else f"{'-':>9}"
        lines.append(f"{row['model']:<10} {row['recipe']:<8} {row['isa']:<9} {row['batch_size']:5d} "
                     f"{row['ms_median']:8.1f} {row['ms_low']:6.1f}..{row['ms_high']:6.1f} {rival} "
                     f"{row['peak_bytes'] / 1e6:8.0f} {theirs}")
    return "\n".join(lines)
