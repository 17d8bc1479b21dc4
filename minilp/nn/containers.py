"""Modules that hold other modules in order."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from minilp.nn.module import Module


class _Indexed(Module):
    """Children named "0", "1", ... or by the caller; indexed by position. A slice is a container of the same parts."""

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._parts())

    def _parts(self) -> list[Module]:
        return [module for module in self._modules.values() if module is not None]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self)._of(dict(list(self._modules.items())[index]))
        return self._parts()[index]

    @classmethod
    def _of(cls, modules: Mapping[str, Any]) -> _Indexed:
        raise TypeError(f"{cls.__name__} cannot be sliced")

    def append(self, module: Module) -> _Indexed:
        """Add a module at the end; returns self.

        Parameters
        ----------
        module : Module
            The new last part.

        Raises
        ------
        TypeError
            If it is not a Module.
        """
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__}: expected a Module, got {type(module).__name__}")
        self.add_module(str(len(self)), module)
        return self


class Sequential(_Indexed):
    """Calls its parts one after the other.

    Parameters
    ----------
    *modules : Module
        The parts, named "0", "1", ...; or a single dict of name to Module.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.add_module(name, module)
        else:
            for part in modules:
                self.append(part)  # type: ignore[arg-type]  # append refuses what is no Module

    @classmethod
    def _of(cls, modules: Mapping[str, Any]) -> _Indexed:
        return Sequential(modules)

    def forward(self, x: Any) -> Any:
        """Pass ``x`` through all parts."""
        for module in self._parts():
            x = module(x)
        return x


class ModuleList(_Indexed):
    """A list whose modules are registered; it has no forward of its own.

    Parameters
    ----------
    modules : iterable of Module
        The parts.
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        for module in modules:
            self.append(module)

    @classmethod
    def _of(cls, modules: Mapping[str, Any]) -> _Indexed:
        return ModuleList(modules.values())
