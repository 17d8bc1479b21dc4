"""Madam: a multiplicative optimizer. It turns the exponent of a weight, and never its sign."""
from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from minilp import random
from minilp.autograd import Tensor
from minilp.autograd.parameter import Parameter
from minilp.formats import LNS
from minilp.formats.rounding import Stream
from minilp.optim.optimizer import Optimizer

ZERO_STD = 0.2
"""Standard deviation that all-zero parameters are redrawn with (the authors' code of the original Madam)."""
INIT_ZEROS = ("redraw", "keep", "raise")


class Madam(Optimizer):
    """LNS-Madam (Zhao et al., arXiv 2106.13914): steps in the logarithm, of normalised gradients.

    With g the gradient, and t counted from 1::

        v   = beta * v + (1 - beta) * g * g
        g*  = g / sqrt(v / (1 - beta^t))        (0 / 0 is 0; there is no epsilon), clamped to [-g_bound, g_bound]
        w  *= 2^(-lr * round(g*) * sign(w))     clamped to [-w_max, w_max], w_max = p_scale * RMS(w at the start)

    This is the authors' released optimizer, and what happens to a float parameter. A parameter that lives as codes of
    :class:`~minilp.formats.LNS` is stepped in its integer exponent k, and no float is made of it::

        k   = k - R(lr * gamma * g* * sign(w))  clamped to the lowest and the highest exponent

    R rounds to nearest (half to even) or stochastically, as the parameter's ``rounding`` says. ``w_max`` becomes the
    maximum of its scale when the optimizer is built, and stays; so the clamp of k is the clamp of w. g* is not rounded
    before R unless ``round_gradient`` asks for it; where lr * gamma is 1, the two roundings are the same.

    A sign never changes, and a zero never moves. What is float32 (or the parameter's dtype): v, the gradient, g*.
    A parameter that lives as codes of another format takes the first form on a decoded copy.

    Parameters
    ----------
    params : iterable of Tensor, or iterable of dict
        What to optimize, see :class:`~minilp.optim.Optimizer`.
    lr : float
        Octaves that a weight moves per unit of g*. 1/128 is the released code's.
    beta : float
        Decay of the running mean of the squared gradient.
    p_scale : float
        The bound on weights in units of their root mean square at the start (of the first step; for codes, of the
        optimizer's construction). What lies beyond it is clamped there, as in the released code.
    g_bound : float
        The bound on g*.
    round_gradient : bool or None
        Round g* to an integer, half to even. None: for float parameters yes (as released), for codes no.
    weight_decay : float
        0 is off, the default here and in the released code. Otherwise the released code's branch, as it is: base e
        instead of 2 for the whole step, ``w *= exp(-lr * g* * sign(w) - lr * weight_decay)``.
    init_zeros : {"redraw", "keep", "raise"}
        What to do when the optimizer is built with a parameter that is zero throughout (biases, shifts of norms), which
        could never move. ``"redraw"`` fills it from N(0, 0.2^2), as the authors' code of the original Madam does;
        draws come from :func:`minilp.random.spawn`. ``"keep"`` leaves it at zero for good. ``"raise"`` is an error.
        Single zeros among other values never move in any case.

    Raises
    ------
    ValueError
        If an option is out of range, or for an all-zero parameter under ``init_zeros="raise"``.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict[str, Any]], lr: float = 1 / 128, beta: float = 0.999,
                 p_scale: float = 3.0, g_bound: float = 10.0, round_gradient: bool | None = None,
                 weight_decay: float = 0.0, init_zeros: str = "redraw") -> None:
        super().__init__(params, {"lr": lr, "beta": beta, "p_scale": p_scale, "g_bound": g_bound,
                                  "round_gradient": round_gradient, "weight_decay": weight_decay,
                                  "init_zeros": init_zeros})

    def check_options(self, group: dict[str, Any]) -> None:
        """Refuse impossible options, see :meth:`Optimizer.check_options`."""
        super().check_options(group)
        if not 0 <= group["beta"] < 1:
            raise ValueError(f"beta: expected a number in [0, 1), got {group['beta']!r}")
        for name in ("p_scale", "g_bound"):
            if not group[name] > 0:
                raise ValueError(f"{name}: expected a number > 0, got {group[name]!r}")
        if group["round_gradient"] not in (None, True, False):
            raise ValueError(f"round_gradient: expected True, False or None, got {group['round_gradient']!r}")
        if group["init_zeros"] not in INIT_ZEROS:
            raise ValueError(f"init_zeros: expected one of {', '.join(INIT_ZEROS)}, got {group['init_zeros']!r}")

    def add_param_group(self, group: dict[str, Any]) -> None:
        """See :meth:`Optimizer.add_param_group`; deals with all-zero parameters and fixes the scales of codes."""
        super().add_param_group(group)
        options = self.param_groups[-1]
        for number, param in enumerate(options["params"]):
            if param.size and not param.data.any():
                _leave_zero(param, number, options["init_zeros"])
            if isinstance(param, Parameter) and param.code is not None and isinstance(param.code.format, LNS):
                bound = _bound(param.data, options["p_scale"])
                scales = param.code.format.scales_for(np.full((1,) * param.ndim, bound, np.float32))
                param.live_as(param.code.format, rounding=param.rounding, scales=scales)

    def update(self, p: np.ndarray, grad: np.ndarray, state: dict[str, Any], group: dict[str, Any],
               weight_decay: float) -> None:
        """One step of one float parameter, see :meth:`Optimizer.update`. State: ``step``, ``v``, ``w_max``."""
        if not state:
            state.update(w_max=_bound(p, group["p_scale"]))
        factor = self._normalised(grad, state, group, group["round_gradient"] in (None, True))
        factor *= np.sign(p)
        factor *= -group["lr"]
        if weight_decay:
            factor -= group["lr"] * weight_decay
            np.exp(factor, out=factor)
        else:
            np.exp2(factor, out=factor)
        p *= factor
        _clamp(p, -state["w_max"], state["w_max"])

    def update_codes(self, param: Parameter, grad: np.ndarray, state: dict[str, Any], group: dict[str, Any],
                     weight_decay: float, stream: Stream | None) -> None:
        """One step of one parameter that lives as codes, see :meth:`Optimizer.update_codes`. State: ``step``, ``v``."""
        code = param.code
        assert code is not None
        if not isinstance(code.format, LNS):
            super().update_codes(param, grad, state, group, weight_decay, stream)
            return
        top, sign = code.format.top, np.sign(code.codes)
        turn = self._normalised(grad, state, group, group["round_gradient"] is True)
        turn *= sign
        units = group["lr"] * code.format.gamma  # exponent units of one unit of g*
        if weight_decay:
            turn += weight_decay
            units *= math.log2(math.e)
        turn *= units
        _clamp(turn, -top, top)  # further than that nothing can go, and 32 bits hold it
        if stream is None:
            np.rint(turn, out=turn)
        else:
            whole = np.floor(turn)
            turn -= whole
            whole += stream.uint32(turn.shape) < turn * np.float64(2**32)
            turn = whole
        level = np.abs(code.codes).astype(np.int32)
        level -= turn.astype(np.int32)
        _clamp(level, 1, top)
        level *= sign
        param.code = type(code)(code.format, level.astype(code.codes.dtype), code.scales, code.shape, code.keep)

    def cost(self, param: Any, group: dict[str, Any], weight_decay: float) -> dict[str, int]:
        """Operations an element, see :meth:`Optimizer.cost`: g*, then an exponent or a power of two.

        Integer exponents take a rounding, an integer add and two comparisons; floats 2^x, priced as an operation.
        """
        decay = bool(weight_decay)
        found = {"fp32_mul": 4 + decay, "fp32_add": 3 + decay, "fp32_div": 2, "fp32_sqrt": 1}  # with the clamp of g*
        if isinstance(param, Parameter) and param.code is not None and isinstance(param.code.format, LNS):
            return {**found, "int32_add": 4}
        return {**found, "fp32_mul": 5 + decay, "fp32_add": 6 + decay, "fp32_exp2": 1}

    def _normalised(self, grad: np.ndarray, state: dict[str, Any], group: dict[str, Any], rounded: bool) -> np.ndarray:
        """g*, in scratch memory, after the step of ``v``."""
        if "v" not in state:
            state.update(step=0, v=np.zeros_like(grad))
        state["step"] += 1
        beta, v, work = group["beta"], state["v"], self.scratch(grad)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # no epsilon: 0 / 0 happens
            np.multiply(grad, grad, out=work)
            work *= 1 - beta
            v *= beta
            v += work
            np.divide(v, 1 - beta ** state["step"], out=work)
            np.sqrt(work, out=work)
            np.divide(grad, work, out=work)
        work[np.isnan(work)] = 0
        _clamp(work, -group["g_bound"], group["g_bound"])
        return np.rint(work, out=work) if rounded else work


def _clamp(x: np.ndarray, low: float, high: float) -> None:
    """In place; two plain passes take half the time of numpy.clip."""
    np.maximum(x, low, out=x)
    np.minimum(x, high, out=x)


def _bound(values: np.ndarray, p_scale: float) -> float:
    """``p_scale`` times the root mean square, summed in float64."""
    return p_scale * math.sqrt(float(np.mean(np.square(values, dtype=np.float64)))) if values.size else 0.0


def _leave_zero(param: Tensor, number: int, how: str) -> None:
    """Do what ``init_zeros`` says with a parameter that is zero throughout."""
    if how == "raise":
        name = getattr(param, "name", None) or f"number {number}"
        raise ValueError(f"init_zeros: parameter {name} is zero throughout, and a multiplicative step cannot move it")
    if how == "redraw":
        draw = random.spawn().normal(0, ZERO_STD, param.shape).astype(param.dtype)
        if isinstance(param, Parameter):
            param.write(draw)
        else:
            param.data[...] = draw
