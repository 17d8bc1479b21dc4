"""One operand on its way through a training step: through its transforms into codes, and its gradient back."""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilp.formats import QTensor, Spec
from minilp.formats.lns import LNS
from minilp.formats.rounding import Stream, clock
from minilp.kernels.layout import from_chwn, to_chwn
from minilp.kernels.magnitude import trusting
from minilp.kernels.quantise import absmax, outside
from minilp.roles import LayerRecipe, Role, Roles
from minilp.transforms import Outside, Transform
from minilp.watch import watchers

Observer = Callable[[LayerRecipe, str, np.ndarray, Any], None]
_observers: list[tuple[Observer, bool]] = []


@contextlib.contextmanager
def observe(observer: Observer, floats: bool = False) -> Iterator[None]:
    """Call a function for every operand that is encoded inside a ``with`` block.

    Parameters
    ----------
    observer : callable
        Gets the layer's :class:`~minilp.roles.LayerRecipe`, the role's name, the float32 tensor as the format got it
        (behind the transforms, in front of clipping) and its :class:`~minilp.formats.QTensor`. It must not change them.
        A format with blocks along the sum encodes an operand, and calls, once for each contraction.
    floats : bool
        Also show the operands of roles that are float32, with None for the QTensor (weight gradients that stay float32
        and layers without any recipe do not come this way).
    """
    entry = (observer, floats)
    _observers.append(entry)
    try:
        yield
    finally:
        _observers.remove(entry)


@dataclass
class Operand:
    """One operand on its way through a step: codes (or the float array), and what its backward rules need.

    Codes of a format with blocks along the sum differ from contraction to contraction. Such an operand holds a way to
    make them, and with it the float tensor, until the last one.
    """

    value: QTensor | np.ndarray | Callable[[Spec, int], QTensor]
    role: Role | None
    steps: list[tuple[Transform, Any, Outside | None]]  # (transform, what it saved, what it clipped), in forward order
    raw: np.ndarray | None  # the float tensor, kept only for a format with a straight-through rule of its own

    def for_contraction(self, spec: Spec, position: int) -> QTensor | np.ndarray:
        """Codes for one contraction, or the float array where the role is float32.

        Parameters
        ----------
        spec : Spec
            The contraction.
        position : int
            0 as its first operand, 1 as its second.

        Raises
        ------
        ValueError
            If a format that encodes here refuses the tensor; the message names role and layer.
        """
        return self.value(spec, position) if callable(self.value) else self.value

    def backward(self, grad: np.ndarray, prefix: str) -> tuple[np.ndarray, dict[str, float]]:
        """Through the straight-through rule and the transforms, last first; gradients of learned values by name."""
        learned: dict[str, float] = {}
        if self.raw is not None and self.role is not None:
            grad = self.role.format.ste(self.raw, grad)
        for step, saved, clipped in reversed(self.steps):
            grad, gradients = step.backward(grad, saved, clipped)
            learned.update({f"{prefix}_{step.name}_{key}": value for key, value in gradients.items()})
        return grad, learned


def encode(x: np.ndarray | QTensor, role_name: str, layer: LayerRecipe, call: int, learned: dict[str, np.ndarray],
           roles: Roles | None = None) -> Operand:
    """Bring a tensor through the transforms of its role into codes.

    Parameters
    ----------
    x : numpy.ndarray or QTensor
        float32 activation, weight, error or weight gradient, any strides; or the codes that a parameter lives as.
    role_name : str
        ``"act"``, ``"weight"``, ``"error"`` or ``"wgrad"``.
    layer : LayerRecipe
        Whose role it is; names the tensor in errors and picks its rounding stream.
    call : int
        How often the layer was called before in this step.
    learned : dict
        Values of the transforms' parameters by name, such as ``act_prc_gamma``.
    roles : Roles, optional
        Used instead of the layer's own.

    Returns
    -------
    Operand
        Codes, or ``x`` in the kernels' memory order where the role is float32; a format with blocks along the sum
        encodes later, in :meth:`Operand.for_contraction`.

    Raises
    ------
    ValueError
        If the format or a transform refuses ``x``; the message names role and layer.
    """
    role: Role | None = getattr(layer.roles if roles is None else roles, role_name)
    if isinstance(x, QTensor):
        coded = narrowed(x, role)
        if coded is not None:
            for observer, _ in _observers:
                observer(layer, role_name, x.decode(), coded)
            for watcher in watchers:
                watcher.encoded(role_name, role, x, coded, None)
            return Operand(coded, role, [], None)
        x = x.decode()
    if x.ndim == 4 and role_name in ("act", "error"):
        x = from_chwn(to_chwn(x))  # codes take the memory order of x, and the kernels read this one
    if role is None:
        for observer, floats in _observers:
            if floats:
                observer(layer, role_name, x, None)
        return Operand(x, None, [], None)
    raw = x if role.format.ste_reads_input else None
    stream = None
    if role.rounding == "stochastic":
        seed, when, microbatch = clock()
        stream = Stream(seed, when, microbatch, layer.index, call, role_name)
    values = [{key: float(learned[f"{role_name}_{step.name}_{key}"]) for key in step.parameters()}
              for step in role.before]
    given = x
    try:
        x, q, steps, limit = trusting(given, lambda: _code(given, role, values, stream),
                                      lambda: int(absmax(given).view(np.uint32).reshape(())))
    except ValueError as error:
        raise _named(error, role_name, layer) from error

    def announced(q: QTensor, axis: int | None = None) -> QTensor:
        for observer, _ in _observers:
            observer(layer, role_name, x, q)
        for watcher in watchers:
            watcher.encoded(role_name, role, x, q, axis)
        return q

    def code_along(spec: Spec, position: int) -> QTensor:
        axis, run = spec.run(position, x.shape)
        try:
            clipped = x if limit is None else np.clip(x, -limit, limit)
            q = role.format.encode_along(clipped, axis, run=run, stream=stream)
        except ValueError as error:
            raise _named(error, role_name, layer) from error
        return announced(q, spec.axes[position][0])

    return Operand(code_along if q is None else announced(q), role, steps, raw)


def _code(x: np.ndarray, role: Role, values: list[dict[str, float]], stream: Stream | None
          ) -> tuple[np.ndarray, QTensor | None, list[tuple[Transform, Any, Outside | None]], float | None]:
    """Through the transforms to codes, None for those of a format with blocks; what backward needs; the threshold."""
    steps: list[tuple[Transform, Any, Outside | None]] = []
    limit, blocks = None, role.format.blocks_along_sum
    if blocks and role.keep:
        raise ValueError(f"keep: {role.format} has a scale for each block, expected (), got {role.keep}")
    for number, (step, learned) in enumerate(zip(role.before, values, strict=True), 1):
        given = x
        x, threshold, saved = step.forward(x, learned)
        found = None
        if threshold is not None:
            limit = threshold
            if not blocks and number == len(role.before):  # encoding lists what is outside in the same pass
                q, positions = role.format.encode_clipped(x, limit, keep=role.keep, stream=stream)
                return x, q, [*steps, (step, saved, Outside.of(x, positions))], limit
            found = Outside.of(given, outside(given, threshold))
        steps.append((step, saved, found))
    if blocks:
        return x, None, steps, limit
    if limit is None:
        return x, role.format.encode(x, keep=role.keep, stream=stream), steps, limit
    return x, role.format.encode_clipped(x, limit, keep=role.keep, stream=stream)[0], steps, limit


def _named(error: ValueError, role_name: str, layer: LayerRecipe) -> ValueError:
    """An error whose message begins with role and layer."""
    return ValueError(f"{role_name} of layer {layer.name or '(unnamed)'}: {error}")


def narrowed(code: QTensor, role: Role | None) -> QTensor | None:
    """The codes of a role straight from those that a parameter lives as, in integers only.

    Parameters
    ----------
    code : QTensor
        A parameter's codes.
    role : Role or None
        What the tensor plays.

    Returns
    -------
    QTensor or None
        The same codes where the format is the same; :meth:`~minilp.formats.LNS.narrow` between two LNS, under the
        stored maximum. None where only encoding the decoded values will do: float32, a transform in front, stochastic
        rounding, a finer LNS or other formats.
    """
    if role is None or role.before or role.rounding != "nearest":
        return None
    if role.format.ste_reads_input or role.format.blocks_along_sum:
        return None
    if role.format == code.format and role.keep == code.keep:
        return code
    both = isinstance(role.format, LNS) and isinstance(code.format, LNS)
    if both and role.format.gamma <= code.format.gamma:  # type: ignore[attr-defined]
        return LNS.narrow(code, role.format, role.keep)  # type: ignore[arg-type]
    return None
