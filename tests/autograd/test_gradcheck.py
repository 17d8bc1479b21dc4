"""The checkers themselves: they pass what is right, fail what is wrong, and say where."""

import numpy as np
import pytest

from minilp.autograd import Function, GradcheckError, Tensor, directional_check, gradcheck, no_grad, ops


class WrongAtOne(Function):
    """exp whose derivative is wrong for one element only."""

    @staticmethod
    def forward(ctx, x):
        y = np.exp(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, grad):
        out = grad * ctx.saved[0]
        out[1, 0] *= 1.01
        return (out,)


def wrong_exp(x):
    return WrongAtOne.apply(x)


def test_gradcheck_names_function_input_index_and_both_derivatives():
    x = np.arange(6.0).reshape(2, 3) / 5
    with pytest.raises(GradcheckError) as caught:
        gradcheck(lambda s, t: wrong_exp(t) * s, [np.array(2.0), x])
    for part in ("<lambda>", "input 1", "(2, 3)", "index (1, 0)", "expected derivative", "received"):
        assert part in str(caught.value)
    with pytest.raises(GradcheckError, match="wrong_exp"):
        directional_check(wrong_exp, [x])


def test_missing_gradient_is_found():
    with pytest.raises(GradcheckError, match=r"expected derivative (6|5\.99999).* received 3$"):
        gradcheck(lambda x: x * x.detach(), [np.array([3.0])])


@pytest.mark.parametrize("check", [gradcheck, directional_check])
def test_float32_is_refused_with_a_sentence(check):
    with pytest.raises(TypeError, match="gradient checks need float64, because"):
        check(ops.exp, [np.ones(2, np.float32)])
    with pytest.raises(TypeError, match="returned a float32 tensor"):
        check(lambda x: x.astype(np.float32), [np.ones(2)])


@pytest.mark.parametrize("check", [gradcheck, directional_check])
def test_inputs_are_restored_and_options_passed_on(check):
    x = np.arange(12.0).reshape(3, 4)[:, ::2]
    before = x.copy()
    frozen = Tensor(np.full(2, 3.0))
    assert check(lambda a, b, n, i: ops.pow(a, n)[i] * b, [x, frozen, 2, np.array([0, 0, 2])])
    np.testing.assert_array_equal(x, before)
    assert frozen.grad is None
    with pytest.raises(ZeroDivisionError):
        check(lambda a: a * 1 if np.array_equal(a.data, before) else 1 / 0, [x])  # fails at the first perturbation
    np.testing.assert_array_equal(x, before)


def test_read_only_and_single_inputs():
    assert gradcheck(ops.exp, np.ones(3))
    assert gradcheck(ops.exp, [np.broadcast_to(np.ones(2), (3, 2))])


def test_nothing_to_check_is_an_error():
    with pytest.raises(ValueError, match="nothing to check"):
        gradcheck(ops.exp, [np.arange(3)])
    with pytest.raises(TypeError, match="expected a Tensor"):
        gradcheck(lambda x: x.data, [np.ones(2)])


def test_gradcheck_works_under_no_grad():
    with no_grad():
        assert gradcheck(ops.exp, [np.ones(2)])


def test_directional_check_cost_does_not_grow_with_size():
    calls = []

    def network(x, w):
        calls.append(1)
        return ops.gelu(ops.conv2d(x, w, padding=1)).mean((2, 3))

    rng = np.random.default_rng(0)
    assert directional_check(network, [rng.standard_normal((4, 8, 12, 12)), rng.standard_normal((16, 8, 3, 3))])
    assert len(calls) == 3
