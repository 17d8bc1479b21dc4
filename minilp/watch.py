"""Who wants to know what is being computed. Rooms announce what they do; while nobody listens that costs one test.

A :class:`Watcher` is told of every differentiable operation, forward and backward, of every contraction in the
contraction room, of every operand that is encoded and of every parameter that an optimizer steps. It gets the objects
themselves and must not change them. :mod:`minilp.energy` counts this way.
"""
from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


class Watcher:
    """What can be heard; a subclass overrides what it wants to hear."""

    def forward(self, ctx: Any, args: tuple[Any, ...], out: Any) -> None:
        """A Function has computed ``out`` (ndarray) from ``args``; ``ctx`` is its Context."""

    def backward_begins(self, ctx: Any) -> None:
        """The backward pass of the operation that ``ctx`` recorded is about to run."""

    def backward_ended(self, ctx: Any, grad: Any, returned: tuple[Any, ...]) -> None:
        """It has turned ``grad`` into ``returned``, one gradient or None for each argument of forward.

        The numbers in ``grad`` may be gone: an operation may write its result over them.
        """

    def contracted(self, a: Any, b: Any, spec: Any, out: Any) -> None:
        """The contraction room has multiplied two operands (QTensor or ndarray); ``spec`` says how."""

    def encoded(self, role_name: str, role: Any, x: Any, q: Any, axis: int | None) -> None:
        """The tensor ``x`` (ndarray, or QTensor where codes came from codes) was encoded as ``q`` in a role.

        ``axis`` is the one that blocks lie along, for a format with blocks along the sum.
        """

    def updated(self, optimizer: Any, param: Any, state: dict[str, Any], group: dict[str, Any],
                weight_decay: float) -> None:
        """An optimizer has stepped a parameter; arguments as :meth:`minilp.optim.Optimizer.update` has them."""


watchers: list[Watcher] = []


@contextlib.contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Let a watcher hear all that is computed inside a ``with`` block.

    Parameters
    ----------
    watcher : Watcher
        Several may listen at once.
    """
    watchers.append(watcher)
    try:
        yield
    finally:
        watchers.remove(watcher)
