"""Operators and methods of Tensor: short names for the functions in the op files, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minilp.autograd import activations, elementwise, indexing, linalg, reductions, shape, softmax, unary
from minilp.autograd.arrays import Array, Axis, TensorLike
from minilp.autograd.grad_mode import is_grad_enabled

if TYPE_CHECKING:
    from minilp.autograd.tensor import Tensor


def _is_operand(x: Any) -> bool:
    return isinstance(x, (Operators, np.ndarray, np.generic, int, float))


class Operators:
    """Base of Tensor that holds its operators. Each method's details are in the function of the same name."""

    __slots__ = ()

    data: Any
    requires_grad: Any
    is_leaf: Any

    # -- shape --------------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """tuple of int: length of each axis."""
        return self.data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """numpy.dtype: element type."""
        return self.data.dtype

    @property
    def ndim(self) -> int:
        """int: number of axes."""
        return self.data.ndim

    @property
    def size(self) -> int:
        """int: number of elements (as in NumPy)."""
        return self.data.size

    @property
    def T(self) -> Tensor:
        """Tensor: axes in reverse order."""
        return shape.permute(self, tuple(reversed(range(self.data.ndim))))

    def reshape(self, *sizes: Any) -> Tensor:
        """See `shape.reshape`; takes one tuple or separate lengths."""
        return shape.reshape(self, sizes[0] if len(sizes) == 1 else sizes)

    def flatten(self, start_axis: int = 0, end_axis: int = -1) -> Tensor:
        """See `shape.flatten`."""
        return shape.flatten(self, start_axis, end_axis)

    def permute(self, *axes: Any) -> Tensor:
        """See `shape.permute`; takes one tuple or separate axes."""
        return shape.permute(self, axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes)

    def transpose(self, axis0: int = -2, axis1: int = -1) -> Tensor:
        """See `shape.transpose`."""
        return shape.transpose(self, axis0, axis1)

    def squeeze(self, axis: Axis = None) -> Tensor:
        """See `shape.squeeze`."""
        return shape.squeeze(self, axis)

    def unsqueeze(self, axis: int) -> Tensor:
        """See `shape.unsqueeze`."""
        return shape.unsqueeze(self, axis)

    def broadcast_to(self, sizes: Sequence[int]) -> Tensor:
        """See `shape.broadcast_to`."""
        return shape.broadcast_to(self, sizes)

    def split(self, sizes: int | Sequence[int], axis: int = 0) -> tuple[Tensor, ...]:
        """See `shape.split`."""
        return shape.split(self, sizes, axis)

    # -- reductions ---------------------------------------------------------------------------------------------------

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """See `reductions.sum`."""
        return reductions.sum(self, axis, keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """See `reductions.mean`."""
        return reductions.mean(self, axis, keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """See `reductions.max`."""
        return reductions.max(self, axis, keepdims)

    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """See `reductions.min`."""
        return reductions.min(self, axis, keepdims)

    def var(self, axis: Axis = None, correction: float = 1, keepdims: bool = False) -> Tensor:
        """See `reductions.var`."""
        return reductions.var(self, axis, correction, keepdims)

    def std(self, axis: Axis = None, correction: float = 1, keepdims: bool = False) -> Tensor:
        """See `reductions.std`."""
        return reductions.std(self, axis, correction, keepdims)

    def argmax(self, axis: int | None = None) -> Array:
        """Return the index of the first largest element as a plain integer array (an index has no gradient)."""
        return np.asarray(self.data.argmax(axis))

    # -- functions of each element ------------------------------------------------------------------------------------

    def exp(self) -> Tensor:
        """See `unary.exp`."""
        return unary.exp(self)

    def log(self) -> Tensor:
        """See `unary.log`."""
        return unary.log(self)

    def sqrt(self) -> Tensor:
        """See `unary.sqrt`."""
        return unary.sqrt(self)

    def abs(self) -> Tensor:
        """See `unary.abs`."""
        return unary.abs(self)

    def tanh(self) -> Tensor:
        """See `unary.tanh`."""
        return unary.tanh(self)

    def sigmoid(self) -> Tensor:
        """See `unary.sigmoid`."""
        return unary.sigmoid(self)

    def relu(self) -> Tensor:
        """See `activations.relu`."""
        return activations.relu(self)

    def clip(self, min: float | None = None, max: float | None = None) -> Tensor:
        """See `unary.clip`."""
        return unary.clip(self, min, max)

    def astype(self, dtype: Any) -> Tensor:
        """See `unary.astype`."""
        return unary.astype(self, dtype)

    def softmax(self, axis: int = -1) -> Tensor:
        """See `softmax.softmax`."""
        return softmax.softmax(self, axis)

    def log_softmax(self, axis: int = -1) -> Tensor:
        """See `softmax.log_softmax`."""
        return softmax.log_softmax(self, axis)

    # -- indexing -----------------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Tensor:
        return indexing.getitem(self, index)

    def __iter__(self) -> Iterator[Tensor]:
        if self.data.ndim == 0:
            raise TypeError("a 0-d tensor cannot be iterated over")
        return (self[i] for i in range(self.data.shape[0]))

    # -- arithmetic ---------------------------------------------------------------------------------------------------

    def __neg__(self) -> Tensor:
        return elementwise.neg(self)

    def __add__(self, other: TensorLike) -> Tensor:
        return elementwise.add(self, other) if _is_operand(other) else NotImplemented

    def __sub__(self, other: TensorLike) -> Tensor:
        return elementwise.sub(self, other) if _is_operand(other) else NotImplemented

    def __mul__(self, other: TensorLike) -> Tensor:
        return elementwise.mul(self, other) if _is_operand(other) else NotImplemented

    def __truediv__(self, other: TensorLike) -> Tensor:
        return elementwise.div(self, other) if _is_operand(other) else NotImplemented

    def __pow__(self, other: TensorLike) -> Tensor:
        return elementwise.pow(self, other) if _is_operand(other) else NotImplemented

    def __matmul__(self, other: TensorLike) -> Tensor:
        return linalg.matmul(self, other) if _is_operand(other) else NotImplemented

    # Reverse operators: 2 + t, array - t, and so on.

    def __radd__(self, other: TensorLike) -> Tensor:  # other + self
        return elementwise.add(other, self) if _is_operand(other) else NotImplemented

    def __rsub__(self, other: TensorLike) -> Tensor:  # other - self
        return elementwise.sub(other, self) if _is_operand(other) else NotImplemented

    def __rmul__(self, other: TensorLike) -> Tensor:  # other * self
        return elementwise.mul(other, self) if _is_operand(other) else NotImplemented

    def __rtruediv__(self, other: TensorLike) -> Tensor:  # other / self
        return elementwise.div(other, self) if _is_operand(other) else NotImplemented

    def __rpow__(self, other: TensorLike) -> Tensor:  # other ** self
        return elementwise.pow(other, self) if _is_operand(other) else NotImplemented

    def __rmatmul__(self, other: TensorLike) -> Tensor:  # other @ self
        return linalg.matmul(other, self) if _is_operand(other) else NotImplemented

    # In-place operators: t += x, and so on.

    def _in_place(self, symbol: str, function: Callable[[Any, Any], Tensor], other: Any) -> Any:
        """Carry out `t op= other`.

        Only a leaf that requires grad has an identity worth keeping (it is a parameter). While operations are recorded
        that is an error, as in torch; under `no_grad` its data is updated in place. For any other tensor the result is
        a new tensor and the name on the left is bound to it: nothing another operation saved changes.
        """
        if not _is_operand(other):
            return NotImplemented
        if not (self.is_leaf and self.requires_grad):
            return function(self, other)
        if is_grad_enabled():
            raise RuntimeError(
                f"t {symbol} x on a leaf tensor that requires grad: backward would not find the leaf again. Write "
                f"u = t {symbol[:-1]} x, or for an update without gradient: with no_grad(): t {symbol} x"
            )
        result = function(self, other).data
        if result.shape != self.data.shape:
            raise ValueError(f"t {symbol} x: the result has shape {result.shape}, t has shape {self.data.shape}")
        self.data[...] = result
        return self

    def __iadd__(self, other: TensorLike) -> Any:
        return self._in_place("+=", elementwise.add, other)

    def __isub__(self, other: TensorLike) -> Any:
        return self._in_place("-=", elementwise.sub, other)

    def __imul__(self, other: TensorLike) -> Any:
        return self._in_place("*=", elementwise.mul, other)

    def __itruediv__(self, other: TensorLike) -> Any:
        return self._in_place("/=", elementwise.div, other)

    # Comparisons give bool tensors without gradient; tensors hash by identity.

    def __eq__(self, other: object) -> Any:
        return elementwise.compare(np.equal, self, other) if _is_operand(other) else NotImplemented

    def __ne__(self, other: object) -> Any:
        return elementwise.compare(np.not_equal, self, other) if _is_operand(other) else NotImplemented

    def __lt__(self, other: Any) -> Tensor:
        return elementwise.compare(np.less, self, other) if _is_operand(other) else NotImplemented

    def __le__(self, other: Any) -> Tensor:
        return elementwise.compare(np.less_equal, self, other) if _is_operand(other) else NotImplemented

    def __gt__(self, other: Any) -> Tensor:
        return elementwise.compare(np.greater, self, other) if _is_operand(other) else NotImplemented

    def __ge__(self, other: Any) -> Tensor:
        return elementwise.compare(np.greater_equal, self, other) if _is_operand(other) else NotImplemented

    __hash__ = object.__hash__
