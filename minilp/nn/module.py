"""Module: the base of all layers and models."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from minilp.nn import state
from minilp.nn.hooks import RemovableHandle
from minilp.nn.tree import Tree

M = TypeVar("M", bound="Module")


class Module(Tree):
    """A tree of layers. Assigning a :class:`Parameter` or a Module to an attribute registers it.

    A subclass calls ``super().__init__()`` first, builds its parts, and defines ``forward``; instances are called like
    functions.

    Attributes
    ----------
    training : bool
        True until :meth:`eval`; read by BatchNorm and Dropout.
    """

    training: bool
    _modules: dict[str, Module | None]

    def __init__(self) -> None:
        super().__init__()
        self.training = True
        self._forward_hooks: dict[int, Callable[..., Any]] = {}
        self._forward_pre_hooks: dict[int, Callable[..., Any]] = {}

    # Computing

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the module's result; what a subclass writes."""
        raise TypeError(f"{type(self).__name__} must define forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not (self._forward_pre_hooks or self._forward_hooks):
            return self.forward(*args, **kwargs)
        for hook in tuple(self._forward_pre_hooks.values()):
            changed = hook(self, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        out = self.forward(*args, **kwargs)
        for hook in tuple(self._forward_hooks.values()):
            changed = hook(self, args, out)
            if changed is not None:
                out = changed
        return out

    def register_forward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after each forward; what it returns, unless None, replaces the output.

        Parameters
        ----------
        hook : callable
            See above.

        Returns
        -------
        RemovableHandle
            ``.remove()`` takes the hook off.
        """
        return RemovableHandle(self._forward_hooks, hook)

    def register_forward_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, args)`` before each forward; what it returns, unless None, replaces the arguments.

        Parameters
        ----------
        hook : callable
            See above.

        Returns
        -------
        RemovableHandle
            ``.remove()`` takes the hook off.
        """
        return RemovableHandle(self._forward_pre_hooks, hook)

    # Switching

    def apply(self: M, fn: Callable[[Module], None]) -> M:
        """Call ``fn`` with every module of the tree, children first.

        Parameters
        ----------
        fn : callable
            Takes a module.

        Returns
        -------
        Module
            This module.
        """
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def train(self: M, mode: bool = True) -> M:
        """Switch the whole tree to training (or evaluation) behaviour.

        Parameters
        ----------
        mode : bool
            False is :meth:`eval`.

        Returns
        -------
        Module
            This module.
        """
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self: M) -> M:
        """Switch the whole tree to evaluation behaviour; returns this module."""
        return self.train(False)

    def to(self: M, dtype: Any) -> M:
        """Convert all parameters and floating-point buffers, e.g. to float64 for a gradient check.

        Build the optimizer afterwards: gradients are dropped and the arrays are new.

        Parameters
        ----------
        dtype : dtype
            float32 or float64.

        Returns
        -------
        Module
            This module.
        """
        for param in self.parameters():
            param.grad, param.data = None, param.data.astype(dtype)
        for module in self.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None and buffer.dtype.kind == "f":
                    module._buffers[name] = buffer.astype(dtype)
        return self

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Freeze (False) or unfreeze all parameters; returns this module."""
        for param in self.parameters():
            param.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters; drop the arrays, or fill them with zeros."""
        for param in self.parameters():
            if set_to_none:
                param.grad = None
            elif param.grad is not None:
                param.grad[...] = 0

    # Saving

    def state_dict(self, prefix: str = "", decoded: bool = False) -> dict[str, Any]:
        """A snapshot of all parameters and persistent buffers, under torch's names.

        Parameters
        ----------
        prefix : str
            Put in front of every name.
        decoded : bool
            Give parameters that live as codes as float32 arrays too, for other libraries. Their scale is lost.

        Returns
        -------
        dict of str to ndarray or QTensor
            Copies, unlike torch's: training on does not change a snapshot. Shared parameters appear under each name.
            A parameter that lives as codes is a QTensor: codes and scale.
        """
        return state.snapshot(self, prefix, decoded)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> state.IncompatibleKeys:
        """Copy arrays into this tree, in place; nothing changes if anything does not fit.

        Parameters
        ----------
        state_dict : mapping of str to array_like or QTensor
            From :meth:`state_dict`, a checkpoint or torch. Values are cast to the dtype they have here; a parameter
            that lives as codes takes codes of its format as they are and encodes anything else. A warning says how
            many values a fixed scale clamped.
        strict : bool
            Missing and unexpected names are errors.

        Returns
        -------
        IncompatibleKeys
            ``(missing_keys, unexpected_keys)``.

        Raises
        ------
        RuntimeError
            Listing all names and shapes that do not fit.
        """
        return state.load(self, state_dict, strict)

    def generator_states(self) -> dict[str, Any]:
        """Where the random streams of this tree (Dropout's) stand, as plain JSON by module name."""
        return {name: module.generator.bit_generator.state for name, module in self.named_modules()
                if isinstance(module.__dict__.get("generator"), np.random.Generator)}

    def load_generator_states(self, states: Mapping[str, Any]) -> None:
        """Restore what :meth:`generator_states` returned.

        Parameters
        ----------
        states : mapping
            One entry per module that has a stream.

        Raises
        ------
        ValueError
            If the module names differ.
        """
        own = self.generator_states()
        if set(own) != set(states):
            raise ValueError(f"generator states: expected {sorted(own)}, got {sorted(states)}")
        for name, module in self.named_modules():
            if name in own:
                module.generator.bit_generator.state = states[name]

    # Printing

    def extra_repr(self) -> str:
        """The settings inside the parentheses of the printed form; what a layer overrides."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = [f"({name}): " + repr(child).replace("\n", "\n  ") for name, child in self._modules.items()]
        if not lines:
            return f"{type(self).__name__}({extra})"
        return "\n  ".join([f"{type(self).__name__}({extra}", *lines]) + "\n)"
