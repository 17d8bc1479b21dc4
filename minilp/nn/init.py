"""Initialisations, in place, under torch.nn.init's names and with its distributions.

Each takes a ``generator``; without one it draws from a fresh stream of ``minilp.manual_seed``'s seed.
"""
from __future__ import annotations

import math

import numpy as np

from minilp import random
from minilp.autograd import Tensor

_GAINS = {"linear": 1.0, "conv2d": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2.0)}


def calculate_gain(nonlinearity: str, param: float = 0.01) -> float:
    """The factor by which weights must grow so that a nonlinearity keeps the variance.

    Parameters
    ----------
    nonlinearity : str
        ``"linear"``, ``"conv2d"``, ``"sigmoid"``, ``"tanh"``, ``"relu"`` or ``"leaky_relu"``.
    param : float
        Negative slope of leaky_relu.

    Returns
    -------
    float
        The gain.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2.0 / (1 + param ** 2))
    if nonlinearity not in _GAINS:
        raise ValueError(f"nonlinearity: expected leaky_relu or one of {', '.join(_GAINS)}, got {nonlinearity!r}")
    return _GAINS[nonlinearity]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """How many inputs reach one output of a weight, and how many outputs one input reaches.

    Parameters
    ----------
    shape : tuple of int
        (out, in) or (out, in / groups, kernel height, kernel width).

    Returns
    -------
    (int, int)
        fan_in, fan_out.

    Raises
    ------
    ValueError
        If the shape has fewer than two axes.
    """
    if len(shape) < 2:
        raise ValueError(f"fan-in and fan-out need a weight of at least 2 axes, got shape {shape}")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def _fan(tensor: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode: expected 'fan_in' or 'fan_out', got {mode!r}")
    return fans(tensor.shape)[mode == "fan_out"]


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: np.random.Generator | None = None) -> Tensor:
    """Fill with draws from U(a, b); returns the tensor."""
    tensor.data[...] = (generator or random.spawn()).uniform(a, b, tensor.shape)
    return tensor


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0,
            generator: np.random.Generator | None = None) -> Tensor:
    """Fill with draws from N(mean, std^2); returns the tensor."""
    tensor.data[...] = (generator or random.spawn()).normal(mean, std, tensor.shape)
    return tensor


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with one value; returns the tensor."""
    tensor.data[...] = val
    return tensor


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with zeros; returns the tensor."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with ones; returns the tensor."""
    return constant_(tensor, 1.0)


def kaiming_uniform_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
                     generator: np.random.Generator | None = None) -> Tensor:
    """Fill with U(-b, b), b = gain * sqrt(3 / fan) (He et al. 2015).

    Parameters
    ----------
    tensor : Tensor
        A weight of at least two axes.
    a : float
        Negative slope of leaky_relu; sqrt(5) gives PyTorch's layer default b = 1 / sqrt(fan_in).
    mode : {"fan_in", "fan_out"}
        Keep the variance of the forward or of the backward pass.
    nonlinearity : str
        See :func:`calculate_gain`.
    generator : numpy.random.Generator or None
        Where to draw from.

    Returns
    -------
    Tensor
        The same tensor.

    Raises
    ------
    ValueError
        If the tensor has fewer than two axes, or a name is unknown.
    """
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3.0 / _fan(tensor, mode))
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
                    generator: np.random.Generator | None = None) -> Tensor:
    """Fill with N(0, gain^2 / fan) (He et al. 2015); arguments as :func:`kaiming_uniform_`."""
    std = calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode))
    return normal_(tensor, 0.0, std, generator)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: np.random.Generator | None = None) -> Tensor:
    """Fill with U(-b, b), b = gain * sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010); returns the tensor."""
    bound = gain * math.sqrt(6.0 / sum(fans(tensor.shape)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: np.random.Generator | None = None) -> Tensor:
    """Fill with N(0, gain^2 * 2 / (fan_in + fan_out)) (Glorot & Bengio 2010); returns the tensor."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(fans(tensor.shape))), generator)
