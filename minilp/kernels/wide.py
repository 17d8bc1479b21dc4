"""Contractions of integers too wide for the table kernel: 9 to 16 bits, exact, as float64 matrix products in NumPy."""
from __future__ import annotations

import numpy as np

from minilp.kernels import reference_pot, table
from minilp.kernels.backend import count
from minilp.kernels.layout import Pair
from minilp.kernels.pot_geometry import Array, Geometry, geometry
from minilp.kernels.pot_round import to_float32
from minilp.kernels.reference_table import scaled

DIGIT = 8
"""Bits of the lower digit of the second operand, where sums need two."""


def wide_contract(kind: str, a: Array, b: Array, *, bits_a: int, bits_b: int, scale_a: Array, scale_b: Array,
                  stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1), groups: int = 1,
                  size: Pair | None = None) -> Array:
    """Contract two arrays of signed integers exactly and round once.

    float64 holds every sum below 2^53. Where sums could be longer, the second operand is cut into two digits and the
    two sums are put together in int64.

    Parameters
    ----------
    kind : str
        As for :func:`minilp.kernels.table.contract`, which has the shapes of the operands too.
    a, b : np.ndarray
        int8 or int16, magnitudes at most ``2^(bits - 1) - 1``.
    bits_a, bits_b : int
        2 to 16.
    scale_a, scale_b : np.ndarray
        float32 powers of two, one-dimensional: one for the tensor, or one for each slice along the axis that the
        contraction keeps (``Spec.kept``).
    stride, padding, dilation : (int, int)
    groups : int
    size : (int, int), optional

    Returns
    -------
    np.ndarray
        float32, laid out as by :func:`minilp.kernels.table.contract`.

    Raises
    ------
    OverflowError
        If a result is beyond the largest float32, or a sum beyond int64.
    """
    linear = kind.startswith("linear")
    if linear:
        a, b, size = a[:, :, None, None], b[:, :, None, None], None if kind == "linear" else (1, 1)
    g = geometry(kind.replace("linear", "conv2d"), a, b, stride, padding, dilation, groups, size)
    scales = table.on_result(scale_a, scale_b, g)
    count(f"wide_{g.kind}[numpy]")
    longest = g.depth * (2 ** (bits_a - 1) - 1) * (2 ** (bits_b - 1) - 1)
    if longest >= 2**62 or g.depth << (bits_a - 1 + DIGIT) >= 2**53:
        raise OverflowError(f"{kind}: sums of {g.depth} products of {bits_a} and {bits_b} bits may not fit")
    if longest < 2**53:
        result = scaled(_sums(a, b, g), table.product(scales, g))
        if not np.isfinite(result).all():
            raise OverflowError(f"{kind}: a result is beyond the largest float32")
    else:
        wide = b.astype(np.int32)
        high, low = wide >> DIGIT, wide & (2**DIGIT - 1)
        total = (_sums(a, high, g).astype(np.int64) << DIGIT) + _sums(a, low, g).astype(np.int64)
        top = [scale.max() for scale in scales]
        result = to_float32(total, sum(int(np.frexp(scale)[1]) - 1 for scale in top))
        result *= table.product((scales[0] / top[0], scales[1] / top[1]), g).astype(np.float32)
    return result[:, :, 0, 0] if linear else result


def _sums(a: Array, b: Array, g: Geometry) -> Array:
    """Exact sums as float64."""
    parts = [reference_pot.contract_with(np.matmul, x.astype(np.float64), y.astype(np.float64), g.group())
             for x, y in reference_pot.group_operands(a, b, g)]
    return reference_pot.join_groups(parts, g)
