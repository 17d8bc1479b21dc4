"""Lookup table of vectors."""
from __future__ import annotations

from typing import Any

import numpy as np

from minilp import random
from minilp.autograd import Tensor
from minilp.autograd.parameter import Parameter
from minilp.nn import functional, init
from minilp.nn.module import Module


class Embedding(Module):
    """One learned vector per integer.

    Parameters
    ----------
    num_embeddings : int
        Integers 0 ... num_embeddings - 1.
    embedding_dim : int
        Length of a vector.
    padding_idx : int or None
        This row starts as zeros and gets no gradient.

    Attributes
    ----------
    weight : Parameter
        float32 (num_embeddings, embedding_dim), from N(0, 1).
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None) -> None:
        super().__init__()
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(f"padding_idx: expected a row of {num_embeddings}, got {padding_idx}")
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.weight = Parameter(np.empty((num_embeddings, embedding_dim), np.float32))
        init.normal_(self.weight, generator=random.spawn())
        if self.padding_idx is not None:
            self.weight.data[self.padding_idx] = 0

    def forward(self, index: Any) -> Tensor:
        """Integers of any shape (...) to (..., embedding_dim)."""
        return functional.embedding(index, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        """See :meth:`Module.extra_repr`."""
        pad = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{pad}"
