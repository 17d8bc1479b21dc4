"""The contraction room: encode, multiply codes, account. Every layer that multiplies passes through here.

A layer's forward product and its two backward products are three contractions of the same three operands:

====================  =========================  ==============
contraction           operands                   gives
====================  =========================  ==============
``conv2d``            act (x), weight (w)        the output
``conv2d_input_grad``  error (dy), weight (w)    gradient of x
``conv2d_weight_grad``  error (dy), act (x)      gradient of w
====================  =========================  ==============

(and the same for ``linear``). Each operand is encoded once and its codes are shared by the contractions that use it;
what waits for the backward pass is codes, not floats. Only a format with blocks along the sum (MX) is encoded once for
each contraction, from the float tensor, which waits instead. The room asks the first operand's format to multiply, then
the second's; if neither has a kernel but both have a table of small integers, the table kernel multiplies those; else
it multiplies the decoded operands in float64. :func:`executed` says which.
"""
from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from minilp.autograd import Function, Tensor
from minilp.formats import QTensor, Spec
from minilp.formats.rounding import clock, rounding_context
from minilp.multiply import EMULATED, decoded, executed, float_contraction, multiply
from minilp.operands import encode
from minilp.roles import LayerRecipe

__all__ = ["EMULATED", "Contraction", "conv2d", "executed", "float_contraction", "linear", "multiply",
           "rounding_context"]


class Contraction(Function):
    """Forward product of one layer on codes; backward encodes the error once and contracts it twice."""

    counts_as = "room"
    takes_codes = True  # a weight that lives as codes is never decoded where its codes will do

    @staticmethod
    def forward(ctx: Any, x: np.ndarray | QTensor, w: np.ndarray | QTensor, *learned: np.ndarray | QTensor,
                layer: LayerRecipe, spec: Spec) -> np.ndarray:
        """Encode ``x`` and ``w`` and contract them; ``learned`` are the layer's transform parameters in order."""
        call = layer.next_call(clock())
        values = {name: decoded(value) for name, value in zip(layer.parameters(), learned, strict=True)}
        act, weight = encode(x, "act", layer, call, values), encode(w, "weight", layer, call, values)
        ctx.save_for_backward(act, weight, values)
        ctx.layer, ctx.spec, ctx.call, ctx.clock = layer, spec, call, clock()
        ctx.sizes = x.shape[2:], w.shape[2:]
        return multiply(act.for_contraction(spec, 0), weight.for_contraction(spec, 1), spec)

    @staticmethod
    def backward(ctx: Any, grad: np.ndarray) -> tuple[Any, ...]:
        """Gradients of ``x``, ``w`` and the learned values; the input gradient is skipped where nobody needs it."""
        act, weight, values = ctx.saved
        layer, spec = ctx.layer, ctx.spec
        with rounding_context(*ctx.clock):
            error = encode(grad, "error", layer, ctx.call, values)
            dx, dw, learned = None, None, {}
            if ctx.needs_input_grad[0]:
                back = _backward_spec(spec, "input_grad", ctx.sizes[0])
                dx = multiply(error.for_contraction(back, 0), weight.for_contraction(back, 1), back)
                dx, gradients = act.backward(dx, "act")
                learned.update(gradients)
            if ctx.needs_input_grad[1]:
                back = _backward_spec(spec, "weight_grad", ctx.sizes[1])
                dw = multiply(error.for_contraction(back, 0), act.for_contraction(back, 1), back)
                dw, gradients = weight.backward(dw, "weight")
                learned.update(gradients)
                if layer.roles.wgrad is not None:
                    wgrad = encode(dw, "wgrad", layer, ctx.call, {})
                    dw = decoded(wgrad.for_contraction(spec, 1))  # blocks, if any, as the weight has them forward
        return dx, dw, *(np.float32(learned[key]).reshape(value.shape) if key in learned else None
                         for key, value in values.items())


@functools.lru_cache(maxsize=1024)
def _backward_spec(spec: Spec, which: str, size: Any) -> Spec:
    return dataclasses.replace(spec, kind=f"{spec.kind}_{which}", size=size or None)


def linear(x: Tensor, w: Tensor, b: Tensor | None, q: LayerRecipe) -> Tensor:
    """A linear layer whose three contractions run on codes.

    Parameters
    ----------
    x : Tensor
        Shape (..., F), float32; leading axes are tokens.
    w : Tensor
        Shape (O, F).
    b : Tensor or None
        Shape (O,), added in float32.
    q : LayerRecipe
        The layer's roles.

    Returns
    -------
    Tensor
        Shape (..., O), float32.

    Raises
    ------
    ValueError
        If the feature counts differ, or a tensor with NaN or Inf is to be encoded (the message names the role).
    """
    if x.ndim < 1 or x.shape[-1] != w.shape[1]:
        raise ValueError(f"linear: x has shape {x.shape}, but the weight of shape {w.shape} expects "
                         f"{w.shape[1]} features")
    _require_float32("linear", x, w)
    tokens = x.reshape(-1, x.shape[-1]) if x.ndim != 2 else x
    y = Contraction.apply(tokens, w, *q.parameters().values(), layer=q, spec=Spec("linear"))
    if b is not None:
        y = y + b
    return y.reshape(*x.shape[:-1], w.shape[0]) if x.ndim != 2 else y


def conv2d(x: Tensor, w: Tensor, b: Tensor | None, stride: tuple[int, int], padding: tuple[int, int],
           dilation: tuple[int, int], groups: int, q: LayerRecipe) -> Tensor:
    """A 2-D convolution whose three contractions run on codes.

    Parameters
    ----------
    x : Tensor
        Shape (N, C, H, W), float32.
    w : Tensor
        Shape (O, C / groups, KH, KW).
    b : Tensor or None
        Shape (O,), added in float32.
    stride, padding, dilation : tuple of int
        Vertical and horizontal.
    groups : int
        Channel groups.
    q : LayerRecipe
        The layer's roles.

    Returns
    -------
    Tensor
        Shape (N, O, OH, OW), float32.

    Raises
    ------
    ValueError
        If channel counts do not fit, or a tensor with NaN or Inf is to be encoded (the message names the role).
    """
    if x.ndim != 4 or w.ndim != 4 or x.shape[1] != w.shape[1] * groups:
        raise ValueError(f"conv2d: x has shape {x.shape}, but the weight of shape {w.shape} with groups={groups} "
                         f"expects (N, {w.shape[1] * groups if w.ndim == 4 else '?'}, H, W)")
    _require_float32("conv2d", x, w)
    spec = Spec("conv2d", stride, padding, dilation, groups)
    y = Contraction.apply(x, w, *q.parameters().values(), layer=q, spec=spec)
    return y if b is None else y + b.reshape(1, -1, 1, 1)


def _require_float32(op: str, x: Tensor, w: Tensor) -> None:
    for name, tensor in (("x", x), ("weight", w)):
        if tensor.dtype != np.float32:
            raise TypeError(f"{op}: coded contractions take float32, but {name} is {tensor.dtype}")
