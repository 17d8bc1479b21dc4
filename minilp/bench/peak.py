"""What one core of this machine can do at most, measured: loops in registers that nothing waits for."""
from __future__ import annotations

import contextlib
import time
from typing import Any

from minilp.kernels import backend as in_force
from minilp.kernels import use_isa
from minilp.kernels.backend import lib

KINDS = ("float32", "add16", "int8")
ROUNDS = 10_000  # well under a millisecond: some of the runs are not interrupted, whatever else the machine does
REPEATS = 100


def peaks(isa: str = "auto") -> dict[str, float]:
    """Peak rates of one thread under an instruction-set tier.

    Parameters
    ----------
    isa : str
        A tier to force, or ``auto``.

    Returns
    -------
    dict of str to float
        Thousand millions a second of ``float32`` multiply-adds, of ``add16`` 16-bit additions, and of ``int8``
        multiply-adds by the tier's widest instruction: pmaddubsw, pmaddubsw on 512 bits, VNNI's dot product, AMX's tile
        product. Empty without the C core, and in the portable tier, which has no instruction of its own to measure.
    """
    core = lib() if in_force().name == "c" else None
    if core is None:
        return {}
    with contextlib.nullcontext() if isa == "auto" else use_isa(isa):
        found = {kind: _rate(core, number) for number, kind in enumerate(KINDS)}
    return {kind: rate for kind, rate in found.items() if rate is not None}


def _rate(core: Any, number: int) -> float | None:
    """The fastest of some runs."""
    macs = core.mlp_bench_peak(number, 1)
    if macs < 0:
        return None
    best = float("inf")
    for _ in range(REPEATS):
        start = time.thread_time()
        core.mlp_bench_peak(number, ROUNDS)
        best = min(best, time.thread_time() - start)
    return macs * ROUNDS / best / 1e9
