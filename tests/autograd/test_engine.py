"""The walk through the graph: order, accumulation, memory, and the errors of backward."""

import gc
import weakref

import numpy as np
import pytest

from minilp.autograd import Function, Tensor, ops


def leaf(*values):
    return Tensor(np.array(values, np.float64), requires_grad=True)


class Square(Function):
    """x * x that remembers how often its backward ran and what it saved."""

    runs = 0
    kept = None

    @staticmethod
    def forward(ctx, x):
        copy = x.copy()
        Square.kept = weakref.ref(copy)
        ctx.save_for_backward(copy)
        return x * x

    @staticmethod
    def backward(ctx, grad):
        Square.runs += 1
        (x,) = ctx.saved
        return (grad * 2 * x,)


def test_backward_diamond_then_chain():
    a = leaf(2.0)
    b = a + a
    c = b + b
    (c * b).backward()  # 8 a^2
    assert a.grad == 32.0


def test_backward_runs_each_node_once_on_a_ladder_of_diamonds():
    Square.runs = 0
    x = leaf(1.0)
    y = Square.apply(x)
    for _ in range(60):  # 2^60 paths
        y = y * 0.25 + y * 0.25
    y.backward()
    assert Square.runs == 1
    np.testing.assert_allclose(x.grad, 2 * 0.5**60)


def test_backward_5000_deep():
    x = leaf(1.0, 2.0)
    y = x
    for _ in range(5000):
        y = y + 0.5
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [1.0, 1.0])


def test_very_deep_graph_is_freed_without_recursion():
    y = leaf(1.0)
    for _ in range(100_000):
        y = -y
    del y  # a recursive deallocation would overflow the C stack here
    gc.collect()


def test_second_backward_accumulates_once_per_leaf():
    x, w = leaf(3.0), leaf(5.0)
    h = x * w
    y = (h * h).sum()
    y.backward(retain_graph=True)
    first = x.grad.copy(), w.grad.copy()
    y.backward()
    np.testing.assert_array_equal(x.grad, 2 * first[0])
    np.testing.assert_array_equal(w.grad, 2 * first[1])


def test_accumulation_does_not_change_the_gradient_array_somebody_kept():
    x = leaf(1.0, 2.0)
    (x * 3).sum().backward()
    kept = x.grad
    (x * 4).sum().backward()
    np.testing.assert_array_equal(kept, [3.0, 3.0])
    np.testing.assert_array_equal(x.grad, [7.0, 7.0])


def test_leaves_never_share_a_gradient_buffer():
    x, y, z = leaf(1.0, 2.0), leaf(3.0, 4.0), leaf(1.0, 1.0)
    seed = np.ones(2)
    (x + y + z.reshape(2)).backward(seed)
    for a, b in [(x.grad, y.grad), (x.grad, z.grad), (y.grad, z.grad), (x.grad, seed), (y.grad, seed)]:
        assert not np.shares_memory(a, b)
    x.grad *= 100  # clipping in place must not reach the others
    np.testing.assert_array_equal(y.grad, [1.0, 1.0])


def test_gradient_of_a_sum_is_writable():
    x = leaf(1.0, 2.0)
    x.sum().backward()
    x.grad += 1
    np.testing.assert_array_equal(x.grad, [2.0, 2.0])


def test_saved_values_are_not_handed_out_as_gradients():
    class Keep(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(np.full_like(x, 3.0))
            return x * 3

        @staticmethod
        def backward(ctx, grad):
            return ctx.saved  # the saved array itself

    x = leaf(1.0)
    y = Keep.apply(x)
    y.backward(retain_graph=True)
    x.grad *= 10
    y.backward()
    assert x.grad == 33.0


def test_same_array_returned_for_two_arguments_is_not_added_to_in_place():
    class Both(Function):
        @staticmethod
        def forward(ctx, a, b):
            return a + b

        @staticmethod
        def backward(ctx, grad):
            new = grad * 1
            return new, new

    a, b = leaf(1.0), leaf(2.0)
    earlier = a * 3  # its gradient reaches a after Both's
    (Both.apply(a, b) + earlier).backward()
    assert a.grad == 4.0 and b.grad == 1.0


class Halve(Function):
    """x / 2 that writes its gradient over the incoming one where it may, and says so."""

    owned: list[bool] = []

    @staticmethod
    def forward(ctx, x):
        return x / 2

    @staticmethod
    def backward(ctx, grad):
        Halve.owned.append(ctx.owns_grad)
        return (np.divide(grad, 2, out=grad if ctx.owns_grad else None),)


def test_a_gradient_that_nobody_else_sees_may_be_written_over():
    Halve.owned.clear()
    x, seed = leaf(1.0, 2.0), np.ones(2)
    Halve.apply(x * 3).backward(seed)  # the caller's array
    both = Halve.apply(x)
    (both + Halve.apply(x)).backward(seed)  # one array for the two of them
    (Halve.apply(x) * 3).backward(seed)  # the product's own
    assert Halve.owned == [False] * 3 + [True]
    np.testing.assert_array_equal(seed, [1.0, 1.0])
    np.testing.assert_array_equal(x.grad, [4.0, 4.0])


def test_many_consumers_sum_right_whatever_is_shared():
    x = leaf(1.0, 2.0)
    y = x * 1.0
    out = y + y + y.reshape(1, 2).reshape(2) + y * y + y
    out.sum().backward()
    np.testing.assert_array_equal(x.grad, 4 + 2 * x.data)


def test_backward_after_the_graph_was_freed_is_an_error():
    x = leaf(2.0)
    h = x * x
    y = h * 3
    y.backward()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.backward()
    with pytest.raises(RuntimeError, match="Mul"):
        (h * 5).backward()
    assert x.grad == 12.0  # untouched by the failed passes


def test_failing_backward_changes_no_gradient():
    class Broken(Function):
        @staticmethod
        def forward(ctx, x):
            return x + 0

        @staticmethod
        def backward(ctx, grad):
            raise ArithmeticError("on purpose")

    x, w = leaf(1.0), leaf(2.0)
    with pytest.raises(ArithmeticError):
        (Broken.apply(x) * w).backward()
    assert x.grad is None and w.grad is None


def test_saved_values_are_dropped_as_soon_as_consumed():
    alive_during = []

    class Look(Function):
        @staticmethod
        def forward(ctx, x):
            return x + 0

        @staticmethod
        def backward(ctx, grad):
            alive_during.append(Square.kept() is not None)
            return (grad,)

    x = leaf(1.0)
    y = Square.apply(Look.apply(x))  # in backward, Square runs first
    assert Square.kept() is not None
    y.backward()
    assert alive_during == [False]
    y = Square.apply(Look.apply(x))
    y.backward(retain_graph=True)
    assert alive_during == [False, True]


def test_gradients_of_intermediates_are_freed_as_soon_as_consumed():
    seen = []

    class Watch(Function):
        @staticmethod
        def forward(ctx, x):
            return x + 0

        @staticmethod
        def backward(ctx, grad):
            if seen:
                assert seen[-1]() is None  # the gradient that the node above was given
            out = grad * 1
            seen.append(weakref.ref(grad))
            return (out,)

    y = leaf(1.0)
    for _ in range(4):
        y = Watch.apply(y) * 2
    y.backward()
    assert len(seen) == 4


def test_graph_does_not_keep_values_nobody_saved():
    x = leaf(1.0, 2.0)
    h = x + 1
    kept = weakref.ref(h.data)
    y = h + 1
    del h
    assert kept() is None
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [1.0, 1.0])


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Tensor([1.0]).backward(), "does not require grad"),
    (lambda: (leaf(1.0, 2.0) * 2).backward(), r"needs a scalar.*\(2,\).*sum\(\)"),
])
def test_backward_errors_teach(make, message):
    with pytest.raises(RuntimeError, match=message):
        make()


def test_backward_checks_the_shape_of_grad():
    with pytest.raises(ValueError, match=r"\(3,\), expected the tensor's shape \(2,\)"):
        (leaf(1.0, 2.0) * 2).backward(np.ones(3))


def test_backward_does_not_write_to_the_given_gradient():
    x, seed = leaf(1.0, 2.0), np.ones(2)
    y = x + x
    (y + y).backward(seed)
    np.testing.assert_array_equal(seed, [1.0, 1.0])
    np.testing.assert_array_equal(x.grad, [4.0, 4.0])


def test_gradient_has_the_leafs_dtype_in_mixed_precision():
    a = Tensor([1.0, 2.0], requires_grad=True)
    b = leaf(3.0, 4.0)
    y = a * b
    assert y.dtype == np.float64
    y.sum().backward()
    assert a.grad.dtype == np.float32 and b.grad.dtype == np.float64


def test_activation_layout_survives_forward_and_backward():
    data = np.random.default_rng(0).standard_normal((3, 4, 5, 2)).astype(np.float32).transpose(3, 0, 1, 2)
    x, w = Tensor(data, requires_grad=True), Tensor(np.ones((1, 3, 1, 1)), requires_grad=True, dtype=np.float32)
    for f in (lambda t: ops.relu(t * w + 1), ops.gelu, ops.exp, lambda t: ops.clip(t, -1, 1) / 2, ops.sigmoid,
              lambda t: ops.maximum(t, 0), lambda t: ops.where(t > 0, t, 0.1), lambda t: t[:, :2],
              lambda t: ops.dropout(t, 0.5, np.random.default_rng(0)), lambda t: ops.pad(t, (1, 1))):
        x.grad = None
        y = f(x)
        assert y.data.strides[0] == 4, "the batch is no longer innermost"
        y.backward(np.ones_like(y.data))
        assert x.grad.strides == data.strides
