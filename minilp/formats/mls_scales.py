"""The two levels of scales of MLS: which elements form a group, and the scales of a tensor from its group maxima."""
from __future__ import annotations

import math

import numpy as np

GROUPS = ("nc", "n", "c", "none")
_AXES = {"nc": (0, 1), "n": (0,), "c": (1,), "none": ()}
FLOOR = 2.0**-126  # of a group's maximum, relative to the tensor's; takes the place of the authors' absolute 1e-10


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


def dynamic_scales(maxima: np.ndarray, keep: tuple[int, ...], group_exp: int,
                   group_man: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tensor and group scales from the group maxima, group scales rounded up.

    Parameters
    ----------
    maxima : numpy.ndarray
        float32 largest magnitude of every group, with 1 for the axes that share it.
    keep : tuple of int
        Axes whose slices are tensors of their own.
    group_exp, group_man : int
        Bits of a group scale.

    Returns
    -------
    tuple of numpy.ndarray
        S_t float32 (1 for an all-zero tensor); e_g int16; m_g int8. S_g is at least the group's maximum over S_t; an
        all-zero group has S_g = 1.
    """
    shared = tuple(axis for axis in range(maxima.ndim) if axis not in keep)
    tensor = maxima.max(axis=shared, keepdims=True, initial=0)
    tensor = np.where(tensor == 0, np.float32(1), tensor).astype(np.float32)
    # the float64 quotient of two float32 numbers falls on the same side of 1 and 1.5 times a power of two as the exact
    quotient = np.maximum(maxima.astype(np.float64) / tensor, FLOOR)
    quotient = np.where(maxima == 0, 1.0, quotient)
    # exponent and group_man mantissa bits, one integer, of the quotient's bits rounded up: a carry moves the exponent
    field = (quotient.view(np.int64) + ((1 << (52 - group_man)) - 1)) >> (52 - group_man)
    field = np.maximum(field, (1023 + 1 - 2**group_exp) << group_man)
    return (tensor, (1023 - (field >> group_man)).astype(np.int16), (field & (2**group_man - 1)).astype(np.int8))


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
