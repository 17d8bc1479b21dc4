"""What a user sees while a training runs: a progress bar on a terminal, a line an epoch anywhere, Ctrl-C."""
from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

SHORT = {"image": "img", "token": "tok"}


class Progress:
    """A bar over all images or tokens of the training, with loss, accuracy, speed and the time left.

    Without a terminal there is no bar, and :meth:`line` is all that shows.

    Parameters
    ----------
    total, done : int
        Images or tokens to train on altogether, and those a resumed training has behind it.
    unit : {"image", "token"}
        Which.
    quiet : bool
        Show nothing at all.
    """

    def __init__(self, total: int, done: int, unit: str, quiet: bool) -> None:
        self.quiet = quiet
        self.bar: Any = None
        if not quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=done, unit=SHORT[unit], unit_scale=unit == "token",
                            dynamic_ncols=True, leave=False, smoothing=0.05)

    def step(self, count: int, epoch: str, loss: float, acc: float) -> None:
        """A batch is done: ``loss`` and ``acc`` are the epoch's so far."""
        if self.bar is not None:
            self.bar.set_description_str(epoch, refresh=False)
            self.bar.set_postfix_str(f"loss {loss:.3f}, acc {acc:.1%}", refresh=False)
            self.bar.update(count)

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        if self.quiet:
            return
        if self.bar is not None:
            self.bar.clear()
        print(text, flush=True)
        if self.bar is not None:
            self.bar.refresh()

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()


class Interrupt:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        return self.asked

    def handle(self, *_: object) -> None:
        """The signal handler: note the first Ctrl-C, obey the second at once."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextlib.contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Turn the first Ctrl-C inside the block into a flag, so that a step can be finished and saved.

    Yields
    ------
    Interrupt
        Call it to ask. Outside the main thread, where Python takes no signals, it stays False.
    """
    flag = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = signal.signal(signal.SIGINT, flag.handle)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, before)
