"""Batch norm, alone and with the ReLU behind it; max pooling: C equals NumPy bit for bit, NumPy agrees with torch."""
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minilp import set_num_threads, use_backend
from minilp.kernels import calls, elementwise, norm, threads
from minilp.kernels.layout import from_chwn, is_chwn, to_chwn
from minilp.kernels.reference_norm import ordered_sum

AWKWARD = (1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 63, 65, 127, 129)
SHAPES = [*[(n, 2, 3, 2) for n in AWKWARD], *[(2, c, 2, 3) for c in AWKWARD], *[(3, 2, 2, s) for s in AWKWARD],
          (1, 1, 32, 32), (1, 1, 1, 1025), (1, 2, 1, 1023), (33, 3, 9, 31), (128, 4, 16, 16),
          (128, 4, 32, 32)]  # the last is written past the caches
WINDOWS = [((2, 2), (2, 2), (0, 0)), ((3, 3), (2, 2), (1, 1)), ((2, 3), (3, 1), (1, 0)), ((1, 1), (1, 1), (0, 0))]


def same_bits(a, b):
    """Equal dtype, shape, memory order and bits (so -0.0 is not 0.0); any NaN equals any NaN."""
    kind = {4: np.uint32, 8: np.uint64, 1: np.uint8}[a.dtype.itemsize]
    bits = np.ascontiguousarray(a).view(kind) == np.ascontiguousarray(b).view(kind)
    return (a.dtype == b.dtype and a.shape == b.shape and is_chwn(a) == is_chwn(b)
            and bool((bits | (np.isnan(a) & np.isnan(b))).all()))


def all_kernels(shape, seed=0):
    """Every kernel of norm.py on one drawn activation, its outputs in a list."""
    rng = np.random.default_rng(seed)
    _, c, h, w = shape
    x, dy, other = (rng.standard_normal(shape).astype(np.float32) for _ in range(3))
    x = from_chwn(to_chwn(x * 3 + 1))
    weight, bias = rng.standard_normal((2, c)).astype(np.float32)
    y, mean, var, invstd, _ = norm.batch_norm(x, weight, bias, 1e-5)
    added = norm.batch_norm(x, weight, bias, 1e-5, relu=True, residual=other)
    out = [y, mean, var, invstd, *norm.batch_norm_backward(dy, x, mean, invstd, weight),
           *norm.batch_norm(x, None, None, 0.1), *norm.batch_norm(x, weight, bias, 1e-5, relu=True),
           *norm.batch_norm_backward(dy, x, mean, invstd, weight, bias, relu=True),
           *norm.batch_norm(x, weight, bias, 1e-5, residual=other), *added,
           *norm.batch_norm_backward(dy, x, mean, invstd, weight, bias, relu=True, positive=added[-1])]
    for kernel, stride, padding in WINDOWS:
        if all(s + 2 * p >= k for s, p, k in zip((h, w), padding, kernel, strict=True)):
            tied = np.round(x)
            best, index = norm.max_pool2d(tied, kernel, stride, padding)
            grad = rng.standard_normal(best.shape).astype(np.float32)
            out += [best, index, norm.max_pool2d_backward(grad, index, (h, w), kernel, stride, padding)]
    return [a for a in out if a is not None]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_tier_and_thread_count_equals_numpy(isa, shape):
    before = threads()
    with use_backend("numpy"), calls() as seen:
        twin = all_kernels(shape)
    assert all(name.endswith("[numpy]") for name in seen)
    try:
        for count in (1, 2):
            set_num_threads(count)
            with calls() as seen:
                got = all_kernels(shape)
            assert all(name.endswith(f"[{isa}]") for name in seen), seen
            for i, (a, b) in enumerate(zip(got, twin, strict=True)):
                assert same_bits(a, b), i
    finally:
        set_num_threads(before)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, -1e-45, 3e38, -3e38, 1.0, -1.0]),
                min_size=1, max_size=40))
def test_special_values_equal_numpy(needs_c, values):
    x = np.array(values, np.float32)
    image, zero = x.reshape(1, 1, 1, -1), np.zeros(1, np.float32)

    def run():
        with np.errstate(all="ignore"):
            best, index = norm.max_pool2d(image, (1, 2), (1, 1), (0, 1))
            backward = (image[..., ::-1], image, zero, zero + 1, None, None, True)
            positive = np.arange(-(-image.size // 8), dtype=np.uint8)[None]
            out = [best, index,
                   norm.max_pool2d_backward(best, index, image.shape[2:], (1, 2), (1, 1), (0, 1)),
                   *norm.batch_norm(image, None, None, 1e-5, relu=True), *norm.batch_norm_backward(*backward),
                   *norm.batch_norm(image, None, None, 1e-5, relu=True, residual=image[..., ::-1]),
                   *norm.batch_norm_backward(*backward, positive)]
            return [a for a in out if a is not None]
    with use_backend("numpy"):
        twin = run()
    for i, (a, b) in enumerate(zip(run(), twin, strict=True)):
        assert same_bits(a, b), i


@pytest.mark.parametrize("backend", ["c", "numpy"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_fused_relu_is_the_two_one_after_the_other(needs_c, backend, dtype):
    """Bit for bit, forward and backward; half of the outputs are zero, so the mask matters."""
    rng = np.random.default_rng(7)
    x, dy = rng.standard_normal((2, 9, 3, 5, 7)).astype(dtype)
    weight, bias = rng.standard_normal((2, 3)).astype(dtype)
    with use_backend(backend):
        y, mean, _, invstd, _ = norm.batch_norm(x, weight, bias, 1e-5)
        apart, positive = elementwise.relu(y)
        fused = norm.batch_norm(x, weight, bias, 1e-5, relu=True)[0]
        wanted = norm.batch_norm_backward(elementwise.relu_backward(dy, positive), x, mean, invstd, weight)
        got = norm.batch_norm_backward(dy, x, mean, invstd, weight, bias, relu=True)
    assert 0.2 < (y > 0).mean() < 0.8
    assert np.array_equal(fused, apart) and not np.signbit(fused).any()
    for a, b in zip(got[:3], wanted[:3], strict=True):
        assert np.array_equal(a, b)
    assert got[3] is wanted[3] is None


@pytest.mark.parametrize("backend", ["c", "numpy"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_fused_addition_is_the_two_one_after_the_other(needs_c, backend, dtype):
    """Bit for bit, forward and backward, without and with the ReLU."""
    rng = np.random.default_rng(9)
    x, dy, other = rng.standard_normal((3, 9, 3, 5, 7)).astype(dtype)
    weight, bias = rng.standard_normal((2, 3)).astype(dtype)
    with use_backend(backend):
        y, mean, _, invstd, positive = norm.batch_norm(x, weight, bias, 1e-5)
        assert positive is None
        plain = norm.batch_norm(x, weight, bias, 1e-5, residual=other)
        assert np.array_equal(plain[0], y + other) and plain[-1] is None
        apart, bits = elementwise.add_relu(y, other)
        fused, _, _, _, positive = norm.batch_norm(x, weight, bias, 1e-5, relu=True, residual=other)
        to_sum = elementwise.relu_backward(dy, bits)
        wanted = *norm.batch_norm_backward(to_sum, x, mean, invstd, weight)[:3], to_sum
        got = norm.batch_norm_backward(dy, x, mean, invstd, weight, bias, relu=True, positive=positive)
    assert 0.2 < (fused > 0).mean() < 0.8
    assert np.array_equal(fused, apart) and not np.signbit(fused).any()
    assert np.array_equal(positive, np.packbits(to_chwn(fused).reshape(3, -1) > 0, axis=1, bitorder="little"))
    for a, b in zip(got, wanted, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("behind", ["", "relu", "addition and relu"])
@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_the_gradient_may_be_written_over_the_one_it_comes_from(needs_c, backend, behind):
    rng = np.random.default_rng(8)
    x, dy = (from_chwn(np.ascontiguousarray(a)) for a in rng.standard_normal((2, 3, 17, 9, 31)).astype(np.float32))
    weight, bias, mean, invstd = rng.standard_normal((4, 3)).astype(np.float32)
    positive = np.packbits(rng.random((3, 17 * 9 * 31)) < 0.5, axis=1) if "addition" in behind else None
    arguments, before = (x, mean, invstd, weight, bias, behind != "", positive), dy.copy()
    with use_backend(backend):
        wanted = norm.batch_norm_backward(dy, *arguments)
        dy.flags.writeable = False
        kept = norm.batch_norm_backward(dy, *arguments, overwrite=True)[0]
        assert np.array_equal(dy, before) and np.array_equal(kept, wanted[0])
        dy.flags.writeable = True
        got = norm.batch_norm_backward(dy, *arguments, overwrite=True)
    first = got[0] if positive is None else got[3]
    assert np.shares_memory(first, dy) == (backend == "c")
    for a, b in zip(got, wanted, strict=True):
        assert a is b is None or same_bits(a, b)


def test_ordered_sum_is_the_written_order():
    """A loop over single floats, word for word the order of the docstring; and it is not just any order."""
    rng = np.random.default_rng(1)
    terms = rng.standard_normal(2 * 1024 + 37) * 10.0 ** rng.integers(-8, 9, 2 * 1024 + 37)
    padded = np.concatenate([terms, np.zeros(-len(terms) % 1024)]).reshape(-1, 64, 16)
    total = [0.0] * 16
    for block in padded:
        column = [0.0] * 16
        for row in block:
            column = [c + r for c, r in zip(column, row, strict=True)]
        total = [t + c for t, c in zip(total, column, strict=True)]
    while len(total) > 1:
        half = len(total) // 2
        total = [total[i] + total[i + half] for i in range(half)]
    assert ordered_sum(terms[None])[0] == total[0]
    assert ordered_sum(terms[None, ::-1])[0] != total[0]


@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_batch_norm_against_float64(needs_c, backend):
    """float32 in, statistics as good as float64's, also where the mean is far from zero."""
    rng = np.random.default_rng(2)
    x = (rng.standard_normal((65, 3, 5, 7)) * 0.01 + np.array([0, 10, -100])[:, None, None]).astype(np.float32)
    with use_backend(backend):
        _, mean, var, *_ = norm.batch_norm(x, None, None, 1e-5)
    np.testing.assert_allclose(mean, x.astype(float).mean((0, 2, 3)), rtol=6e-8)
    np.testing.assert_allclose(var, x.astype(float).var((0, 2, 3)), rtol=6e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_torch_agrees(torch, dtype):
    rng = np.random.default_rng(3)
    x, dy = rng.standard_normal((2, 6, 3, 5, 7)).astype(dtype)
    weight, bias = rng.standard_normal((2, 3)).astype(dtype)
    t = [torch.tensor(a, requires_grad=True) for a in (x, weight, bias)]
    ty = torch.nn.functional.batch_norm(t[0], None, None, t[1], t[2], True, 0.1, 1e-5)
    ty.backward(torch.tensor(dy))
    y, mean, _, invstd, _ = norm.batch_norm(x, weight, bias, 1e-5)
    got = (y, *norm.batch_norm_backward(dy, x, mean, invstd, weight)[:3])
    for a, b in zip(got, (ty.detach(), *[v.grad for v in t]), strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=2e-5 if dtype == np.float32 else 1e-12)
    for kernel, stride, padding in [*WINDOWS[:2], ((2, 3), (3, 1), (1, 0)), ((17, 17), (1, 1), (8, 8))]:
        tx = torch.tensor(x, requires_grad=True)
        ty = torch.nn.functional.max_pool2d(tx, kernel, stride, padding)
        best, index = norm.max_pool2d(x, kernel, stride, padding)
        assert np.array_equal(best, ty.detach().numpy())
        assert index.dtype == (np.uint8 if kernel[0] < 17 else np.int32)
        ty.backward(torch.tensor(np.ascontiguousarray(best)))
        np.testing.assert_allclose(norm.max_pool2d_backward(best, index, (5, 7), kernel, stride, padding),
                                   tx.grad.numpy(), rtol=0, atol=1e-4)


def test_any_strides_and_memory_order(needs_c):
    """Strided inputs give what their copies give."""
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((2, 8, 4, 6, 10)).astype(np.float32)
    views = x[::2, ::-1, :, ::3], y[1::2, :, :, ::-3]
    copies = [np.ascontiguousarray(v) for v in views]
    weight = np.ones(8, np.float32)[::2]
    for run in (lambda a, b: norm.batch_norm(a, weight, None, 1e-5)[0],
                lambda a, b: norm.batch_norm_backward(a, b, weight, weight, weight)[0],
                lambda a, b: norm.max_pool2d(a, (2, 2), (2, 2))[0]):
        got = run(*views)
        assert is_chwn(got) and same_bits(got, run(*copies))


X = np.zeros((2, 3, 4, 4), np.float32)


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda: norm.batch_norm(X[:0], None, None, 1e-5), ValueError, "no element to take a mean of"),
    (lambda: norm.batch_norm(X[0], None, None, 1e-5), ValueError, "x must have 4 axes"),
    (lambda: norm.batch_norm(X, np.ones(4, np.float32), None, 1e-5), ValueError, r"weight must have shape \(3,\)"),
    (lambda: norm.batch_norm(X, None, np.ones(3), 1e-5), TypeError, "bias is float64, but x is float32"),
    (lambda: norm.batch_norm(X, None, None, -1.0), ValueError, "eps must be at least 0"),
    (lambda: norm.batch_norm_backward(X[:1], X, X[0, :, 0, 0], X[0, :, 0, 0], None), ValueError, "shape of x"),
    (lambda: norm.batch_norm(X.astype(np.int8), None, None, 1e-5), TypeError, "got an array of int8"),
    (lambda: norm.batch_norm(X, None, None, 1e-5, residual=X[:1]), ValueError, "residual must have the shape of x"),
    (lambda: norm.batch_norm(X, None, None, 1e-5, residual=X.astype(float)), TypeError, "residual is float64, but"),
    (lambda: norm.batch_norm_backward(X, X, X[0, :, 0, 0], X[0, :, 0, 0], None, None, True, np.zeros(9, np.uint8)),
     ValueError, r"positive must be the bits of a ReLU, uint8 of shape \(3, 4\)"),
    (lambda: norm.max_pool2d(X, (2, 2), (2, 2), (2, 0)), ValueError, "padding must be at most half of the kernel"),
    (lambda: norm.max_pool2d(X, (5, 5), (1, 1)), ValueError, "does not fit"),
    (lambda: norm.max_pool2d_backward(X, X, (8, 8), (2, 2), (2, 2)), ValueError, "index must be uint8"),
    (lambda: norm.max_pool2d_backward(X, X.astype(np.uint8), (9, 12), (2, 2), (2, 2)), ValueError, "dy must be"),
])
def test_refusals_name_the_argument(call, error, words):
    with pytest.raises(error, match=words):
        call()
