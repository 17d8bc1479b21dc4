"""What a module is made of: parameters, buffers and child modules, found by attribute name."""
from __future__ import annotations

import difflib
from typing import Any

import numpy as np

from minilp.autograd.parameter import Parameter


class Registry:
    """Attributes that register themselves: the part of Module that knows names.

    Three dicts hold what was registered, in order; ordinary attributes live where Python puts them. An unknown name is
    an AttributeError with suggestions, so that a typo in a layer's name cannot train in silence.
    """

    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, np.ndarray | None]
    _modules: dict[str, Any]
    _non_persistent: set[str]

    def __init__(self) -> None:
        for name, value in (("_parameters", {}), ("_buffers", {}), ("_modules", {}), ("_non_persistent", set())):
            object.__setattr__(self, name, value)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter, or the name of one that is left out (None).

        Parameters
        ----------
        name : str
            Attribute name, without a dot.
        param : Parameter or None
            What it refers to.

        Raises
        ------
        TypeError
            If ``param`` is neither a Parameter nor None.
        KeyError
            If the name is empty, has a dot or is taken.
        """
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"register_parameter: {name} must be a Parameter or None, got {type(param).__name__}")
        self._check_name(name, self._parameters)
        self._parameters[name] = param

    def register_buffer(self, name: str, array: np.ndarray | None, persistent: bool = True) -> None:
        """Add an array that belongs to the state but is not trained.

        Parameters
        ----------
        name : str
            Attribute name, without a dot.
        array : ndarray or None
            What it refers to.
        persistent : bool
            Part of ``state_dict``.

        Raises
        ------
        TypeError
            If ``array`` is neither an ndarray nor None.
        KeyError
            If the name is empty, has a dot or is taken.
        """
        if array is not None and not isinstance(array, np.ndarray):
            raise TypeError(f"register_buffer: {name} must be a NumPy array or None, got {type(array).__name__}")
        self._check_name(name, self._buffers)
        self._buffers[name] = array
        if not persistent:
            self._non_persistent.add(name)

    def add_module(self, name: str, module: Registry | None) -> None:
        """Add a child, as assigning an attribute does.

        Parameters
        ----------
        name : str
            Attribute name, without a dot.
        module : Module or None
            The child.

        Raises
        ------
        TypeError
            If ``module`` is neither a Module nor None.
        KeyError
            If the name is empty, has a dot or is taken.
        """
        if module is not None and not isinstance(module, Registry):
            raise TypeError(f"add_module: {name} must be a Module or None, got {type(module).__name__}")
        self._check_name(name, self._modules)
        self._modules[name] = module

    def _check_name(self, name: str, own: dict[str, Any]) -> None:
        if not name or "." in name:
            raise KeyError(f"{name!r} cannot name a part of {type(self).__name__}: expected a name without dots")
        if name not in own and hasattr(self, name):
            raise KeyError(f"{type(self).__name__} already has an attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, (Parameter, Registry)):
            kind = "_parameters" if isinstance(value, Parameter) else "_modules"
            if kind not in self.__dict__:
                raise AttributeError(f"cannot assign {name!r} before the module exists: call super().__init__() first "
                                     f"in {type(self).__name__}.__init__")
            for place in (self.__dict__, self._parameters, self._buffers, self._modules):
                if place is not self.__dict__[kind]:
                    place.pop(name, None)
            self.__dict__[kind][name] = value
            return
        for kind, expected in (("_parameters", "a Parameter"), ("_modules", "a Module"), ("_buffers", "an array")):
            registered = self.__dict__.get(kind, ())
            if name in registered:
                if value is not None and not (kind == "_buffers" and isinstance(value, np.ndarray)):
                    raise TypeError(f"{type(self).__name__}.{name} is registered and takes {expected} or None, "
                                    f"got {type(value).__name__}; delete it first to use the name otherwise")
                registered[name] = value
                return
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        # Called only where the usual lookup found nothing.
        for kind in ("_parameters", "_buffers", "_modules"):
            registered = self.__dict__.get(kind, ())
            if name in registered:
                return registered[name]
        close = difflib.get_close_matches(name, [n for n in dir(self) if not n.startswith("__")], n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        if "_parameters" not in self.__dict__:
            hint = "; was super().__init__() called?"
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{hint}")

    def __delattr__(self, name: str) -> None:
        for registered in (self._parameters, self._buffers, self._modules):
            if name in registered:
                del registered[name]
                self._non_persistent.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        names = set(super().__dir__())
        for kind in ("_parameters", "_buffers", "_modules"):
            names.update(self.__dict__.get(kind, ()))
        return sorted(names)
