"""Adam, and Adam with decoupled weight decay."""
from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from minilp.autograd import Tensor
from minilp.optim.optimizer import Optimizer


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015), PyTorch's arithmetic.

    With g the gradient plus ``weight_decay`` times the parameter, and t counted from 1::

        m  = beta1 * m + (1 - beta1) * g
        v  = beta2 * v + (1 - beta2) * g * g
        p -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)

    Parameters
    ----------
    params : iterable of Tensor, or iterable of dict
        What to optimize, see :class:`~minilp.optim.Optimizer`.
    lr : float
        Step size.
    betas : (float, float)
        Decay of the running mean of the gradient and of its square.
    eps : float
        Added to the denominator.
    weight_decay : float
        L2 penalty, part of the gradient.

    Raises
    ------
    ValueError
        If an option is out of range.
    """

    #: AdamW shrinks the parameter itself; Adam adds the decay to the gradient.
    decoupled = False

    def __init__(self, params: Iterable[Tensor] | Iterable[dict[str, Any]], lr: float = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})

    def check_options(self, group: dict[str, Any]) -> None:
        """Refuse impossible options, see :meth:`Optimizer.check_options`."""
        super().check_options(group)
        if len(group["betas"]) != 2 or not all(0 <= beta < 1 for beta in group["betas"]):
            raise ValueError(f"betas: expected two numbers in [0, 1), got {group['betas']!r}")

    def update(self, p: np.ndarray, grad: np.ndarray, state: dict[str, Any], group: dict[str, Any],
               weight_decay: float) -> None:
        """One step of one parameter, see :meth:`Optimizer.update`. State: ``step``, ``exp_avg``, ``exp_avg_sq``."""
        beta1, beta2 = group["betas"]
        lr = group["lr"]
        if not state:
            state.update(step=0, exp_avg=np.zeros_like(p), exp_avg_sq=np.zeros_like(p))
        state["step"] += 1
        mean, square, work = state["exp_avg"], state["exp_avg_sq"], self.scratch(p)

        if weight_decay and self.decoupled:
            p *= 1 - lr * weight_decay
        elif weight_decay:
            penalised = self.scratch(p, 1)
            np.multiply(p, weight_decay, out=penalised)
            penalised += grad
            grad = penalised

        np.subtract(grad, mean, out=work)
        work *= 1 - beta1
        mean += work
        square *= beta2
        np.multiply(grad, grad, out=work)
        work *= 1 - beta2
        square += work

        np.sqrt(square, out=work)
        work /= math.sqrt(1 - beta2 ** state["step"])
        work += group["eps"]
        np.divide(mean, work, out=work)
        work *= lr / (1 - beta1 ** state["step"])
        p -= work


    def cost(self, param: Any, group: dict[str, Any], weight_decay: float) -> dict[str, int]:
        """Operations an element, as :meth:`update` does them; see :meth:`Optimizer.cost`."""
        decay = bool(weight_decay)
        return {"fp32_mul": 5 + decay, "fp32_add": 5 + (decay and not self.decoupled), "fp32_div": 2, "fp32_sqrt": 1}


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019): ``p *= 1 - lr * weight_decay`` before the step.

    Parameters
    ----------
    params, lr, betas, eps
        As :class:`Adam`.
    weight_decay : float
        Share of the parameter taken off per unit of learning rate.
    """

    decoupled = True

    def __init__(self, params: Iterable[Tensor] | Iterable[dict[str, Any]], lr: float = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 1e-2) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
