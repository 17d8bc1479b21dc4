"""``minilp bench scale``: how the time of a step grows with the batch, the depth and the width of a ResNet.

What would be ideal: the same time an image at every batch, a straight line over the depths, the same time a
multiply-accumulate at every width.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minilp import models
from minilp.bench import picture
from minilp.bench.case import Case
from minilp.bench.process import System, Unavailable, take_turns
from minilp.bench.stats import at_least, median_interval, straight_line
from minilp.energy import shapes_of

SERIES = ("batch", "depth", "width")
_Point = tuple[int, str, int, tuple[str, ...]]  # value, model, batch size, settings


def bench_scale(*, series: Sequence[str] = SERIES, recipes: Sequence[str] = ("potq",), settings: Sequence[str] = (),
                batch_sizes: Sequence[int] = (16, 32, 64, 128, 256, 512),
                depths: Sequence[int] = (20, 32, 44, 56, 110), widths: Sequence[int] = (1, 2, 3, 4),
                batch_size: int = 128, steps: int = 11, threads: int = 2) -> list[dict[str, Any]]:
    """Measure steps of ResNets of growing size, those of one series interleaved, each in a process of its own.

    Parameters
    ----------
    series : sequence of str
        ``batch`` (ResNet-20), ``depth``, ``width`` (ResNet-20 with 16, 32, ... channels in its first stage).
    recipes, settings : sequence of str
        As :func:`minilp.bench.bench_step`.
    batch_sizes, depths, widths : sequence of int
        The points of each series; widths as multiples of 16 channels.
    batch_size : int
        Images a step, where depth or width grows.
    steps, threads : int
        As :func:`minilp.bench.bench_step`.

    Returns
    -------
    list of dict
        A row per recipe and point: series, value, model, recipe, settings, batch_size, threads, steps, ms_median,
        ms_low, ms_high, peak_bytes, macs (forward, an image), ns_per_image, ns_per_mac (of a step's three
        contractions, 3 x macs), and ``relative``: for batch ns per image against batch 128 (or the last below it, else
        the first), for width ns per MAC against x1 (the first), for depth how far the median lies from the straight
        line through the medians, as a share of the line; None for a depth on its own.

    Raises
    ------
    ValueError
        If an argument is out of range or names nothing.
    """
    at_least(1, steps=steps, threads=threads, batch_size=batch_size,
             **{f"{name}s": min(values, default=0)
                for name, values in (("batch_size", batch_sizes), ("depth", depths), ("width", widths))})
    for name in series:
        if name not in SERIES:
            raise ValueError(f"series: expected one of {', '.join(SERIES)}, got {name!r}")
    cases = [Case.parse(text, tuple(settings)) for text in recipes]
    points: dict[str, list[_Point]] = {
        "batch": [(n, "resnet20", n, ()) for n in batch_sizes],
        "depth": [(depth, f"resnet{depth}", batch_size, ()) for depth in depths],
        "width": [(times, "resnet20", batch_size, (f"model.width={16 * times}",)) for times in widths]}
    rows: list[dict[str, Any]] = []
    for name in series:
        for _, model, *_ in points[name]:
            if model not in models.available():
                raise ValueError(f"depth: expected one of {', '.join(models.available())}, got {model!r}")
        for case in cases:
            found = _series(name, case, points[name], steps, threads)
            _relate(name, found)
            rows += found
    return rows


def _series(name: str, case: Case, points: Sequence[_Point], steps: int,
            threads: int) -> list[dict[str, Any]]:
    systems: list[System] = []
    try:
        for _, model, images, options in points:
            systems.append(System({"system": "minilp", "model": model, "recipe": case.recipe, "threads": threads,
                                   "settings": (*case.settings, *options), "batch_size": images}))
        take_turns(systems, steps)
    except Unavailable as error:
        raise ValueError(f"bench: {case}: {error}") from error
    finally:
        for system in systems:
            system.close()
    rows = []
    for (value, model, images, options), system in zip(points, systems, strict=True):
        median, low, high = median_interval(system.ms)
        width = {"width": 16 * value} if options else {}
        macs = sum(layer.macs for layer in shapes_of(models.build(model, **width), (3, 32, 32)))
        rows.append({"series": name, "value": value, "model": model, "recipe": case.recipe,
                     "settings": [*case.settings, *options], "batch_size": images, "threads": threads, "steps": steps,
                     "ms_median": median, "ms_low": low, "ms_high": high, "peak_bytes": system.peak_bytes, "macs": macs,
                     "ns_per_image": median * 1e6 / images, "ns_per_mac": median * 1e6 / images / (3 * macs)})
    return rows


def _relate(name: str, rows: list[dict[str, Any]]) -> None:
    """Fill in ``relative``."""
    if name == "depth":
        several = len({row["value"] for row in rows}) > 1
        misses = (straight_line([row["value"] for row in rows], [row["ms_median"] for row in rows])[2] if several
                  else [None] * len(rows))
        for row, miss in zip(rows, misses, strict=True):
            row["relative"] = miss
        return
    key, base = "ns_per_mac", rows[0]
    if name == "batch":
        small = [row for row in rows if row["value"] <= 128]
        key, base = "ns_per_image", max(small, key=lambda row: row["value"], default=rows[0])
    for row in rows:
        row["relative"] = row[key] / base[key]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of :func:`bench_scale` as text, the batch's in time an image, the width's in time a MAC."""
    lines = [f"{'series':<7} {'value':>5} {'recipe':<12} {'batch':>5} {'ms/step':>9} {'95 %':>18} {'us/image':>9} "
             f"{'ns/MAC':>7} {'peak MB':>8}  against"]
    words = {"batch": "{:.2f} of the time an image at 128", "width": "{:.2f} of the time a MAC at the first",
             "depth": "{:+.1%} from the straight line"}
    for row in rows:
        against = "-" if row["relative"] is None else words[row["series"]].format(row["relative"])
        lines.append(f"{row['series']:<7} {row['value']:5d} {row['recipe']:<12} {row['batch_size']:5d} "
                     f"{row['ms_median']:9.1f} {row['ms_low']:8.1f}..{row['ms_high']:8.1f} "
                     f"{row['ns_per_image'] / 1e3:9.1f} {row['ns_per_mac']:7.4f} "
                     f"{row['peak_bytes'] / 1e6:8.0f}  {against}")
    return "\n".join(lines)


def plot(rows: Sequence[dict[str, Any]], path: str) -> bool:
    """Draw time an image over the size, each series as multiples of its first point; False without matplotlib."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        first = next(other for other in rows if (other["series"], other["recipe"]) == (row["series"], row["recipe"]))
        x, y = curves.setdefault(f"{row['series']}, {row['recipe']}", ([], []))
        x.append(row["value"] / first["value"])
        y.append(row["ns_per_image"] / first["ns_per_image"])
    return picture.lines(curves, "size, as a multiple of the first", "time an image, as a multiple of the first", path)

