"""The shapes of a model that can be run, read off the graph that one forward pass leaves behind."""
from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minilp.autograd import (
    Function,
    Tensor,
    activations,
    attention,
    elementwise,
    indexing,
    linalg,
    norm,
    reductions,
    shape,
    unary,
)
from minilp.autograd import conv as convolution
from minilp.autograd import pool as pooling
from minilp.autograd.engine import Context
from minilp.autograd.grad_mode import enable_grad
from minilp.autograd.softmax import Softmax
from minilp.contract import Contraction
from minilp.energy.shapes import LayerShape
from minilp.products import Product

if TYPE_CHECKING:
    from minilp.nn import Module

MOVES = (shape.Reshape, shape.Permute, shape.BroadcastTo, shape.Concat, shape.Stack, shape.Pad, indexing.GetItem,
         unary.Cast, attention.SplitHeads, attention.MergeHeads, attention.Spread, attention.Gather,
         attention.ByFeatures)
"""Operations that move numbers and do no arithmetic."""

ELEMENTWISE = {activations.ReLU: "relu", activations.GELU: "gelu", unary.Tanh: "tanh", unary.Sigmoid: "sigmoid",
               elementwise.Add: "add", elementwise.Sub: "add", elementwise.Mul: "mul", elementwise.Div: "mul"}

FUSED: dict[type[Function], tuple[str, str]] = {activations.AddReLU: ("add", "relu"),
                                                attention.MaskedSoftmax: ("mul", "softmax")}
"""Operations that compute two layers in one pass."""


def shapes_of(model: Module, input_shape: Sequence[int], dtype: Any = np.float32) -> tuple[LayerShape, ...]:
    """The layers of a model as records, in execution order, from one forward pass of a batch of one, all zeros.

    Equal to :func:`minilp.energy.network` for the models that have a network of the same name. The recipe of the
    layers does not matter. The model is evaluated: parameters, running statistics and random streams stay as they are.

    Parameters
    ----------
    model : Module
        Takes one tensor with the batch as its first axis and returns one.
    input_shape : sequence of int
        Of one picture or sequence, without the batch: (3, 32, 32), or (length,) of integers.
    dtype : dtype
        Of the input; an integer type for a model that begins with an embedding.

    Returns
    -------
    tuple of LayerShape
        A layer has the name of its module. What a module computes itself, without a layer, is named after that module,
        what it is, and its number there: ``layer1.0.relu2``.

    Raises
    ------
    ValueError
        If the model does arithmetic that has no record.

    Notes
    -----
    A normalisation with a scale but no shift counts parameters for both; a layer whose weight is another's but whose
    bias is its own counts none.
    """
    x = Tensor(np.zeros((1, *input_shape), dtype))
    if x.dtype.kind == "f":
        x.requires_grad = True  # so that nothing behind it is left out of the graph
    modes = [(module, module.training) for module in model.modules()]
    frozen = [param for param in model.parameters() if not param.requires_grad]
    calls = _Calls(model)
    try:
        model.eval().requires_grad_()
        with enable_grad():
            out = model(x)
    finally:
        calls.stop()
        for module, mode in modes:
            module.training = mode
        for param in frozen:
            param.requires_grad = False
    return tuple(_Reader(x, out, calls).read())


class _Calls:
    """Which module was computing when: the intervals of ``Context.sequence`` of every call."""

    def __init__(self, model: Module) -> None:
        self.running: list[tuple[str, bool, int]] = []
        self.done: list[tuple[int, int, str, bool]] = []
        self._handles = []
        for name, module in model.named_modules():
            leaf = bool(name) and not any(True for _ in module.children())
            self._handles += [module.register_forward_pre_hook(self._begin(name, leaf)),
                              module.register_forward_hook(self._end)]

    def stop(self) -> None:
        for handle in self._handles:
            handle.remove()

    def owner(self, node: Context) -> tuple[str, bool]:
        """Name of the innermost module that made a node, and whether it is a layer (has a name and no parts)."""
        around = [call for call in self.done if call[0] < node.sequence < call[1]]
        return max(around)[2:]

    @staticmethod
    def _now() -> int:
        return Context(Function, ()).sequence

    def _begin(self, name: str, leaf: bool) -> Any:
        def hook(module: Module, args: Any) -> None:
            self.running.append((name, leaf, self._now()))
        return hook

    def _end(self, module: Module, args: Any, out: Any) -> None:
        name, leaf, begun = self.running.pop()
        self.done.append((begun, self._now(), name, leaf))


class _Reader:
    """Turns the nodes behind a result into records."""

    def __init__(self, x: Tensor, out: Tensor, calls: _Calls) -> None:
        self.x, self.calls = x, calls
        self.shapes: dict[Context, tuple[int, ...]] = {}
        if out.grad_fn is not None:
            self.shapes[out.grad_fn] = out.shape
        waiting = list(self.shapes)
        while waiting:
            node = waiting.pop()
            for edge, given in zip(node.edges, node.inputs, strict=True):
                if isinstance(edge, Context) and edge not in self.shapes and given is not None:
                    self.shapes[edge] = given[0]
                    waiting.append(edge)
        self.nodes = sorted(self.shapes, key=lambda node: node.sequence)
        self.layers: list[LayerShape] = []
        self.made: dict[Context, int] = {}  # node -> index of its record
        self.sources: dict[Context, set[str]] = {}
        self.seen: set[int] = set()
        self.ordinals: collections.Counter[tuple[str, str]] = collections.Counter()

    def read(self) -> list[LayerShape]:
        for node in self.nodes:
            self.sources[node] = set().union(*(self._source(edge) for edge in node.edges if edge is not None))
            if issubclass(node.function, MOVES) or self._is_bias(node):
                continue
            if node.function in FUSED:  # two layers computed in one pass
                size = self.shapes[node]
                for kind in FUSED[node.function]:
                    features = size[-1] if kind == "softmax" else 0
                    self.layers.append(LayerShape(name=self._name(node, kind), kind=kind, elements=math.prod(size),
                                                  features=features))
                continue
            fields = self._fields(node)
            if fields["kind"] == "avg_pool" and fields["kernel"] == (1, 1):
                continue
            self.made[node] = len(self.layers)
            self.layers.append(LayerShape(name=self._name(node, fields["kind"]), **fields))
        return self.layers

    def _source(self, edge: Context | Tensor) -> set[str]:
        """What a value was computed from: data, parameters or both."""
        return self.sources[edge] if isinstance(edge, Context) else {"data" if edge is self.x else "parameters"}

    def _name(self, node: Context, kind: str) -> str:
        owner, leaf = self.calls.owner(node)
        first = leaf and not any(name == owner for name, _ in self.ordinals)
        if leaf and kind in ("add", "relu") and not first:  # what is behind a BatchNorm2d counts as its parent's
            owner = owner.rpartition(".")[0]
        self.ordinals[owner, kind] += 1
        return owner if first else f"{owner}.{kind}{self.ordinals[owner, kind]}".lstrip(".")

    def _is_bias(self, node: Context) -> bool:
        """Coded layers add their bias with an operation of its own; it becomes part of the layer's record."""
        if not issubclass(node.function, elementwise.Add) or len(node.edges) != 2:
            return False
        for product, other in (node.edges, node.edges[::-1]):
            if (isinstance(product, Context) and issubclass(product.function, Contraction) and other is not None
                    and self._source(other) == {"parameters"}):
                index = self.made[product]
                self.layers[index] = dataclasses.replace(self.layers[index], bias=True)
                return True
        return False

    def _shared(self, edge: Context | Tensor | None) -> bool:
        """Whether a weight has been met before."""
        met = id(edge) in self.seen
        self.seen.add(id(edge))
        return met

    def _fields(self, node: Context) -> dict[str, Any]:
        out, kind = self.shapes[node], node.function
        given: Any = [None if entry is None else entry[0] for entry in node.inputs]
        if issubclass(kind, (convolution.Conv2d, linalg.Linear, Contraction)):
            return self._weighted(node, given, out)
        if issubclass(kind, (linalg.Matmul, Product)):
            before = node.edges[1]
            turned = isinstance(before, Context) and issubclass(before.function, shape.Permute)
            return {"kind": "matmul", "m": out[-2], "k": given[0][-1], "n": out[-1], "heads": math.prod(out[:-2]),
                    "keys": node.kind == "scores" if issubclass(kind, Product) else turned}
        if issubclass(kind, (pooling.MaxPool2d, pooling.AvgPool2d)):
            name = "max_pool" if issubclass(kind, pooling.MaxPool2d) else "avg_pool"
            return _pool(name, given[0], out, *node.geometry[-3:])
        if issubclass(kind, reductions.Mean) and len(given[0]) == 4 and tuple(node.axes) == (2, 3):
            return _pool("avg_pool", given[0], (*out[:2], 1, 1), given[0][2:], given[0][2:], (0, 0))
        size: dict[str, Any] = {"elements": math.prod(out)}
        if issubclass(kind, (norm.BatchNormTraining, norm.BatchNormEval, norm.LayerNorm)):
            batch = not issubclass(kind, norm.LayerNorm)
            features = out[1] if batch else math.prod(out[axis] for axis in node.axes)
            return {"kind": "batch_norm" if batch else "layer_norm", "features": features,
                    "bias": node.edges[1] is not None, "shared": self._shared(node.edges[1]), **size}
        if issubclass(kind, Softmax):
            return {"kind": "softmax", "features": out[node.axis], **size}
        if issubclass(kind, indexing.Embedding):
            return {"kind": "embedding", "rows": node.shape[0], "features": node.shape[1],
                    "shared": self._shared(node.edges[1]), **size}
        for function, name in ELEMENTWISE.items():
            if issubclass(kind, function):
                return {"kind": name, **size}
        raise ValueError(f"shapes_of: {self.calls.owner(node)[0] or 'the model'} computes {kind.__name__}, of which "
                         f"there is no record")

    def _weighted(self, node: Context, given: Any, out: tuple[int, ...]) -> dict[str, Any]:
        """A convolution or a linear layer, plain or coded."""
        x, w = given[:2]
        coded = issubclass(node.function, Contraction)
        first = node.edges[0]
        fields = {"bias": not coded and node.edges[2] is not None, "shared": self._shared(node.edges[1]),
                  "input_grad": first is not None and self._source(first) != {"data"}}
        if len(w) == 2:
            return {"kind": "linear", "in_features": w[1], "out_features": w[0], "tokens": math.prod(out[:-1]),
                    **fields}
        spec = node.spec if coded else None
        stride, padding, dilation, groups = (
            (spec.stride, spec.padding, spec.dilation, spec.groups) if spec else node.geometry)
        return {"kind": "conv2d", "in_channels": x[1], "out_channels": w[0], "kernel": w[2:], "stride": stride,
                "padding": padding, "dilation": dilation, "groups": groups, "in_size": x[2:], "out_size": out[2:],
                **fields}


def _pool(kind: str, x: tuple[int, ...], out: tuple[int, ...], kernel: Any, stride: Any,
          padding: Any) -> dict[str, Any]:
    return {"kind": kind, "in_channels": x[1], "out_channels": x[1], "kernel": tuple(kernel), "stride": tuple(stride),
            "padding": tuple(padding), "in_size": tuple(x[2:]), "out_size": tuple(out[2:])}
