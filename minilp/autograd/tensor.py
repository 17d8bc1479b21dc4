"""Tensor: a NumPy array, its gradient, and the operation that made it."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from minilp.autograd.arrays import FLOATS, Array, check_dtype
from minilp.autograd.engine import Context, run_backward
from minilp.autograd.function import register_tensor_type
from minilp.autograd.operators import Operators


class Tensor(Operators):
    """An array that remembers how it was computed, so that `backward` can find its gradients.

    Parameters
    ----------
    data : array_like or Tensor
        An ndarray keeps its dtype and shares its memory; lists and numbers become float32 (float64 only by `dtype`).
    requires_grad : bool, default False
        Collect the gradient of this tensor in `.grad`.
    dtype : dtype, optional
        float32, float64, an integer type or bool; converts (and copies) where needed.

    Raises
    ------
    TypeError
        If the dtype is none of these (float16, complex, object ...), or an integer tensor asks for a gradient.

    Notes
    -----
    Any strides are accepted, and elementwise operations keep the memory order of their operands. Operations never
    write to their operands: `t += x` gives the name `t` to a new tensor (see `Operators.__iadd__`).

    Examples
    --------
    >>> from minilp.autograd import Tensor
    >>> x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    array([2., 4., 6.], dtype=float32)
    """

    # With slots, assigning to a misspelt attribute (t.requires_gard = True) raises AttributeError.
    __slots__ = ("__weakref__", "_data", "_grad", "_grad_fn", "_requires_grad")

    # NumPy's binary operators then defer to ours (ndarray + tensor), and np.exp(tensor) raises instead of silently
    # dropping the gradient.
    __array_ufunc__ = None

    def __init__(self, data: Any, requires_grad: bool = False, dtype: Any = None) -> None:
        if isinstance(data, Tensor):
            data = data.data
        if isinstance(data, (np.ndarray, np.generic)):
            array = np.asarray(data, dtype=dtype)
        else:
            array = np.asarray(data)
            if dtype is not None or array.dtype.kind in "iuf":
                array = array.astype(np.float32 if dtype is None else dtype)
        check_dtype(array.dtype, "Tensor data")
        self._data = array
        self._grad: Array | None = None
        self._grad_fn: Context | None = None
        self._requires_grad = False
        if requires_grad:
            self.requires_grad = True

    @classmethod
    def wrap(cls, array: Array) -> Tensor:
        """Make a Tensor of an operation's result: no copy, no conversion.

        Parameters
        ----------
        array : ndarray
            Any shape and strides, supported dtype.

        Returns
        -------
        Tensor
            Shares memory with `array`; needs no gradient.
        """
        check_dtype(array.dtype, "the result of an operation")
        tensor = Tensor.__new__(Tensor)
        tensor._data = array
        tensor._grad = None
        tensor._grad_fn = None
        tensor._requires_grad = False
        return tensor

    def mark_computed(self, ctx: Context) -> None:
        """Record that the operation `ctx` made this tensor; used by Function.apply."""
        self._grad_fn = ctx
        self._requires_grad = True

    # -- what it holds ------------------------------------------------------------------------------------------------

    @property
    def data(self) -> Array:
        """ndarray: the values. Assigning replaces them without recording anything (optimizers do this)."""
        return self._data

    @data.setter
    def data(self, value: Array) -> None:
        if not isinstance(value, (np.ndarray, np.generic)):
            raise TypeError(f"Tensor.data expects an ndarray, got {type(value).__name__}")
        check_dtype(value.dtype, "Tensor.data")
        self._data = np.asarray(value)

    @property
    def grad(self) -> Array | None:
        """ndarray or None: the gradient collected so far; a plain array of this tensor's shape and dtype."""
        return self._grad

    @grad.setter
    def grad(self, value: Array | None) -> None:
        if value is not None:
            if isinstance(value, np.generic):
                value = np.asarray(value)
            if not isinstance(value, np.ndarray):
                raise TypeError(f"Tensor.grad expects a plain ndarray or None, got {type(value).__name__}")
            if value.shape != self._data.shape or value.dtype != self._data.dtype:
                raise ValueError(
                    f"Tensor.grad expects shape {self._data.shape} and dtype {self._data.dtype}, "
                    f"got {value.shape} and {value.dtype}"
                )
        self._grad = value

    @property
    def requires_grad(self) -> bool:
        """bool: does a gradient flow to this tensor? Can be set on leaves."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and self._data.dtype not in FLOATS:
            raise TypeError(
                f"requires_grad=True needs a float32 or float64 tensor, this one is {self._data.dtype}; integers have "
                "no derivative (convert with .astype(np.float32) if they are meant as real numbers)"
            )
        if self._grad_fn is not None and not value:
            raise RuntimeError("requires_grad of a computed tensor cannot be switched off; use t.detach()")
        self._requires_grad = bool(value)

    @property
    def grad_fn(self) -> Context | None:
        """Context or None: the recorded operation that made this tensor; None for leaves."""
        return self._grad_fn

    @property
    def is_leaf(self) -> bool:
        """bool: True if no recorded operation made this tensor. Only leaves collect `.grad`."""
        return self._grad_fn is None

    # -- gradients ----------------------------------------------------------------------------------------------------

    def backward(self, grad: Any = None, retain_graph: bool = False) -> None:
        """Add the gradient of this tensor with respect to every leaf to that leaf's `.grad`.

        Parameters
        ----------
        grad : array_like, optional
            Gradient with respect to this tensor, same shape. May be left out for a tensor of one element (then 1).
        retain_graph : bool, default False
            Keep the graph, so that backward can run through it again. Otherwise it is freed while it is walked.

        Raises
        ------
        RuntimeError
            If this tensor has no graph, is not a scalar and no `grad` was given, or its graph was freed.
        ValueError
            If `grad` has another shape.
        """
        if not self._requires_grad:
            raise RuntimeError(
                "backward() on a tensor that does not require grad: nothing was recorded. Was it computed under "
                "no_grad() or from detached tensors, or does no parameter have requires_grad=True?"
            )
        if grad is None:
            if self.data.size != 1:
                raise RuntimeError(
                    f"backward() without an argument needs a scalar, this tensor has shape {self.data.shape}; reduce "
                    "it first (t.sum().backward()) or pass the gradient of each element: t.backward(grad)"
                )
            seed = np.ones_like(self.data)
        else:
            seed = np.asarray(grad.data if isinstance(grad, Tensor) else grad, dtype=self.data.dtype)
            if seed.shape != self.data.shape:
                raise ValueError(f"backward: grad has shape {seed.shape}, expected the tensor's shape {self.shape}")
        run_backward(self, seed, retain_graph)

    def detach(self) -> Tensor:
        """Return a leaf that shares this tensor's memory and needs no gradient.

        Returns
        -------
        Tensor
            Same values; gradients stop here.
        """
        return Tensor.wrap(self.data)

    # -- NumPy and Python ---------------------------------------------------------------------------------------------

    def numpy(self) -> Array:
        """Return the array itself (no copy).

        Returns
        -------
        ndarray
            Shares memory with the tensor.

        Raises
        ------
        RuntimeError
            If the tensor requires grad, because what NumPy computes is not recorded.
        """
        if self._requires_grad:
            raise RuntimeError("this tensor requires grad and NumPy records nothing: use t.detach().numpy() or t.data")
        return self.data

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Convert for np.asarray and friends; RuntimeError if the tensor requires grad, as in `numpy`."""
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise ValueError(f"a {array.dtype} tensor cannot become a {np.dtype(dtype)} array without a copy")
            return array.astype(dtype)
        return array.copy(order="K") if copy else array

    def item(self) -> Any:
        """Return the only element as a Python number.

        Returns
        -------
        float, int or bool
            The value.

        Raises
        ------
        ValueError
            If the tensor has more or fewer than one element.
        """
        if self.data.size != 1:
            raise ValueError(f"item() needs a tensor of one element, this one has shape {self.data.shape}")
        return self.data.item()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        if self.data.size != 1:
            raise ValueError(
                f"the truth value of a tensor of shape {self.data.shape} is ambiguous; use t.data.any() or .all()"
            )
        return bool(self.data.item())

    def __len__(self) -> int:
        if self.data.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return self.data.shape[0]

    def __setitem__(self, index: Any, value: Any) -> NoReturn:
        raise TypeError(
            "Tensors cannot be assigned into, because backward may still need the old values. Build a new tensor with "
            "minilp.autograd.ops.where(mask, value, t), concat or stack; or, for a leaf and outside any graph, "
            "write t.data[index] = value"
        )

    def __repr__(self) -> str:
        text = np.array2string(self.data, separator=", ", prefix="Tensor(")
        dtype = "" if self.data.dtype == np.float32 else f", dtype={self.data.dtype}"
        origin = f", grad_fn={self._grad_fn}" if self._grad_fn else ", requires_grad=True" * self._requires_grad
        return f"{type(self).__name__}({text}{dtype}{origin})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)


register_tensor_type(Tensor)
