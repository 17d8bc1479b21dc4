"""What formats share that multiply batches of matrices: scales in their places, and the way to the kernels."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minilp.formats.qtensor import QTensor
from minilp.formats.spec import Spec
from minilp.kernels.batched import exact, powers, runs

__all__ = ["exact", "factors", "on_result", "powers", "runs"]


def on_result(spec: Spec, scales: Sequence[np.ndarray], operands: Sequence[QTensor]) -> tuple[np.ndarray, np.ndarray]:
    """Both operands' scales as they broadcast against the result (B, M, N).

    Parameters
    ----------
    spec : Spec
        A batch of matrix products.
    scales : sequence of ndarray
        Of the first and of the second operand, with their three axes; 1 along what is summed.
    operands : sequence of QTensor
        For the message.

    Raises
    ------
    ValueError
        If a scale varies along an axis that is summed.
    """
    placed = []
    for position, (scale, q, axes) in enumerate(zip(scales, operands, spec.axes, strict=True)):
        if any(scale.shape[axis] > 1 for axis in axes):
            raise ValueError(f"{spec.kind}: {q.format} keeps its own scale along axis {axes[0]} of the "
                             f"{('first', 'second')[position]} operand, which this contraction sums over")
        placed.append(spec.on_result(scale, position, ()))
    return placed[0], placed[1]


def factors(mantissa: np.ndarray, exponent: np.ndarray) -> np.ndarray | None:
    """``mantissa * 2^exponent`` as float32 factors of a kernel; None where some could leave the normal numbers."""
    if exponent.size and (exponent.min() < -60 or exponent.max() > 60):
        return None
    return np.ldexp(mantissa.astype(np.float32), exponent.astype(np.int32))
