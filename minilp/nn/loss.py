"""Losses as layers."""
from __future__ import annotations

from typing import Any

from minilp.autograd import Tensor
from minilp.nn import functional
from minilp.nn.module import Module


class CrossEntropyLoss(Module):
    """Cross-entropy of logits; see :func:`minilp.nn.functional.cross_entropy`.

    Parameters
    ----------
    ignore_index : int
        Label that does not count.
    reduction : {"mean", "sum", "none"}
        How to join the examples.
    label_smoothing : float
        Share of the target spread over all classes.
    """

    def __init__(self, *, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.ignore_index, self.reduction, self.label_smoothing = ignore_index, reduction, label_smoothing

    def forward(self, logits: Tensor, target: Any) -> Tensor:
        """Logits (N, C, ...) and labels (N, ...) to the loss."""
        return functional.cross_entropy(logits, target, self.ignore_index, self.reduction, self.label_smoothing)


class MSELoss(Module):
    """Mean squared error.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        How to join the elements.
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, x: Tensor, target: Any) -> Tensor:
        """Two tensors of one shape to the loss."""
        return functional.mse_loss(x, target, self.reduction)
