"""Decisions that random values do not reach: ties, kinks, infinities, masks, running statistics."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minilp.autograd import Tensor, gradcheck, ops
from minilp.autograd.arrays import unbroadcast
from minilp.autograd.gaussian import normal_cdf_pdf
from minilp.autograd.indexing import add_rows

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(("ours", "theirs", "values"), [
    (lambda x: x.max(0), lambda t, x: t.max(x, 0).values, [1, 3, 3, 2]),
    (lambda x: x.max(), lambda t, x: t.max(x), [1, 3, 3, 3]),
    (lambda x: x.max((0,)), lambda t, x: t.amax(x, (0,)), [1, 3, 3, 2]),
    (lambda x: x.min(0), lambda t, x: t.min(x, 0).values, [2, 1, 1, 2]),
    (lambda x: x.max(), lambda t, x: t.max(x), [1, NAN, 3, NAN]),
    (lambda x: ops.maximum(x, 1.0), lambda t, x: t.maximum(x, t.ones(4)), [0, 1, 2, 1]),
    (lambda x: ops.minimum(x, 1.0), lambda t, x: t.minimum(x, t.ones(4)), [0, 1, 2, 1]),
    (lambda x: x.clip(0, 1), lambda t, x: t.clamp(x, 0, 1), [0, 1, 2, -1]),
    (lambda x: x.relu(), lambda t, x: t.relu(x), [0, -0.0, 1, -1]),
    (lambda x: x.abs(), lambda t, x: t.abs(x), [0, -0.0, 1, -1]),
    (lambda x: x ** 0, lambda t, x: x ** 0, [0, 1, 2, -1]),
    (lambda x: x ** 1.0, lambda t, x: x ** 1.0, [0, 1, 2, -1]),
    (lambda x: 0.0 ** x, lambda t, x: 0.0 ** x, [0, 1, 2, 3]),
    (lambda x: x.std(), lambda t, x: t.std(x), [2, 2, 2, 2]),
    (lambda x: x.sigmoid(), lambda t, x: t.sigmoid(x), [-200, 200, 0, -90]),
    (lambda x: x.softmax(), lambda t, x: t.softmax(x, 0), [1000, 1000, -INF, 0]),
    (lambda x: x.log_softmax(), lambda t, x: t.log_softmax(x, 0), [1000, 999, 998, 0]),
    (lambda x: ops.logsumexp(x), lambda t, x: t.logsumexp(x, 0), [100, 99, -INF, 0]),
    (lambda x: ops.gelu(x), lambda t, x: t.nn.functional.gelu(x), [-40, 40, 0, -8]),
    (lambda x: ops.where(x.data > 0, 1 / x, 0.0), lambda t, x: t.where(x > 0, 1 / x, 0.0), [1, 2, 3, 4]),
])
def test_corner_agrees_with_torch(ours, theirs, values, torch):
    mine = Tensor(values, requires_grad=True)
    other = torch.tensor(values, dtype=torch.float32, requires_grad=True)
    y, expected = ours(mine), theirs(torch, other)
    np.testing.assert_allclose(y.data, expected.detach().numpy(), rtol=1e-5, atol=1e-13)
    y.backward(np.arange(1.0, y.size + 1).reshape(y.shape))
    expected.backward(torch.arange(1.0, y.size + 1).reshape(expected.shape))
    np.testing.assert_allclose(mine.grad, other.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_where_does_not_turn_an_infinite_gradient_into_nan():
    x = Tensor([1.0, 2.0], requires_grad=True)
    ops.where(np.array([True, False]), x, 0.0).backward(np.array([1.0, INF]))
    np.testing.assert_array_equal(x.grad, [1.0, 0.0])


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cross_entropy_over_nothing_but_padding(smoothing, torch):
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    target = np.full(3, -100)
    mine, other = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    loss = ops.cross_entropy(mine, target, label_smoothing=smoothing)
    assert math.isnan(loss.item())
    assert ops.cross_entropy(mine, target, reduction="sum").item() == 0.0
    torch.nn.functional.cross_entropy(other, torch.from_numpy(target), reduction="sum").backward()
    ops.cross_entropy(mine, target, reduction="sum", label_smoothing=smoothing).backward()
    np.testing.assert_array_equal(mine.grad, other.grad.numpy())


def test_cross_entropy_padding_counts_in_neither_loss_nor_mean():
    x = np.random.default_rng(0).standard_normal((4, 3))
    full = Tensor(x, requires_grad=True)
    part = Tensor(x[[0, 2]], requires_grad=True)
    loss = ops.cross_entropy(full, np.array([1, -100, 2, -100]), label_smoothing=0.1)
    same = ops.cross_entropy(part, np.array([1, 2]), label_smoothing=0.1)
    assert loss.item() == pytest.approx(same.item(), rel=1e-12)
    loss.backward()
    same.backward()
    np.testing.assert_allclose(full.grad[[0, 2]], part.grad, rtol=1e-12)
    assert not full.grad[[1, 3]].any()


def test_batch_norm_running_statistics_agree_with_torch(torch):
    x = np.random.default_rng(0).standard_normal((4, 3, 2, 5)).astype(np.float32) * 2 + 1
    mean, var = np.zeros(3, np.float32), np.ones(3, np.float32)
    layer = torch.nn.BatchNorm2d(3)
    for _ in range(3):
        ops.batch_norm(Tensor(x), mean, var, training=True)
        layer(torch.from_numpy(x))
    np.testing.assert_allclose(mean, layer.running_mean.numpy(), rtol=1e-5)
    np.testing.assert_allclose(var, layer.running_var.numpy(), rtol=1e-5)
    before = mean.copy(), var.copy()
    ops.batch_norm(Tensor(x), mean, var, training=False)
    np.testing.assert_array_equal((mean, var), before)


def test_batch_norm_eval_without_running_statistics_uses_the_batch():
    x = np.random.default_rng(0).standard_normal((4, 3))
    y = ops.batch_norm(x, None, None)
    np.testing.assert_allclose(y.data.mean(0), 0, atol=1e-12)


def test_dropout():
    x = Tensor(np.ones((200, 50)), requires_grad=True)
    y = ops.dropout(x, 0.25, np.random.default_rng(0))
    assert set(np.unique(y.data)) == {0.0, 1 / 0.75} and 0.72 < (y.data > 0).mean() < 0.78
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, y.data)
    assert ops.dropout(x, 0.25, np.random.default_rng(0), training=False) is x
    assert not ops.dropout(x, 1.0, np.random.default_rng(0)).data.any()
    transposed = ops.dropout(Tensor(np.ones((50, 200)).T), 0.25, np.random.default_rng(0))
    np.testing.assert_array_equal(transposed.data, y.data)  # the draws do not depend on the layout


@pytest.mark.parametrize(("dtype", "low", "tolerance"), [(np.float64, -37, 1e-12), (np.float32, -6, 3e-6)])
def test_normal_distribution_function_keeps_its_relative_accuracy(dtype, low, tolerance):
    x = np.linspace(low, 9, 3001).astype(dtype)
    cdf, pdf = normal_cdf_pdf(x)
    exact = [0.5 * math.erfc(-float(v) / math.sqrt(2)) for v in x]
    np.testing.assert_allclose(cdf, exact, rtol=tolerance)
    density = [math.exp(-(float(v) ** 2) / 2) / math.sqrt(2 * math.pi) for v in x]
    np.testing.assert_allclose(pdf, density, rtol=tolerance * 10)


def test_add_rows_is_np_add_at():
    rng = np.random.default_rng(0)
    rows, values = rng.integers(0, 7, 50), rng.standard_normal((50, 3))
    expected = np.zeros((7, 3))
    np.add.at(expected, rows, values)
    np.testing.assert_allclose(add_rows((7, 3), rows, values), expected, rtol=1e-12)
    assert not add_rows((7, 3), rows[:0], values[:0]).any()


def test_matmul_of_broadcast_gradients_and_strides_uses_blas_layouts():
    x = Tensor(np.random.default_rng(0).standard_normal((2, 3, 4)), requires_grad=True)
    w = Tensor(np.ones((4, 5)), requires_grad=True)
    (x @ w).sum().backward()  # the gradient of sum is a read-only view with zero strides
    np.testing.assert_allclose(x.grad, np.full((2, 3, 4), 5.0))
    np.testing.assert_allclose(w.grad, np.repeat(x.data.sum((0, 1))[:, None], 5, 1))


shapes = hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3)


@settings(max_examples=60, deadline=None)
@given(shapes, st.sampled_from([ops.add, ops.sub, ops.mul, ops.div, ops.maximum, ops.minimum]), st.integers(0, 2**32))
def test_broadcast_gradients(pair, op, seed):
    rng = np.random.default_rng(seed)
    a, b = (np.asarray(rng.uniform(0.5, 2.0, s)) for s in pair.input_shapes)
    assert op(a, b).shape == pair.result_shape
    assert gradcheck(op, [a, b])


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(0, 2**32))
def test_unbroadcast_is_the_transpose_of_broadcast_to(pair, seed):
    rng = np.random.default_rng(seed)
    (small, _), big = pair.input_shapes, pair.result_shape
    x, g = rng.standard_normal(small), rng.standard_normal(big)
    reduced = unbroadcast(g, small)
    assert reduced.shape == small
    np.testing.assert_allclose(np.vdot(x, reduced), np.vdot(np.broadcast_to(x, big), g), atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(hnp.array_shapes(min_dims=1, max_dims=4, max_side=3).flatmap(
    lambda s: st.tuples(st.just(s), st.permutations(range(len(s))), hnp.basic_indices(s, allow_newaxis=True))),
    st.integers(0, 2**32))
def test_any_basic_index_of_any_layout(drawn, seed):
    shape, order, index = drawn
    stored = np.random.default_rng(seed).standard_normal([shape[a] for a in order])
    x = Tensor(stored.transpose(np.argsort(order)), requires_grad=True)
    y = x[index]
    np.testing.assert_array_equal(y.data, x.data[index])
    (y * y).sum().backward()
    expected = np.zeros(shape)
    expected[index] = 2 * x.data[index]
    np.testing.assert_array_equal(x.grad, expected)
