"""The fully connected layer, and the one that does nothing."""
from __future__ import annotations

import math

import numpy as np

from minilp import random
from minilp.autograd import Tensor
from minilp.autograd.parameter import Parameter
from minilp.nn import functional, init
from minilp.nn.contraction import Contraction
from minilp.nn.module import Module
from minilp.recipe import Recipe
from minilp.roles import LayerRecipe


class Linear(Contraction):
    """y = x W^T + b.

    Parameters
    ----------
    in_features, out_features : int
        Length of the last axis of input and output.
    bias : bool
        Add b.
    q : LayerRecipe, Recipe or None
        Numbers of the contractions; None is plain float32.

    Attributes
    ----------
    weight : Parameter
        float32 (out_features, in_features), from U(-b, b) with b = 1 / sqrt(in_features), as PyTorch.
    bias : Parameter or None
        float32 (out_features,), from the same distribution.
    """

    bias: Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *,
                 q: LayerRecipe | Recipe | None = None) -> None:
        super().__init__()
        if in_features < 1 or out_features < 0:
            raise ValueError(f"Linear: in_features must be >= 1 and out_features >= 0, "
                             f"got {in_features} and {out_features}")
        self.in_features, self.out_features = in_features, out_features
        stream = random.spawn()
        self.weight = Parameter(np.empty((out_features, in_features), np.float32))
        init.kaiming_uniform_(self.weight, math.sqrt(5), generator=stream)
        if bias:
            bound = 1 / math.sqrt(in_features)
            self.bias = Parameter(np.empty(out_features, np.float32))
            init.uniform_(self.bias, -bound, bound, stream)
        else:
            self.register_parameter("bias", None)
        self.set_recipe(q)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        return functional.linear(x, self.weight, self.bias, self.q)

    def extra_repr(self) -> str:
        """See :meth:`Module.extra_repr`."""
        return (f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
                + self._q_repr())


class Identity(Module):
    """Returns its input."""

    def forward(self, x: Tensor) -> Tensor:
        """The same tensor."""
        return x
