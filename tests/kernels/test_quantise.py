"""Quantising kernels: C equals the NumPy twin bit for bit on every tier, whatever the length, layout and scale axes."""
import os

import numpy as np
import pytest

from minilp import set_num_threads, use_backend
from minilp.formats import PoT, Stream
from minilp.kernels import quantise
from minilp.kernels.backend import threads
from minilp.kernels.storage import Layout, flat_storage, from_storage, storage_order

LENGTHS = (0, 1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 193, 255, 1023, 40000)
STREAM = Stream(1, 2, 3, 4, 5, "error")


def numbers(*shape, seed=0):
    """Many octaves, zeros of both signs and subnormals among them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * np.exp2(rng.integers(-30, 10, shape))
    x = np.where(rng.random(shape) < 0.1, np.copysign(0, x), x)
    return np.where(rng.random(shape) < 0.05, np.copysign(1e-40, x), x).astype(np.float32)


def same_as_numpy(function, *arguments):
    """Run on C (the tier in force) and on NumPy; equal bits, equal memory order. Returns the result."""
    got = function(*arguments)
    with use_backend("numpy"):
        want = function(*arguments)
    assert got.dtype == want.dtype and got.shape == want.shape
    assert got.tobytes() == want.tobytes()
    assert [s for s, n in zip(got.strides, got.shape, strict=True) if n > 1] == [
        s for s, n in zip(want.strides, want.shape, strict=True) if n > 1] or not got.size
    return got


def check_all(x, keep=()):
    """Every kernel on one tensor."""
    maximum = same_as_numpy(quantise.absmax, x, keep)
    exponent = np.clip(np.frexp(maximum)[1] - 7, -126, 120).astype(np.int32)
    for stream in (None, STREAM):
        for bits, threshold, underflow in ((3, "log", "rounded"), (5, "log", "rounded"), (6, "linear", "half")):
            beta, = PoT(bits, threshold=threshold).scales_for(maximum)
            codes = same_as_numpy(quantise.pot_encode, x, beta, bits, stream, threshold, underflow)
            same_as_numpy(quantise.pot_decode, codes, beta, bits)
            if not keep:
                limit = float(maximum.reshape(-1)[0]) * 0.4
                clipped = [quantise.pot_encode_clipped(x, beta, bits, limit, stream, threshold, underflow)]
                with use_backend("numpy"):
                    clipped.append(quantise.pot_encode_clipped(x, beta, bits, limit, stream, threshold, underflow))
                for got, where in clipped:
                    assert got.tobytes() == codes.tobytes() and got.strides == codes.strides
                    assert np.array_equal(where, quantise.outside(x, limit)) and where.dtype == np.int64
        codes = same_as_numpy(quantise.fixed_encode, x, exponent, 8, stream)
        same_as_numpy(quantise.fixed_decode, codes, exponent)


@pytest.mark.parametrize("length", LENGTHS)
def test_c_equals_numpy_at_awkward_lengths(isa, length):
    check_all(numbers(length))
    if length:
        check_all(numbers(3, length), keep=(0,))
        check_all(numbers(3, length), keep=(1,))


LAYOUTS = {
    "C order": lambda x: x,
    "batch innermost": lambda x: np.ascontiguousarray(x.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2),
    "Fortran order": np.asfortranarray,
    "every other row": lambda x: np.repeat(x, 2, axis=2)[:, :, ::2],
    "reversed": lambda x: np.ascontiguousarray(x[..., ::-1])[..., ::-1],
    "broadcast": lambda x: np.broadcast_to(x[:, :1], x.shape),
    "read-only": lambda x: np.broadcast_to(x, x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("keep", [(), (0,), (1,), (3,), (0, 1), (1, 3), (0, 1, 2, 3)])
def test_c_equals_numpy_for_every_layout_and_scale(needs_c, layout, keep):
    check_all(LAYOUTS[layout](numbers(7, 3, 4, 5)), keep)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1, 1), (1, 5, 1), (0,), (3, 0, 2), (0, 4)])
def test_degenerate_shapes(needs_c, shape):
    for keep in {(), tuple(range(len(shape)))}:
        check_all(numbers(*shape), keep)
    assert quantise.outside(numbers(*shape), 1e9).shape == (0,)


def test_results_do_not_depend_on_threads(needs_c):
    x = numbers(9, 70, 80)
    before = threads()
    try:
        seen = []
        for n in (1, 2, 3):
            set_num_threads(n)
            maximum = quantise.absmax(x, (1,))
            beta, = PoT().scales_for(maximum)
            seen.append((maximum.tobytes(), quantise.pot_encode(x, beta, 5, STREAM).tobytes(),
                         quantise.outside(x, 1.0).tobytes(), quantise.random_bits(x.shape, STREAM).tobytes()))
        assert seen[0] == seen[1] == seen[2]
    finally:
        set_num_threads(before)


def test_draws_cross_the_high_word_alike(isa):
    x = LAYOUTS["batch innermost"](numbers(6, 3, 4, 5))
    scale = np.zeros((1, 1, 1, 1), np.int32)
    for offset in (2**32 - 200, 2**32 - 1, 2**33, 2**63):
        stream = STREAM.at(offset)
        same_as_numpy(quantise.pot_encode, x, scale, 5, stream)
        same_as_numpy(quantise.fixed_encode, x, scale, 8, stream)
        same_as_numpy(quantise.random_bits, x.shape, stream)
        same_as_numpy(quantise.random_bits, x.shape, stream, (1, 2, 3, 0))
        turned = quantise.random_bits(x.shape, stream, (1, 2, 3, 0))
        assert np.array_equal(turned, quantise.random_bits(x.shape, stream))
        assert turned.transpose(1, 2, 3, 0).flags.c_contiguous


def test_absmax_equals_an_index_loop():
    x = numbers(3, 4, 5)
    got = quantise.absmax(x, (0, 2))
    assert got.shape == (3, 1, 5)
    for i in range(3):
        for j in range(5):
            assert got[i, 0, j] == max(abs(float(v)) for v in x[i, :, j])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["c", "numpy"])
def test_not_finite_is_refused(needs_c, bad, name):
    x = np.ones((2, 30000), np.float32)
    x[1, 29999] = bad
    scale = np.zeros((1, 1), np.int32)
    with use_backend(name):
        for call in (lambda: quantise.absmax(x, name="error of layer conv1"),
                     lambda: quantise.absmax(x, (0,), name="error of layer conv1"),
                     lambda: quantise.absmax(x, (1,), name="error of layer conv1"),
                     lambda: quantise.pot_encode(x, scale, 5, name="error of layer conv1"),
                     lambda: quantise.pot_encode(x, scale, 5, STREAM, name="error of layer conv1"),
                     lambda: quantise.fixed_encode(x, scale, 8, name="error of layer conv1")):
            with pytest.raises(quantise.NotFiniteError, match=r"error of layer conv1: .*1 of 60000 .* \(1, 29999\)"):
                call()


def test_outside_lists_storage_positions(isa):
    for length in (1, 7, 4095, 4096, 4097, 50000):
        x = numbers(length)
        for threshold in (0.0, 0.5, 100.0, 1e30):
            got = same_as_numpy(quantise.outside, x, threshold)
            assert np.array_equal(got, np.flatnonzero(np.abs(x) > np.float32(threshold)))
    x = LAYOUTS["batch innermost"](numbers(6, 3, 4, 5))
    got = same_as_numpy(quantise.outside, x, 0.5)
    assert np.array_equal(got, np.flatnonzero(np.abs(x.transpose(1, 2, 3, 0).reshape(-1)) > 0.5))
    assert len(quantise.outside(np.full(3, np.nan, np.float32), 0.5)) == 0


def test_wrapper_rejects_wrong_dtype():
    x, scale = np.ones(8), np.zeros(1, np.int32)
    for call in (lambda: quantise.absmax(x), lambda: quantise.pot_encode(x, scale, 5), lambda: quantise.outside(x, 1),
                 lambda: quantise.fixed_encode(x, scale, 8)):
        with pytest.raises(TypeError, match="x must be a NumPy array of float32, got float64"):
            call()
    with pytest.raises(TypeError, match="codes must be a NumPy array of int8, got int16"):
        quantise.pot_decode(np.ones(8, np.int16), scale, 5)
    with pytest.raises(TypeError, match="beta must be a NumPy array of int32, got int64"):
        quantise.pot_encode(np.ones(8, np.float32), np.zeros(1, np.int64), 5)
    with pytest.raises(TypeError, match="got list"):
        quantise.absmax([1.0])


def test_wrapper_rejects_wrong_shape_range_and_options():
    x, scale = np.ones((2, 3), np.float32), np.zeros((1, 1), np.int32)
    with pytest.raises(ValueError, match=r"beta must have the shape of the tensor, \(2, 3\), .* got \(3, 1\)"):
        quantise.pot_encode(x, np.zeros((3, 1), np.int32), 5)
    with pytest.raises(ValueError, match=r"beta must lie in \[-119, 120\], got 121 to 121"):
        quantise.pot_encode(x, scale + np.int32(121), 5)
    with pytest.raises(ValueError, match=r"exponent must lie in \[-126, 126\]"):
        quantise.fixed_decode(np.ones((2, 3), np.int8), scale - np.int32(127))
    with pytest.raises(ValueError, match="bits must be 3 to 6, got 7"):
        quantise.pot_encode(x, scale, 7)
    with pytest.raises(ValueError, match="bits must be 2 to 16, got 17"):
        quantise.fixed_encode(x, scale, 17)
    with pytest.raises(ValueError, match="threshold must be 'log' or 'linear', got 'log2'"):
        quantise.pot_encode(x, scale, 5, threshold="log2")
    with pytest.raises(ValueError, match="underflow must be 'rounded' or 'half', got 'none'"):
        quantise.pot_encode(x, scale, 5, underflow="none")
    for keep in ((2,), (-3,), (0, 0), (0, -2)):
        with pytest.raises(ValueError, match="keep: expected different axes of a 2-dimensional tensor"):
            quantise.absmax(x, keep)


def test_layout_merges_axes():
    batch_innermost = (1, 2, 3, 0)
    assert Layout.of((8, 3, 4, 5), batch_innermost, (1, 1, 1, 1)).shape == [480]
    drawing = Layout.of((8, 3, 4, 5), batch_innermost, (1, 1, 1, 1), drawing=True)
    assert (drawing.shape, drawing.index_steps) == ([60, 8], [1, 60])
    kept = Layout.of((8, 3, 4, 5), (0, 1, 2, 3), (8, 1, 1, 1))
    assert (kept.shape, kept.scale_steps) == ([8, 60], [1, 0])
    assert Layout.of((), (), ()).shape == [1]


def test_storage_round_trip():
    for layout in ("C order", "batch innermost", "Fortran order"):
        x = LAYOUTS[layout](numbers(2, 3, 4, 5))
        flat, order = flat_storage(x)
        assert np.shares_memory(flat, x) and order == storage_order(x)
        back = from_storage(flat, x.shape, order)
        assert np.array_equal(back, x) and back.strides == x.strides
    assert not np.shares_memory(flat_storage(LAYOUTS["every other row"](numbers(2, 3, 4, 5)))[0], x)


def test_kernels_are_counted(needs_c):
    from minilp.kernels import calls
    x = numbers(5)
    with calls() as seen:
        quantise.pot_encode(x, PoT().scales_for(quantise.absmax(x))[0], 5)
    assert seen == {"absmax": 1, "pot_encode": 1}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of forks beside threads
def test_a_forked_child_quantises(needs_c):
    """libgomp's threads do not survive a fork; the child works on one."""
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    x = numbers(200000)
    want = PoT().encode(x, stream=STREAM).codes.tobytes()
    child = os.fork()
    if child == 0:
        os._exit(0 if PoT().encode(x, stream=STREAM).codes.tobytes() == want else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
