"""Stochastic gradient descent with momentum."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from minilp.autograd import Tensor
from minilp.kernels import elementwise
from minilp.optim.job import Job
from minilp.optim.optimizer import Optimizer


class SGD(Optimizer):
    """Gradient descent with momentum, PyTorch's arithmetic.

    With g the gradient plus ``weight_decay`` times the parameter::

        buffer = momentum * buffer + (1 - dampening) * g        (the first time: buffer = g)
        p     -= lr * (g + momentum * buffer if nesterov else buffer)

    The learning rate stands outside the buffer, so that a schedule does not rescale past gradients (Sutskever et al.
    2013 put it inside).

    Parameters
    ----------
    params : iterable of Tensor, or iterable of dict
        What to optimize, see :class:`~minilp.optim.Optimizer`.
    lr : float
        Step size.
    momentum : float
        Decay of the buffer; 0 keeps no buffer.
    dampening : float
        Share of the new gradient that is left out of the buffer.
    weight_decay : float
        L2 penalty.
    nesterov : bool
        Look-ahead momentum; needs ``momentum > 0`` and ``dampening == 0``.

    Raises
    ------
    ValueError
        If an option is out of range.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict[str, Any]], lr: float = 1e-3, momentum: float = 0.0,
                 dampening: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "dampening": dampening,
                                  "weight_decay": weight_decay, "nesterov": nesterov})

    def check_options(self, group: dict[str, Any]) -> None:
        """Refuse impossible options, see :meth:`Optimizer.check_options`."""
        super().check_options(group)
        if not group["momentum"] >= 0:
            raise ValueError(f"momentum: expected a number >= 0, got {group['momentum']!r}")
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError(f"nesterov: needs momentum > 0 and dampening == 0, got momentum={group['momentum']!r}, "
                             f"dampening={group['dampening']!r}")

    def update(self, p: np.ndarray, grad: np.ndarray, state: dict[str, Any], group: dict[str, Any],
               weight_decay: float) -> None:
        """One step of one parameter, see :meth:`Optimizer.update`. State: ``momentum_buffer``."""
        _step([_part(p, grad, state, group, weight_decay)], group)

    def update_floats(self, jobs: list[Job], group: dict[str, Any]) -> None:
        """All in one call of the kernel, see :meth:`Optimizer.update_floats`."""
        _step([_part(job.param.data, job.grad, job.state, group, job.weight_decay) for job in jobs], group)

    def cost(self, param: Any, group: dict[str, Any], weight_decay: float) -> dict[str, int]:
        """A multiplication and an addition each for the step, weight decay, momentum and Nesterov's look ahead."""
        pairs = 1 + bool(weight_decay) + bool(group["momentum"]) * (1 + bool(group["nesterov"]))
        extra = bool(group["momentum"] and group["dampening"])
        return {"fp32_mul": pairs + extra, "fp32_add": pairs}


def _part(p: np.ndarray, grad: np.ndarray, state: dict[str, Any], group: dict[str, Any], weight_decay: float
          ) -> elementwise.SGDPart:
    """One parameter as the kernel takes it, with a new buffer where it needs its first one."""
    if not group["momentum"]:
        return elementwise.SGDPart(p, grad, None, weight_decay)
    first = "momentum_buffer" not in state
    if first:
        state["momentum_buffer"] = np.empty_like(p)
    return elementwise.SGDPart(p, grad, state["momentum_buffer"], weight_decay, first)


def _step(parts: list[elementwise.SGDPart], group: dict[str, Any]) -> None:
    elementwise.sgd(parts, **{name: group[name] for name in ("lr", "momentum", "dampening", "nesterov")})
