"""shapes10: the same bytes everywhere, ten balanced classes, out of reach of a linear classifier."""
import zlib

import numpy as np
import pytest

from minilp import data
from minilp.data import shapes10


@pytest.fixture(scope="module")
def splits():
    return data.load("shapes10")


def test_same_bytes_on_every_machine_and_numpy():
    # Recorded once on x86-64, NumPy 2.4. A change here changes every published figure.
    train, test = shapes10.load(seed=0, train=200, test=100)
    assert zlib.crc32(train.images.tobytes()) == 0xFCDA5E48
    assert zlib.crc32(test.images.tobytes()) == 0x999961F8


def test_default_set(splits):
    train, test = splits
    assert train.images.shape == (10_000, 3, 32, 32) and test.images.shape == (2_000, 3, 32, 32)
    assert train.images.dtype == np.uint8 and train.labels.dtype == np.int64
    assert (np.bincount(train.labels) == 1_000).all() and (np.bincount(test.labels) == 200).all()
    assert len(set(train.classes)) == 10 and train.name == "shapes10"


def test_generator_state_of_the_caller_is_left_alone():
    np.random.seed(3)  # noqa: NPY002 - the global state is what this test is about
    expected = np.random.get_state()[1].copy()  # noqa: NPY002
    shapes10.load(seed=5, train=20, test=10)
    assert (np.random.get_state()[1] == expected).all()  # noqa: NPY002


def test_shorter_set_is_the_beginning_of_a_longer_one(splits):
    train, test = shapes10.load(seed=0, train=173, test=31)
    assert (train.images == splits[0].images[:173]).all() and (train.labels == splits[0].labels[:173]).all()
    assert (test.images == splits[1].images[:31]).all()


def test_seeds_and_splits_differ():
    a, b = shapes10.load(seed=0, train=50, test=50), shapes10.load(seed=1, train=50, test=50)
    assert not (a[0].images == b[0].images).all(axis=(1, 2, 3)).any()
    assert not (a[0].images == a[1].images).all(axis=(1, 2, 3)).any()


def test_no_image_twice(splits):
    seen = {image.tobytes() for split in splits for image in split.images}
    assert len(seen) == 12_000


@pytest.mark.parametrize("kwargs", [{"seed": -1}, {"train": 0}, {"test": 0}, {"train": 2.5}])
def test_bad_arguments(kwargs):
    with pytest.raises(ValueError, match=f"{next(iter(kwargs))}: got .*expected an integer of at least"):
        shapes10.load(**kwargs)


@pytest.mark.parametrize("name", shapes10.SHAPES)
def test_shapes_are_centred_and_fill_their_frame(name):
    """Every shape covers a fair part of the unit disc and nothing outside of it, so none is cut off or hardly seen."""
    v, u = np.mgrid[-1.5:1.5:301j, -1.5:1.5:301j].astype(np.float32)
    inside = shapes10.SHAPES[name](u, v) < 0
    assert inside.sum() / (u * u + v * v < 1).sum() > 0.2
    assert np.sqrt(u * u + v * v)[inside].max() < 1.13
    assert abs(u[inside].mean()) < 0.35 and abs(v[inside].mean()) < 0.35


def softmax_regression(train_x, train_y, test_x, test_y, epochs=3):
    """Accuracy on the test set of a linear softmax classifier trained by momentum SGD, 10 classes."""
    rng = np.random.default_rng(0)
    weight, velocity = (np.zeros((train_x.shape[1] + 1, 10), np.float32) for _ in range(2))
    train_x, test_x = (np.concatenate([x, np.ones((len(x), 1), np.float32)], axis=1) for x in (train_x, test_x))
    for epoch in range(epochs):
        order = rng.permutation(len(train_x))
        for start in range(0, len(order), 200):
            part = order[start : start + 200]
            x = train_x[part]
            logits = x @ weight
            p = np.exp(logits - logits.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            p[np.arange(len(part)), train_y[part]] -= 1
            velocity = 0.9 * velocity - 0.01 / (1 + epoch) * (x.T @ p / len(part) + 1e-3 * weight)
            weight += velocity
    return float(((test_x @ weight).argmax(axis=1) == test_y).mean())


def test_a_linear_classifier_stays_below_60_percent(splits):
    def flat(split):
        return (split.images.reshape(len(split), -1).astype(np.float32) - 128) / 64

    train, test = splits
    accuracy = softmax_regression(flat(train), train.labels, flat(test), test.labels)
    assert accuracy < 0.60
    # Control: the same trainer on the same pixels learns at once when the class is written into a corner.
    marked = []
    for split in (train.subset(2000), test.subset(1000)):
        x = flat(split)
        x[np.arange(len(x)), split.labels] += 8
        marked += [x, split.labels]
    assert softmax_regression(*marked) > 0.95
