"""Reading with an index: slices, integer arrays, masks, and rows of a table (embedding).

Backward puts the gradient back where the elements came from. Slices and masks name every element at most once, so
assignment does; integer arrays may repeat an index, so their contributions are added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from minilp.autograd.arrays import Array, TensorLike, memory_order, zeros_in_order
from minilp.autograd.engine import Context
from minilp.autograd.function import Function

if TYPE_CHECKING:
    from minilp.autograd.tensor import Tensor


def add_rows(shape: tuple[int, ...], rows: Array, values: Array) -> Array:
    """Sum values into the rows of a zero table: sorted by row, each run of equal rows reduced at once.

    The same result on every run and much faster than np.add.at for wide rows.

    Parameters
    ----------
    shape : tuple of int
        Shape of the table, (n, ...).
    rows : ndarray of int
        (t,), each in [0, n).
    values : ndarray
        (t, ...).

    Returns
    -------
    ndarray
        (n, ...), dtype of `values`.
    """
    table = np.zeros(shape, values.dtype)
    if len(rows):
        order = np.argsort(rows, kind="stable")
        rows = rows[order]
        starts = np.flatnonzero(np.concatenate(([True], rows[1:] != rows[:-1])))
        table[rows[starts]] = np.add.reduceat(values[order], starts, axis=0)
    return table


class GetItem(Function):
    """x[index]."""

    @staticmethod
    def forward(ctx: Context, x: Array, index: Any) -> Array:
        ctx.shape = x.shape
        ctx.order = memory_order(x)
        ctx.save_for_backward(index)
        try:
            return x[index]
        except IndexError as error:
            raise IndexError(f"index into a tensor of shape {x.shape}: {error}") from None

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        (index,) = ctx.saved
        entries = index if isinstance(index, tuple) else (index,)
        integers = [e for e in entries if isinstance(e, np.ndarray) and e.dtype != np.bool_]
        if len(entries) == 1 and integers:
            rows = integers[0].reshape(-1) % ctx.shape[0]  # negative indices count from the end
            return add_rows(ctx.shape, rows, grad.reshape(-1, *ctx.shape[1:])), None
        out = zeros_in_order(ctx.shape, grad.dtype, ctx.order)
        if integers:
            np.add.at(out, index, grad)
        else:
            out[index] = grad
        return out, None


class Embedding(Function):
    """Rows of a table."""

    @staticmethod
    def forward(ctx: Context, indices: Array, weight: Array, padding_idx: int | None) -> Array:
        indices = np.asarray(indices)
        if indices.dtype.kind not in "iu":
            raise TypeError(f"embedding: indices have dtype {indices.dtype}, expected integers")
        if weight.ndim != 2:
            raise ValueError(f"embedding: weight has shape {weight.shape}, expected (rows, features)")
        if indices.size and not (0 <= indices.min() and indices.max() < len(weight)):
            bad = indices[(indices < 0) | (indices >= len(weight))].flat[0]
            raise IndexError(f"embedding: index {bad} is not in [0, {len(weight)}), the rows of weight")
        ctx.save_for_backward(indices)
        ctx.shape = weight.shape
        ctx.padding_idx = padding_idx
        return weight[indices]

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        (indices,) = ctx.saved
        table = add_rows(ctx.shape, indices.reshape(-1), grad.reshape(-1, ctx.shape[1]))
        if ctx.padding_idx is not None:
            table[ctx.padding_idx] = 0
        return None, table, None


def _plain(entry: Any) -> Any:
    """An index entry as NumPy wants it: tensors and lists become arrays."""
    if hasattr(entry, "requires_grad"):
        entry = entry.data
    elif isinstance(entry, list):
        entry = np.asarray(entry, dtype=np.intp if not entry else None)
    if isinstance(entry, np.ndarray) and entry.dtype.kind not in "iub":
        raise IndexError(f"an index array must hold integers or bools, got dtype {entry.dtype}")
    return entry


def getitem(x: TensorLike, index: Any) -> Tensor:
    """Read x[index] by NumPy's rules: integers, slices, None, Ellipsis, integer arrays and masks, alone or in a tuple.

    Basic indexing (integers and slices) gives a view. Index arrays are kept for backward and must not be changed.

    Raises
    ------
    IndexError
        If the index does not fit the shape, or an index array holds neither integers nor bools.
    """
    return GetItem.apply(x, tuple(_plain(e) for e in index) if isinstance(index, tuple) else _plain(index))


def embedding(indices: TensorLike, weight: TensorLike, padding_idx: int | None = None) -> Tensor:
    """Look up rows of a table.

    Parameters
    ----------
    indices : Tensor or ndarray of int
        Any shape, each in [0, rows).
    weight : Tensor
        (rows, features).
    padding_idx : int, optional
        This row gets no gradient.

    Returns
    -------
    Tensor
        (*indices.shape, features).

    Raises
    ------
    TypeError, IndexError, ValueError
        If the indices are not integers or out of range, or weight is not 2-D.
    """
    return Embedding.apply(indices, weight, padding_idx)
