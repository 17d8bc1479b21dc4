"""QTensor: views, sizes, packing."""
import dataclasses

import numpy as np
import pytest

from minilp.formats import Fixed, PoT, QTensor
from minilp.formats.pack import pack_bits, packed_size, unpack_bits


def encoded(*shape, fmt=None, keep=()):
    return (fmt or PoT()).encode(np.random.default_rng(0).standard_normal(shape).astype(np.float32), keep=keep)


def test_frozen_and_read_only():
    codes = np.zeros(4, np.int8)
    q = QTensor(PoT(), codes, (np.zeros(1, np.int32),))
    for array in (q.codes, q.scales[0]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    codes[0] = 1  # the caller's own array stays writeable
    with pytest.raises(dataclasses.FrozenInstanceError):
        q.codes = codes


def test_transpose_and_reshape_keep_scales_with_their_axes():
    q = encoded(4, 3, 2, keep=(0,))
    t = q.transpose(1, 0, 2)
    assert t.shape == (3, 4, 2) and t.keep == (1,) and t.scales[0].shape == (1, 4, 1)
    assert np.array_equal(t.decode(), q.decode().transpose(1, 0, 2))
    assert np.array_equal(q.transpose().decode(), q.decode().T)
    assert np.array_equal(q.reshape(4, -1).decode(), q.decode().reshape(4, -1))
    assert np.shares_memory(t.codes, q.codes)


def test_reshape_refuses_to_cut_a_kept_axis():
    with pytest.raises(ValueError, match=r"axes \(0,\) keep scales of their own"):
        encoded(4, 3, keep=(0,)).reshape(12)
    assert encoded(4, 3).reshape(12).shape == (12,)
    with pytest.raises(ValueError, match="permutation"):
        encoded(4, 3).transpose(0, 0)


def test_sizes():
    q = encoded(3, 7, keep=(0,))
    assert (q.size, q.ndim, q.nbytes_payload, q.nbits) == (21, 2, 14, 21 * 5 + 3 * 8)
    assert q.pack().nbytes == 14 and "14 bytes packed" in repr(q)


@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 7, 8, 9, 63, 64, 65, 1023])
def test_packing_round_trip(bits, count):
    rng = np.random.default_rng(bits)
    signed = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), count).astype(np.int32)
    unsigned = rng.integers(0, 1 << bits, count).astype(np.uint32)
    for codes, sign in ((signed, True), (unsigned, False)):
        packed = pack_bits(codes, bits)
        assert packed.size == packed_size(count, bits) == -(-bits * count // 8)
        assert np.array_equal(unpack_bits(packed, bits, count, signed=sign), codes)


def test_packing_beyond_one_chunk():
    codes = np.random.default_rng(0).integers(-15, 16, 70001).astype(np.int8)
    assert np.array_equal(unpack_bits(pack_bits(codes, 5), 5, codes.size), codes)


def test_packed_layout_is_what_the_docstring_says():
    codes = np.array([1, -1, 3, -16, 15], np.int8)
    string = sum((int(c) & 31) << (5 * i) for i, c in enumerate(codes))
    assert pack_bits(codes, 5).tolist() == list(string.to_bytes(4, "little"))


def test_packing_follows_logical_order():
    x = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    stored = np.asfortranarray(x)
    assert np.array_equal(PoT().encode(x).pack(), PoT().encode(stored).pack())


def test_packing_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="do not fit 3 bits"):
        pack_bits(np.array([4], np.int8), 3)
    with pytest.raises(ValueError, match="do not fit 3 bits"):
        pack_bits(np.array([8], np.uint8), 3)
    with pytest.raises(ValueError, match="take 4 bytes"):
        unpack_bits(np.zeros(5, np.uint8), 5, 5)
    with pytest.raises(ValueError, match="1 to 32"):
        pack_bits(np.zeros(1, np.int8), 0)


def test_unpack_rebuilds_the_tensor():
    q = encoded(3, 4, 5, fmt=Fixed(6), keep=(1,))
    back = QTensor.unpack(q.pack(), q.format, q.scales, q.shape, q.keep)
    assert np.array_equal(back.codes, q.codes) and np.array_equal(back.decode(), q.decode()) and back.keep == q.keep
