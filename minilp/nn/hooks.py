"""Handles of registered hooks."""
from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

_keys = itertools.count()


class RemovableHandle:
    """Takes a hook off again; also a context manager that does so at its end.

    Parameters
    ----------
    hooks : dict
        The module's hooks by key; the new hook is entered here.
    hook : callable
        What to call.
    """

    def __init__(self, hooks: dict[int, Callable[..., Any]], hook: Callable[..., Any]) -> None:
        self._hooks, self.key = hooks, next(_keys)
        hooks[self.key] = hook

    def remove(self) -> None:
        """Take the hook off; a second call does nothing."""
        self._hooks.pop(self.key, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()
