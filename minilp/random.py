"""One seed for initialisation and dropout: every layer draws from a stream of its own.

Streams are spawned from one ``numpy.random.SeedSequence``, so the k-th layer built after ``manual_seed(s)`` draws the
same numbers whatever the layers before it drew. Rounding does not use this module: it has counter-based streams
(``minilp.formats.rounding``). Data order and augmentation have a seed of their own in the loader.
"""
from __future__ import annotations

from typing import Any

import numpy as np

_entropy: int = 0
_spawned: int = 0


def manual_seed(seed: int) -> None:
    """Restart the streams from ``seed``.

    Parameters
    ----------
    seed : int
        Any non-negative integer.

    Raises
    ------
    ValueError
        If ``seed`` is negative.
    """
    global _entropy, _spawned
    if seed < 0:
        raise ValueError(f"manual_seed: seed must be >= 0, got {seed}")
    _entropy, _spawned = int(seed), 0


def spawn() -> np.random.Generator:
    """A fresh, independent generator: the next child of the current seed.

    Returns
    -------
    numpy.random.Generator
        PCG64, seeded by (seed, number of streams spawned before).
    """
    global _spawned
    child = np.random.SeedSequence(_entropy, spawn_key=(_spawned,))
    _spawned += 1
    return np.random.Generator(np.random.PCG64(child))


def get_state() -> dict[str, Any]:
    """The state as plain JSON: the seed and how many streams were spawned."""
    return {"seed": _entropy, "spawned": _spawned}


def set_state(state: dict[str, Any]) -> None:
    """Restore what :func:`get_state` returned."""
    global _entropy, _spawned
    _entropy, _spawned = int(state["seed"]), int(state["spawned"])
