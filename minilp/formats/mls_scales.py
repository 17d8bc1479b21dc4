"""The two levels of scales of MLS: which elements form a group, and both scales of an element in one number."""
from __future__ import annotations

import math

import numpy as np

GROUPS = ("nc", "n", "c", "none")
_AXES = {"nc": (0, 1), "n": (0,), "c": (1,), "none": ()}


def group_axes(shape: tuple[int, ...], group: str, least: int) -> tuple[int, ...]:
    """The axes that index a tensor's groups.

    Parameters
    ----------
    shape : tuple of int
        Only tensors of four axes and of two have groups, and those of three, which are batches of matrices (attention's
        heads): their groups are rows, tokens, unless the grouping is ``"none"``.
    group : {"nc", "n", "c", "none"}
        The grouping asked for.
    least : int
        If a group would have fewer elements, the grouping is ``"n"``.

    Returns
    -------
    tuple of int
        Out of 0 and 1.
    """
    if len(shape) == 3:
        return () if group == "none" else (0, 1)
    if len(shape) not in (2, 4):
        return ()
    axes = _AXES[group]
    if math.prod(n for axis, n in enumerate(shape) if axis not in axes) < least and axes:
        return (0,)
    return axes


def unit(scales: tuple[np.ndarray, ...], group_man: int, shape: tuple[int, ...]) -> np.ndarray:
    """S_t * S_g as float64, which holds it exactly.

    Raises
    ------
    ValueError
        If the scales are not three arrays that broadcast along the tensor's axes.
    """
    if len(scales) != 3 or any(scale.ndim != len(shape) or any(have not in (1, want) for have, want in
                                                               zip(scale.shape, shape, strict=True))
                               for scale in scales):
        raise ValueError(f"MLS: scales must be (tensor scale, group exponents, group mantissas) of the tensor's shape "
                         f"{shape}, with 1 where they are shared; got {[getattr(s, 'shape', s) for s in scales]}")
    tensor, exponent, mantissa = scales
    group = np.ldexp(1 + mantissa.astype(np.float64) / 2**group_man, -exponent.astype(np.int32))
    return tensor.astype(np.float64) * group
