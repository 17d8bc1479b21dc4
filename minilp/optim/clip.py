"""Gradient clipping, in place."""
from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from minilp.autograd import Tensor


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[np.ndarray]:
    tensors = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [p.grad for p in tensors if p.grad is not None]


def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0,
                    error_if_nonfinite: bool = False) -> float:
    """Scale all gradients by one factor so that their joint norm is at most ``max_norm``.

    Norms are summed in float64 in a fixed order (no threaded dot product), so that the result does not depend on the
    number of threads.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without a gradient are left out.
    max_norm : float
        Largest norm allowed.
    norm_type : float
        p of the p-norm; ``math.inf`` takes the largest absolute value.
    error_if_nonfinite : bool
        Raise instead of spreading a NaN or Inf.

    Returns
    -------
    float
        The norm before clipping; 0.0 without gradients.

    Raises
    ------
    ValueError
        If ``max_norm`` is negative or ``norm_type`` is not positive.
    FloatingPointError
        If the norm is not finite and ``error_if_nonfinite`` is set.
    """
    if not max_norm >= 0:
        raise ValueError(f"max_norm: expected a number >= 0, got {max_norm!r}")
    if not norm_type > 0:
        raise ValueError(f"norm_type: expected a number > 0, got {norm_type!r}")
    grads = _gradients(parameters)
    if norm_type == math.inf:
        total = float(np.max([np.abs(g).max(initial=0.0) for g in grads], initial=0.0))
    elif norm_type == 2:
        total = math.sqrt(sum(float(np.square(g, dtype=np.float64).sum()) for g in grads))
    else:
        total = sum(float((np.abs(g, dtype=np.float64) ** norm_type).sum()) for g in grads) ** (1 / norm_type)
    if error_if_nonfinite and not math.isfinite(total):
        raise FloatingPointError(f"clip_grad_norm_: the norm of the gradients is {total}")
    factor = max_norm / (total + 1e-6)  # PyTorch's guard against a division by zero
    if not factor >= 1:                 # a NaN norm goes on to the gradients, as in PyTorch
        for g in grads:
            g *= factor
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Clamp every gradient element to [-clip_value, clip_value].

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without a gradient are left out.
    clip_value : float
        Largest absolute value allowed.

    Raises
    ------
    ValueError
        If ``clip_value`` is negative.
    """
    if not clip_value >= 0:
        raise ValueError(f"clip_value: expected a number >= 0, got {clip_value!r}")
    for g in _gradients(parameters):
        np.clip(g, -clip_value, clip_value, out=g)
