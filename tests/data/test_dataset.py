"""Dataset: checked on construction, frozen, with stable subsets and exact statistics."""
import dataclasses

import numpy as np
import pytest

from minilp import data
from minilp.data.dataset import Dataset, channel_stats, make_splits


def fields(n=12, channels=3, size=8, classes=4):
    rng = np.random.default_rng(0)
    return dict(
        images=rng.integers(0, 256, (n, channels, size, size)).astype(np.uint8),
        labels=np.arange(n, dtype=np.int64) % classes,
        classes=tuple("abcd"[:classes]),
        name="toy",
        mean=np.full(channels, 0.5, np.float32),
        std=np.full(channels, 0.25, np.float32),
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": [[1, 2]]}, TypeError, "images: got list; expected a NumPy array"),
        ({"images": np.zeros((12, 3, 8, 8), np.float32)}, TypeError, "images: got dtype float32; expected uint8"),
        ({"images": np.zeros((12, 3, 64), np.uint8)}, ValueError, r"images: got shape \(12, 3, 64\); expected 4"),
        ({"images": np.zeros((0, 3, 8, 8), np.uint8)}, ValueError, "images: .* holds no pixels"),
        ({"labels": np.zeros(12, np.int32)}, TypeError, "labels: got dtype int32; expected int64"),
        ({"labels": np.zeros(11, np.int64)}, ValueError, "labels: 11 labels for 12 images"),
        ({"labels": np.full(12, 4)}, ValueError, "labels: values from 4 to 4; expected 0 to 3"),
        ({"labels": np.full(12, -1)}, ValueError, "labels: values from -1 to -1; expected 0 to 3"),
        ({"classes": ["a", "b", "c", "d"]}, TypeError, "classes: got .*expected a tuple of str"),
        ({"classes": ("a", "b", "c", "a")}, ValueError, "classes: names repeat"),
        ({"mean": np.zeros(2, np.float32)}, ValueError, "mean: .*expected 3 finite values"),
        ({"mean": np.full(3, np.nan, np.float32)}, ValueError, "mean: .*expected 3 finite values"),
        ({"std": np.zeros(3, np.float32)}, ValueError, "std: .*expected values above 0"),
        ({"std": np.ones(3)}, TypeError, "std: got dtype float64; expected float32"),
    ],
)
def test_bad_fields_are_named(change, error, message):
    with pytest.raises(error, match=message):
        Dataset(**{**fields(), **change})


def test_frozen_and_read_only_but_the_callers_array_is_not():
    mine = fields()
    dataset = Dataset(**mine)
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.name = "other"
    for name in ("images", "labels", "mean", "std"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(dataset, name)[0] = 0
        mine[name][0] = 1  # still the caller's


def test_sizes_and_repr():
    dataset = Dataset(**fields())
    assert (len(dataset), dataset.num_classes, dataset.in_channels) == (12, 4, 3)
    assert repr(dataset) == "Dataset('toy', train, 12 images 3x8x8, 4 classes)"


def test_subset_is_fixed_nested_and_in_order():
    dataset = Dataset(**fields(n=100))
    index = {image.tobytes(): i for i, image in enumerate(dataset.images)}
    def chosen(n, seed=0):
        return [index[image.tobytes()] for image in dataset.subset(n, seed).images]
    # Raw PCG64 output ranked: a constant of the algorithm, whatever the NumPy version.
    assert chosen(6) == sorted(np.argsort(np.random.PCG64(0).random_raw(100), kind="stable")[:6].tolist())
    assert chosen(30) == sorted(chosen(30)) and len(set(chosen(30))) == 30
    assert set(chosen(10)) < set(chosen(30))
    assert chosen(30, seed=1) != chosen(30)
    part = dataset.subset(30)
    assert (part.labels == dataset.labels[chosen(30)]).all() and (part.mean == dataset.mean).all()
    assert "30 of 100" in part.source


@pytest.mark.parametrize(
    ("args", "message"), [((0,), "n: got 0"), ((13,), "n: got 13; expected 1 to 12"), ((3, -1), "seed: got -1")]
)
def test_subset_bad_arguments(args, message):
    with pytest.raises(ValueError, match=message):
        Dataset(**fields()).subset(*args)


def test_channel_stats_match_float64():
    images = np.random.default_rng(1).integers(0, 256, (2500, 3, 4, 4)).astype(np.uint8)
    images[:, 2] = 7  # constant
    mean, std = channel_stats(images)
    exact = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, exact.mean((0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(std[:2], exact.std((0, 2, 3))[:2], rtol=1e-7)
    assert std[2] == 1.0  # not 0: it is divided by


def test_splits_share_the_train_statistics_and_must_agree_in_shape():
    x, y = fields()["images"], fields()["labels"]
    train, test = make_splits("toy", tuple("abcd"), (x, y), (x // 2, y))
    assert (train.mean == test.mean).all() and (train.std == test.std).all()
    assert (train.split, test.split) == ("train", "test")
    with pytest.raises(ValueError, match=r"toy: train images have shape \(3, 8, 8\), test images \(3, 8, 4\)"):
        make_splits("toy", tuple("abcd"), (x, y), (x[..., :4], y))


def test_unknown_name_lists_what_there_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"'cifar11' is neither .*cifar10, shapes10"):
        data.load("cifar11")
    assert data.available() == ("cifar10", "shapes10")


def test_describe(monkeypatch):
    x, y = fields()["images"], fields()["labels"]
    pair = make_splits("toy", tuple("abcd"), (x, y), (x[:5], y[:5]), "made up")
    monkeypatch.setattr(data.shapes10, "load", lambda: pair)
    lines = data.describe("shapes10").splitlines()
    assert lines[0] == "toy: made up"
    assert lines[1].split() == "train 12 images of 8 x 8 x 3, 3 per class".split()
    assert lines[2].split() == "test 5 images of 8 x 8 x 3, 1 to 2 per class".split()
    assert "4 classes: a, b, c, d" in lines[3] and "mean 0." in lines[4]
