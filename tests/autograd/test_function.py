"""Writing a Function, what the engine says about a wrong one, and switching recording off."""

import numpy as np
import pytest

from minilp.autograd import Function, Tensor, enable_grad, is_grad_enabled, no_grad


def leaf(*values):
    return Tensor(np.array(values, np.float64), requires_grad=True)


@pytest.mark.parametrize(("returned", "error", "message"), [
    (lambda g: g, TypeError, "Wrong.backward returned ndarray, expected a tuple"),
    (lambda g: (g, g), TypeError, "a tuple of 2, expected"),
    (lambda g: (Tensor(g),), TypeError, "returned a Tensor for argument 0"),
    (lambda g: (np.ones(3),), ValueError, r"Wrong.backward, argument 0.*\(3,\).*\(2,\)"),
])
def test_wrong_function_backward_is_named(returned, error, message):
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x):
            return x + 0

        @staticmethod
        def backward(ctx, grad):
            return returned(grad)

    with pytest.raises(error, match=message):
        Wrong.apply(leaf(1.0, 2.0)).backward(np.ones(2))


def test_function_context():
    class Scale(Function):
        @staticmethod
        def forward(ctx, x, factor, *, shift=0.0):
            assert ctx.needs_input_grad == (True, False)
            ctx.factor = factor
            return x * factor + shift

        @staticmethod
        def backward(ctx, grad):
            return grad * ctx.factor, None

    x = leaf(1.0)
    y = Scale.apply(x, 3.0, shift=1.0)
    assert y.data == 4.0
    y.backward()
    assert x.grad == 3.0
    with pytest.raises(TypeError, match="'shift' by position"):
        Scale.apply(x, 3.0, shift=x)


def test_no_grad_and_enable_grad():
    x = leaf(1.0)
    with no_grad():
        assert not is_grad_enabled() and not (x * 2).requires_grad
        with enable_grad():
            assert (x * 2).requires_grad
        assert not is_grad_enabled()
    with pytest.raises(ZeroDivisionError), no_grad():
        raise ZeroDivisionError
    assert is_grad_enabled()

    @no_grad()
    def double(t, depth):
        return double(t, depth - 1) if depth else t * 2

    assert not double(x, 2).requires_grad and is_grad_enabled()
