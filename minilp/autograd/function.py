"""Function: the one way to make an operation differentiable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from minilp.autograd.arrays import FLOATS, Array
from minilp.autograd.engine import Context
from minilp.autograd.grad_mode import is_grad_enabled
from minilp.watch import watchers

if TYPE_CHECKING:
    from minilp.autograd.tensor import Tensor

# The class whose instances `apply` makes. tensor.py lies above this file and puts it here when it is imported.
_tensor_type: type[Tensor]


def register_tensor_type(cls: type[Tensor]) -> None:
    """Tell Function which class wraps results; called once, by tensor.py.

    Parameters
    ----------
    cls : type
        The Tensor class.
    """
    global _tensor_type
    _tensor_type = cls


def as_tensor(x: Any) -> Tensor:
    """Return x itself if it is a Tensor, else a Tensor made of it."""
    return x if isinstance(x, _tensor_type) else _tensor_type(x)


class Function:
    """Base class of every differentiable operation: write `forward` and `backward`, call `apply`.

    Examples
    --------
    >>> import numpy as np
    >>> from minilp.autograd import Function, Tensor
    >>> class Cube(Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x * x * x
    ...     @staticmethod
    ...     def backward(ctx, grad):
    ...         (x,) = ctx.saved
    ...         return (grad * 3 * x * x,)
    >>> x = Tensor([2.0], requires_grad=True)
    >>> Cube.apply(x).backward()
    >>> x.grad
    array([12.], dtype=float32)

    Attributes
    ----------
    takes_codes : bool
        `forward` gets a parameter that lives as codes as its codes, not decoded.
    counts_as : str
        What :mod:`minilp.energy` counts it as: "conv2d", "linear", "matmul" (its first two arguments are multiplied),
        "room" (the contraction room announces its products itself), "norm_training", "norm_eval" or "layer_norm". Empty
        is an elementwise operation, which is listed but not priced. An operation that multiplies must say so.
    """

    takes_codes: ClassVar[bool] = False
    counts_as: ClassVar[str] = ""

    @staticmethod
    def forward(ctx: Context, *args: Any, **kwargs: Any) -> Any:
        """Compute the result from raw arrays.

        Parameters
        ----------
        ctx : Context
            Keeps what backward needs; `ctx.needs_input_grad` says what that is.
        *args : object
            The arguments of `apply`, every Tensor replaced by its array. Must not be written to.
        **kwargs : object
            Options, passed as they are.

        Returns
        -------
        ndarray
            The result.
        """
        raise NotImplementedError("a Function needs a static method forward(ctx, *args, **kwargs)")

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        """Turn the gradient of the result into the gradients of the arguments.

        Broadcasting is undone and the dtype is matched by the engine, so an elementwise operation returns gradients of
        the broadcast shape. Returned arrays belong to the engine, which may add to them in place, unless they share
        memory with `grad`, with an array in `ctx.saved` or with each other.

        Parameters
        ----------
        ctx : Context
            The one that forward filled.
        grad : ndarray
            Gradient of the result, in its shape and dtype and any strides. Must not be written to, unless
            `ctx.owns_grad`.

        Returns
        -------
        tuple
            One array, or None, per positional argument of forward.
        """
        raise NotImplementedError("a Function needs a static method backward(ctx, grad)")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Tensor:
        """Run forward and record it if any Tensor argument requires a gradient.

        Parameters
        ----------
        *args : object
            Positional arguments; gradients flow to the Tensors among them.
        **kwargs : object
            Options of forward; not differentiable.

        Returns
        -------
        Tensor
            The result.

        Raises
        ------
        TypeError
            If a Tensor is passed by keyword, or forward returns something other than an array.
        """
        kind = _tensor_type
        for key, value in kwargs.items():
            if isinstance(value, kind):
                raise TypeError(f"{cls.__name__}: pass the Tensor {key!r} by position; keywords get no gradient")
        if is_grad_enabled():
            needs = tuple([isinstance(a, kind) and a.requires_grad for a in args])  # sooner than a generator
        else:
            needs = (False,) * len(args)
        ctx = Context(cls, needs)
        out = cls.forward(ctx, *[cls._raw(a) if isinstance(a, kind) else a for a in args], **kwargs)
        if not isinstance(out, (np.ndarray, np.generic)):
            raise TypeError(f"{cls.__name__}.forward returned a {type(out).__name__}, expected an ndarray")
        result = kind.wrap(np.asarray(out))
        if True in needs and result.dtype in FLOATS:
            ctx.edges = tuple([
                (a if a.grad_fn is None else a.grad_fn) if need else None for a, need in zip(args, needs, strict=True)
            ])
            ctx.inputs = tuple([
                (a.shape, a.dtype) if need else None for a, need in zip(args, needs, strict=True)
            ])
            result.mark_computed(ctx)
        for watcher in watchers:
            watcher.forward(ctx, args, result.data)
        return result

    @classmethod
    def _raw(cls, a: Tensor) -> Any:
        """What stands for a Tensor in forward: its array, or its codes where both sides know of them."""
        code = getattr(a, "code", None) if cls.takes_codes else None
        return a.data if code is None else code
