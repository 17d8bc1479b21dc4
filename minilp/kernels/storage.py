"""Tensors as the C kernels walk them: in storage order, with neighbouring axes merged wherever one loop can do both."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilp.kernels.backend import ffi
from minilp.kernels.conversions import converted
from minilp.kernels.layout import is_chwn


def owner(x: np.ndarray) -> np.ndarray:
    """The array that ``x`` is a view of, or ``x`` itself.

    Parameters
    ----------
    x : numpy.ndarray
        Any shape, dtype and strides.
    """
    while isinstance(x.base, np.ndarray):
        x = x.base
    return x


def storage_order(x: np.ndarray) -> tuple[int, ...]:
    """The axis permutation that lists ``x`` in memory order, outermost first; ties keep their logical order.

    ``x.transpose(order)`` is C-contiguous whenever ``x`` is contiguous in some order.
    """
    if x.flags.c_contiguous:
        return tuple(range(x.ndim))
    if is_chwn(x):
        return 1, 2, 3, 0
    return tuple(sorted(range(x.ndim), key=lambda axis: (-abs(x.strides[axis]), axis)))


def flat_storage(x: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """The elements of ``x`` in storage order.

    Returns
    -------
    tuple
        A one-dimensional C-contiguous array (a view if ``x`` is contiguous in some axis order, else a copy), and the
        axis permutation that leads to it.
    """
    order = storage_order(x)
    turned = x.transpose(order)
    if not turned.flags.c_contiguous:
        converted("gaps closed", x)
        turned = np.ascontiguousarray(turned)
    return turned.reshape(-1), order


def from_storage(flat: np.ndarray, shape: tuple[int, ...], order: tuple[int, ...]) -> np.ndarray:
    """The tensor of logical ``shape`` whose elements in storage order are ``flat``; a view."""
    inverse = [0] * len(order)
    for place, axis in enumerate(order):
        inverse[axis] = place
    return flat.reshape([shape[axis] for axis in order]).transpose(inverse)


@dataclass
class Layout:
    """Merged axes as C sees them: lengths, and the steps, in elements, of a scale array and of the logical index."""

    shape: list[int]
    scale_steps: list[int]
    index_steps: list[int]

    @staticmethod
    def of(shape: tuple[int, ...], order: tuple[int, ...], scale_shape: tuple[int, ...],
           drawing: bool = False, stored_scale: bool = False) -> Layout:
        """Lay out a tensor of ``shape`` stored in ``order`` with a C-contiguous scale array that broadcasts against it.

        ``drawing`` keeps the logical index apart (axes merge only where it runs on evenly); without it the index is 0.
        ``stored_scale``: the scales lie in the tensor's storage order, not in logical order.
        """
        if not drawing and max(scale_shape, default=1) == 1:  # one scale: a single run through the memory
            return Layout([math.prod(shape)], [0], [0])
        scale_steps, index_steps = [0] * len(shape), [0] * len(shape)
        scale_step = index_step = 1
        for axis in reversed(order if stored_scale else range(len(shape))):
            if scale_shape[axis] > 1:
                scale_steps[axis] = scale_step
            scale_step *= scale_shape[axis]
        for axis in reversed(range(len(shape))):
            if drawing:
                index_steps[axis] = index_step
            index_step *= shape[axis]
        merged: list[list[int]] = []
        for axis in order:
            here = [shape[axis], scale_steps[axis], index_steps[axis]]
            if here[0] == 1:
                continue
            if merged and merged[-1][1:] == [here[0] * here[1], here[0] * here[2]]:
                merged[-1] = [merged[-1][0] * here[0], *here[1:]]
            else:
                merged.append(here)
        lengths, scales, indices = zip(*(merged or [[1, 0, 0]]), strict=True)
        return Layout(list(lengths), list(scales), list(indices))

    def arguments(self) -> tuple[Any, ...]:
        """``ndim, shape, scale_steps`` as C arguments."""
        return len(self.shape), ffi.new("int64_t[]", self.shape), ffi.new("int64_t[]", self.scale_steps)

    def index_argument(self) -> Any:
        """``index_steps`` as a C argument."""
        return ffi.new("int64_t[]", self.index_steps)
