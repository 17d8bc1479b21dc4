"""Where the time of a step goes: to which part of the training, and to which C kernel in it.

Python's profiling hook tells when a function begins and ends, and the C kernels are functions to it too. Every moment
belongs to the innermost part that is open, and in it to the C kernel that runs or to NumPy and Python. The hook costs a
little for each call, so a profiled step is never a timed one; the hook's own time is left out of the account.
"""
from __future__ import annotations

import pathlib
import re
import sys
import time
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

import minilp
from minilp.formats import Spec
from minilp.formats.spec import KINDS

REST = "rest"
PYTHON = "NumPy and Python"

# (file below minilp/, function, part): the first that fits. A function that fits none belongs to its caller's part.
PARTS = tuple((re.compile(file), re.compile(function), part) for file, function, part in (
    (r"multiply\.py", r"multiply", ""),  # its Spec says which contraction
    (r"kernels/float32\.py", r"conv2d", "forward"),
    (r"kernels/float32\.py", r"conv2d_input_grad", "input grad"),
    (r"kernels/float32\.py", r"conv2d_weight_grad", "weight grad"),
    (r"autograd/linalg\.py", r"forward|backward", "float32 matrices"),
    (r"operands\.py", r"encode|_code|code_along|narrowed", "encode"),
    (r"(operands|transforms)\.py", r"backward", "straight-through"),
    (r"formats/.*", r"encode(_along)?", "encode"),
    (r"formats/.*", r"decode", "decode"),
    (r"transforms\.py", r".*", "encode"),
    (r"autograd/norm\.py|kernels/norm\.py|autograd/.*norm.*\.py", r"forward|backward|.*batch_norm.*", "norm"),
    (r"autograd/activations\.py", r"forward|backward", "activation"),
    (r"autograd/pool\.py", r"forward|backward", "pool"),
    (r"autograd/softmax\.py|nn/loss_functions\.py", r".*", "loss"),
    (r"autograd/(elementwise|reductions|shape|unary|indexing|attention|dropout)\.py", r"forward|backward",
     "elementwise"),
    (r"autograd/engine\.py", r"add", "gradient sums"),
    (r"optim/.*|stored\.py", r".*", "optimizer"),
))
WORDS = {"forward": "forward", "input_grad": "input grad", "weight_grad": "weight grad"}
CONTRACTIONS = {kind: WORDS[Spec(kind).product] for kind in KINDS}
_HOME = str(pathlib.Path(minilp.__file__).parent) + "/"


def part_of(code: CodeType) -> str | None:
    """The part that a function of minilp opens; "" for a contraction, None for a function that opens none."""
    if not code.co_filename.startswith(_HOME):
        return None
    file = code.co_filename[len(_HOME):]
    for files, functions, part in PARTS:
        if files.fullmatch(file) and functions.fullmatch(code.co_name):
            return part
    return None


class Account:
    """Seconds and calls by (part, kernel), filled while :meth:`measure` runs."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str], float] = {}
        self.calls: dict[tuple[str, str], int] = {}
        self._open = [(REST, PYTHON)]
        self._known: dict[int, tuple[CodeType, str | None]] = {}  # by id, as hashing code is slow; keeping it alive
        self._last = 0.0

    def measure(self, work: Callable[[], object]) -> None:
        """Run ``work`` under the hook."""
        self._last = time.perf_counter()
        sys.setprofile(self._event)
        try:
            work()
        finally:
            sys.setprofile(None)

    def _event(self, frame: FrameType, event: str, argument: Any) -> None:
        now, top = time.perf_counter(), self._open[-1]
        self.seconds[top] = self.seconds.get(top, 0.0) + now - self._last
        if event == "call":
            code = frame.f_code
            if id(code) not in self._known:
                self._known[id(code)] = code, part_of(code)
            part = self._known[id(code)][1]
            if part == "":
                part = CONTRACTIONS[frame.f_locals["spec"].kind]
            self._begin(top if part is None else (part, PYTHON), entered=part is not None and part != top[0])
        elif event == "return":
            if len(self._open) > 1:
                self._open.pop()
        elif (name := getattr(argument, "__name__", "")).startswith("mlp_"):
            if event == "c_call":
                self._begin((top[0], name), entered=True)
            else:
                self._open.pop()
        self._last = time.perf_counter()

    def _begin(self, key: tuple[str, str], entered: bool) -> None:
        self._open.append(key)
        if entered:
            self.calls[key] = self.calls.get(key, 0) + 1


def profile(work: Callable[[], object], times: int = 1) -> dict[str, Any]:
    """Where the time of a call goes.

    Parameters
    ----------
    work : callable
        A training step, or anything that minilp computes in this thread. Each call must do the same.
    times : int
        Calls to profile. Each entry of the account is the smallest of its values in them: other programs on the machine
        can only add to it.

    Returns
    -------
    dict
        ``ms``, the sum over ``rows``: dicts with part (``forward``, ``input grad``, ``weight grad``, ``encode``,
        ``norm``, ``activation``, ``optimizer``, ..., ``rest``), kernel (a C function, or ``NumPy and Python``), ms,
        calls (how often part or kernel was entered) and share of the sum; the dearest first.
    """
    accounts = [Account() for _ in range(times)]
    for account in accounts:
        account.measure(work)
    keys = set().union(*(account.seconds for account in accounts))
    seconds = {key: min(account.seconds.get(key, 0.0) for account in accounts) for key in keys}
    whole = sum(seconds.values())
    rows = [{"part": part, "kernel": kernel, "ms": least * 1e3, "calls": accounts[0].calls.get((part, kernel), 0),
             "share": least / whole} for (part, kernel), least in sorted(seconds.items(), key=lambda item: -item[1])]
    return {"ms": whole * 1e3, "rows": rows}
