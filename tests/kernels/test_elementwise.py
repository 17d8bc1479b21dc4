"""ReLU, addition, both in one, and SGD's step: C equals NumPy bit for bit; the bits of the mask; memory orders."""
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minilp import set_num_threads, use_backend
from minilp.kernels import calls, elementwise, threads
from minilp.kernels.layout import from_chwn, is_chwn, to_chwn

LENGTHS = (0, 1, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 127, 1000, 100_003)


def same_bits(a, b):
    """Equal dtype, shape and bits (so -0.0 is not 0.0); any NaN equals any NaN."""
    kind = {4: np.uint32, 8: np.uint64, 1: np.uint8}[a.dtype.itemsize]
    bits = np.ascontiguousarray(a).view(kind) == np.ascontiguousarray(b).view(kind)
    return a.dtype == b.dtype and a.shape == b.shape and bool((bits | (np.isnan(a) & np.isnan(b))).all())


def all_kernels(a, b):
    """Every kernel of elementwise.py on two arrays, its outputs in a list."""
    out = [*elementwise.relu(a), *elementwise.add_relu(a, b), elementwise.add(a, b)]
    out += [elementwise.relu_backward(b, out[1]), elementwise.relu_backward(b, out[3])]
    target = a.copy()
    out.append(elementwise.add(target, b, out=target))
    for options in ({}, {"weight_decay": 5e-4}, {"momentum": 0.9, "weight_decay": 0.1, "first": True},
                    {"momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}):
        p, buffer = a.copy(), b.copy()
        of_part = {name: options.pop(name) for name in ("weight_decay", "first") if name in options}
        elementwise.sgd([elementwise.SGDPart(p, b, buffer if "momentum" in options else None, **of_part)], lr=0.1,
                        **options)
        out += [p, buffer]
    return out


@pytest.mark.parametrize("length", LENGTHS)
def test_every_tier_and_thread_count_equals_numpy(isa, length):
    a, b = np.random.default_rng(length).standard_normal((2, length)).astype(np.float32)
    a[::5] = -0.0
    with use_backend("numpy"):
        twin = all_kernels(a, b)
    before = threads()
    try:
        for count in (1, 2, 3):
            set_num_threads(count)
            with calls() as seen:
                got = all_kernels(a, b)
            assert all(name.endswith(f"[{isa}]") for name in seen), seen
            for i, (x, y) in enumerate(zip(got, twin, strict=True)):
                assert same_bits(x, y), i
    finally:
        set_num_threads(before)


def test_sgd_steps_parameters_of_any_kind_in_one_call(needs_c):
    """Float32 without gaps in C, once; float64 and arrays with gaps by the twin: each as if it were alone."""
    rng = np.random.default_rng(0)

    def parts():
        shapes = [(5, 3), (), (40_000,), (4, 6), (0,), (7,)]
        p, grad, buffer = ([rng.standard_normal(shape).astype(np.float32) for shape in shapes] for _ in range(3))
        p[3], grad[5] = np.asfortranarray(p[3]), grad[5][::-1]
        p[0], grad[0], buffer[0] = (x[0].astype(np.float64) for x in (p, grad, buffer))
        return [elementwise.SGDPart(*arrays, decay, first) for *arrays, decay, first in zip(
            p, grad, [*buffer[:5], None], (0.1, 0.0, 5e-4, 0.1, 0.0, 0.2), (False, True) * 3, strict=True)]

    together = parts()
    alone = [elementwise.SGDPart(*(None if a is None else a.copy(order="K") for a in part[:3]), *part[3:])
             for part in together]
    with calls() as seen:
        elementwise.sgd(together, lr=0.1, momentum=0.9, nesterov=True)
    assert sorted(seen.values()) == [1, 1, 2] and seen["f32_sgd[numpy]"] == 2, seen
    for a, b in zip(together, alone, strict=True):
        with use_backend("numpy"):
            elementwise.sgd([b], lr=0.1, momentum=0.9, nesterov=True)
        assert all(x is y is None or same_bits(x, y) for x, y in zip(a[:3], b[:3], strict=True))


def test_sgd_changes_nothing_where_it_refuses(needs_c):
    p = np.ones(3, np.float32)
    with pytest.raises(ValueError, match="b must have the shape of a"):
        elementwise.sgd([elementwise.SGDPart(p, p.copy()), elementwise.SGDPart(X, X[0])], lr=0.1)
    assert (p == 1).all()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, -1e-45, 3e38, -3e38, 1.0, -1.0]),
                min_size=1, max_size=40))
def test_special_values_equal_numpy(needs_c, values):
    x = np.array(values, np.float32)
    with np.errstate(all="ignore"):
        got = all_kernels(x, x[::-1].copy())
        with use_backend("numpy"):
            twin = all_kernels(x, x[::-1].copy())
    for i, (a, b) in enumerate(zip(got, twin, strict=True)):
        assert same_bits(a, b), i


@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_relu_rules(needs_c, backend):
    with use_backend(backend):
        got, positive = elementwise.relu(np.array([-1.0, -0.0, 0.0, 2.0, np.nan], np.float32))
        np.testing.assert_array_equal(got, np.array([0, 0, 0, 2, np.nan], np.float32))
        assert not np.signbit(got[:4]).any() and positive.tolist() == [0b01000]
        grad = elementwise.relu_backward(np.array([np.inf, 5.0, -3.0], np.float32), np.array([0b110], np.uint8))
    assert grad.tolist() == [0.0, 5.0, -3.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_bits_lie_in_storage_order(needs_c, dtype):
    x = np.random.default_rng(0).standard_normal((5, 3, 2, 7)).astype(dtype)
    for image in (x, from_chwn(to_chwn(x)), x[:, ::-1]):
        y, positive = elementwise.relu(image)
        assert is_chwn(y)
        assert np.array_equal(positive, np.packbits(to_chwn(image).ravel() > 0, bitorder="little"))
        for dy in (x, from_chwn(to_chwn(x))):
            assert np.array_equal(elementwise.relu_backward(dy, positive), np.where(image > 0, dy, 0))


@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_the_gradient_may_be_written_over_the_one_it_comes_from(needs_c, backend):
    dy = np.random.default_rng(1).standard_normal((5, 3, 2, 7)).astype(np.float32)
    dy = from_chwn(to_chwn(dy))
    with use_backend(backend):
        positive = elementwise.relu(dy[::-1])[1]
        wanted = elementwise.relu_backward(dy, positive)
        assert not np.shares_memory(wanted, dy)
        got = elementwise.relu_backward(dy, positive, overwrite=True)
    assert np.shares_memory(got, dy) == (backend == "c") and same_bits(got, wanted)


def test_any_strides_and_memory_order(needs_c):
    """Strided inputs give what their copies give; non-4-D results keep the memory order of the input."""
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((2, 8, 4, 6, 10)).astype(np.float32)
    views = x[::2, ::-1, :, ::3], y[1::2, :, :, ::-3]
    for a, b in zip(all_kernels(*views), all_kernels(*map(np.ascontiguousarray, views)), strict=True):
        assert same_bits(a, b)
    flat = rng.standard_normal((5, 7)).astype(np.float32)
    for stored in (flat, np.asfortranarray(flat), flat[:, ::2]):
        got, positive = elementwise.relu(stored)
        assert got.strides == np.empty_like(stored).strides == elementwise.add(stored, stored).strides
        assert np.array_equal(elementwise.add_relu(stored, stored)[0], np.maximum(2 * stored, 0))
        assert np.array_equal(elementwise.relu_backward(flat[:, :stored.shape[1]], positive),
                              np.where(stored > 0, flat[:, :stored.shape[1]], 0))
    assert elementwise.relu(np.array(-2.0, np.float32))[0].shape == ()
    assert elementwise.relu(np.zeros((0, 3), np.float32))[0].shape == (0, 3)


X = np.zeros((2, 3, 4, 4), np.float32)


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda: elementwise.relu(np.zeros(3, np.int8)), TypeError, "got an array of int8"),
    (lambda: elementwise.relu_backward(X, np.zeros(11, np.uint8)), ValueError, r"positive must be uint8 of shape \(12"),
    (lambda: elementwise.add(X, X[:1]), ValueError, "b must have the shape of a"),
    (lambda: elementwise.add(X, X, out=X[0]), ValueError, "out must be float32 of shape"),
    (lambda: elementwise.add_relu(X, X.astype(float)), TypeError, "b is float64, but a is float32"),
    (lambda: elementwise.sgd([elementwise.SGDPart(X, X[0])], lr=0.1), ValueError, "b must have the shape of a"),
    (lambda: elementwise.sgd([elementwise.SGDPart(X, X, X.astype(float))], lr=0.1), TypeError, "b is float64"),
])
def test_refusals_name_the_argument(call, error, words):
    with pytest.raises(error, match=words):
        call()
