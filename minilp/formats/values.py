"""Contractions on floats, for operands that are not coded or that are decoded first."""
from __future__ import annotations

import numpy as np

from minilp.formats.spec import Spec
from minilp.kernels import float32


def float_contraction(a: np.ndarray, b: np.ndarray, spec: Spec) -> np.ndarray:
    """The same contraction on float arrays (float32 by the float kernels, float64 by NumPy).

    Parameters
    ----------
    a, b : numpy.ndarray
        Operands of one dtype, in the order that :class:`Spec` gives.
    spec : Spec
        Kind and geometry.

    Returns
    -------
    numpy.ndarray
        Result in the operands' dtype.
    """
    if spec.layout is not None:
        return np.matmul(a.swapaxes(1, 2) if spec.layout == "tn" else a, b.swapaxes(1, 2) if spec.layout == "nt" else b)
    if spec.kind == "linear":
        return a @ b.T
    if spec.kind == "linear_input_grad":
        return a @ b
    if spec.kind == "linear_weight_grad":
        return a.T @ b
    geometry = (spec.stride, spec.padding, spec.dilation, spec.groups)
    if spec.kind == "conv2d":
        return float32.conv2d(a, b, *geometry)
    assert spec.size is not None
    if spec.kind == "conv2d_input_grad":
        return float32.conv2d_input_grad(a, b, spec.size, *geometry)
    return float32.conv2d_weight_grad(a, b, spec.size, *geometry)
