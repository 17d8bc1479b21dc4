"""What an optimizer has to do in one step: a parameter with a gradient, and what belongs to it."""
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minilp.autograd import Tensor


class Job(NamedTuple):
    """One parameter's update.

    Attributes
    ----------
    param : Tensor
        Has a gradient.
    number : int
        Its place among all parameters of the optimizer.
    state : dict
        What the optimizer remembers of it.
    weight_decay : float
        Its own, or its group's.
    """

    param: Tensor
    number: int
    state: dict[str, Any]
    weight_decay: float

    @property
    def grad(self) -> np.ndarray:
        """ndarray: the parameter's gradient."""
        grad = self.param.grad
        assert grad is not None
        return grad

    def named(self, error: ValueError) -> ValueError:
        """The error, saying which parameter it is about."""
        name = getattr(self.param, "name", None) or f"number {self.number}"
        return ValueError(f"update of parameter {name}: {error}")
