"""Storage order, and the arithmetic of output sizes."""
import numpy as np
import pytest

from minilp.kernels import conversions, layout
from minilp.kernels.pot_geometry import geometry


def test_round_trip_without_a_copy():
    a = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    x = layout.from_chwn(a)
    assert x.shape == (5, 2, 3, 4) and layout.is_chwn(x)
    with conversions() as seen:
        assert np.shares_memory(layout.to_chwn(x), a)
    assert not seen


def test_a_copy_is_counted():
    x = np.arange(120.0).reshape(5, 2, 3, 4)
    with conversions() as seen:
        a = layout.to_chwn(x)
    assert a.flags.c_contiguous and not layout.is_chwn(x)
    assert seen == {"to (C, H, W, N): float64 (5, 2, 3, 4)": 1}
    assert np.array_equal(layout.from_chwn(a), x)


@pytest.mark.parametrize("shape", [(3, 5, 2, 7), (0, 3, 2, 2), (1, 1, 1, 1)])
def test_outputs_start_on_a_cache_line(shape):
    for dtype in (np.float32, np.float64, np.uint8):
        a = layout.empty(shape, dtype)
        assert a.shape == shape and a.dtype == dtype and a.flags.c_contiguous
        assert a.size == 0 or a.ctypes.data % layout.LINE == 0
    assert layout.is_chwn(layout.empty_like_stored(np.zeros(shape)))
    order = np.asfortranarray(np.zeros((4, 3)))
    assert layout.empty_like_stored(order).strides == order.strides


@pytest.mark.parametrize("function", [layout.to_chwn, layout.from_chwn])
def test_four_axes_only(function):
    with pytest.raises(ValueError, match="must have 4 axes"):
        function(np.zeros((2, 3)))


def test_output_size(torch):
    for args in [((7, 9), (3, 2), (2, 3), (1, 0), (2, 1)), ((5, 5), (5, 5), (1, 1), (0, 0), (1, 1)),
                 ((4, 4), (1, 1), (3, 3), (0, 2), (1, 1))]:
        size, kernel, stride, padding, dilation = args
        got = torch.nn.functional.conv2d(torch.zeros(1, 1, *size), torch.zeros(1, 1, *kernel), None, stride, padding,
                                         dilation)
        assert layout.output_size(*args) == tuple(got.shape[2:])
    with pytest.raises(ValueError, match=r"kernel of \(3, 3\) with dilation \(2, 1\) does not fit into an input of"):
        layout.output_size((4, 4), (3, 3), (1, 1), (0, 0), (2, 1))


def test_a_geometry_is_made_once_and_still_checked():
    a, b = np.zeros((2, 3, 5, 5), np.int8), np.zeros((4, 3, 3, 3), np.int8)
    first = geometry("conv2d", a, b, (1, 1), (1, 1), (1, 1), 1, None)
    assert geometry("conv2d", a.copy(), b.copy(), [1, 1], (1, 1), (1, 1), 1, None) is first
    assert geometry("conv2d", a[:1], b, (1, 1), (1, 1), (1, 1), 1, None).batch == 1
    assert geometry("conv2d", a, b, (2, 2), (1, 1), (1, 1), 1, None).out_size == (3, 3)
    with pytest.raises(ValueError, match="stride must be a pair of ints"):  # equal to what fitted, and no pair of ints
        geometry("conv2d", a, b, (1.0, 1.0), (1, 1), (1, 1), 1, None)
    for _ in range(2):
        with pytest.raises(ValueError, match="do not split into 1 groups"):
            geometry("conv2d", a[:, :2], b, (1, 1), (1, 1), (1, 1), 1, None)


@pytest.mark.parametrize("value", [3, (1,), (1, 2, 3), (1.0, 2), (-1, 1), "ab", None])
def test_pairs(value):
    with pytest.raises(ValueError, match="padding must be a pair of ints, each at least 0"):
        layout.check_pair("padding", value, 0)
    assert layout.check_pair("padding", [np.int64(2), 0], 0) == (2, 0)
