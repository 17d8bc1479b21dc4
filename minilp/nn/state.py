"""Saving and loading: a module tree as a flat dict of NumPy arrays, with torch's names and shapes."""
from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from minilp.autograd.parameter import Parameter
from minilp.formats import QTensor

if TYPE_CHECKING:
    from minilp.nn.module import Module


class IncompatibleKeys(NamedTuple):
    """What ``load_state_dict`` could not match.

    Attributes
    ----------
    missing_keys : list of str
        Names the module has and the state lacks; these kept their values.
    unexpected_keys : list of str
        Names the state has and the module lacks; these were ignored.
    """

    missing_keys: list[str]
    unexpected_keys: list[str]


def entries(module: Module, prefix: str = "") -> Iterator[tuple[str, Parameter | np.ndarray]]:
    """Walk what belongs into a state dict, in registration order: parameters, buffers, then children.

    Parameters
    ----------
    module : Module
        Root of the walk.
    prefix : str
        Put in front of every name.

    Yields
    ------
    (str, Parameter or ndarray)
        Dotted name and the parameter, or the live buffer. A shared parameter appears under each of its names, as in
        torch.
    """
    for name, param in module._parameters.items():
        if param is not None:
            yield prefix + name, param
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._non_persistent:
            yield prefix + name, buffer
    for name, child in module._modules.items():
        if child is not None:
            yield from entries(child, f"{prefix}{name}.")


def snapshot(module: Module, prefix: str, decoded: bool) -> dict[str, np.ndarray | QTensor]:
    """See ``Module.state_dict``."""
    state: dict[str, np.ndarray | QTensor] = {}
    for name, held in entries(module, prefix):
        if isinstance(held, np.ndarray):
            state[name] = held.copy()
        elif held.code is None or decoded:
            state[name] = held.data.copy()
        else:
            state[name] = held.code  # frozen: an update puts another one in its place
    return state


def load(module: Module, state: Mapping[str, Any], strict: bool) -> IncompatibleKeys:
    """Copy ``state`` into the arrays and codes of ``module``; everything is checked before anything is changed.

    Parameters
    ----------
    module : Module
        What to fill.
    state : mapping of str to array_like or QTensor
        NumPy arrays, minilp Tensors, torch CPU tensors or codes. Arrays are cast to the dtype the module has. A
        parameter that lives as codes takes codes of its own format as they are, scale included; anything else is
        encoded, and a warning says how many values were clamped because the scale is fixed.
    strict : bool
        Missing and unexpected names are errors.

    Returns
    -------
    IncompatibleKeys
        Both empty if ``strict``.

    Raises
    ------
    RuntimeError
        Listing all missing and unexpected names (if ``strict``) and all wrong shapes and kinds (always).
    """
    own = dict(entries(module))
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    problems = []
    if strict and missing:
        problems.append("missing: " + ", ".join(missing))
    if strict and unexpected:
        problems.append("unexpected: " + ", ".join(unexpected))
    new = {}
    for name, held in own.items():
        if name in missing:
            continue
        value = new[name] = _value(state[name], held)
        if value.shape != held.shape:
            problems.append(f"{name}: shape {value.shape} came, {held.shape} was expected")
        elif isinstance(value, np.ndarray) and not np.can_cast(value.dtype, held.dtype, "same_kind"):
            problems.append(f"{name}: dtype {value.dtype} came, {held.dtype} was expected")
        elif isinstance(held, Parameter) and held.code is not None and isinstance(value, np.ndarray) \
                and not np.isfinite(value).all():
            problems.append(f"{name}: NaN or infinity came, finite numbers were expected")
    if problems:
        raise RuntimeError(f"load_state_dict: this state does not fit {type(module).__name__}\n  "
                           + "\n  ".join(problems))
    clamped = []
    for name, value in new.items():
        held = own[name]
        if isinstance(held, np.ndarray):
            held[...] = value
        elif isinstance(value, QTensor):
            held.code = value
        elif count := held.write(value.astype(held.dtype)):
            clamped.append(f"{name}: {count} of {held.size}")
    if clamped:
        warnings.warn("load_state_dict: values beyond the fixed scale of a parameter that lives as codes were clamped "
                      "(" + "; ".join(clamped) + ")", stacklevel=3)
    return IncompatibleKeys(missing, unexpected)


def _value(value: Any, held: Parameter | np.ndarray) -> np.ndarray | QTensor:
    """What came, as an array; as codes only where the parameter takes them as they are."""
    if isinstance(value, QTensor):
        code = held.code if isinstance(held, Parameter) else None
        return value if code is not None and code.format == value.format and code.keep == value.keep else value.decode()
    return np.asarray(value.detach() if hasattr(value, "detach") else value)
