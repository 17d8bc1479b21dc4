"""Dropout."""
from __future__ import annotations

from minilp import random
from minilp.autograd import Tensor
from minilp.nn import functional
from minilp.nn.module import Module


class Dropout(Module):
    """In training, zero each element with probability ``p`` and scale the others by 1 / (1 - p).

    Parameters
    ----------
    p : float
        Probability in [0, 1].

    Attributes
    ----------
    generator : numpy.random.Generator
        The layer's own stream. ``Module.generator_states`` and ``load_generator_states`` save and restore it.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p: expected a probability in [0, 1], got {p!r}")
        self.p = p
        self.generator = random.spawn()

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return functional.dropout(x, self.p, self.training, self.generator)

    def extra_repr(self) -> str:
        """See :meth:`Module.extra_repr`."""
        return f"p={self.p}"
