"""Tensor itself: what it accepts, how it meets NumPy and Python, and the errors that teach."""

import copy

import numpy as np
import pytest

from minilp.autograd import Tensor, no_grad, ops


def test_dtypes_of_data():
    assert Tensor([1, 2]).dtype == np.float32 and Tensor(3).dtype == np.float32
    assert Tensor(np.arange(3)).dtype == np.arange(3).dtype
    assert Tensor(np.zeros(2)).dtype == np.float64 and Tensor([1.0], dtype=np.float64).dtype == np.float64
    assert Tensor([True, False]).dtype == np.bool_
    array = np.zeros(2, np.float32)
    assert Tensor(array).data is array and Tensor(Tensor(array)).data is array


@pytest.mark.parametrize("data", [
    np.zeros(2, np.float16), np.zeros(2, np.complex64), np.array([None]), np.zeros(2, ">f4"), ["a"],
])
def test_other_dtypes_are_refused(data):
    with pytest.raises(TypeError, match="expected float32 or float64"):
        Tensor(data)


def test_float16_operand_is_refused():
    with pytest.raises(TypeError, match="add: an operand has dtype float16"):
        Tensor([1.0]) + np.zeros(1, np.float16)


def test_integers_cannot_require_grad():
    with pytest.raises(TypeError, match="integers have no derivative"):
        Tensor(np.arange(3), requires_grad=True)
    with pytest.raises(TypeError, match="detach"):
        Tensor([1.0], requires_grad=True).astype(np.int64)


def test_python_numbers_are_weak_and_arrays_promote():
    t = Tensor([1.0, 2.0])
    for result in (t * 2, 2.5 * t, t + True, t ** 2, 1 / t, t.sum() * 0.1, 0.1 - t.sum(), t.sum() ** 3):
        assert result.dtype == np.float32
    assert (t * np.ones(2)).dtype == np.float64
    assert (t + np.ones(2, np.float32)).dtype == np.float32
    assert (Tensor(np.arange(2)) * 2).dtype == np.arange(2).dtype


def test_ndarray_on_the_left():
    t = Tensor([1.0, 2.0], requires_grad=True)
    array = np.array([3.0, 4.0], np.float32)
    for result, expected in [
        (array + t, [4, 6]), (array - t, [2, 2]), (array * t, [3, 8]), (array / t, [3, 2]), (array ** t, [3, 16]),
        (array @ t, 11), (np.float32(2) * t, [2, 4]),
    ]:
        assert isinstance(result, Tensor) and result.requires_grad
        np.testing.assert_allclose(result.data, expected, rtol=1e-6)


def test_numpy_functions_do_not_drop_gradients_silently():
    t = Tensor([1.0], requires_grad=True)
    with pytest.raises(TypeError, match="ufunc"):
        np.exp(t)
    for convert in (np.asarray, Tensor.numpy, np.array):
        with pytest.raises(RuntimeError, match="detach"):
            convert(t)


def test_array_protocol():
    t = Tensor([1.0, 2.0])
    assert np.asarray(t) is t.data
    assert np.asarray(t, dtype=np.float64).dtype == np.float64
    assert not np.shares_memory(np.array(t), t.data)
    with pytest.raises(ValueError, match="without a copy"):
        t.__array__(np.dtype(np.float64), copy=False)
    np.testing.assert_array_equal(t, [1.0, 2.0])


@pytest.mark.parametrize("other", [[1.0, 2.0], "a", None])
def test_operators_refuse_other_types(other):
    with pytest.raises(TypeError, match="unsupported operand"):
        Tensor([1.0, 2.0]) + other
    with pytest.raises(TypeError, match="expected a Tensor, an array or a number, got"):
        ops.add(Tensor([1.0, 2.0]), other)


def test_item_assignment_names_the_alternative():
    t = Tensor([1.0, 2.0])
    with pytest.raises(TypeError, match=r"where\(mask, value, t\).*t\.data\[index\] = value"):
        t[0] = 5.0


def test_in_place_on_a_parameter():
    t = Tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(RuntimeError, match=r"t \+= x on a leaf.*no_grad\(\)"):
        t += 1.0
    data, same = t.data, t
    with no_grad():
        t -= Tensor([0.5, 0.5])
        t *= 2
    assert t is same and t.data is data
    np.testing.assert_array_equal(data, [1.0, 3.0])
    with no_grad(), pytest.raises(ValueError, match=r"shape \(2, 2\)"):
        t += np.ones((2, 2), np.float32)


@pytest.mark.parametrize("recorded", [True, False])
def test_in_place_on_an_activation_makes_a_new_tensor(recorded):
    w = Tensor([2.0], requires_grad=True)
    x = Tensor([3.0])
    kept = x
    y = w * x  # saves x for backward
    x += 1
    x /= 2
    y *= 2
    assert kept.data == 3.0 and x.data == 2.0
    if not recorded:
        with no_grad():
            h = kept
            h += 1
        assert kept.data == 3.0
    y.backward()
    assert w.grad == 6.0


def test_attribute_typos():
    t = Tensor([1.0])
    with pytest.raises(AttributeError):
        t.requires_gard = True
    with pytest.raises(AttributeError, match="grda"):
        _ = t.grda


def test_grad_and_data_are_checked():
    t = Tensor([1.0, 2.0], requires_grad=True)
    for wrong in (np.zeros(3, np.float32), np.zeros(2)):
        with pytest.raises(ValueError, match=r"expects shape \(2,\) and dtype float32"):
            t.grad = wrong
    with pytest.raises(TypeError, match="plain ndarray"):
        t.grad = Tensor([0.0, 0.0])
    with pytest.raises(TypeError, match=r"Tensor\.data expects an ndarray, got list"):
        t.data = [1.0]
    t.data = np.float32(4)
    assert isinstance(t.data, np.ndarray)
    with pytest.raises(RuntimeError, match="detach"):
        (t * 2).requires_grad = False


def test_truth_value():
    assert Tensor([1.0]) and not Tensor(0.0)
    with pytest.raises(ValueError, match=r"shape \(2,\) is ambiguous"):
        bool(Tensor([1.0, 2.0]))


def test_python_protocols():
    t = Tensor([[1.0, 2.0], [3.0, 4.0]])
    assert len(t) == 2 and [row.shape for row in t] == [(2,), (2,)]
    assert float(t.sum()) == 10.0 and int(t.sum()) == 10 and f"{t.mean():.2f}" == "2.50"
    assert t.size == 4 and t.ndim == 2 and t.T.shape == (2, 2)
    assert t.argmax(1).tolist() == [1, 1]
    assert hash(t) != hash(Tensor(t)) and t in [t]
    for function in (len, iter):
        with pytest.raises(TypeError, match="0-d"):
            function(Tensor(1.0))
    with pytest.raises(ValueError, match=r"one element.*\(2, 2\)"):
        t.item()


def test_comparisons_are_bool_tensors_without_gradient():
    t = Tensor([1.0, 2.0], requires_grad=True)
    for result, expected in [(t > 1, [0, 1]), (t >= 1, [1, 1]), (t < 2, [1, 0]), (t <= 0, [0, 0]), (t == 2, [0, 1]),
                             (t != 2, [1, 0]), (1.5 < t, [0, 1])]:
        assert result.dtype == np.bool_ and not result.requires_grad
        np.testing.assert_array_equal(result.data, np.array(expected, bool))
    assert (t == "x") is False


def test_repr():
    t = Tensor([1.0, 2.0], requires_grad=True)
    assert repr(t) == "Tensor([1., 2.], requires_grad=True)"
    assert repr(t * 2) == "Tensor([2., 4.], grad_fn=<Mul>)"
    assert repr(Tensor(np.zeros(1))) == "Tensor([0.], dtype=float64)"


def test_detach_and_is_leaf():
    t = Tensor([1.0], requires_grad=True)
    y = t * 2
    assert t.is_leaf and not y.is_leaf and y.grad_fn is not None
    d = y.detach()
    assert d.is_leaf and not d.requires_grad and d.data is y.data


def test_deepcopy_of_a_leaf():
    t = Tensor([1.0, 2.0], requires_grad=True)
    (t * t).sum().backward()
    other = copy.deepcopy(t)
    other.data[0] = 7
    assert t.data[0] == 1 and other.requires_grad
    np.testing.assert_array_equal(other.grad, t.grad)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: Tensor(np.ones((2, 3))) + np.ones((2, 4)), ValueError, r"add: shapes \(2, 3\) and \(2, 4\)"),
    (lambda: ops.where(np.ones(3, bool), np.ones(2), 0.0), ValueError, r"where: shapes \(3,\) and \(2,\)"),
    (lambda: ops.where(np.ones(3), 1.0, 0.0), TypeError, "where: condition has dtype float64, expected bool"),
    (lambda: Tensor(np.ones((2, 3))) @ np.ones((2, 4)), ValueError, r"matmul: shapes \(2, 3\) and \(2, 4\)"),
    (lambda: Tensor(np.ones((2, 3))) @ 2.0, ValueError, "matmul: expected tensors of at least 1 axis"),
    (lambda: Tensor(np.ones((2, 2, 3))) @ np.ones((3, 3, 4)), ValueError, "leading axes .* do not broadcast"),
    (lambda: ops.linear(np.ones((2, 3)), np.ones((4, 2))), ValueError, r"linear: x of shape \(2, 3\)"),
    (lambda: ops.linear(np.ones((2, 3)), np.ones((4, 3)), np.ones(3)), ValueError, r"expected \(4,\)"),
    (lambda: Tensor(np.ones(6)).reshape(4), ValueError, r"reshape: .*\(6,\).*\(4,\)"),
    (lambda: Tensor(np.ones((2, 3))).sum(2), ValueError, "sum: axis=2 does not fit a tensor of 2 axes"),
    (lambda: Tensor(np.ones((2, 3))).mean((0, 0)), ValueError, "mean: axis=.*distinct"),
    (lambda: Tensor(np.ones((0, 3))).max(0), ValueError, "max: no elements"),
    (lambda: Tensor(np.ones((1, 3))).var(0), ValueError, "no degree of freedom"),
    (lambda: Tensor(np.ones((2, 3))).permute(0), ValueError, "names 1 axes, the tensor has 2"),
    (lambda: Tensor(np.ones((2, 3))).broadcast_to((2, 4)), ValueError, r"\(2, 3\) does not broadcast to \(2, 4\)"),
    (lambda: ops.concat([]), ValueError, "concat: expected at least one tensor"),
    (lambda: ops.concat([np.ones((2, 3)), np.ones((2, 4))]), ValueError, "differ outside axis 0"),
    (lambda: ops.stack([np.ones(2), np.ones(3)]), ValueError, "stack: shapes"),
    (lambda: Tensor(np.ones(5)).split([2, 2]), ValueError, "do not add up to 5"),
    (lambda: Tensor(np.ones(5)).split(0), ValueError, "must be positive"),
    (lambda: ops.pad(Tensor(np.ones(5)), (1,)), ValueError, "pairs"),
    (lambda: ops.pad(Tensor(np.ones(5)), (-3, -3)), ValueError, "cut more"),
    (lambda: ops.flatten(Tensor(np.ones((2, 3))), 1, 0), ValueError, "comes after"),
    (lambda: Tensor(np.ones(3))[5], IndexError, r"tensor of shape \(3,\): index 5 is out of bounds"),
    (lambda: Tensor(np.ones(3))[[0.5]], IndexError, "integers or bools, got dtype float64"),
    (lambda: ops.embedding(np.array([0, 7]), np.ones((5, 2))), IndexError, r"index 7 is not in \[0, 5\)"),
    (lambda: ops.embedding(np.array([0.0]), np.ones((5, 2))), TypeError, "expected integers"),
    (lambda: ops.clip(Tensor(1.0)), ValueError, "both None"),
    (lambda: ops.gelu(Tensor([1.0]), approximate="no"), ValueError, "approximate='no'"),
    (lambda: ops.dropout(Tensor([1.0]), 0.5, None), TypeError, "expected a numpy.random.Generator"),
    (lambda: ops.dropout(Tensor([1.0]), 1.5, np.random.default_rng(0)), ValueError, "p=1.5"),
    (lambda: ops.softmax(Tensor(np.arange(3))), TypeError, "softmax: expected a float32 or float64 tensor"),
    (lambda: ops.cross_entropy(np.ones((2, 3)), np.array([0, 3])), IndexError, r"target 3 is neither .*\[0, 3\)"),
    (lambda: ops.cross_entropy(np.ones((2, 3)), np.ones(2)), TypeError, "integer class indices"),
    (lambda: ops.cross_entropy(np.ones((2, 3)), np.array([1])), ValueError, r"\(2, 3\) and target of shape \(1,\)"),
    (lambda: ops.cross_entropy(np.ones((2, 3)), np.array([0, 1]), reduction="avg"), ValueError, "'mean', 'sum'"),
    (lambda: ops.cross_entropy(np.ones((2, 3)), np.array([0, 1]), label_smoothing=2), ValueError, "smoothing=2"),
    (lambda: ops.conv2d(np.ones((1, 2, 3, 3)), np.ones((1, 1, 3, 3))), ValueError, r"\(1, 1, 3, 3\)"),
    (lambda: ops.conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3)), stride="a"), TypeError, "stride='a'"),
    (lambda: ops.max_pool2d(np.ones((3, 3)), 2), ValueError, "max_pool2d: x has shape"),
    (lambda: ops.avg_pool2d(np.ones((1, 1, 3, 3)), 2, padding=2), ValueError, "padding=2"),
    (lambda: ops.adaptive_avg_pool2d(np.ones((1, 1, 3, 3)), 0), ValueError, "must be positive"),
    (lambda: ops.batch_norm(np.ones((2, 3)), np.ones(2), np.ones(3)), ValueError, "running_mean has shape"),
    (lambda: ops.batch_norm(np.ones((2, 3)), np.ones(3), None), ValueError, "both running_mean and running_var"),
    (lambda: ops.batch_norm(np.ones((1, 3)), None, None, training=True), ValueError, "more than 1 value a channel"),
    (lambda: ops.layer_norm(np.ones((2, 3)), 2), ValueError, r"layer_norm: x has shape \(2, 3\)"),
])
def test_errors_name_the_operation_and_what_came(call, error, message):
    with pytest.raises(error, match=message):
        call()
