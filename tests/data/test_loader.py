"""Loader: batches are pure functions of (seed, epoch, batch index), normalised, batch innermost in memory."""
import itertools

import numpy as np
import pytest

from minilp.data import Loader
from minilp.data.augment import crop_flip
from minilp.data.dataset import make_splits


def dataset(n=50, channels=3, height=8, width=8):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, channels, height, width)).astype(np.uint8)
    labels = np.arange(n, dtype=np.int64)  # label = index: shows who came when
    return make_splits("toy", tuple(map(str, range(n))), (images, labels), (images, labels))[0]


def same(a, b):
    return all((x == u).all() and (y == v).all() for (x, y), (u, v) in zip(a, b, strict=True))


@pytest.mark.parametrize("augment", [None, "crop_flip"])
def test_shapes_dtypes_and_storage(augment):
    loader = Loader(dataset(height=8, width=6), 16, augment=augment)
    assert len(loader) == 4
    for (x, y), count in zip(loader.epoch(0), (16, 16, 16, 2), strict=True):
        assert x.shape == (count, 3, 8, 6) and x.dtype == np.float32
        assert y.shape == (count,) and y.dtype == np.int64
        assert x.transpose(1, 2, 3, 0).flags.c_contiguous  # (C, H, W, B) in memory
        assert x.flags.writeable and y.flags.writeable


def test_normalised_with_the_train_statistics():
    data = dataset()
    x, y = next(Loader(data, 50).epoch(0))
    mean, std = (v.astype(np.float64)[:, None, None] for v in (data.mean, data.std))
    np.testing.assert_allclose(x, (data.images[y] / 255.0 - mean) / std, rtol=0, atol=4e-7)
    assert abs(x.mean()) < 1e-5 and abs(x.std() - 1) < 1e-5


def test_every_image_once_and_epochs_differ():
    loader = Loader(dataset(), 16, seed=3)
    orders = [np.concatenate([y for _, y in loader.epoch(e)]) for e in range(3)]
    for order in orders:
        assert sorted(order) == list(range(50))
    assert len({tuple(order) for order in orders}) == 3
    assert all((order == loader.order(e)).all() for e, order in enumerate(orders))


@pytest.mark.parametrize("augment", [None, "crop_flip"])
def test_resume_at_any_batch_continues_the_same_epoch(augment):
    make = lambda seed=5: Loader(dataset(), 8, seed=seed, augment=augment)  # noqa: E731
    whole = list(make().epoch(4))
    for start in range(len(whole) + 1):
        assert same(make().epoch(4, start=start), whole[start:])
    assert not same(make(seed=6).epoch(4), whole)
    assert not same(make().epoch(5), whole)


def test_batches_do_not_share_memory():
    (a, _), (b, _) = itertools.islice(Loader(dataset(), 8, augment="crop_flip").epoch(0), 2)
    assert not np.shares_memory(a, b)


def test_iterating_walks_the_epochs_in_turn():
    loader = Loader(dataset(), 16, augment="crop_flip")
    for e in range(3):
        assert same(loader, Loader(dataset(), 16, augment="crop_flip").epoch(e))
        list(loader.epoch(7))  # does not disturb the count


def test_evaluation_order_is_the_stored_order():
    loader = Loader(dataset(), 16, shuffle=False)
    for e in (0, 9):
        assert (np.concatenate([y for _, y in loader.epoch(e)]) == np.arange(50)).all()


def test_drop_last():
    assert [len(y) for _, y in Loader(dataset(), 16, drop_last=True).epoch(0)] == [16, 16, 16]
    assert len(Loader(dataset(), 16, drop_last=True)) == 3
    assert len(Loader(dataset(48), 16)) == len(Loader(dataset(48), 16, drop_last=True)) == 3


def test_order_and_augmentation_streams_are_recorded():
    """The streams are part of what a seed means: a change here breaks the resume of old runs."""
    loader = Loader(dataset(), 16, seed=1)
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence(1, spawn_key=(0, 2)))).permutation(50)
    assert (loader.order(2) == expected).all()


@pytest.mark.parametrize("padding", [0, 1, 4])
def test_crop_flip_equals_a_loop(padding):
    images = np.random.default_rng(2).integers(1, 256, (40, 3, 8, 6)).astype(np.uint8)
    before = images.copy()
    out = crop_flip(images, np.random.default_rng(7), padding)
    rng = np.random.default_rng(7)
    rows, columns, flips = (rng.integers(0, high, 40) for high in (2 * padding + 1, 2 * padding + 1, 2))
    for i, (row, column, flip) in enumerate(zip(rows, columns, flips, strict=True)):
        padded = np.pad(images[i], ((0, 0), (padding, padding), (padding, padding)))
        crop = padded[:, row : row + 8, column : column + 6]
        assert (out[i] == (crop[..., ::-1] if flip else crop)).all()
    assert 0 < flips.sum() < 40 and (images == before).all()
    assert padding == 0 or len(set(zip(rows, columns, strict=True))) > 4


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size: got 0; expected 1 or more"),
        ({"batch_size": 2.0}, TypeError, "batch_size: got 2.0; expected an integer"),
        ({"batch_size": True}, TypeError, "batch_size: got True"),
        ({"batch_size": 51, "drop_last": True}, ValueError, "batch_size: got 51 with drop_last"),
        ({"seed": -1}, ValueError, "seed: got -1"),
        ({"augment": "mixup"}, ValueError, "augment: got 'mixup'; expected one of None, 'crop_flip'"),
        ({"dataset": [1, 2, 3]}, TypeError, "dataset: got list; expected a minilp.data.Dataset"),
    ],
)
def test_bad_arguments(change, error, message):
    with pytest.raises(error, match=message):
        Loader(**{"dataset": dataset(), "batch_size": 8, **change})


@pytest.mark.parametrize("args", [(-1,), (0, -1), (0, 8)])
def test_bad_epoch_or_start_raises_at_the_call(args):
    with pytest.raises(ValueError, match=r"epoch: got|start: got"):
        Loader(dataset(), 8).epoch(*args)


def test_crop_flip_bad_arguments():
    with pytest.raises(ValueError, match="padding: got -1"):
        crop_flip(np.zeros((1, 1, 4, 4), np.uint8), np.random.default_rng(0), -1)
    with pytest.raises(ValueError, match="images: got shape"):
        crop_flip(np.zeros((1, 4, 4), np.uint8), np.random.default_rng(0))
