"""``minilp bench import``: what ``import minilp`` costs beside ``import numpy``."""
from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from minilp.bench import picture
from minilp.bench.process import environment
from minilp.bench.stats import interleaved, median_interval


def bench_import(*, rounds: int = 31) -> list[dict[str, Any]]:
    """Time ``python -c "import minilp"`` and ``python -c "import numpy"`` in turn, each in a fresh process.

    Parameters
    ----------
    rounds : int
        Pairs that count, after one that warms the disk's cache.

    Returns
    -------
    list of dict
        One row: module, rounds, ms_median, ms_low, ms_high, numpy_ms_median, and ratio, ratio_low, ratio_high of the
        pairs.

    Raises
    ------
    ValueError
        If ``rounds`` is smaller than 1.
    """
    ours, numpy = interleaved([lambda: _start("import minilp"), lambda: _start("import numpy")], rounds)
    ratio = median_interval([a / b for a, b in zip(ours, numpy, strict=True)])
    median, low, high = median_interval(ours)
    return [{"module": "minilp", "rounds": rounds, "ms_median": median * 1e3, "ms_low": low * 1e3,
             "ms_high": high * 1e3, "numpy_ms_median": median_interval(numpy)[0] * 1e3, "ratio": ratio[0],
             "ratio_low": ratio[1], "ratio_high": ratio[2]}]


def _start(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, env=environment(1))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The row of :func:`bench_import` as text."""
    return "\n".join(f"import {row['module']}: {row['ms_median']:.0f} ms, import numpy: "
                     f"{row['numpy_ms_median']:.0f} ms; ratio {row['ratio']:.2f} ({row['ratio_low']:.2f} to "
                     f"{row['ratio_high']:.2f}, {row['rounds']} pairs)" for row in rows)


def plot(rows: Sequence[dict[str, Any]], path: str) -> bool:
    """Draw both times; False without matplotlib."""
    return picture.bars(["import minilp", "import numpy"], [rows[0]["ms_median"], rows[0]["numpy_ms_median"]],
                        "ms from start to end of the process", path)
