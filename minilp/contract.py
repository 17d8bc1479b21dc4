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
what waits for the backward pass is codes, not floats. The room asks the first operand's format to multiply, then the
second's; if neither has a kernel but both have a table of small integers, the table kernel multiplies those; else it
multiplies the decoded operands in float64. :func:`executed` says which.
"""
from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilp.autograd import Function, Tensor
from minilp.formats import Format, QTensor, Spec
from minilp.formats.rounding import Stream
from minilp.kernels import float32 as float_kernels
from minilp.kernels.layout import from_chwn, to_chwn
from minilp.roles import LayerRecipe, Role
from minilp.table_contract import TABLE, table_contract

EMULATED = "emulated in float64"
_executed: collections.Counter[str] = collections.Counter()
_clock: tuple[int, int, int] = (0, 0, 0)


@contextlib.contextmanager
def rounding_context(seed: int, step: int, microbatch: int = 0) -> Iterator[None]:
    """Name the training step, so that stochastic rounding draws the same bits whenever this step is run again.

    Parameters
    ----------
    seed, step, microbatch : int
        The clock of the rounding streams. Outside any context it stands at (0, 0, 0) and layers count their calls, so
        a hand-written loop still gets fresh draws.
    """
    global _clock
    before = _clock
    _clock = (int(seed), int(step), int(microbatch))
    try:
        yield
    finally:
        _clock = before


@contextlib.contextmanager
def executed() -> Iterator[collections.Counter[str]]:
    """Count how the contractions inside a ``with`` block were computed.

    Yields
    ------
    collections.Counter
        ``"KIND: HOW"`` -> number of contractions, filled at the end; HOW is ``"FORMAT x FORMAT in integers"`` (with
        ``" (table kernel)"`` behind it where that one ran), ``"emulated in float64"`` or ``"float32"``.
    """
    before = _executed.copy()
    seen: collections.Counter[str] = collections.Counter()
    try:
        yield seen
    finally:
        seen.update(_executed - before)


def multiply(a: QTensor | np.ndarray, b: QTensor | np.ndarray, spec: Spec) -> np.ndarray:
    """Contract two operands, coded or float.

    Parameters
    ----------
    a, b : QTensor or numpy.ndarray
        In the order of the table above. A contraction with one float operand runs in float32 on the decoded values.
    spec : Spec
        Kind and geometry.

    Returns
    -------
    numpy.ndarray
        float32 result in its logical shape.

    Raises
    ------
    ValueError
        If a scale varies along an axis that the contraction sums over and the format's kernel cannot sum in runs.
    """
    if not (isinstance(a, QTensor) and isinstance(b, QTensor)):
        _executed[f"{spec.kind}: float32"] += 1
        return float_contraction(_decoded(a), _decoded(b), spec)
    for operand, which, axes in zip((a, b), ("first", "second"), spec.axes, strict=True):
        bad = [axis for axis in operand.keep if axis in axes and operand.shape[axis] > 1]
        if bad and not operand.format.sums_in_runs:
            raise ValueError(f"{spec.kind}: the {which} operand {operand.format} keeps its own scale along axis "
                             f"{bad[0]}, which this contraction sums over, and its kernel has one scale per sum")
    for fmt in (a.format, b.format):
        result = fmt.contract(a, b, spec)
        if result is not NotImplemented:
            how = min(a.format, b.format, key=lambda operand: operand.exact_contract).arithmetic
            _executed[f"{spec.kind}: {a.format} x {b.format} {how}"] += 1
            return result
    result = table_contract(a, b, spec)
    if result is not NotImplemented:
        _executed[f"{spec.kind}: {a.format} x {b.format} in integers {TABLE}"] += 1
        return result
    _executed[f"{spec.kind}: {EMULATED}"] += 1
    wide = float_contraction(a.decode().astype(np.float64), b.decode().astype(np.float64), spec)
    return wide.astype(np.float32)


def float_contraction(a: np.ndarray, b: np.ndarray, spec: Spec) -> np.ndarray:
    """The same contraction on float arrays (float32 by the float kernels, float64 by NumPy).

    Parameters
    ----------
    a, b : numpy.ndarray
        Operands of one dtype, in the order of the table above.
    spec : Spec
        Kind and geometry.

    Returns
    -------
    numpy.ndarray
        Result in the operands' dtype.
    """
    if spec.kind == "linear":
        return a @ b.T
    if spec.kind == "linear_input_grad":
        return a @ b
    if spec.kind == "linear_weight_grad":
        return a.T @ b
    geometry = (spec.stride, spec.padding, spec.dilation, spec.groups)
    if spec.kind == "conv2d":
        return float_kernels.conv2d(a, b, *geometry)
    assert spec.size is not None
    if spec.kind == "conv2d_input_grad":
        return float_kernels.conv2d_input_grad(a, b, spec.size, *geometry)
    return float_kernels.conv2d_weight_grad(a, b, spec.size, *geometry)


def _decoded(operand: QTensor | np.ndarray) -> np.ndarray:
    return operand.decode() if isinstance(operand, QTensor) else operand


@dataclass
class _Operand:
    """One operand on its way through a step: codes (or the float array), and what its backward rules need."""

    value: QTensor | np.ndarray
    role: Role | None
    steps: list[tuple[Any, Any]]  # (transform, what its backward needs), in forward order
    raw: np.ndarray | None  # the float tensor, kept only for a format with a straight-through rule of its own

    def backward(self, grad: np.ndarray, prefix: str) -> tuple[np.ndarray, dict[str, float]]:
        """Through the straight-through rule and the transforms, last first; gradients of learned values by name."""
        learned: dict[str, float] = {}
        if self.raw is not None and self.role is not None:
            grad = self.role.format.ste(self.raw, grad)
        for step, saved in reversed(self.steps):
            grad, gradients = step.backward(grad, saved)
            learned.update({f"{prefix}_{step.name}_{key}": value for key, value in gradients.items()})
        return grad, learned


def _encode(x: np.ndarray, role_name: str, layer: LayerRecipe, call: int, learned: dict[str, np.ndarray]) -> _Operand:
    role: Role | None = getattr(layer.roles, role_name)
    if x.ndim == 4 and role_name in ("act", "error"):
        x = from_chwn(to_chwn(x))  # codes take the memory order of x, and the kernels read this one
    if role is None:
        return _Operand(x, None, [], None)
    raw = x if type(role.format).ste is not Format.ste else None
    stream = None
    if role.rounding == "stochastic":
        seed, when, microbatch = _clock
        stream = Stream(seed, when, microbatch, layer.index, call, role_name)
    try:
        limit, steps = None, []
        for step in role.before:
            values = {key: float(learned[f"{role_name}_{step.name}_{key}"]) for key in step.parameters()}
            x, threshold, saved = step.forward(x, values)
            steps.append((step, saved))
            limit = threshold if threshold is not None else limit
        coded = _encode_clipped(x, role, stream, limit)
    except ValueError as error:
        raise ValueError(f"{role_name} of layer {layer.name or '(unnamed)'}: {error}") from error
    return _Operand(coded, role, steps, raw)


def _encode_clipped(x: np.ndarray, role: Role, stream: Stream | None, limit: float | None) -> QTensor:
    """Encode with every magnitude above ``limit`` saturated: by the scale where the format can, else by clipping."""
    if limit is None:
        return role.format.encode(x, keep=role.keep, stream=stream)
    if not role.keep:
        scales = role.format.scales_for(np.full((1,) * x.ndim, limit, np.float32))
        if scales is not NotImplemented:
            return role.format.encode(x, stream=stream, scales=scales)
    return role.format.encode(np.clip(x, -limit, limit), keep=role.keep, stream=stream)


class Contraction(Function):
    """Forward product of one layer on codes; backward encodes the error once and contracts it twice."""

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, w: np.ndarray, *learned: np.ndarray, layer: LayerRecipe,
                spec: Spec) -> np.ndarray:
        """Encode ``x`` and ``w`` and contract them; ``learned`` are the layer's transform parameters in order."""
        call = layer.next_call(_clock)
        values = dict(zip(layer.parameters(), learned, strict=True))
        act, weight = _encode(x, "act", layer, call, values), _encode(w, "weight", layer, call, values)
        ctx.save_for_backward(act, weight, values)
        ctx.layer, ctx.spec, ctx.call, ctx.clock = layer, spec, call, _clock
        ctx.sizes = x.shape[2:], w.shape[2:]
        return multiply(act.value, weight.value, spec)

    @staticmethod
    def backward(ctx: Any, grad: np.ndarray) -> tuple[Any, ...]:
        """Gradients of ``x``, ``w`` and the learned values; the input gradient is skipped where nobody needs it."""
        act, weight, values = ctx.saved
        layer, spec = ctx.layer, ctx.spec
        with rounding_context(*ctx.clock):
            error = _encode(grad, "error", layer, ctx.call, values)
            dx, dw, learned = None, None, {}
            if ctx.needs_input_grad[0]:
                dx = multiply(error.value, weight.value, _backward_spec(spec, "input_grad", ctx.sizes[0]))
                dx, gradients = act.backward(dx, "act")
                learned.update(gradients)
            if ctx.needs_input_grad[1]:
                dw = multiply(error.value, act.value, _backward_spec(spec, "weight_grad", ctx.sizes[1]))
                dw, gradients = weight.backward(dw, "weight")
                learned.update(gradients)
                if layer.roles.wgrad is not None:
                    dw = _decoded(_encode(dw, "wgrad", layer, ctx.call, {}).value)
        return dx, dw, *(np.float32(learned[key]).reshape(value.shape) if key in learned else None
                         for key, value in values.items())


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
