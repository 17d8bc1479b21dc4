"""Parameter: a tensor that a module owns and an optimizer steps."""
from __future__ import annotations

from typing import Any

from minilp.autograd.tensor import Tensor


class Parameter(Tensor):
    """A tensor that requires a gradient and shows up in ``Module.parameters()``.

    Parameters
    ----------
    data : array_like
        Initial value; lists and integers become float32.
    requires_grad : bool
        Whether the optimizer may move it.
    weight_decay : float, optional
        Replaces the optimizer's weight decay for this parameter; None leaves the group's.
    bounds : tuple of float, optional
        Closed interval that the optimizer clamps it to after every step.

    Attributes
    ----------
    name : str or None
        Dotted name inside its module tree, set when the module is walked.
    """

    name: str | None
    weight_decay: float | None
    bounds: tuple[float, float] | None

    def __init__(self, data: Any, requires_grad: bool = True, *, weight_decay: float | None = None,
                 bounds: tuple[float, float] | None = None) -> None:
        super().__init__(data, requires_grad=requires_grad)
        self.name = None
        self.weight_decay = weight_decay
        self.bounds = bounds
