"""Sentences of different lengths as rows of tokens: what is padding has no row.

Layers that work token by token see (T, F), the T real tokens of the batch, so padding takes no time there and can reach
no largest magnitude, statistic or weight gradient. Attention alone sees (N, L, ...), zeros at the padding.
"""
from __future__ import annotations

from typing import Any

import numpy as np


class Tokens:
    """Which positions of a batch (N, L) are tokens, and the way between both layouts.

    Parameters
    ----------
    shape : (int, int)
        N sentences, L positions.
    real : ndarray of bool, optional
        (N, L), True at tokens; None: everywhere.

    Attributes
    ----------
    mask : ndarray of bool or None
        ``real``, or None where there is no padding.
    count : int
        Rows T.

    Raises
    ------
    ValueError
        If ``real`` has another shape.
    """

    def __init__(self, shape: tuple[int, int], real: np.ndarray | None = None) -> None:
        if real is not None and real.shape != tuple(shape):
            raise ValueError(f"Tokens: expected a mask of shape {tuple(shape)}, got {real.shape}")
        self.shape = tuple(shape)
        self.mask = None if real is None or real.all() else real
        self.index = None if self.mask is None else np.flatnonzero(self.mask)
        self.count = self.shape[0] * self.shape[1] if self.index is None else len(self.index)

    def gather(self, x: Any) -> np.ndarray:
        """(N, L, ...) to (T, ...); a view where there is no padding and the memory order allows it."""
        flat = x.reshape(-1, *x.shape[2:])
        return flat if self.index is None else flat[self.index]

    def spread(self, rows: Any) -> np.ndarray:
        """(T, ...) to (N, L, ...), zeros at the padding; a view where there is none."""
        if self.index is not None:
            flat = np.zeros((self.shape[0] * self.shape[1], *rows.shape[1:]), rows.dtype)
            flat[self.index] = rows
            rows = flat
        return rows.reshape(*self.shape, *rows.shape[1:])

    def positions(self) -> np.ndarray:
        """The place of each row's token in its sentence, from 0: int64 (T,)."""
        along = np.broadcast_to(np.arange(self.shape[1]), self.shape).reshape(-1)
        return along if self.index is None else along[self.index]
