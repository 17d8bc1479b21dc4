"""Whether operations are recorded for backward: one flag per thread, and the two context managers that set it."""

from __future__ import annotations

import threading
from contextlib import ContextDecorator
from types import TracebackType


class _Mode(threading.local):
    """The flag; every new thread starts with recording on."""

    enabled = True


_mode = _Mode()


def is_grad_enabled() -> bool:
    """Say whether operations of this thread are being recorded.

    Returns
    -------
    bool
        True outside `no_grad`.
    """
    return _mode.enabled


class _SetMode(ContextDecorator):
    """Set the flag on entry and put the former value back on exit, also after an exception."""

    _value: bool

    def __init__(self) -> None:
        # A stack, not one field: the same object may be entered again, e.g. by a decorated recursive function.
        self._former: list[bool] = []

    def __enter__(self) -> None:
        self._former.append(_mode.enabled)
        _mode.enabled = self._value

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        _mode.enabled = self._former.pop()


class no_grad(_SetMode):
    """Context manager and decorator: compute without recording, so nothing is kept for backward.

    Examples
    --------
    >>> from minilp.autograd import Tensor, no_grad
    >>> w = Tensor([1.0, 2.0], requires_grad=True)
    >>> with no_grad():
    ...     y = w * 2
    >>> y.requires_grad
    False
    """

    _value = False


class enable_grad(_SetMode):
    """Context manager and decorator: record again inside a `no_grad` block."""

    _value = True
