"""What nn.functional adds to the engine's operations, against torch."""
import numpy as np
import pytest

import minilp
from minilp.autograd import Tensor
from minilp.nn import functional as F


def both(torch, *shape):
    x = np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)
    return Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)


def check(torch, a, b, out, expected):
    np.testing.assert_allclose(out.data, expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    grad = np.random.default_rng(9).normal(size=out.shape).astype(np.float32)
    out.backward(grad)
    expected.backward(torch.tensor(grad))
    np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3), (2, 4, 3, 2)])
def test_nll_loss(torch, shape, reduction):
    a, b = both(torch, *shape)
    labels = np.random.default_rng(1).integers(0, 4, (shape[0], *shape[2:]))
    labels.flat[1] = -100
    check(torch, a, b, F.nll_loss(a, labels, reduction=reduction),
          torch.nn.functional.nll_loss(b, torch.tensor(labels), reduction=reduction))


def test_nll_of_log_softmax_is_cross_entropy():
    x, labels = Tensor(np.random.default_rng(0).normal(size=(6, 5))), np.arange(6) % 5
    a, b = F.nll_loss(F.log_softmax(x, 1), labels), F.cross_entropy(x, labels)
    assert a.item() == pytest.approx(b.item(), rel=1e-12)


@pytest.mark.parametrize(("ours", "theirs"), [
    (lambda x: F.softmax(x, dim=0), lambda t, x: t.softmax(x, 0)),
    (lambda x: F.log_softmax(x, dim=-2), lambda t, x: t.log_softmax(x, -2)),
    (lambda x: F.flatten(x), lambda t, x: t.flatten(x)),
    (lambda x: F.flatten(x, start_dim=1), lambda t, x: t.flatten(x, 1)),
    (lambda x: F.pad(x, (1, 2)), lambda t, x: t.nn.functional.pad(x, (1, 2))),
    (lambda x: F.pad(x, (-1, 0, 2, 0), value=3), lambda t, x: t.nn.functional.pad(x, (-1, 0, 2, 0), value=3)),
    (lambda x: F.mse_loss(x, x.data * 2), lambda t, x: t.nn.functional.mse_loss(x, x.detach() * 2)),
])
def test_same_arguments_as_torch(torch, ours, theirs):
    a, b = both(torch, 3, 4, 5)
    check(torch, a, b, ours(a), theirs(torch, b))


def test_one_hot(torch):
    index = np.array([[1, 0], [3, 1]])
    for classes in (-1, 6):
        out = F.one_hot(index, classes)
        np.testing.assert_array_equal(out.data, torch.nn.functional.one_hot(torch.tensor(index), classes).numpy())
        assert out.dtype == np.int64


def test_dropout_without_a_generator_follows_the_seed():
    x = Tensor(np.ones((50, 50), np.float32))
    minilp.manual_seed(5)
    first, second = F.dropout(x).data, F.dropout(x).data
    assert not np.array_equal(first, second)
    minilp.manual_seed(5)
    np.testing.assert_array_equal(F.dropout(x).data, first)
    assert F.dropout(x, training=False) is x


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda x: F.nll_loss(x, np.zeros(3)), TypeError, r"integers, got float64"),
    (lambda x: F.nll_loss(x, np.array([0, 1, 4])), ValueError, r"classes in \[0, 4\), got 4"),
    (lambda x: F.nll_loss(x, np.array([0, -1, 2])), ValueError, r"got -1"),
    (lambda x: F.nll_loss(x, np.zeros(4, int)), ValueError, r"\(4,\) and \(3, 4\)"),
    (lambda x: F.nll_loss(x, np.zeros(3, int), reduction="max"), ValueError, r"reduction.*'max'"),
    (lambda x: F.mse_loss(x, np.zeros(4, np.float32)), ValueError, r"\(3, 4\).*\(4,\)"),
    (lambda x: F.one_hot(np.array([2]), 2), ValueError, r"\[0, 2\)"),
    (lambda x: F.one_hot(np.array([-1])), ValueError, r"-1"),
    (lambda x: F.one_hot(np.array([1.0])), TypeError, r"float64"),
])
def test_errors_name_the_argument(call, error, text):
    with pytest.raises(error, match=text):
        call(Tensor(np.zeros((3, 4), np.float32)))
