"""Laws about stochastic rounding: repeatable, the same in pieces, and right on average."""
from __future__ import annotations

import contextlib

import numpy as np

from minilp.formats import Format, Stream
from minilp.testing.runner import law, levels, neighbours, numbers, same


@law("without a `stochastic = False`, a stream rounds stochastically, the same way every time")
def _stream(fmt: Format, rng: np.random.Generator) -> None:
    x = numbers(rng, 4000)
    if not fmt.stochastic:
        with contextlib.suppress(ValueError, NotImplementedError):
            fmt.encode(x, stream=Stream())
            raise AssertionError("it declares stochastic = False, but takes a stream")
        return
    first = fmt.encode(x, stream=Stream(seed=1))
    same(fmt.encode(x, stream=Stream(seed=1)).codes, first.codes, "codes of the second run")
    for other in (Stream(seed=2), Stream(seed=1, step=1), Stream(seed=1, role="error"), Stream(seed=1, offset=1)):
        assert (fmt.encode(x, stream=other).codes != first.codes).any(), f"{other} gives the same draws as seed=1"


@law("splitting a tensor does not change its draws")
def _split(fmt: Format, rng: np.random.Generator) -> None:
    x, stream = numbers(rng, 9, 7, 5, 1, 1), Stream(seed=4, step=2)
    for rows in (1, 4) if fmt.stochastic else ():
        whole = fmt.encode(x, stream=stream)
        parts = [fmt.encode(x[i:i + rows], stream=stream.at(i * 35), scales=whole.scales).codes
                 for i in range(0, 9, rows)]
        same(np.concatenate(parts), whole.codes, f"codes in pieces of {rows} rows")


@law("stochastic rounding is unbiased between the levels (declare unbiased = False where not)")
def _unbiased(fmt: Format, rng: np.random.Generator) -> None:
    values, q = levels(fmt, rng)
    top, draws = np.abs(values).max(), 1 << 14
    x = np.concatenate([rng.uniform(values.min(), values.max(), 24), np.exp2(rng.uniform(-8, 0, 24)) * top,
                        values[rng.integers(0, len(values), 8)]])
    x = np.clip(x, values.min(), values.max()).astype(np.float32)
    if not (fmt.stochastic and fmt.unbiased):
        return
    y = fmt.encode(np.repeat(x, draws), stream=Stream(seed=6), scales=q.scales).decode().reshape(len(x), draws)
    low, high = (side.astype(np.float64) for side in neighbours(values, x))
    assert ((y == low[:, None]) | (y == high[:, None])).all(), "a draw is no neighbour of its number"
    error = np.abs(y.mean(axis=1, dtype=np.float64) - x)
    bound = 6 * np.sqrt((x - low) * (high - x) / draws) + 8 * (high - low) / draws
    worst = int(np.argmax(error - bound))
    assert error[worst] <= bound[worst], (f"{draws} draws of {x[worst]} differ from it by {error[worst]:.3g} on "
                                          f"average; chance explains {bound[worst]:.3g}")
