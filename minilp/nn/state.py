"""Saving and loading: a module tree as a flat dict of NumPy arrays, with torch's names and shapes."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

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


def entries(module: Module, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Walk the arrays that belong into a state dict, in registration order: parameters, buffers, then children.

    Parameters
    ----------
    module : Module
        Root of the walk.
    prefix : str
        Put in front of every name.

    Yields
    ------
    (str, ndarray)
        Dotted name and the live array. A shared parameter appears under each of its names, as in torch.
    """
    for name, param in module._parameters.items():
        if param is not None:
            yield prefix + name, param.data
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._non_persistent:
            yield prefix + name, buffer
    for name, child in module._modules.items():
        if child is not None:
            yield from entries(child, f"{prefix}{name}.")


def load(module: Module, state: Mapping[str, Any], strict: bool) -> IncompatibleKeys:
    """Copy ``state`` into the arrays of ``module``; everything is checked before anything is changed.

    Parameters
    ----------
    module : Module
        What to fill.
    state : mapping of str to array_like
        NumPy arrays, minilp Tensors or torch CPU tensors. Each is cast to the dtype the module has.
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
    for name, array in own.items():
        if name in missing:
            continue
        value = state[name]
        value = new[name] = np.asarray(value.detach() if hasattr(value, "detach") else value)
        if value.shape != array.shape:
            problems.append(f"{name}: shape {value.shape} came, {array.shape} was expected")
        elif not np.can_cast(value.dtype, array.dtype, "same_kind"):
            problems.append(f"{name}: dtype {value.dtype} came, {array.dtype} was expected")
    if problems:
        raise RuntimeError(f"load_state_dict: this state does not fit {type(module).__name__}\n  "
                           + "\n  ".join(problems))
    for name, value in new.items():
        own[name][...] = value
    return IncompatibleKeys(missing, unexpected)
