"""Losses as functions; ``minilp.nn.functional`` shows them under PyTorch's names."""
from __future__ import annotations

from typing import Any

import numpy as np

from minilp.autograd import Tensor, ops


def one_hot(index: Any, num_classes: int = -1) -> Tensor:
    """Indicator vectors.

    Parameters
    ----------
    index : ndarray or Tensor of integers
        Any shape (...), values in [0, num_classes).
    num_classes : int
        Length of a vector; -1 is the largest index plus 1.

    Returns
    -------
    Tensor
        int64 (..., num_classes).

    Raises
    ------
    TypeError
        If the indices are no integers.
    ValueError
        If one is negative or too large.
    """
    labels = _labels("one_hot", index)
    classes = int(labels.max(initial=-1)) + 1 if num_classes == -1 else num_classes
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"index: expected integers in [0, {classes}), got {labels.min()} to {labels.max()}")
    return Tensor((labels[..., None] == np.arange(classes)).astype(np.int64))


def nll_loss(log_probs: Tensor, target: Any, ignore_index: int = -100, reduction: str = "mean") -> Tensor:
    """Negative log-likelihood of the target classes.

    Parameters
    ----------
    log_probs : Tensor
        (N, C) or (N, C, ...), e.g. from :func:`log_softmax`.
    target : ndarray or Tensor of integers
        (N) or (N, ...), classes in [0, C) or ``ignore_index``.
    ignore_index : int
        Label that does not count.
    reduction : {"mean", "sum", "none"}
        The mean is over the labels that count.

    Returns
    -------
    Tensor
        Scalar, or the shape of ``target``.

    Raises
    ------
    TypeError, ValueError
        If shapes, labels or ``reduction`` are not as above.
    """
    labels = _labels("nll_loss", target)
    shape, classes = log_probs.shape, log_probs.shape[1] if log_probs.ndim > 1 else 0
    if log_probs.ndim < 2 or labels.shape != (shape[0], *shape[2:]):
        raise ValueError(f"target: expected shape (N, ...) for log_probs (N, C, ...), got {labels.shape} and {shape}")
    counts = labels != ignore_index
    wrong = labels[counts & ((labels < 0) | (labels >= classes))]
    if wrong.size:
        raise ValueError(f"target: expected classes in [0, {classes}), got {wrong[0]}")
    place: list[np.ndarray] = list(np.indices(labels.shape, sparse=True))
    picked = -log_probs[(place[0], np.where(counts, labels, 0), *place[1:])]
    losses = ops.where(counts, picked, 0.0)
    return _reduced(losses, reduction, int(counts.sum()))


def mse_loss(x: Tensor, target: Any, reduction: str = "mean") -> Tensor:
    """Squared error.

    Parameters
    ----------
    x : Tensor
        Any shape.
    target : Tensor or ndarray
        Same shape; nothing is broadcast.
    reduction : {"mean", "sum", "none"}
        How to join the elements.

    Returns
    -------
    Tensor
        Scalar, or the shape of ``x``.

    Raises
    ------
    ValueError
        If the shapes differ or ``reduction`` is unknown.
    """
    if np.shape(target) != x.shape:
        raise ValueError(f"target: expected the shape {x.shape} of x, got {np.shape(target)}")
    difference = x - target
    return _reduced(difference * difference, reduction, x.size)


def _labels(name: str, labels: Any) -> np.ndarray:
    array = np.asarray(labels.data if isinstance(labels, Tensor) else labels)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: labels must be integers, got {array.dtype}")
    return array


def _reduced(losses: Tensor, reduction: str, count: int) -> Tensor:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction: expected 'mean', 'sum' or 'none', got {reduction!r}")
    if reduction == "none":
        return losses
    total = losses.sum()
    return total / count if reduction == "mean" else total
