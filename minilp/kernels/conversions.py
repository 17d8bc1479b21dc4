"""A count of the copies that only change where or as what numbers lie: the hunt after hidden ones.

Kernels read activations stored as (C, H, W, N), and codes made of them; whatever comes in another order, with gaps, or
as another float type is copied first. Each such copy announces itself here. A step of a network that keeps to
the layers of :mod:`minilp.nn` needs one for the pictures and few others; see ``tests/nn/test_conversions.py``.
"""
from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterator
from typing import Any

_seen: collections.Counter[str] = collections.Counter()


def converted(what: str, x: Any) -> None:
    """Note that an array was copied.

    Parameters
    ----------
    what : str
        Why: ``"to (C, H, W, N)"``, ``"gaps closed"``, ``"to float64"``.
    x : np.ndarray
        What was copied, as it came.
    """
    _seen[f"{what}: {x.dtype} {x.shape}"] += 1


@contextlib.contextmanager
def conversions() -> Iterator[collections.Counter[str]]:
    """Count the copies inside a ``with`` block that only change an array's memory order or float type.

    Yields
    ------
    collections.Counter
        ``"WHAT: DTYPE SHAPE"`` -> number of copies, such as ``"to (C, H, W, N): float32 (128, 3, 32, 32)"``; filled
        when the block ends. Layouts that an integer kernel builds inside C do not show.

    Examples
    --------
    >>> import numpy as np
    >>> from minilp.kernels import conversions, layout
    >>> with conversions() as seen:
    ...     stored = layout.to_chwn(np.zeros((2, 3, 4, 5), np.float32))
    >>> dict(seen)
    {'to (C, H, W, N): float32 (2, 3, 4, 5)': 1}
    """
    before = _seen.copy()
    found: collections.Counter[str] = collections.Counter()
    try:
        yield found
    finally:
        found.update(_seen - before)
