"""The random streams: uniform, avalanching, independent of one another and of how a tensor is cut or stored."""
import numpy as np
import pytest

from minilp.formats import PoT, Stream
from minilp.formats.rounding import ROLES
from minilp.kernels.reference_quantise import mix32


def bits_of(words):
    return np.unpackbits(words.view(np.uint8)).reshape(-1, 32)


def test_words_are_pinned():
    """Changing the mixer changes every recorded stochastic training: do it knowingly."""
    assert Stream(1, 2, 0, 3, 0, "error").uint32(3).tolist() == [651549320, 4131861186, 4124637735]


def test_bits_are_uniform():
    words = Stream(seed=9).uint32(1 << 18)
    ones = bits_of(words).mean(axis=0)
    assert (np.abs(ones - 0.5) < 5 * 0.5 / np.sqrt(words.size)).all()
    for byte in range(4):
        counts = np.bincount(words >> np.uint32(8 * byte) & np.uint32(255), minlength=256)
        chi = ((counts - words.size / 256) ** 2 / (words.size / 256)).sum()
        assert abs(chi - 255) < 5 * np.sqrt(2 * 255)


def test_neighbouring_words_are_uncorrelated():
    words = bits_of(Stream(seed=9).uint32(1 << 16)).astype(np.float64) - 0.5
    for lag in (1, 2, 3, 128, 1024):
        correlation = words[:-lag].T @ words[lag:] / (len(words) - lag) * 4
        assert np.abs(correlation).max() < 6 / np.sqrt(len(words))


def test_mixer_avalanches_and_is_a_bijection():
    x = np.random.default_rng(0).integers(0, 2**32, 20000, dtype=np.uint32)
    for bit in range(32):
        flips = bits_of(mix32(x) ^ mix32(x ^ np.uint32(1 << bit))).mean(axis=0)
        assert np.abs(flips - 0.5).max() < 0.03
    assert len(np.unique(mix32(np.arange(1 << 20, dtype=np.uint32)))) == 1 << 20
    assert mix32(12345) == int(mix32(np.array([12345], np.uint32))[0])


@pytest.mark.parametrize("change", [
    {"seed": 1}, {"seed": 2**32}, {"step": 1}, {"step": 2}, {"microbatch": 1}, {"layer": 1}, {"call": 1},
    {"seed": 1, "step": 1}, *({"role": role} for role in ROLES if role != "act")])
def test_adjacent_streams_are_unrelated(change):
    a, b = Stream().uint32(1 << 15), Stream(**change).uint32(1 << 15)
    agree = (bits_of(a ^ b) == 0).mean(axis=0)
    assert np.abs(agree - 0.5).max() < 5 * 0.5 / np.sqrt(a.size)
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(a.size)
    assert len(np.intersect1d(a, b)) < 8  # about 2^-2 expected by chance


def test_no_two_streams_of_a_training_share_a_key():
    keys = {Stream(0, step, 0, layer, 0, role).key for step in range(60) for layer in range(22) for role in ROLES[:3]}
    assert len(keys) == 60 * 22 * 3


def test_sr_split_invariant():
    x = np.random.default_rng(0).standard_normal((10, 3, 7)).astype(np.float32)
    stream = Stream(seed=1, step=7, layer=3, role="error")
    whole = PoT().encode(x, stream=stream)
    for cut in (1, 4, 9):
        parts = [PoT().encode(part, stream=stream.at(start * 21), scales=whole.scales).codes
                 for part, start in ((x[:cut], 0), (x[cut:], cut))]
        assert np.array_equal(np.concatenate(parts), whole.codes)


def test_words_continue_across_offsets_and_the_high_word():
    stream = Stream(seed=4)
    assert np.array_equal(stream.uint32((4, 5)).reshape(-1)[7:], stream.at(7).uint32(13))
    around = stream.at(2**32 - 4).uint32(8)
    assert np.array_equal(around[4:], stream.at(2**32).uint32(4))
    assert not np.array_equal(around[4:], stream.uint32(4))


def test_streams_are_values():
    stream = Stream(1, 2, 3, 4, 5, "weight")
    assert stream == Stream(1, 2, 3, 4, 5, "weight") and hash(stream) == hash(Stream(1, 2, 3, 4, 5, "weight"))
    assert stream.at(5).at(2).offset == 7 and stream.at(5).key == stream.key


@pytest.mark.parametrize("bad", [{"seed": -1}, {"step": 2**64}, {"layer": 1.5}, {"call": "0"}])
def test_bad_fields_are_refused(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must be an integer from 0"):
        Stream(**bad)


def test_unknown_role_is_refused():
    with pytest.raises(ValueError, match="role must be one of weight, act, error, wgrad, update, state"):
        Stream(role="activation")
