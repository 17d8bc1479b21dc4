"""Small array helpers shared by all operations: types, broadcasting and its reverse, axis arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np

if TYPE_CHECKING:
    from minilp.autograd.operators import Operators

Array: TypeAlias = np.ndarray[Any, Any]
# What an operation accepts where a tensor is expected; every Tensor is an Operators.
TensorLike: TypeAlias = Union["Operators", Array, float, int]
Axis: TypeAlias = int | Sequence[int] | None

FLOATS = frozenset({np.dtype(np.float32), np.dtype(np.float64)})
SUPPORTED = FLOATS | {np.dtype(t) for t in (bool, "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")}


def check_dtype(dtype: np.dtype[Any], name: str) -> None:
    """Refuse element types the engine does not compute with.

    Parameters
    ----------
    dtype : numpy.dtype
        What came.
    name : str
        What to call it in the message.

    Raises
    ------
    TypeError
        If `dtype` is not float32, float64, an integer type or bool in native byte order.
    """
    if dtype not in SUPPORTED:
        raise TypeError(
            f"{name} has dtype {dtype!s}, expected float32 or float64 (or an integer or bool array that needs no "
            "gradient); convert first, e.g. with .astype(np.float32)"
        )


def operands(name: str, a: Any, b: Any) -> tuple[Any, Any]:
    """Check the two operands of a broadcasting operation and make Python scalars take the other side's dtype.

    NumPy's promotion decides between two arrays (float32 with float64 gives float64); a Python number never widens.

    Parameters
    ----------
    name : str
        The operation, for messages.
    a, b : ndarray or number
        Operands; at least one is usually an array.

    Returns
    -------
    a, b : tuple
        Arrays or NumPy scalars that NumPy combines to the wanted dtype.

    Raises
    ------
    TypeError
        If an operand is neither array nor number, or has an unsupported dtype.
    """
    for x in (a, b):
        if isinstance(x, (np.ndarray, np.generic)):
            check_dtype(x.dtype, f"{name}: an operand")
        elif not isinstance(x, (int, float)):
            raise TypeError(f"{name}: expected a Tensor, an array or a number, got {type(x).__name__}")
    # NumPy 2 treats Python numbers as weak by itself; NumPy 1 does not for 0-d arrays, hence the explicit conversion.
    if type(b) in (int, float) and isinstance(a, np.ndarray) and a.dtype in FLOATS:
        return a, a.dtype.type(b)
    if type(a) in (int, float) and isinstance(b, np.ndarray) and b.dtype in FLOATS:
        return b.dtype.type(a), b
    return a, b


def broadcast_call(ufunc: Callable[..., Any], name: str, *args: Any) -> Any:
    """Call a broadcasting NumPy function; if the shapes do not fit, say which operation and which shapes.

    Parameters
    ----------
    ufunc : callable
        NumPy function of len(args) arrays.
    name : str
        The operation, for messages.
    *args : ndarray or number
        Operands.

    Returns
    -------
    ndarray
        `ufunc(*args)`, in the memory order of the operands.

    Raises
    ------
    ValueError
        If the shapes do not broadcast.
    """
    try:
        return ufunc(*args)
    except ValueError:
        shapes = [np.shape(a) for a in args]
        try:
            np.broadcast_shapes(*shapes)
        except ValueError:
            listed = " and ".join(str(s) for s in shapes)
            raise ValueError(
                f"{name}: shapes {listed} do not broadcast; from the last axis backwards, lengths must be equal or 1"
            ) from None
        raise


def unbroadcast(grad: Array, shape: tuple[int, ...]) -> Array:
    """Reverse of broadcasting: sum out the axes along which an operand of `shape` was repeated.

    Parameters
    ----------
    grad : ndarray
        Gradient with respect to the broadcast operand.
    shape : tuple of int
        The operand's own shape.

    Returns
    -------
    ndarray
        Gradient of exactly `shape`; `grad` itself where nothing was repeated.

    Raises
    ------
    ValueError
        If `shape` does not broadcast to `grad.shape`.
    """
    if grad.shape == shape:
        return grad
    extra = grad.ndim - len(shape)  # axes that broadcasting put in front
    if extra < 0 or any(n not in (1, m) for n, m in zip(shape, grad.shape[extra:], strict=True)):
        raise ValueError(f"a gradient of shape {grad.shape} does not reduce to the operand's shape {shape}")
    repeated = tuple(range(extra)) + tuple(
        extra + i for i, n in enumerate(shape) if n == 1 and grad.shape[extra + i] != 1
    )
    if repeated:
        grad = grad.sum(axis=repeated, keepdims=True)
    return grad.reshape(shape)


def normalise_axis(name: str, axis: Axis, ndim: int) -> tuple[int, ...]:
    """Turn an `axis` argument into a tuple of distinct non-negative axes; None means all of them.

    Parameters
    ----------
    name : str
        The operation, for messages.
    axis : int, sequence of int or None
        As in NumPy; negative axes count from the end.
    ndim : int
        Number of axes of the tensor.

    Returns
    -------
    tuple of int
        Axes in [0, ndim), in the order given.

    Raises
    ------
    ValueError
        If an axis is out of range or named twice.
    """
    if axis is None:
        return tuple(range(ndim))
    given = (axis,) if isinstance(axis, (int, np.integer)) else tuple(axis)
    axes = tuple(int(a) + ndim if a < 0 else int(a) for a in given)
    if any(not 0 <= a < ndim for a in axes) or len(set(axes)) != len(axes):
        raise ValueError(
            f"{name}: axis={axis} does not fit a tensor of {ndim} axes; expected distinct axes "
            f"in [{-ndim}, {ndim - 1}]"
        )
    return axes


def memory_order(x: Array) -> tuple[int, ...]:
    """Return the axes of x from the slowest to the fastest in memory, to rebuild its layout without keeping it."""
    return tuple(sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis])))


def by_features(x: Array) -> bool:
    """Whether rows (T, F) lie in memory as (F, T), which is how coded linear layers read and write them."""
    return x.ndim == 2 and x.flags.f_contiguous and not x.flags.c_contiguous


def zeros_in_order(shape: tuple[int, ...], dtype: np.dtype[Any], order: tuple[int, ...]) -> Array:
    """Return zeros of logical `shape` whose axes lie in memory in `order` (see `memory_order`)."""
    inverse = sorted(range(len(order)), key=order.__getitem__)
    return np.zeros([shape[axis] for axis in order], dtype).transpose(inverse)
