"""Where a token stands in its sentence, as a vector that is added to its embedding."""
from __future__ import annotations

import numpy as np

from minilp import random
from minilp.autograd import Tensor
from minilp.autograd.parameter import Parameter
from minilp.nn import functional, init
from minilp.nn.module import Module


def sinusoids(max_len: int, d_model: int) -> np.ndarray:
    """Sines and cosines of wavelengths from 2 pi to 10000 * 2 pi (Vaswani et al. 2017, section 3.5).

    Parameters
    ----------
    max_len, d_model : int
        Positions, and features, of which even ones hold sines and odd ones cosines.

    Returns
    -------
    ndarray
        float32 (max_len, d_model).
    """
    rates = 10000.0 ** -(np.arange(0, d_model, 2) / d_model)
    angles = np.arange(max_len)[:, None] * rates
    table = np.empty((max_len, d_model), np.float32)
    table[:, 0::2] = np.sin(angles)
    table[:, 1::2] = np.cos(angles)[:, : d_model // 2]
    return table


class Positions(Module):
    """One vector for each position, fixed or learned.

    Parameters
    ----------
    kind : {"sinusoidal", "learned"}
        See :func:`sinusoids`; or a table of parameters, from N(0, 0.02^2) as in BERT.
    max_len : int
        Positions that there are.
    d_model : int
        Features.

    Attributes
    ----------
    weight : Parameter or ndarray
        float32 (max_len, d_model); a buffer that is not saved where it is fixed.

    Raises
    ------
    ValueError
        If ``kind`` is neither.
    """

    def __init__(self, kind: str, max_len: int, d_model: int) -> None:
        super().__init__()
        if kind not in ("sinusoidal", "learned"):
            raise ValueError(f"positions: expected 'sinusoidal' or 'learned', got {kind!r}")
        self.kind, self.max_len = kind, max_len
        if kind == "learned":
            self.weight = Parameter(np.empty((max_len, d_model), np.float32))
            init.normal_(self.weight, std=0.02, generator=random.spawn())
        else:
            self.register_buffer("weight", sinusoids(max_len, d_model), persistent=False)

    def forward(self, index: np.ndarray) -> Tensor:
        """Positions (T,) to vectors (T, d_model); ValueError for one beyond ``max_len``."""
        if index.size and index.max() >= self.max_len:
            raise ValueError(f"max_len: the model has {self.max_len} positions, got a sentence of {index.max() + 1} "
                             f"tokens")
        if self.kind == "learned":
            return functional.embedding(index, self.weight)
        return Tensor(self.weight[index])

    def extra_repr(self) -> str:
        """See :meth:`Module.extra_repr`."""
        return f"{self.kind}, max_len={self.max_len}"
