"""The recorded graph and the walk through it.

Every differentiable result points to the `Context` that made it, and every Context points to the Contexts (or leaf
tensors) its inputs came from. It does not point to the input *values*: an operation that needs a value in backward
says so with `save_for_backward`, and everything else can be freed while the forward pass is still running.
"""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from minilp.autograd.arrays import Array, unbroadcast
from minilp.autograd.grad_mode import no_grad
from minilp.kernels import elementwise as kernels
from minilp.kernels.conversions import converted
from minilp.kernels.storage import owner
from minilp.watch import watchers

if TYPE_CHECKING:
    from minilp.autograd.function import Function
    from minilp.autograd.tensor import Tensor

_sequence = itertools.count()


class Context:
    """One recorded call of a Function: what forward leaves for backward.

    Attributes
    ----------
    needs_input_grad : tuple of bool
        One entry per positional argument: does its gradient lead anywhere? Valid in forward and in backward.
    owns_grad : bool
        In backward: nobody else sees the incoming gradient, so its memory may be written over, with the result.

    Further attributes may be set freely in forward and read in backward (`ctx.axis = axis`).
    """

    __slots__ = ("__dict__", "__weakref__", "_saved", "edges", "function", "inputs", "needs_input_grad", "owns_grad",
                 "sequence")

    if TYPE_CHECKING:  # free attributes, for the type checker

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    def __init__(self, function: type[Function], needs_input_grad: tuple[bool, ...]) -> None:
        self.function = function
        self.needs_input_grad = needs_input_grad
        self.owns_grad = False
        self._saved: tuple[Any, ...] | None = ()
        # Where each input's gradient goes: a Context, a leaf Tensor or None. Set by Function.apply.
        self.edges: tuple[Context | Tensor | None, ...] = ()
        # (shape, dtype) of each input that needs a gradient.
        self.inputs: tuple[tuple[tuple[int, ...], np.dtype[Any]] | None, ...] = ()
        # Creation order is a topological order: a result is always made after its inputs.
        self.sequence = next(_sequence)

    def __repr__(self) -> str:
        return f"<{self.function.__name__}>"

    def save_for_backward(self, *values: Any) -> None:
        """Keep values (arrays, codes, anything) for backward; they are dropped as soon as backward used them.

        Parameters
        ----------
        *values : object
            Read them back in the same order from `saved`.
        """
        self._saved = values

    @property
    def saved(self) -> tuple[Any, ...]:
        """tuple: what `save_for_backward` got. RuntimeError once the graph was freed."""
        if self._saved is None:
            raise RuntimeError(f"the values saved by {self.function.__name__} were freed by an earlier backward()")
        return self._saved

    @property
    def freed(self) -> bool:
        """bool: True once a backward pass consumed this node without `retain_graph`."""
        return self._saved is None

    def release(self) -> None:
        """Drop everything that holds memory: saved values, free attributes, the way to earlier nodes."""
        self._saved = None
        self.edges = ()
        self.__dict__.clear()


class _Gradient:
    """The sum of the gradients that have reached one node so far, and whether the engine alone owns its buffer."""

    __slots__ = ("array", "owned")

    def __init__(self, array: Array, owned: bool) -> None:
        self.array = array
        self.owned = owned

    def add(self, other: Array, other_owned: bool) -> None:
        """Add one more consumer's gradient, in place only where nobody else can see the buffer."""
        mine = self.array
        self.array = kernels.add(mine, other, out=mine if self.owned else other if other_owned else None)
        self.owned = True


def run_backward(root: Tensor, grad: Array, retain_graph: bool) -> None:
    """Walk the graph from `root` to its leaves and add to the leaves' `.grad`.

    Iterative, newest node first, so depth is limited by memory only and each node runs once, after all its consumers.
    The gradient of a node is dropped when the node has run. Leaf gradients are written at the very end: if an
    operation's backward raises, no `.grad` has changed.

    Parameters
    ----------
    root : Tensor
        Where to start.
    grad : ndarray
        Gradient with respect to `root`; same shape and dtype. Never written to.
    retain_graph : bool
        Keep saved values so that the graph can be walked again.

    Raises
    ------
    RuntimeError
        If a part of the graph was freed by an earlier backward pass.
    TypeError, ValueError
        If a Function's backward returns something that does not fit its inputs.
    """
    pending: dict[Context, _Gradient] = {}
    leaves: dict[int, tuple[Tensor, _Gradient]] = {}
    queue: list[tuple[int, Context]] = []

    def deliver(edge: Context | Tensor, array: Array, owned: bool) -> None:
        if isinstance(edge, Context):
            if edge in pending:
                pending[edge].add(array, owned)
            else:
                pending[edge] = _Gradient(array, owned)
                heapq.heappush(queue, (-edge.sequence, edge))
        elif id(edge) in leaves:
            leaves[id(edge)][1].add(array, owned)
        else:
            leaves[id(edge)] = (edge, _Gradient(array, owned))

    deliver(root if root.grad_fn is None else root.grad_fn, grad, False)
    del grad
    with no_grad():
        while queue:
            _, node = heapq.heappop(queue)
            if node.freed:
                raise RuntimeError(
                    f"backward through {node.function.__name__}, whose saved values an earlier backward() freed; call "
                    "backward(retain_graph=True) the first time, or run the forward pass again"
                )
            gradient = pending.pop(node)
            node.owns_grad = gradient.owned
            _run_node(node, gradient.array, deliver)
            del gradient
            if not retain_graph:
                node.release()
    for leaf, gradient in leaves.values():
        _accumulate(leaf, gradient)


def _run_node(node: Context, grad: Array, deliver: Any) -> None:
    """Call one node's backward, check what it returns and pass it on."""
    name = node.function.__name__
    for watcher in watchers:
        watcher.backward_begins(node)
    returned = node.function.backward(node, grad)
    for watcher in watchers:
        watcher.backward_ended(node, grad, returned)
    if not isinstance(returned, tuple) or len(returned) != len(node.edges):
        came = f"a tuple of {len(returned)}" if isinstance(returned, tuple) else type(returned).__name__
        raise TypeError(
            f"{name}.backward returned {came}, expected a tuple with one entry per positional argument "
            f"({len(node.edges)}); use None where there is no gradient"
        )
    # Arrays somebody else may read later: an operation may return its incoming gradient, a view of it, the same array
    # twice, or a saved value. Everything else it returns is new and belongs to the engine (see Function.backward).
    visible = [v for v in (*returned, grad, *node.saved) if isinstance(v, np.ndarray)]
    owners = [owner(v) for v in visible]
    for i, (edge, expected, raw) in enumerate(zip(node.edges, node.inputs, returned, strict=True)):
        if edge is None or expected is None or raw is None:
            continue
        if not isinstance(raw, (np.ndarray, np.generic)):
            raise TypeError(f"{name}.backward returned a {type(raw).__name__} for argument {i}, expected an ndarray")
        shape, dtype = expected
        try:
            array = unbroadcast(np.asarray(raw), shape)
            if array.dtype != dtype:
                converted(f"to {dtype}", array)
                array = array.astype(dtype)
        except ValueError as error:
            raise ValueError(f"{name}.backward, argument {i}: {error}") from None
        owned = array.flags.writeable and not _shares_memory(array, raw, visible, owners)
        deliver(edge, array, owned)


def _shares_memory(array: Array, raw: Any, visible: list[Array], owners: list[Array]) -> bool:
    """Whether a gradient may share memory with one of the visible arrays, among which what it came as stands once.

    NumPy is asked only about views of one array, and about memory that is no array's: this runs for every gradient.
    """
    mine, itself = owner(array), 0
    for other, theirs in zip(visible, owners, strict=True):
        if other is raw:
            itself += 1
        elif (theirs is mine or theirs.base is not None or mine.base is not None) and np.may_share_memory(array, other):
            return True
    return itself > 1 and np.may_share_memory(array, raw)


def _accumulate(leaf: Tensor, gradient: _Gradient) -> None:
    """Add a finished gradient to a leaf; the leaf ends up as the only owner of its `.grad` buffer."""
    if leaf.grad is not None:
        gradient.add(leaf.grad, False)
    elif not gradient.owned:
        own = np.empty_like(leaf.data)
        own[...] = gradient.array
        gradient.array = own
    leaf.grad = np.asarray(gradient.array)
