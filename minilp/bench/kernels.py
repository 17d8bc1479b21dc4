"""``minilp bench kernels``: contractions alone, in GMAC/s, against the machine's measured peak and NumPy's sgemm.

What is timed is a whole contraction on codes as the contraction room asks for it (:func:`minilp.contract.multiply`):
checks, packing, kernel, scaling to float32. Encoding is not in it.
"""
from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import minilp
from minilp import contract, report
from minilp import kernels as backend
from minilp.bench import picture
from minilp.bench.peak import peaks
from minilp.bench.process import alone, check_families, check_tiers
from minilp.bench.stats import at_least, clock_for, interleaved
from minilp.formats import QTensor, Spec
from minilp.kernels.layout import from_chwn, to_chwn

FORMATS = ("fp32", "pot", "pot:bits=4", "mls", "fixed:bits=8")
KINDS = ("forward", "input_grad", "weight_grad")


@dataclass(frozen=True)
class Shape:
    """One layer: channels in and out, the input's height and width, kernel size and stride; padding keeps the size."""

    channels: int
    outputs: int
    size: int
    kernel: int
    stride: int = 1

    @property
    def out_size(self) -> int:
        """Height and width of the output."""
        return (self.size - 1) // self.stride + 1

    def macs(self, batch_size: int) -> int:
        """Multiply-accumulates of each of the three contractions, those with padding counted in."""
        return batch_size * self.outputs * self.out_size**2 * self.channels * self.kernel**2


# The layers of ResNet-20 by what they are, then what it does not have.
SHAPES = {"16ch-32x32": Shape(16, 16, 32, 3), "32ch-16x16": Shape(32, 32, 16, 3), "64ch-8x8": Shape(64, 64, 8, 3),
          "stem": Shape(3, 16, 32, 3), "16to32-s2": Shape(16, 32, 32, 3, 2), "32to64-s2": Shape(32, 64, 16, 3, 2),
          "16to32-1x1": Shape(16, 32, 32, 1, 2), "linear-64": Shape(64, 10, 1, 1), "linear-512": Shape(512, 512, 1, 1),
          "128ch-8x8": Shape(128, 128, 8, 3), "32ch-5x5": Shape(32, 32, 16, 5)}


def bench_kernels(*, formats: Sequence[str] = FORMATS, kinds: Sequence[str] = KINDS,
                  shapes: Sequence[str] = tuple(SHAPES)[:3], isas: Sequence[str] = ("auto",),
                  kernels: Sequence[str] = ("auto",), batch_size: int = 128, rounds: int = 7,
                  threads: int = 1) -> list[dict[str, Any]]:
    """Measure contractions in a process of its own, interleaved over formats, tiers and families.

    Parameters
    ----------
    formats : sequence of str
        ``fp32``, or as :func:`minilp.report.find_format` reads them; both operands have it.
    kinds : sequence of str
        Of ``forward``, ``input_grad``, ``weight_grad``.
    shapes : sequence of str
        Names of :data:`SHAPES`, or ``all``.
    isas, kernels : sequence of str
        Tiers and families to force, or ``auto``.
    batch_size : int
        Images.
    rounds : int
        Rounds that count; the fastest is reported.
    threads : int
        Of our kernels and of NumPy's sgemm.

    Returns
    -------
    list of dict
        A row per shape, kind, format, tier and family: format, kind, shape, isa, kernels, ran (names of the kernels
        that ran), batch_size, threads, clock (:func:`minilp.bench.stats.clock_for`), rounds, macs, ms_min, ms_median,
        gmac_per_s (of the fastest round), peak (which one: see :func:`minilp.bench.peak.peaks`), peak_gmac_per_s (of so
        many threads), of_peak, sgemm_gmac_per_s (the same product by NumPy on unfolded matrices, unfolding not counted)
        and of_sgemm. Peaks are None without C.

    Raises
    ------
    ValueError
        If an argument is out of range or names nothing.
    """
    at_least(1, batch_size=batch_size, rounds=rounds, threads=threads)
    check_tiers(isas)
    check_families(kernels)
    for what, given, known in (("kind", kinds, KINDS), ("shape", shapes, (*SHAPES, "all"))):
        for name in given:
            if name not in known:
                raise ValueError(f"{what}: expected one of {', '.join(known)}, got {name!r}")
    for name in formats:
        if name != "fp32":
            report.find_format(name)
    chosen = tuple(SHAPES) if "all" in shapes else tuple(shapes)
    job = {"formats": list(formats), "kinds": list(kinds), "shapes": chosen, "isas": list(isas),
           "kernels": list(kernels), "batch_size": batch_size, "rounds": rounds, "threads": threads}
    return alone(__name__, job, threads)


def measure(*, formats: Sequence[str], kinds: Sequence[str], shapes: Sequence[str], isas: Sequence[str],
            kernels: Sequence[str], batch_size: int, rounds: int, threads: int) -> list[dict[str, Any]]:
    """What :func:`bench_kernels` does, in this process; NumPy's threads are left as they are."""
    minilp.set_num_threads(threads)
    clock, clock_name = clock_for(threads)
    rows: list[dict[str, Any]] = []
    limits = {isa: peaks(isa) for isa in isas}
    for (label, shape), kind in itertools.product(((name, SHAPES[name]) for name in shapes), kinds):
        tensors = _tensors(shape, batch_size)
        work, cells, tops = [_sgemm(shape, kind, batch_size)], [], []
        ran_names: list[list[str]] = []
        for name, isa, family in itertools.product(formats, isas, kernels):
            run = forced(isa, family, contraction(name, shape, kind, tensors))
            with backend.calls() as ran, backend.use_kernels(family), _tier(isa):
                run()
                here = minilp.backend().isa
            cells.append({"format": name, "kind": kind, "shape": label, "isa": here, "kernels": family})
            ran_names.append(sorted(ran))
            tops.append(limits[isa])
            work.append(run)
        sgemm, *seconds = interleaved(work, rounds, clock)
        macs = shape.macs(batch_size)
        for cell, names, top, times in zip(cells, ran_names, tops, seconds, strict=True):
            speed, peak = macs / min(times) / 1e9, which_peak(cell["format"], names)
            limit = top[peak] * threads if peak in top else None
            rows.append({**cell, "ran": names, "batch_size": batch_size, "threads": threads, "clock": clock_name,
                         "rounds": rounds, "macs": macs, "ms_min": min(times) * 1e3,
                         "ms_median": float(np.median(times)) * 1e3, "gmac_per_s": speed,
                         "peak": peak if limit else None, "peak_gmac_per_s": limit,
                         "of_peak": speed / limit if limit else None,
                         "sgemm_gmac_per_s": macs / min(sgemm) / 1e9, "of_sgemm": min(sgemm) / min(times)})
    return rows


def which_peak(name: str, ran: Sequence[str]) -> str:
    """What bounds a kernel: float32 fused multiply-adds, 16-bit adds where it only adds, else int8 dot products."""
    if name == "fp32":
        return "float32"
    return "add16" if any("shift" in kernel or "bins" in kernel for kernel in ran) else "int8"


def forced(isa: str, family: str, run: Callable[[], object]) -> Callable[[], object]:
    """The same work under a tier and a family; ``auto`` leaves the tier as it is."""
    def work() -> object:
        with backend.use_kernels(family), _tier(isa):
            return run()

    return work


def _tier(isa: str) -> Any:
    return contextlib.nullcontext() if isa == "auto" else backend.use_isa(isa)


def _tensors(shape: Shape, batch_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Activation, weight and error in the kernels' memory order; the activation is rectified, as most are."""
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal((batch_size, shape.channels, shape.size, shape.size), dtype=np.float32), 0)
    w = rng.standard_normal((shape.outputs, shape.channels, shape.kernel, shape.kernel), dtype=np.float32)
    e = rng.standard_normal((batch_size, shape.outputs, shape.out_size, shape.out_size), dtype=np.float32)
    return from_chwn(to_chwn(x)), w, from_chwn(to_chwn(e))


def contraction(name: str, shape: Shape, kind: str,
                tensors: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Callable[[], np.ndarray]:
    """One contraction on operands that are encoded already.

    Parameters
    ----------
    name : str
        ``fp32`` or a format.
    shape : Shape
    kind : str
        Of :data:`KINDS`.
    tensors : tuple of numpy.ndarray
        Activation (N, C, H, W), weight (O, C, K, K), error (N, O, OH, OW); float32.

    Returns
    -------
    callable
        Returns the float32 result.
    """
    x, w, e = tensors
    first, second = {"forward": (x, w), "input_grad": (e, w), "weight_grad": (e, x)}[kind]
    size = {"forward": None, "input_grad": (shape.size,) * 2, "weight_grad": (shape.kernel,) * 2}[kind]
    spec = Spec("conv2d" if kind == "forward" else f"conv2d_{kind}", (shape.stride,) * 2, (shape.kernel // 2,) * 2,
                size=size)
    a, b = (_operand(name, tensor, spec, position) for position, tensor in enumerate((first, second)))
    return lambda: contract.multiply(a, b, spec)


def _operand(name: str, x: np.ndarray, spec: Spec, position: int) -> QTensor | np.ndarray:
    if name == "fp32":
        return x
    fmt = report.find_format(name)
    if not fmt.blocks_along_sum:
        return fmt.encode(x)
    axis, run = spec.run(position, x.shape)
    return fmt.encode_along(x, axis, run=run)


def unfolded(shape: Shape, kind: str, batch_size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Sizes of the two matrices whose product does a contraction's work.

    Parameters
    ----------
    shape : Shape
    kind : str
        Of :data:`KINDS`. An input gradient at stride 1 is a convolution of the error; at a larger stride its matrices
        are those before folding, so that no zero is multiplied.
    batch_size : int

    Returns
    -------
    ((int, int), (int, int))
    """
    positions, taps = batch_size * shape.out_size**2, shape.kernel**2
    if kind == "forward":
        return (positions, shape.channels * taps), (shape.channels * taps, shape.outputs)
    if kind == "weight_grad":
        return (shape.outputs, positions), (positions, shape.channels * taps)
    if shape.stride == 1:
        return (positions, shape.outputs * taps), (shape.outputs * taps, shape.channels)
    return (positions, shape.outputs), (shape.outputs, shape.channels * taps)


def _sgemm(shape: Shape, kind: str, batch_size: int) -> Callable[[], object]:
    """NumPy's product of matrices of the contraction's sizes, written into memory that is there."""
    first, second = unfolded(shape, kind, batch_size)
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal(first, dtype=np.float32), rng.standard_normal(second, dtype=np.float32)
    out = np.empty((first[0], second[1]), np.float32)
    return lambda: np.matmul(a, b, out=out)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of :func:`bench_kernels` as text."""
    lines = [f"{'shape':<11} {'kind':<11} {'format':<13} {'isa':<8} {'kernels':<7} {'GMAC/s':>7} {'of peak':>14} "
             f"{'of sgemm':>8}  ran"]
    for row in rows:
        peak = f"{row['of_peak']:6.1%} {row['peak']}" if row["peak"] else "-"
        lines.append(f"{row['shape']:<11} {row['kind']:<11} {row['format']:<13} {row['isa']:<8} {row['kernels']:<7} "
                     f"{row['gmac_per_s']:7.1f} {peak:>14} {row['of_sgemm']:8.2f}  {', '.join(row['ran'])}")
    limits = {f"{row['isa']} {row['peak']} {row['peak_gmac_per_s']:.0f}" for row in rows if row["peak"]}
    if limits:
        lines.append(f"measured peaks, GMAC/s of {rows[0]['threads']} thread(s): {', '.join(sorted(limits))}")
    return "\n".join(lines)


def plot(rows: Sequence[dict[str, Any]], path: str) -> bool:
    """Draw a bar a row; False without matplotlib."""
    return picture.bars([f"{row['shape']} {row['kind']} {row['format']} {row['isa']} {row['kernels']}" for row in rows],
                        [row["gmac_per_s"] for row in rows], "GMAC/s", path)
