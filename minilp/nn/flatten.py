"""Flatten."""
from __future__ import annotations

from minilp.autograd import Tensor
from minilp.nn import functional
from minilp.nn.module import Module


class Flatten(Module):
    """Merge a run of axes into one.

    Parameters
    ----------
    start_dim, end_dim : int
        First and last axis of the run.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C * H * W) by default."""
        return functional.flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """See :meth:`Module.extra_repr`."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
