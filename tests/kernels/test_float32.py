"""Float convolutions: every tier against float64, NumPy against torch, one thread against two, awkward sizes."""
import contextlib
import functools
import math

import numpy as np
import pytest

from minilp import set_num_threads, use_backend
from minilp.kernels import calls, float32, threads
from minilp.kernels.layout import is_chwn, output_size

AWKWARD = (0, 1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 63, 65, 127, 129)
# batch, channels, outputs, size, kernel, stride, padding, dilation, groups
SHAPES = [
    *[(n, 3, 5, (4, 5), (3, 3), (1, 1), (1, 1), (1, 1), 1) for n in AWKWARD],
    *[(3, c, 4, (3, 4), (3, 3), (1, 1), (1, 1), (1, 1), 1) for c in AWKWARD],
    *[(2, 3, o, (3, 4), (2, 3), (1, 1), (1, 1), (1, 1), 1) for o in AWKWARD],
    *[(2, 2, 3, (4, s), (3, 3), (1, 2), (1, 1), (1, 1), 1) for s in AWKWARD if s],
    *[(2, 2, 3, (s, 4), (3, 3), (2, 1), (1, 1), (1, 1), 1) for s in AWKWARD if s],
    (64, 16, 16, (19, 32), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (96, 64, 32, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (16, 64, 4, (40, 60), (3, 1), (1, 1), (1, 0), (1, 1), 1),  # many bands of rows a chunk of the weight gradient
    (16, 32, 4, (120, 60), (3, 1), (2, 1), (1, 0), (2, 1), 1),
    (3, 70, 68, (4, 5), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (2, 140, 132, (3, 4), (3, 1), (2, 1), (1, 0), (1, 1), 2),
    (130, 20, 9, (3, 3), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (40, 16, 32, (9, 8), (1, 1), (2, 2), (0, 0), (1, 1), 1),
    (34, 4, 6, (9, 10), (3, 3), (2, 2), (1, 1), (1, 1), 2),
    (17, 8, 8, (7, 7), (3, 3), (1, 1), (1, 1), (1, 1), 8),
    (5, 4, 2, (12, 11), (3, 2), (2, 3), (2, 0), (2, 3), 2),
    (33, 6, 3, (13, 6), (5, 1), (3, 1), (4, 0), (1, 1), 3),
    (9, 3, 4, (8, 9), (8, 9), (1, 1), (0, 0), (1, 1), 1),
    (3, 3, 4, (5, 6), (3, 3), (4, 5), (1, 1), (1, 1), 1),
    (2, 2, 2, (5, 5), (2, 2), (1, 1), (5, 4), (1, 1), 1),
]


def operands(shape, seed=0):
    n, c, o, size, kernel, stride, padding, dilation, groups = shape
    rng = np.random.default_rng(seed)
    out = output_size(size, kernel, stride, padding, dilation)
    draw = [rng.standard_normal(s).astype(np.float32)
            for s in ((n, c, *size), (o, c // groups, *kernel), (n, o, *out))]
    return *draw, (stride, padding, dilation, groups)


def three(x, w, dy, how):
    """Forward, input gradient and weight gradient."""
    return (float32.conv2d(x, w, *how), float32.conv2d_input_grad(dy, w, x.shape[2:], *how),
            float32.conv2d_weight_grad(dy, x, w.shape[2:], *how))


def terms(x, w, dy):
    """Upper bounds of the number of terms in each sum of ``three``."""
    (o, c, *kernel), (n, _, *out) = w.shape, dy.shape
    return c * math.prod(kernel), o * math.prod(kernel), n * math.prod(out)


@functools.cache
def exact(shape):
    """The float64 results, and the sums of the terms' magnitudes."""
    x, w, dy, how = operands(shape)
    wide = [a.astype(np.float64) for a in (x, w, dy)]
    return three(*wide, how), three(*map(np.abs, wide), how)


@contextlib.contextmanager
def on_threads(n):
    before = threads()
    set_num_threads(n)
    try:
        yield
    finally:
        set_num_threads(before)


def check_bound(got, shape):
    """Each float32 result within K 2^-24 sum |a||b| of the float64 result."""
    for a, b, s, k in zip(got, *exact(shape), terms(*operands(shape)[:3]), strict=True):
        assert a.shape == b.shape and a.dtype == np.float32
        assert (np.abs(a - b) <= k * 2.0 ** -24 * s).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_tier_is_within_the_bound_and_thread_blind(isa, shape):
    x, w, dy, how = operands(shape)
    with on_threads(2):
        two = three(x, w, dy, how)
    check_bound(two, shape)
    assert is_chwn(two[0]) and is_chwn(two[1]) and two[2].flags.c_contiguous
    with on_threads(1):
        for a, b in zip(two, three(x, w, dy, how), strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("shape", SHAPES[::5] + SHAPES[-9:], ids=str)
def test_numpy_twin_is_within_the_bound(shape):
    x, w, dy, how = operands(shape)
    with use_backend("numpy"):
        got = three(x, w, dy, how)
    check_bound(got, shape)
    assert is_chwn(got[0]) and is_chwn(got[1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES[-9:], ids=str)
def test_torch_agrees(torch, shape, dtype):
    x, w, dy, how = operands(shape)
    x, w, dy = (a.astype(dtype) for a in (x, w, dy))
    tx, tw = torch.tensor(x, requires_grad=True), torch.tensor(w, requires_grad=True)
    y = torch.nn.functional.conv2d(tx, tw, None, *how)
    y.backward(torch.tensor(dy))
    for a, b in zip(three(x, w, dy, how), (y.detach(), tx.grad, tw.grad), strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=1e-3 if dtype == np.float32 else 1e-11)


def test_chunked_im2col_of_the_twin_changes_nothing(monkeypatch):
    """Blocks of one output row each give what one block of all rows gives."""
    x, w, dy, how = operands((3, 4, 6, (9, 8), (3, 2), (2, 1), (1, 1), (1, 2), 2))
    x, w, dy = (a.astype(np.float64) for a in (x, w, dy))
    whole = three(x, w, dy, how)
    monkeypatch.setattr(float32.twin, "COLUMN_BUDGET", 1)
    for a, b in zip(three(x, w, dy, how), whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_any_strides(needs_c):
    """Sliced, transposed and reversed views give what their copies give."""
    x, w, dy, how = operands((6, 4, 4, (9, 8), (3, 3), (1, 1), (1, 1), (1, 1), 1))
    views = x[::-2, ::-1, :, ::-1], w.transpose(1, 0, 3, 2), dy[::-2, :, :, ::-1]
    copies = [np.ascontiguousarray(v) for v in views]
    for a, b in zip(three(*views, how), three(*copies, how), strict=True):
        assert np.array_equal(a, b)


def test_nan_and_infinity_pass_through(isa):
    x, w, _, how = operands((5, 2, 3, (4, 4), (3, 3), (1, 1), (1, 1), (1, 1), 1))
    x[2, 1, 1, 1] = np.nan
    y = float32.conv2d(x, w, *how)
    assert np.isnan(y[2]).any() and np.isfinite(y[[0, 1, 3, 4]]).all()


def test_the_tier_that_ran_is_counted(isa):
    x, w, dy, how = operands((2, 2, 2, (4, 4), (3, 3), (1, 1), (1, 1), (1, 1), 1))
    with calls() as seen:
        three(x, w, dy, how)
        three(x.astype(float), w.astype(float), dy.astype(float), how)
    for name in ("conv2d", "conv2d_input_grad", "conv2d_weight_grad"):
        assert seen[f"f32_{name}[{isa}]"] == 1 and seen[f"f64_{name}[numpy]"] == 1
    assert sum(seen.values()) == 6


@pytest.mark.parametrize(("change", "error", "words"), [
    ({"x": np.zeros((2, 3, 4, 4), np.int32)}, TypeError, "x must be a float32 or float64 array, got an array of int32"),
    ({"w": np.zeros((2, 3, 3, 3))}, TypeError, "w is float64, but x is float32"),
    ({"x": [[1.0]]}, TypeError, "got list"),
    ({"x": np.zeros((3, 4, 4), np.float32)}, ValueError, "x must have 4 axes"),
    ({"x": np.zeros((2, 4, 4, 4), np.float32)}, ValueError, "needs 3 input channels, x has 4"),
    ({"stride": (0, 1)}, ValueError, "stride must be a pair of ints, each at least 1"),
    ({"padding": (1,)}, ValueError, "padding must be a pair"),
    ({"dilation": 2}, ValueError, "dilation must be a pair"),
    ({"groups": 2}, ValueError, "groups must be a positive int that divides"),
    ({"x": np.zeros((2, 3, 2, 2), np.float32)}, ValueError, "does not fit into an input of"),
])
def test_conv2d_refuses(change, error, words):
    good = {"x": np.zeros((2, 3, 4, 4), np.float32), "w": np.zeros((2, 3, 3, 3), np.float32), "stride": (1, 1),
            "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    with pytest.raises(error, match=words):
        float32.conv2d(**(good | change))


def test_gradients_refuse_what_does_not_belong_together():
    w, x = np.zeros((2, 3, 3, 3), np.float32), np.zeros((2, 3, 4, 4), np.float32)
    with pytest.raises(ValueError, match=r"dy must be \(N, 2, 2, 2\) for an input of \(4, 4\), got \(2, 2, 3, 2\)"):
        float32.conv2d_input_grad(np.zeros((2, 2, 3, 2), np.float32), w, (4, 4))
    with pytest.raises(ValueError, match=r"dy must be \(2, O, 2, 2\)"):
        float32.conv2d_weight_grad(np.zeros((1, 2, 2, 2), np.float32), x, (3, 3))
    with pytest.raises(ValueError, match="does not fit"):
        float32.conv2d_input_grad(np.zeros((1, 2, 1, 1), np.float32), w, (2, 2))
