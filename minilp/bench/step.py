"""``minilp bench step``: whole training steps, ours against torch, interleaved.

These machines drift, and other work shares them. So the systems take turns, one step each, and what is published is the
median of the round-by-round ratios. Absolute milliseconds are for orientation.
"""
from __future__ import annotations

import importlib.util
import itertools
import statistics
from collections.abc import Sequence
from typing import Any

from minilp import models as zoo
from minilp.bench import picture
from minilp.bench.case import Case
from minilp.bench.process import System, Unavailable, check_families, check_tiers, take_turns
from minilp.bench.stats import at_least, median_interval

RIVALS = ("eager", "channels_last", "compiled", "bf16", "bf16_compiled")
"""torch float32 NCHW; its channels-last layout; compiled; bfloat16 autocast in channels last; that compiled."""


def bench_step(models: Sequence[str] = ("resnet20",), recipes: Sequence[str] = ("fp32", "potq"), *,
               isas: Sequence[str] = ("auto",), kernels: Sequence[str] = ("auto",), settings: Sequence[str] = (),
               rivals: Sequence[str] = ("eager",), batch_size: int = 128, steps: int = 31, threads: int = 2,
               profile: bool = False) -> list[dict[str, Any]]:
    """Measure training steps side by side: every model with every recipe, tier and family, all in one run.

    Parameters
    ----------
    models : sequence of str
        Models of ``minilp.models``; the rivals have the residual networks only.
    recipes : sequence of str
        ``RECIPE`` or ``RECIPE:KEY=VALUE,KEY=VALUE`` (:class:`~minilp.bench.case.Case`).
    isas : sequence of str
        Instruction-set tiers to force, or ``auto`` for the best one.
    kernels : sequence of str
        Families of kernels: ``auto``, ``shift``, ``emulate`` (:func:`minilp.use_kernels`).
    settings : sequence of str
        ``KEY=VALUE`` changes for every recipe, before its own; they must fit each of them.
    rivals : sequence of str
        Names of :data:`RIVALS`, each measured where torch is installed and can (a compiled one needs a C++ compiler).
    batch_size : int
        Images a step.
    steps : int
        Interleaved rounds that count; warm-up precedes them. At least 31 for a ratio worth quoting.
    threads : int
        Threads, and processors, of each system.
    profile : bool
        Afterwards run a few more steps of each of ours under :func:`minilp.bench.profile`.

    Returns
    -------
    list of dict
        A row per model, recipe, tier and family: model, recipe, settings, isa, kernels (the family asked for),
        contractions (what ran, in words), calls (kernel -> calls a step), batch_size, threads, steps, ms_median,
        ms_low, ms_high (95 % interval of the median), peak_bytes (above the import and data baseline). ``rivals``
        has for each that ran ms_median, ratio, ratio_low, ratio_high (ours / its, round by round) and peak_bytes,
        ``skipped`` the reason for each that did not; the eager one's stand in the row as torch_ms_median, ratio,
        ratio_low, ratio_high and torch_peak_bytes, else None. ``profile`` and ``profile_ms``: the rows and the sum of
        :func:`minilp.bench.profile`, or None.

    Raises
    ------
    ValueError
        If an argument is out of range, names nothing, or a recipe does not fit its model.
    """
    at_least(1, steps=steps, batch_size=batch_size, threads=threads)
    for name in models:
        if name not in zoo.available():
            raise ValueError(f"model: expected one of {', '.join(zoo.available())}, got {name!r}")
    for name in rivals:
        if name not in RIVALS:
            raise ValueError(f"rival: expected one of {', '.join(RIVALS)}, got {name!r}")
    check_tiers(isas)
    check_families(kernels)
    cases = [Case.parse(text, tuple(settings)) for text in recipes]
    ours: list[System] = []
    theirs: dict[tuple[str, str], System] = {}
    skipped: dict[tuple[str, str], str] = {}
    try:
        for model in dict.fromkeys(models):
            shared = {"model": model, "batch_size": batch_size, "threads": threads}
            for case, isa, family in itertools.product(cases, isas, kernels):
                ours.append(_ours({**shared, "system": "minilp", "recipe": case.recipe, "settings": case.settings,
                                   "kernels": family, "env": {"MINILP_ISA": isa, "MINILP_KERNELS": family}}))
            for mode in dict.fromkeys(rivals):
                found = _rival({**shared, "system": "torch", "mode": mode})
                if isinstance(found, System):
                    theirs[model, mode] = found
                else:
                    skipped[model, mode] = found
        take_turns([*ours, *theirs.values()], steps)
        profiles = [system.ask("profile") if profile else None for system in ours]
    finally:
        for system in (*ours, *theirs.values()):
            system.close()
    return [_row(system, {mode: other for (model, mode), other in theirs.items() if model == system.job["model"]},
                 {mode: why for (model, mode), why in skipped.items() if model == system.job["model"]}, found)
            for system, found in zip(ours, profiles, strict=True)]


def _ours(job: dict[str, Any]) -> System:
    try:
        return System(job)
    except Unavailable as error:
        raise ValueError(f"bench: {Case(job['recipe'], tuple(job['settings']))} on {job['model']}: {error}") from error


def _rival(job: dict[str, Any]) -> System | str:
    """The system, or why there is none."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    try:
        return System(job)
    except Unavailable as error:
        return str(error)


def _row(ours: System, theirs: dict[str, System], skipped: dict[str, str],
         profiled: dict[str, Any] | None) -> dict[str, Any]:
    job = ours.job
    median, low, high = median_interval(ours.ms)
    rivals = {}
    for mode, other in theirs.items():
        ratio = median_interval([mine / other_ms for mine, other_ms in zip(ours.ms, other.ms, strict=True)])
        rivals[mode] = {"ms_median": statistics.median(other.ms), "ratio": ratio[0], "ratio_low": ratio[1],
                        "ratio_high": ratio[2], "peak_bytes": other.peak_bytes, **other.info}
    eager = rivals.get("eager", {})
    return {"model": job["model"], "recipe": job["recipe"], "settings": list(job["settings"]), **ours.info,
            "kernels": job["kernels"], "batch_size": job["batch_size"], "threads": job["threads"],
            "steps": len(ours.ms), "ms_median": median, "ms_low": low, "ms_high": high, "peak_bytes": ours.peak_bytes,
            "torch_ms_median": eager.get("ms_median"), "ratio": eager.get("ratio"),
            "ratio_low": eager.get("ratio_low"), "ratio_high": eager.get("ratio_high"),
            "torch_peak_bytes": eager.get("peak_bytes"), "rivals": rivals, "skipped": skipped,
            "profile": profiled and profiled["rows"], "profile_ms": profiled and profiled["ms"]}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of :func:`bench_step` as text: steps, then ratios to each rival, then the profiles if there are any."""
    width = max((len(_label(row)) for row in rows), default=6)
    lines = [f"{'recipe':<{width}} {'model':<10} {'isa':<8} {'kernels':<7} {'batch':>5} {'ms/step':>8} "
             f"{'95 %':>16} {'peak MB':>8}  of torch: time (95 %), peak"]
    for row in rows:
        against = "; ".join(f"{mode} {other['ratio']:.2f} ({other['ratio_low']:.2f} to {other['ratio_high']:.2f}) of "
                            f"{other['ms_median']:.1f} ms, {row['peak_bytes'] / max(1, other['peak_bytes']):.2f} of "
                            f"{other['peak_bytes'] / 1e6:.0f} MB" for mode, other in row["rivals"].items())
        lines.append(f"{_label(row):<{width}} {row['model']:<10} {row['isa']:<8} {row['kernels']:<7} "
                     f"{row['batch_size']:5d} {row['ms_median']:8.1f} {row['ms_low']:7.1f}..{row['ms_high']:7.1f} "
                     f"{row['peak_bytes'] / 1e6:8.0f}  {against or '-'}")
    reasons = {f"torch {mode} not measured on {row['model']}: {why}" for row in rows
               for mode, why in row["skipped"].items()}
    return "\n".join([*lines, *sorted(reasons), *(profile_table(row) for row in rows if row["profile"])])


def profile_table(row: dict[str, Any], least: float = 0.005) -> str:
    """One row's profile: parts by their share, in each the kernels that take at least ``least`` of the step."""
    lines = [f"\n{_label(row)}, {row['model']}, {row['isa']}, {row['kernels']}: {row['profile_ms']:.1f} ms in one "
             "profiled step"]
    parts: dict[str, list[dict[str, Any]]] = {}
    for entry in row["profile"]:
        parts.setdefault(entry["part"], []).append(entry)
    for part, entries in sorted(parts.items(), key=lambda item: -sum(entry["ms"] for entry in item[1])):
        ms, share = sum(entry["ms"] for entry in entries), sum(entry["share"] for entry in entries)
        kernels = ", ".join(f"{entry['kernel']} {entry['ms']:.1f}" for entry in entries if entry["share"] >= least)
        lines.append(f"  {part:<17} {ms:8.1f} ms {share:6.1%}  {kernels}".rstrip())
    return "\n".join(lines)


def _label(row: dict[str, Any]) -> str:
    return str(Case(row["recipe"], tuple(row["settings"])))


def plot(rows: Sequence[dict[str, Any]], path: str) -> bool:
    """Draw times as shares of torch eager's, or in ms where that was not measured; False without matplotlib."""
    labels = [f"{_label(row)} {row['model']} {row['isa']} {row['kernels']}" for row in rows]
    if all(row["ratio"] is not None for row in rows):
        return picture.bars(labels, [row["ratio"] for row in rows], "time of a step / torch float32 eager", path, 1.0)
    return picture.bars(labels, [row["ms_median"] for row in rows], "ms a step", path)
