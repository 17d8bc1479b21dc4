"""``minilp bench quantise``: encoding and decoding alone, in bytes of float32 a second.

Quantising is bound by memory: it reads four bytes an element, and a copy of the same tensor is what to hold it against.
"""
from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import minilp
from minilp import report
from minilp.bench import picture
from minilp.bench.process import alone, check_tiers
from minilp.bench.stats import at_least, clock_for, interleaved
from minilp.formats.rounding import Stream

FORMATS = ("pot", "pot:bits=4", "mls", "lns", "fixed:bits=8", "minifloat")


def bench_quantise(*, formats: Sequence[str] = FORMATS, isas: Sequence[str] = ("auto",), batch_size: int = 128,
                   rounds: int = 7, threads: int = 1) -> list[dict[str, Any]]:
    """Measure encoding and decoding in a process of its own.

    Parameters
    ----------
    formats : sequence of str
        As :func:`minilp.report.find_format` reads them.
    isas : sequence of str
        Instruction-set tiers to force, or ``auto``.
    batch_size : int
        The tensor is 16 maps of 32 x 32 of so many images, as activations lie in memory.
    rounds : int
        Interleaved rounds that count; the fastest is reported.
    threads : int
        Threads of the C kernels.

    Returns
    -------
    list of dict
        A row per format, tier and what: format, what (``encode nearest``, ``encode stochastic``, ``decode``), isa,
        threads, clock (:func:`minilp.bench.stats.clock_for`), elements, rounds, ms_min,
        ms_median, gb_per_s (float32 bytes read or written, of the fastest round),
        copy_gb_per_s (the same tensor copied by NumPy, counted once) and of_copy, their ratio.

    Raises
    ------
    ValueError
        If an argument is out of range or names nothing.
    """
    at_least(1, batch_size=batch_size, rounds=rounds, threads=threads)
    check_tiers(isas)
    for name in formats:
        report.find_format(name)
    job = {"formats": list(formats), "isas": list(isas), "batch_size": batch_size, "rounds": rounds, "threads": threads}
    return alone(__name__, job, threads)


def measure(*, formats: Sequence[str], isas: Sequence[str], batch_size: int, rounds: int,
            threads: int) -> list[dict[str, Any]]:
    """What :func:`bench_quantise` does, in this process."""
    minilp.set_num_threads(threads)
    tensor = np.random.default_rng(0).standard_normal((16, 32, 32, batch_size), dtype=np.float32)
    x, target = tensor.transpose(3, 0, 1, 2), np.empty_like(tensor)
    work: list[Callable[[], object]] = [lambda: np.copyto(target, tensor)]
    rows: list[dict[str, Any]] = []
    clock, clock_name = clock_for(threads)

    def add(name: str, what: str, isa: str, run: Callable[[], object]) -> None:
        def forced() -> None:
            with contextlib.nullcontext() if isa == "auto" else minilp.use_isa(isa):
                run()

        with contextlib.nullcontext() if isa == "auto" else minilp.use_isa(isa):
            here = minilp.backend().isa
        rows.append({"format": name, "what": what, "isa": here, "threads": threads, "clock": clock_name,
                     "elements": x.size, "rounds": rounds})
        work.append(forced)

    for name in formats:
        fmt = report.find_format(name)
        encode: Callable[..., Any] = fmt.encode
        if fmt.blocks_along_sum:  # along the channels, as in a forward contraction
            encode = functools.partial(fmt.encode_along, axis=1)
        coded, stream = encode(x), Stream(0, 0, 0, 0, 0, "act")
        for isa in isas:
            add(name, "encode nearest", isa, functools.partial(encode, x))
            add(name, "encode stochastic", isa, functools.partial(encode, x, stream=stream))
            add(name, "decode", isa, coded.decode)
    copy, *seconds = interleaved(work, rounds, clock)
    for row, times in zip(rows, seconds, strict=True):
        row.update(ms_min=min(times) * 1e3, ms_median=float(np.median(times)) * 1e3,
                   gb_per_s=x.nbytes / min(times) / 1e9, copy_gb_per_s=x.nbytes / min(copy) / 1e9,
                   of_copy=min(copy) / min(times))
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of :func:`bench_quantise` as text."""
    lines = [f"{'format':<16} {'what':<17} {'isa':<8} {'threads':>7} {'ms':>8} {'GB/s':>7} {'of a copy':>9}"]
    lines += [f"{row['format']:<16} {row['what']:<17} {row['isa']:<8} {row['threads']:7d} {row['ms_min']:8.2f} "
              f"{row['gb_per_s']:7.2f} {row['of_copy']:9.2f}" for row in rows]
    if rows:
        lines.append(f"a copy of the same {rows[0]['elements']:,} floats: {rows[0]['copy_gb_per_s']:.2f} GB/s; the "
                     f"fastest of {rows[0]['rounds']} rounds each")
    return "\n".join(lines)


def plot(rows: Sequence[dict[str, Any]], path: str) -> bool:
    """Draw a bar a row; False without matplotlib."""
    return picture.bars([f"{row['format']} {row['what']} {row['isa']}" for row in rows],
                        [row["gb_per_s"] for row in rows], "GB/s of float32", path)
