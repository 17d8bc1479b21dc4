"""Arithmetic on two operands, element by element, with broadcasting.

Every backward returns gradients of the broadcast shape; the engine sums out what broadcasting repeated. Every result
keeps the memory order of its operands (NumPy's order 'K').
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from minilp.autograd.arrays import FLOATS, Array, TensorLike, broadcast_call, operands
from minilp.autograd.engine import Context
from minilp.autograd.function import Function
from minilp.kernels import elementwise as kernels

if TYPE_CHECKING:
    from minilp.autograd.tensor import Tensor


class Add(Function):
    """a + b; the gradient goes to both unchanged."""

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> Array:
        a, b = operands("add", a, b)
        if np.ndim(a) == 4 and np.shape(a) == np.shape(b) and a.dtype == b.dtype and a.dtype in FLOATS:
            return kernels.add(a, b)  # a residual connection: two threads in C
        return broadcast_call(np.add, "add", a, b)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        return grad, grad


class Sub(Function):
    """a - b."""

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> Array:
        return broadcast_call(np.subtract, "sub", *operands("sub", a, b))

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        return grad, (-grad if ctx.needs_input_grad[1] else None)


class Mul(Function):
    """a * b; each operand is kept only if the other one needs a gradient."""

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> Array:
        a, b = operands("mul", a, b)
        need_a, need_b = ctx.needs_input_grad
        ctx.save_for_backward(a if need_b else None, b if need_a else None)
        return broadcast_call(np.multiply, "mul", a, b)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        a, b = ctx.saved
        return (None if b is None else grad * b), (None if a is None else grad * a)


class Div(Function):
    """a / b: grad / b and -grad * y / b, so the result is kept instead of a."""

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> Array:
        a, b = operands("div", a, b)
        y = broadcast_call(np.true_divide, "div", a, b)
        ctx.save_for_backward(y if ctx.needs_input_grad[1] else None, b)
        return y

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        y, b = ctx.saved
        to_a = grad / b
        if y is None:
            return to_a, None
        to_b = np.multiply(to_a, y)
        return (to_a if ctx.needs_input_grad[0] else None), np.negative(to_b, out=np.asarray(to_b))


class Pow(Function):
    """a ** b: b a^(b-1) and a^b log a, both 0 where the rule of the limit says so (b = 0; a = 0 with b >= 0)."""

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> Array:
        a, b = operands("pow", a, b)
        y = np.square(a) if _is_two(b) else broadcast_call(np.power, "pow", a, b)
        ctx.save_for_backward(a, b, y if ctx.needs_input_grad[1] else None)
        return y

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        a, b, y = ctx.saved
        to_a = to_b = None
        if ctx.needs_input_grad[0]:
            if _is_two(b):
                to_a = grad * a
                to_a = np.add(to_a, to_a, out=np.asarray(to_a))
            else:
                # b = 0 is replaced by exponent 0, not -1: 0 * 0**-1 would be nan where the derivative is 0.
                to_a = grad * (b * np.power(a, np.where(b == 0, b, b - 1)))
        if ctx.needs_input_grad[1]:
            zero = (a == 0) & (b >= 0)
            to_b = grad * np.where(zero, y.dtype.type(0), y * np.log(np.where(zero, 1, a).astype(y.dtype, copy=False)))
        return to_a, to_b


def _is_two(b: Any) -> bool:
    return np.ndim(b) == 0 and not isinstance(b, np.ndarray) and b == 2


class Neg(Function):
    """-a."""

    @staticmethod
    def forward(ctx: Context, a: Any) -> Array:
        return np.negative(a)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        return (np.negative(grad),)


class _Choose(Function):
    """Common part of maximum and minimum: the gradient follows the chosen side; a tie halves it."""

    ufunc: Any
    wins: Any

    @classmethod
    def _forward(cls, ctx: Context, a: Any, b: Any) -> Array:
        name = cls.__name__.lower()
        a, b = operands(name, a, b)
        y = broadcast_call(cls.ufunc, name, a, b)
        if True in ctx.needs_input_grad:
            # 2 where a wins, 1 at a tie, 0 where b wins: one byte an element instead of both operands. A NaN on either
            # side counts as a tie, so that it reaches both.
            ctx.save_for_backward(np.add(~cls.wins(b, a), cls.wins(a, b), dtype=np.int8))
        return y

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        (side,) = ctx.saved
        half = grad * grad.dtype.type(0.5)
        return tuple(
            half * s if need else None for s, need in zip((side, 2 - side), ctx.needs_input_grad, strict=True)
        )


class Maximum(_Choose):
    """max(a, b)."""

    ufunc = np.maximum
    wins = np.greater

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> Array:
        return Maximum._forward(ctx, a, b)


class Minimum(_Choose):
    """min(a, b)."""

    ufunc = np.minimum
    wins = np.less

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> Array:
        return Minimum._forward(ctx, a, b)


class Where(Function):
    """Elements of a where the condition holds, else of b."""

    @staticmethod
    def forward(ctx: Context, condition: Any, a: Any, b: Any) -> Array:
        condition = np.asarray(condition)
        if condition.dtype != np.bool_:
            raise TypeError(f"where: condition has dtype {condition.dtype}, expected bool (compare first: x > 0)")
        a, b = operands("where", a, b)
        ctx.save_for_backward(condition)
        return broadcast_call(np.where, "where", condition, a, b)

    @staticmethod
    def backward(ctx: Context, grad: Array) -> tuple[Any, ...]:
        (condition,) = ctx.saved
        _, need_a, need_b = ctx.needs_input_grad
        # np.where, not a product: 0 * inf would be nan.
        zero = grad.dtype.type(0)
        to_a = np.where(condition, grad, zero) if need_a else None
        return None, to_a, (np.where(condition, zero, grad) if need_b else None)


class Compare(Function):
    """A comparison; its result is bool, so no gradient flows."""

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any, *, ufunc: Any) -> Array:
        return broadcast_call(ufunc, ufunc.__name__, *operands(ufunc.__name__, a, b))


def add(a: TensorLike, b: TensorLike) -> Tensor:
    """Return a + b, broadcast. Shapes (...) and (...); dtype by NumPy's promotion, Python numbers weak."""
    return Add.apply(a, b)


def sub(a: TensorLike, b: TensorLike) -> Tensor:
    """Return a - b, broadcast; see `add`."""
    return Sub.apply(a, b)


def mul(a: TensorLike, b: TensorLike) -> Tensor:
    """Return a * b, broadcast; see `add`."""
    return Mul.apply(a, b)


def div(a: TensorLike, b: TensorLike) -> Tensor:
    """Return a / b, broadcast; see `add`. Dividing by zero warns as NumPy does."""
    return Div.apply(a, b)


def pow(a: TensorLike, b: TensorLike) -> Tensor:
    """Return a ** b, broadcast; see `add`. The gradient for b exists where a >= 0."""
    return Pow.apply(a, b)


def neg(x: TensorLike) -> Tensor:
    """Return -x, same shape and dtype."""
    return Neg.apply(x)


def maximum(a: TensorLike, b: TensorLike) -> Tensor:
    """Return the larger element of a and b, broadcast. A tie gives each side half of the gradient, as in torch."""
    return Maximum.apply(a, b)


def minimum(a: TensorLike, b: TensorLike) -> Tensor:
    """Return the smaller element of a and b, broadcast. A tie gives each side half of the gradient, as in torch."""
    return Minimum.apply(a, b)


def where(condition: TensorLike, a: TensorLike, b: TensorLike) -> Tensor:
    """Return a where `condition` (bool) holds and b elsewhere; all three broadcast.

    Raises
    ------
    TypeError
        If `condition` is not bool.
    """
    return Where.apply(condition, a, b)


def compare(ufunc: Any, a: Any, b: Any) -> Tensor:
    """Compare element by element with a NumPy comparison such as np.less; a bool tensor without gradient."""
    return Compare.apply(a, b, ufunc=ufunc)
