"""Convolutions that read codes have the bits of those on the decoded array, and never write it."""
import numpy as np
import pytest

import minilp
from minilp.kernels import coded, float32
from minilp.kernels.layout import to_chwn

SHAPES = [  # batch, channels, outputs, size, kernel, stride, padding, dilation, groups
    (1, 1, 1, (3, 3), (1, 1), (1, 1), (0, 0), (1, 1), 1), (17, 3, 9, (7, 5), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (33, 4, 6, (9, 8), (3, 2), (2, 3), (1, 0), (1, 2), 2), (70, 5, 8, (6, 6), (1, 1), (2, 2), (0, 0), (1, 1), 1),
    (128, 2, 3, (4, 12), (3, 3), (1, 2), (2, 1), (2, 1), 1)]


def operand(rng, shape, top, dtype):
    """Codes with every extreme among them, their table, and the decoded array."""
    codes = rng.integers(-top, top + 1, shape).astype(dtype)
    codes.flat[0], codes.flat[-1] = top, -top
    table = rng.standard_normal(2 * top + 1).astype(np.float32)
    return coded.Coded(codes, table), table[codes.astype(int) + top]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("top", "dtype"), [(127, np.int8), (128, np.int16), (5, np.int8), (2000, np.int16)])
def test_bits_of_the_decoded_contraction(shape, top, dtype, isa, needs_c):
    n, c, o, size, kernel, stride, padding, dilation, groups = shape
    rng = np.random.default_rng(top)
    geometry = (stride, padding, dilation, groups)
    x, x_values = operand(rng, (n, c, *size), top, dtype)
    w = rng.standard_normal((o, c // groups, *kernel)).astype(np.float32)
    want = float32.conv2d(x_values, w, *geometry)
    assert np.array_equal(coded.contract("conv2d", x, w, *geometry), want)
    dy, dy_values = operand(rng, want.shape, 16, np.int8)
    assert np.array_equal(coded.contract("conv2d_input_grad", dy, w, *geometry, size),
                          float32.conv2d_input_grad(dy_values, w, size, *geometry))
    assert np.array_equal(coded.contract("conv2d_weight_grad", dy, x, *geometry, kernel),
                          float32.conv2d_weight_grad(dy_values, x_values, kernel, *geometry))


def test_codes_beyond_the_table_saturate(isa, needs_c):
    codes = np.resize(np.array([-128, -3, 127, 2], np.int8), (40, 1, 1, 2))
    table = np.array([-9, -1, 0, 1, 9], np.float32)
    got = coded.contract("conv2d", coded.Coded(codes, table), np.ones((1, 1, 1, 1), np.float32))
    assert np.array_equal(got, table[np.clip(codes, -2, 2).astype(int) + 2])


def test_storage_order_changes_nothing(needs_c):
    rng = np.random.default_rng(0)
    x, _ = operand(rng, (20, 3, 5, 4), 128, np.int16)
    w = rng.standard_normal((2, 3, 3, 3)).astype(np.float32)
    stored = coded.Coded(to_chwn(x.codes).transpose(3, 0, 1, 2), x.table)
    assert np.array_equal(coded.contract("conv2d", x, w), coded.contract("conv2d", stored, w))


def test_what_does_not_belong_is_refused(needs_c):
    x = coded.Coded(np.zeros((2, 1, 3, 3), np.int8), np.zeros(3, np.float32))
    with pytest.raises(TypeError, match="codes must be int8 or int16, got int32"):
        coded.Coded(np.zeros((2, 1, 3, 3), np.int32), np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="length 2 top"):
        coded.Coded(x.codes, np.zeros(4, np.float32))
    with pytest.raises(TypeError, match="b must be float32"):
        coded.contract("conv2d", x, np.zeros((1, 1, 1, 1)))
    with pytest.raises(TypeError, match="b must be float32, got ndarray of int8"):
        coded.contract("conv2d", x, np.zeros((1, 1, 1, 1), np.int8))
    with pytest.raises(TypeError, match="b must be Coded"):
        coded.contract("conv2d_weight_grad", x, np.zeros((2, 1, 3, 3), np.float32), size=(1, 1))
    with minilp.use_backend("numpy"), pytest.raises(RuntimeError, match="C core"):
        coded.contract("conv2d", x, np.ones((1, 1, 1, 1), np.float32))
