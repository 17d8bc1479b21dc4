"""Laws about what encode does to numbers: levels, scales, order, zero, and what must be refused."""
from __future__ import annotations

from typing import Any

import numpy as np

from minilp.formats import Format, Stream
from minilp.testing.runner import law, levels, neighbours, numbers, same


@law("every code survives decode and encode under its scale")
def _codes_round_trip(fmt: Format, rng: np.random.Generator) -> None:
    values, q = levels(fmt, rng)
    same(fmt.encode(values, scales=q.scales).codes, q.codes, "codes of the decoded codes")
    assert len(np.unique(values)) == len(values), "two codes have the same value; codes() lists canonical codes only"


@law("encoding again under the same scales changes nothing")
def _held_scales(fmt: Format, rng: np.random.Generator) -> None:
    for keep in ((), (0,), (1,), (0, 1)):
        x = numbers(rng, 6, 5, 4)
        q = fmt.encode(x, keep=keep)
        again = fmt.encode(q.decode(), keep=keep, scales=q.scales)
        same(again.codes, q.codes, f"codes of the decoded codes, keep={keep}")
        for held, given in zip(again.scales, q.scales, strict=True):
            same(held, given, "the scales that were given")


@law("rounding goes to a neighbouring level, and beyond the last level to the last")
def _faithful(fmt: Format, rng: np.random.Generator) -> None:
    values, q = levels(fmt, rng)
    x = np.concatenate([numbers(rng, 4000) * np.abs(values).max(), values, [0]]).astype(np.float32)
    y, (low, high) = fmt.encode(x, scales=q.scales).decode(), neighbours(values, x)
    wrong = np.flatnonzero((y != low) & (y != high))
    assert not len(wrong), f"{x[wrong[0]]} became {y[wrong[0]]}, but lies between {low[wrong[0]]} and {high[wrong[0]]}"


@law("a larger number never gets a smaller value")
def _monotone(fmt: Format, rng: np.random.Generator) -> None:
    x = np.sort(numbers(rng, 4000))
    y = fmt.encode(x).decode()
    drops = np.flatnonzero(np.diff(y) < 0)
    assert not len(drops), f"{x[drops[0]]} became {y[drops[0]]}, the larger {x[drops[0] + 1]} became {y[drops[0] + 1]}"


@law("the values of -x are minus those of x (declare symmetric = False where not)")
def _odd(fmt: Format, rng: np.random.Generator) -> None:
    x = numbers(rng, 1000)
    if fmt.symmetric:
        same(fmt.encode(-x).decode(), -fmt.encode(x).decode(), "the value of -x")


@law("zero becomes zero, alone and among others (declare preserves_zero = False where not)")
def _zero(fmt: Format, rng: np.random.Generator) -> None:
    x = np.concatenate([numbers(rng, 100), np.zeros(3), [-0.0]]).astype(np.float32)
    streams = (None, Stream(seed=5)) if fmt.stochastic else (None,)
    for stream in streams if fmt.preserves_zero else ():
        same(fmt.encode(x, stream=stream).decode()[x == 0], np.zeros((x == 0).sum()), "the value of 0 among others")
        same(fmt.encode(np.zeros((2, 3), np.float32), stream=stream).decode(), np.zeros((2, 3)), "an all-zero tensor")


@law("2^j x has 2^j times the values of x (declare scales_by_powers_of_two = False where not)")
def _equivariant(fmt: Format, rng: np.random.Generator) -> None:
    x = numbers(rng, 1000)
    for power in (-20, -1, 7) if fmt.scales_by_powers_of_two else ():
        factor = np.float32(2.0**power)
        same(fmt.encode(x * factor).decode(), fmt.encode(x).decode() * factor, f"the values of 2^{power} x")


@law("empty tensors work")
def _empty(fmt: Format, rng: np.random.Generator) -> None:
    for shape, keep in (((0,), ()), ((0, 3), (1,)), ((3, 0), (0,)), ((2, 0, 4), ())):
        q = fmt.encode(np.zeros(shape, np.float32), keep=keep)
        assert q.codes.shape == shape and q.decode().shape == shape, f"shape {shape} became {q.codes.shape}"


@law("NaN and infinity raise a ValueError")
def _finite(fmt: Format, rng: np.random.Generator) -> None:
    good = numbers(rng, 20)
    ways: list[dict[str, Any]] = [{}, {"scales": fmt.encode(good).scales}, {"keep": (0,)}]
    ways += [{"stream": Stream()}] if fmt.stochastic else []
    for bad in (np.nan, np.inf, -np.inf):
        for way in ways:
            x = good.copy()
            x[13] = bad
            try:
                q = fmt.encode(x, **way)
            except ValueError:
                continue
            raise AssertionError(f"{bad} became code {q.codes[13]}, encoding with {', '.join(way) or 'no options'}")


@law("a kept axis is scaled as if each of its slices were a tensor of its own")
def _kept(fmt: Format, rng: np.random.Generator) -> None:
    x = numbers(rng, 3, 4, 5) * np.exp2(rng.integers(-6, 6, (3, 4, 1))).astype(np.float32)
    for keep in ((0,), (1,), (2,), (0, 1), (-1,), (0, 1, 2)):
        q = fmt.encode(x, keep=keep)
        axes = tuple(axis % 3 for axis in keep)
        assert q.keep == tuple(sorted(axes)), f"keep={keep} became {q.keep}"
        values = q.decode()
        for index in np.ndindex(*(n if axis in axes else 1 for axis, n in enumerate(x.shape))):
            part = tuple(slice(i, i + 1) if axis in axes else slice(None) for axis, i in enumerate(index))
            same(values[part], fmt.encode(x[part]).decode(), f"keep={keep}, the slice at {index}")


@law("scales_for gives the scales of a tensor with that maximum")
def _scales_for(fmt: Format, rng: np.random.Generator) -> None:
    for keep in ((), (0,)):
        x = numbers(rng, 4, 200)
        maximum = np.abs(x).max(axis=tuple(axis for axis in (0, 1) if axis not in keep), keepdims=True)
        scales = fmt.scales_for(maximum)
        if scales is not NotImplemented:
            for got, want in zip(scales, fmt.encode(x, keep=keep).scales, strict=True):
                same(got, want, f"scales for the maximum {maximum.reshape(-1)}, keep={keep}")
