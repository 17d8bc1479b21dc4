"""How laws are registered, run and reported, and the inputs they share."""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minilp.formats import Format, QTensor

Law = Callable[[Format, np.random.Generator], None]
LAWS: dict[str, Law] = {}


def check_format(fmt: Format, *, seed: int = 0) -> None:
    """Hold a format to every law that training relies on.

    Parameters
    ----------
    fmt : Format
        An instance, such as ``PoT(bits=4)``.
    seed : int
        Seed of the random inputs.

    Raises
    ------
    AssertionError
        If a law is broken; the message names the law, the input and what came.
    """
    for name, law in LAWS.items():
        with _naming(fmt, name):
            law(fmt, np.random.default_rng([seed, len(name)]))


def law(name: str) -> Callable[[Law], Law]:
    """Register a law under the words that its failure message starts with."""
    def register(function: Law) -> Law:
        LAWS[name] = function
        return function
    return register


@contextlib.contextmanager
def _naming(fmt: Any, name: str) -> Iterator[None]:
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{fmt!r} breaks the law {name!r}: {error}") from None
    except Exception as error:
        raise AssertionError(f"{fmt!r} breaks the law {name!r}: it raised {type(error).__name__}: {error}") from error


def same(got: Any, want: Any, words: str) -> None:
    """Equal in shape and in every element, or an error that shows the first difference."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, f"{words}: shape {got.shape}, expected {want.shape}"
    wrong = np.argwhere(got != want)
    if len(wrong):
        first = tuple(int(i) for i in wrong[0])
        raise AssertionError(f"{words}: {got[first]} instead of {want[first]} at index {first} "
                             f"({len(wrong)} of {got.size} differ)")


def numbers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Random signs and magnitudes over many octaves, with zeros."""
    x = rng.standard_normal(shape) * np.exp2(rng.integers(-9, 2, shape))
    return np.where(rng.random(shape) < 0.1, 0, x).astype(np.float32)


def levels(fmt: Format, rng: np.random.Generator) -> tuple[np.ndarray, QTensor]:
    """Every canonical code and its value, under the scale of one random tensor."""
    codes = fmt.codes()
    q = QTensor(fmt, codes, fmt.encode(numbers(rng, 257)).scales)
    return q.decode(), q


def neighbours(values: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The levels at or below and at or above each x; the outermost level where there is none beyond."""
    levels = np.sort(values)
    low = levels[np.maximum(np.searchsorted(levels, x, "right") - 1, 0)]
    high = levels[np.minimum(np.searchsorted(levels, x, "left"), len(levels) - 1)]
    return low, high
