"""Where did the NaN come from: the error that ends a diverged training, and the search for the layer to name."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilp.autograd import Tensor, no_grad
from minilp.kernels.quantise import NotFiniteError
from minilp.nn import Module

NOT_FINITE = (FloatingPointError, OverflowError, NotFiniteError)
"""What a non-finite loss, an integer contraction beyond float32, and a format that is given a NaN raise."""


@dataclass(frozen=True)
class Place:
    """Which numbers stopped being finite.

    Attributes
    ----------
    layer : str
        Dotted name of the layer; ``"input"`` for the batch itself.
    role : str
        ``weight`` (a parameter), ``act`` (the layer's input or output), ``error`` (the gradient that reaches the
        layer) or ``wgrad`` (a parameter's gradient).
    tensor : str
        The tensor in the layer's own words, such as ``"weight"`` or ``"output"``.
    """

    layer: str
    role: str
    tensor: str

    def __str__(self) -> str:
        return f"{self.tensor} of layer {self.layer!r} (role {self.role})"


class Diverged(ArithmeticError):
    """A training met a NaN or an infinity.

    Attributes
    ----------
    epoch, step : int
        Where: both count from 0.
    place : Place or None
        The first non-finite tensor; None where only the loss, or only a tensor inside a layer, is not finite.
    """

    def __init__(self, epoch: int, step: int, cause: str, place: Place | None) -> None:
        first = f"; first non-finite numbers: {place}" if place else ""
        super().__init__(f"the training diverged at step {step} (epoch {epoch}): {cause}{first}. "
                         f"A smaller learning rate usually helps")
        self.epoch, self.step, self.place = epoch, step, place


def is_about_nan(error: BaseException) -> bool:
    """Whether an error says that a loss, a tensor on its way to be encoded, or a sum of products was not finite."""
    return isinstance(error, NOT_FINITE) or isinstance(error.__cause__, NOT_FINITE)


def find_value(model: Module, x: np.ndarray, run: Callable[[], object]) -> Place | None:
    """Run the model forward and name the first non-finite tensor in the order of computation.

    Parameters
    ----------
    model : Module
        In training mode its running statistics change; the caller has given up on this step anyway.
    x : ndarray
        What goes in.
    run : callable
        Runs the model on it.

    Returns
    -------
    Place or None
        None if all is finite.
    """
    if not np.isfinite(x).all():
        return Place("input", "act", "batch")
    found: list[Place] = []
    entered: list[str] = []
    handles = []

    def look_before(name: str) -> Any:
        def hook(module: Module, args: tuple[Any, ...]) -> None:
            entered.append(name)
            for value in args:
                if not found and isinstance(value, Tensor) and not np.isfinite(value.data).all():
                    found.append(Place(name, "act", "input"))
            for key, param in module.named_parameters(recurse=False):
                if not found and not np.isfinite(param.data).all():
                    found.append(Place(name, "weight", key))
        return hook

    def look_after(name: str) -> Any:
        def hook(module: Module, args: tuple[Any, ...], out: Any) -> None:
            if not found and isinstance(out, Tensor) and not np.isfinite(out.data).all():
                found.append(Place(name, "act", "output"))
        return hook

    for name, module in model.named_modules():
        handles += [module.register_forward_pre_hook(look_before(name or "model")),
                    module.register_forward_hook(look_after(name or "model"))]
    try:
        with no_grad():
            run()
    except (ValueError, ArithmeticError) as error:
        if not is_about_nan(error):
            raise
        if not found:  # it arose inside the layer that was entered last
            found.append(Place(entered[-1], "act", "output"))
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def find_gradient(model: Module, broke_off: bool = False) -> Place | None:
    """Name the gradient that failed first: backward starts at the last layer.

    Parameters
    ----------
    model : Module
        After a backward pass that began without gradients.
    broke_off : bool
        Whether the pass ended with an error: then the first missing gradient shows where.

    Returns
    -------
    Place or None
        None if all gradients are finite.
    """
    for name, param in reversed(list(model.named_parameters())):
        layer, _, tensor = name.rpartition(".")
        if broke_off and param.grad is None and param.requires_grad:
            return Place(layer or "model", "error", "gradient of the output")
        if param.grad is not None and not np.isfinite(param.grad).all():
            return Place(layer or "model", "wgrad", tensor + ".grad")
    return None


def find_parameter(model: Module) -> Place | None:
    """Name the first non-finite parameter in registration order; None if all are finite."""
    for name, param in model.named_parameters():
        if not np.isfinite(param.data).all():
            layer, _, tensor = name.rpartition(".")
            return Place(layer or "model", "weight", tensor)
    return None
