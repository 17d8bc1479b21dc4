"""Activation functions as layers."""
from __future__ import annotations

from minilp.autograd import Tensor
from minilp.nn import functional
from minilp.nn.module import Module


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return functional.relu(x)


class GELU(Module):
    """x * Phi(x), Phi the normal distribution function (Hendrycks & Gimpel 2016).

    Parameters
    ----------
    approximate : {"none", "tanh"}
        The exact function, or the tanh formula.
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return functional.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        """See :meth:`Module.extra_repr`."""
        return f"approximate={self.approximate!r}"


class Tanh(Module):
    """Hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return functional.tanh(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return functional.sigmoid(x)


class Softmax(Module):
    """exp(x) / sum exp(x) along one axis.

    Parameters
    ----------
    dim : int
        The axis.
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return functional.softmax(x, self.dim)

    def extra_repr(self) -> str:
        """See :meth:`Module.extra_repr`."""
        return f"dim={self.dim}"
