"""Transforms in front of a role: small named steps that a tensor takes before it is encoded.

A format is a value and learns nothing. What a paper adds around its format - a bias removed from the weights, a learned
clipping threshold - stands here, one frozen class each, listed in a role's ``before``. What a transform learns belongs
to the layer: :meth:`Transform.parameters` names it, the layer registers it, and it shows up in ``parameters()``.
"""
from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minilp.kernels import quantise
from minilp.kernels.storage import storage_order

_registry: dict[str, type[Transform]] = {}


@dataclass(frozen=True)
class Learned:
    """What a transform wants learned: its start and the optimizer's rules for it.

    Attributes
    ----------
    value : float
        Initial value of a scalar parameter.
    bounds : tuple of float
        The optimizer clamps the parameter to this closed interval after every step.
    weight_decay : float
        Replaces the optimizer's weight decay for this parameter.
    """

    value: float
    bounds: tuple[float, float]
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Outside:
    """The elements of a tensor that a threshold clipped.

    Attributes
    ----------
    positions : numpy.ndarray
        int64, ascending: places in the tensor turned by ``order`` and laid out flat.
    signs : numpy.ndarray
        Their signs, float32.
    order : tuple of int
        The axes in the order of its memory, outermost first.
    """

    positions: np.ndarray
    signs: np.ndarray
    order: tuple[int, ...]

    @staticmethod
    def of(x: np.ndarray, positions: np.ndarray) -> Outside:
        """Of a tensor and what :func:`minilp.kernels.quantise.outside` found in it."""
        order = storage_order(x)
        return Outside(positions, np.sign(x.transpose(order).reshape(-1)[positions]), order)


@dataclass(frozen=True)
class Transform:
    """A named step in front of a role; subclass it and it registers under its lower-case class name.

    A subclass writes :meth:`forward` and, if the step is not the identity for gradients, :meth:`backward`.
    """

    name: ClassVar[str] = "transform"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = cls.__name__.lower()
        _registry[cls.name] = cls

    def parameters(self) -> dict[str, Learned]:
        """What this transform learns, by name; empty by default."""
        return {}

    def forward(self, x: np.ndarray, values: dict[str, float]) -> tuple[np.ndarray, float | None, Any]:
        """Apply the transform.

        Parameters
        ----------
        x : numpy.ndarray
            float32 tensor about to be encoded; never written to.
        values : dict
            Current values of what :meth:`parameters` named.

        Returns
        -------
        tuple
            The transformed tensor; a clipping threshold that the encoder must saturate at, or None; and whatever
            :meth:`backward` needs.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method forward(x, values)")

    def backward(self, grad: np.ndarray, saved: Any, outside: Outside | None) -> tuple[np.ndarray, dict[str, float]]:
        """Turn the gradient of the encoded tensor into that of ``x`` and of the learned values.

        Parameters
        ----------
        grad : numpy.ndarray
            Gradient of the encoded tensor; may be written to and returned.
        saved : object
            What :meth:`forward` returned last.
        outside : Outside or None
            Which elements the threshold clipped; None where :meth:`forward` returned no threshold.

        Returns
        -------
        tuple
            Gradient of ``x``, and a dict of gradients of the learned values. The default is the identity.
        """
        return grad, {}

    def cost(self) -> dict[str, int]:
        """Operations an element, for :mod:`minilp.energy`. Raises NotImplementedError by default: never free."""
        raise NotImplementedError(f"transform {self.name} does not say which operations an element takes: define "
                                  f"{type(self).__name__}.cost")

    def to_config(self) -> dict[str, Any]:
        """Name and fields as plain JSON."""
        return {"name": self.name, **dataclasses.asdict(self)}


def from_config(config: str | dict[str, Any]) -> Transform:
    """Build a transform from its name, or from what :meth:`Transform.to_config` returned.

    Raises
    ------
    ValueError
        If the name is unknown; the message lists the known ones.
    """
    fields = {"name": config} if isinstance(config, str) else dict(config)
    name = str(fields.pop("name")).lower()
    if name not in _registry:
        raise ValueError(f"unknown transform {name!r}; known: {', '.join(sorted(_registry))}")
    return _registry[name](**fields)


@dataclass(frozen=True)
class WBC(Transform):
    """Weight bias correction: subtract the weights' mean before encoding, and never add it back.

    Liu et al. 2023 name the step; that it is the mean over the whole layer, detached in backward, is our reading
    (assumption: the paper's equation was not at hand).

    Parameters
    ----------
    axis : {"layer", "out_channel"}
        One mean for the whole tensor, or one per output channel (axis 0).
    """

    axis: str = "layer"

    def __post_init__(self) -> None:
        if self.axis not in ("layer", "out_channel"):
            raise ValueError(f"WBC: axis must be 'layer' or 'out_channel', got {self.axis!r}")

    def forward(self, x: np.ndarray, values: dict[str, float]) -> tuple[np.ndarray, float | None, Any]:
        """Subtract the mean (accumulated in float64, rounded once to ``x.dtype``)."""
        axes = None if self.axis == "layer" else tuple(range(1, x.ndim))
        count = x.size if axes is None else math.prod(x.shape[1:])
        mean = np.add.reduce(x, axis=axes, dtype=np.float64, keepdims=True) / count  # as x.mean, with less around it
        return x - mean.astype(x.dtype), None, None

    def cost(self) -> dict[str, int]:
        """One float32 add (the subtraction; the mean itself is not counted): our assumption."""
        return {"fp32_add": 1}


@dataclass(frozen=True)
class PRC(Transform):
    """Parameterized ratio clipping: clip at gamma * max|x|, with gamma learned per layer.

    Liu et al. 2023 name the step; the form here is PACT-like and our assumption: t = gamma max|x| with the maximum
    detached, dL/dx = g where |x| <= t and 0 elsewhere, dL/dgamma = max|x| * sum(g sign(x)) over |x| > t. A gamma of
    exactly 1 would have no gradient and never move, so it starts below. Where x needs no gradient (the images in front
    of the first layer) the contraction that g comes from is skipped, and that layer's gamma keeps its start.

    Parameters
    ----------
    init : float
        Initial gamma, inside ``[low, high]``.
    low, high : float
        The interval that gamma is clamped to after every optimizer step.
    """

    init: float = 0.9
    low: float = 0.125
    high: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.init <= self.high <= 1:
            raise ValueError(f"PRC: need 0 < low <= init <= high <= 1, got low={self.low}, init={self.init}, "
                             f"high={self.high}")

    def parameters(self) -> dict[str, Learned]:
        """One scalar: ``gamma``, without weight decay (it would pull the threshold to zero)."""
        return {"gamma": Learned(self.init, (self.low, self.high), weight_decay=0.0)}

    def forward(self, x: np.ndarray, values: dict[str, float]) -> tuple[np.ndarray, float | None, Any]:
        """Leave ``x`` as it is and return the threshold: the encoder saturates there, which clips for free."""
        largest = quantise.absmax(x).item() if x.size else 0.0
        return x, float(np.float32(values["gamma"]) * np.float32(largest)), largest

    def backward(self, grad: np.ndarray, saved: Any, outside: Outside | None) -> tuple[np.ndarray, dict[str, float]]:
        """Zero the gradient outside the threshold; what was there is gamma's gradient."""
        assert outside is not None
        turned = grad.transpose(outside.order)
        where: Any = outside.positions
        if turned.flags.c_contiguous:  # stored as x was: the positions are those in its memory
            turned = turned.reshape(-1)
        else:
            where = np.unravel_index(where, turned.shape)
        total = float(np.sum(turned[where].astype(np.float64) * outside.signs))
        turned[where] = 0
        return grad, {"gamma": saved * total}

    def cost(self) -> dict[str, int]:
        """One float32 comparison: our assumption."""
        return {"fp32_add": 1}
