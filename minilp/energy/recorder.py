"""Counting as it happens: a watcher that turns what it hears into tallies of shapes. No per-element work, own clock."""
from __future__ import annotations

import collections
import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from minilp.energy import events
from minilp.energy.counts import Counts
from minilp.energy.events import Encoding, Normalised, Operand, Product, Updated
from minilp.formats import QTensor
from minilp.watch import Watcher, watching


@contextlib.contextmanager
def count(model: Any = None) -> Iterator[Counts]:
    """Count the operations of all training and evaluation inside a ``with`` block, per layer and role.

    Parameters
    ----------
    model : Module, optional
        Gives the layers their names, and tells how many images its forward passes saw. What runs outside of it is
        counted under the name of nothing, ``""``.

    Yields
    ------
    Counts
        Complete when the block ends; ``seconds`` is the time spent counting.
    """
    recorder, counts = Recorder(model), Counts()
    start = time.perf_counter()
    try:
        with contextlib.ExitStack() as hooks:
            recorder.attach(hooks)
            hooks.enter_context(watching(recorder))
            recorder.seconds += time.perf_counter() - start
            yield counts
    finally:
        recorder.tally_up()
        counts.fill(recorder.tally, images=recorder.images, elementwise=dict(recorder.elementwise),
                    seconds=recorder.seconds)


class Recorder(Watcher):
    """See :func:`count`."""

    def __init__(self, model: Any = None) -> None:
        self.model = model
        self.tally: collections.Counter[Any] = collections.Counter()
        self.elementwise: collections.Counter[str] = collections.Counter()
        self.images, self.seconds = 0, 0.0
        self._stack: list[str] = []
        self._layer: str | None = None  # of the operation whose backward runs
        self._heard: list[tuple[Any, ...]] = []  # what was counted and not yet tallied: see tally_up
        self._mark = f"counted_{id(self)}"  # on an operation's context: its layer and what its backward needs
        self._owners: dict[int, str] = {}

    def attach(self, hooks: contextlib.ExitStack) -> None:
        """Hang on to the modules of the model until ``hooks`` closes."""
        for name, module in self.model.named_modules() if self.model is not None else ():
            hooks.enter_context(module.register_forward_pre_hook(self._entering(name)))
            hooks.enter_context(module.register_forward_hook(self._leaving))
            for param in module.parameters(recurse=False):
                self._owners.setdefault(id(param), name)

    def _entering(self, name: str) -> Any:
        def enter(module: Any, args: tuple[Any, ...]) -> None:
            start = time.perf_counter()
            if module is self.model:
                self._stack.clear()  # an exception may have left names behind
                shape = np.shape(args[0]) if args else ()
                self.images += int(shape[0]) if shape else 1
            self._stack.append(name)
            self.seconds += time.perf_counter() - start
        return enter

    def _leaving(self, module: Any, args: tuple[Any, ...], out: Any) -> None:
        if self._stack:
            self._stack.pop()

    @property
    def layer(self) -> str:
        """Whose operation is running."""
        return self._layer if self._layer is not None else self._stack[-1] if self._stack else ""

    def forward(self, ctx: Any, args: tuple[Any, ...], out: Any) -> None:
        """Name the operation's layer for its backward pass; count it unless the contraction room does."""
        start = time.perf_counter()
        kind, layer, facts = ctx.function.counts_as, self.layer, None
        if kind in ("conv2d", "linear", "matmul"):
            x, w = args[0].shape, args[1].shape
            depth = x[-1] if kind == "matmul" else math.prod(w[1:])
            facts = (x, w, out.size * depth, kind == "matmul")
            self._heard.append((self._float_product, layer, events.FORWARD, out.size, out.size, facts))
        elif kind in ("norm_training", "norm_eval", "layer_norm"):
            self.tally[Normalised(layer, kind, False)] += out.size
        elif kind == "":
            self.elementwise[ctx.function.__name__] += out.size
        elif kind != "room":
            raise ValueError(f"counts_as: {ctx.function.__name__} says {kind!r}, which minilp.energy does not know")
        if True in ctx.needs_input_grad:
            setattr(ctx, self._mark, (layer, facts))
        self.seconds += time.perf_counter() - start

    def backward_begins(self, ctx: Any) -> None:
        """The layer of the contractions that come now."""
        start = time.perf_counter()
        self._layer = getattr(ctx, self._mark, ("",))[0]
        self.seconds += time.perf_counter() - start

    def backward_ended(self, ctx: Any, grad: Any, returned: tuple[Any, ...]) -> None:
        """Count the gradients that were computed."""
        start = time.perf_counter()
        layer, facts = getattr(ctx, self._mark, ("", None))
        if facts is not None:
            for role, index in ((events.INPUT_GRAD, 0), (events.WEIGHT_GRAD, 1)):
                if returned[index] is not None:
                    self._heard.append((self._float_product, layer, role, grad.size, math.prod(facts[index]), facts))
        elif ctx.function.counts_as in ("norm_training", "norm_eval", "layer_norm"):
            self.tally[Normalised(layer, ctx.function.counts_as, True)] += grad.size
        elif ctx.function.counts_as == "":
            self.elementwise[f"{ctx.function.__name__} backward"] += grad.size
        self._layer = None
        self.seconds += time.perf_counter() - start
        if len(self._heard) > 1000:
            self.tally_up()

    def tally_up(self) -> None:
        """Tally what was heard so far: all at once, since between two kernels nothing of it is in the caches."""
        start = time.perf_counter()
        for tally, *heard in self._heard:
            tally(*heard)
        self._heard.clear()
        self.seconds += time.perf_counter() - start

    def _float_product(self, layer: str, role: str, result: int, outputs: int, facts: tuple[Any, ...]) -> None:
        """A contraction of floats outside the room; ``result`` are the elements of the output or of its error."""
        x, w, macs, both_act = facts
        sizes = {"act": math.prod(x), "weight": math.prod(w), "error": result}
        first, second = (Operand(name, None, sizes[name]) for name in events.OPERANDS[role])
        if both_act and second.tensor == "weight":
            second = second._replace(tensor="act")
        self.tally[Product(layer, role, macs, outputs, 1, first, second)] += 1

    def contracted(self, a: Any, b: Any, spec: Any, out: Any) -> None:
        """Count one contraction of the room."""
        start = time.perf_counter()
        self._heard.append((self._room_product, self.layer, spec, out.shape, _facts(a), _facts(b)))
        self.seconds += time.perf_counter() - start

    def _room_product(self, layer: str, spec: Any, out: tuple[int, ...], *operands: tuple[Any, ...]) -> None:
        """A contraction of the room; the operands as :func:`_facts` describes them."""
        role = spec.product
        pairs = list(zip((events.OPERANDS if spec.layout is None else events.FACTORS)[role],
                         operands[::-1] if spec.kind == "context_value_grad" else operands, strict=True))
        first, second = (Operand(name, fmt, math.prod(shape), bits) for name, (shape, fmt, bits, _) in pairs)
        shapes = [shape for shape, *_ in operands]
        runs = spec.runs(*shapes, *(events.parts(scales, len(shape)) for shape, _, _, scales in operands))
        self.tally[Product(layer, role, spec.macs(*shapes, out), math.prod(out), runs, first, second)] += 1

    def encoded(self, role_name: str, role: Any, x: Any, q: Any, axis: int | None) -> None:
        """Count one encoding."""
        start = time.perf_counter()
        source = x.format if isinstance(x, QTensor) else None
        self._heard.append((self._encoding, self.layer, role_name, role, _facts(q), source))
        self.seconds += time.perf_counter() - start

    def _encoding(self, layer: str, role_name: str, role: Any, coded: tuple[Any, ...], source: Any) -> None:
        """One encoding; ``coded`` as :func:`_facts` describes it."""
        shape, fmt, bits, _ = coded
        self.tally[Encoding(layer, role, Operand(role_name, fmt, math.prod(shape), bits), source)] += 1

    def updated(self, optimizer: Any, param: Any, state: dict[str, Any], group: dict[str, Any],
                weight_decay: float) -> None:
        """Count one parameter's update."""
        start = time.perf_counter()
        operations: Any
        try:
            operations = tuple(optimizer.cost(param, group, weight_decay).items())
        except NotImplementedError as error:
            operations = str(error)
        code = getattr(param, "code", None)
        states = sum(isinstance(value, np.ndarray) for value in state.values())
        layer = self._owners.get(id(param), "")
        self.tally[Updated(layer, operations, None if code is None else code.format, states)] += param.size
        self.seconds += time.perf_counter() - start


def _facts(operand: Any) -> tuple[Any, ...]:
    """Shape, format (None for floats), bits of the scales and their shapes: what counting needs, and no array."""
    if not isinstance(operand, QTensor):
        return operand.shape, None, 0, ()
    return (operand.shape, operand.format, operand.format.scales_nbits(operand.scales),
            tuple(scale.shape for scale in operand.scales))
