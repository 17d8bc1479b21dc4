"""Walking through a tree of modules."""
from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from minilp.autograd.parameter import Parameter
from minilp.nn.registry import Registry

if TYPE_CHECKING:
    from minilp.nn.module import Module


class Tree(Registry):
    """The part of Module that finds what is below it: each thing once, parents first, in registration order."""

    def children(self) -> Iterator[Module]:
        """The direct parts, each once."""
        for _, child in self.named_children():
            yield child

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct parts and their names, each once, in registration order."""
        seen: set[int] = set()
        for name, child in self._modules.items():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                yield name, child

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        for _, module in self.named_modules():
            yield module

    def named_modules(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """This module and all below it with dotted names, parents first, in registration order.

        Parameters
        ----------
        prefix : str
            Name of this module; the root's is empty.
        remove_duplicate : bool
            Yield a shared module once, under its first name.
        """
        yield from self._named_modules(prefix, set() if remove_duplicate else None)

    def _named_modules(self, prefix: str, seen: set[int] | None) -> Iterator[tuple[str, Module]]:
        if seen is not None:
            if id(self) in seen:
                return
            seen.add(id(self))
        yield prefix, cast("Module", self)
        for name, child in self._modules.items():
            if child is not None:
                yield from child._named_modules(f"{prefix}.{name}" if prefix else name, seen)

    def _named_members(self, kind: str, prefix: str, recurse: bool, unique: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        walk = self.named_modules(prefix, remove_duplicate=unique) if recurse else [(prefix, cast("Module", self))]
        for path, module in walk:
            for name, member in getattr(module, kind).items():
                if member is not None and not (unique and id(member) in seen):
                    seen.add(id(member))
                    yield (f"{path}.{name}" if path else name), member

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """What is to be trained, each parameter once.

        Parameters
        ----------
        recurse : bool
            Also those of the modules below.
        """
        for _, param in self.named_parameters(recurse=recurse):
            yield param

    def named_parameters(self, prefix: str = "", recurse: bool = True,
                         remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Parameters with dotted names, in registration order.

        Walking a tree leaves the dotted name in each parameter's ``name``; the walk from the highest root wins.

        Parameters
        ----------
        prefix : str
            Name of this module; the root's is empty.
        recurse : bool
            Also those of the modules below.
        remove_duplicate : bool
            Yield a shared parameter once, under its first name.
        """
        for name, param in self._named_members("_parameters", prefix, recurse, remove_duplicate):
            if param.name is None or name.endswith("." + param.name):
                param.name = name
            yield name, param

    def buffers(self, recurse: bool = True) -> Iterator[np.ndarray]:
        """Arrays that belong to the state but are not trained, each once.

        Parameters
        ----------
        recurse : bool
            Also those of the modules below.
        """
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def named_buffers(self, prefix: str = "", recurse: bool = True,
                      remove_duplicate: bool = True) -> Iterator[tuple[str, np.ndarray]]:
        """Buffers with dotted names; arguments as :meth:`named_parameters`."""
        yield from self._named_members("_buffers", prefix, recurse, remove_duplicate)
