"""The restricted unpickler: five globals, one uint8 matrix, nothing else."""
import pickle

import numpy as np
import pytest

from minilp.data.unpickle import ALLOWED, read_batch

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 3072)).astype(np.uint8)
LABELS = [i % 10 for i in range(20)]


class Evil:
    """Pickles to a call of whatever it is given."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def batch(**change):
    items = {b"data": PIXELS, b"labels": LABELS}
    items.update({key.encode(): value for key, value in change.items()})
    return pickle.dumps(items, protocol=2)


def test_exactly_the_allowed_globals():
    assert sorted(ALLOWED) == [
        ("_codecs", "encode"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "_reconstruct"),
    ]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_reads_what_numpy_wrote(protocol, order):
    raw = pickle.dumps({b"data": np.asarray(PIXELS, order=order), b"labels": LABELS}, protocol=protocol)
    images, labels = read_batch(raw, "f")
    assert (images == PIXELS).all() and images.dtype == np.uint8
    assert labels.tolist() == LABELS and labels.dtype == np.int64


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (batch(x=Evil(print, ("ran",))), r"names the global (__builtin__|builtins)\.print, .*refused"),
        (batch(x=Evil(eval, ("print('ran')",))), r"names the global (__builtin__|builtins)\.eval"),
        (batch(x=print), r"names the global (__builtin__|builtins)\.print"),
        (batch().replace(b"_reconstruct", b"fromfunction"), r"names the global numpy.*fromfunction"),
        (batch().replace(b"c_codecs\nencode", b"c_codecs\nlookup"), r"names the global _codecs\.lookup"),
        (batch().replace(b"cnumpy\nndarray", b"cnumpy\nndarray.__new__"), r"names the global numpy\.ndarray\.__new__"),
        (batch().replace(b"latin1", b"zip123"), "encodes str as 'zip123'"),
        (batch(data=PIXELS.astype(np.float64)), "dtype 'f8'"),
        (batch(data=np.array([[None]])), "dtype 'O8'"),
        (batch(data=PIXELS.ravel()), r"shape \(61440,\); expected a matrix"),
        (batch(data=PIXELS.reshape(20, 3, 1024)), r"shape \(20, 3, 1024\); expected a matrix"),
        (batch().replace(b"K\x14M\x00\x0c\x86", b"K\x13M\x00\x0c\x86"), "61440 bytes for an array of shape"),
        (batch(data=[1, 2]), "b'data' is no array"),
        (batch(labels=LABELS[:-1] + [10]), "record 19 has label 10; expected 0 to 9"),
        (batch(labels=[-1] * 20), "record 0 has label -1"),
        (batch(labels=[2**70] * 20), "record 0 has label 1180591620717411303424"),
        (batch(labels=["0"] * 20), "b'labels' is not a list of integers"),
        (batch(labels=[True] * 20), "b'labels' is not a list of integers"),
        (batch(labels=tuple(LABELS)), "b'labels' is not a list of integers"),
        (pickle.dumps([PIXELS], protocol=2), "not a CIFAR-10 batch; expected a dict"),
        (pickle.dumps({b"data": PIXELS}, protocol=2), "not a CIFAR-10 batch; expected a dict"),
        (batch()[:-2000], "not a readable CIFAR-10 batch"),
        (b"\xff", "not a readable CIFAR-10 batch"),
        (b"", "not a readable CIFAR-10 batch"),
    ],
)  # fmt: skip
def test_damaged_and_hostile_pickles_are_named(capsys, raw, message):
    with pytest.raises(ValueError, match=f"^data_batch_4: .*{message}"):
        read_batch(raw, "data_batch_4")
    assert "ran" not in capsys.readouterr().out


def test_the_hostile_samples_are_armed(capsys):
    """Control: the ordinary unpickler does run what the first sample carries."""
    pickle.loads(batch(x=Evil(print, ("ran",))))
    assert "ran" in capsys.readouterr().out


def test_a_pickle_cannot_change_what_the_next_one_meets():
    """BUILD sets attributes on whatever it is given, classes included; nothing of that may last."""
    spoil = b"cnumpy\nndarray\n(N}X\x0c\x00\x00\x00__setstate__Nstb0"  # ndarray.__setstate__ = None
    good = batch()
    with pytest.raises(ValueError, match="not a readable"):
        read_batch(good[:2] + spoil + good[2:], "f")
    assert (read_batch(good, "f")[0] == PIXELS).all()
