"""A labelled set of images, held in memory as bytes.

One `Dataset` is one split (train or test). Pixels stay uint8, as every set here is stored; the `Loader` normalises
them batch by batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels of one split, checked on construction and read-only afterwards.

    Parameters
    ----------
    images : ndarray of uint8, shape (N, C, H, W)
        Pixels, 0 to 255, N >= 1.
    labels : ndarray of int64, shape (N,)
        Index into `classes`.
    classes : tuple of str
        One name per class.
    name : str
        What was asked for: "shapes10", "cifar10", or a path.
    mean, std : ndarray of float32, shape (C,)
        Per channel of the *train* split, in units where white is 1. Both splits carry the train split's values, so
        that both are normalised alike.
    split : str
        "train" or "test".
    source : str
        Where the pixels came from, for reports.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    name: str
    mean: np.ndarray
    std: np.ndarray
    split: str = "train"
    source: str = ""

    def __post_init__(self) -> None:
        self.validate()
        # A record with writable arrays would not be frozen. Views, so that the caller's own arrays stay writable.
        for field in ("images", "labels", "mean", "std"):
            view = getattr(self, field).view()
            view.flags.writeable = False
            object.__setattr__(self, field, view)

    def validate(self) -> None:
        """Check every field against the class description; called on construction.

        Raises
        ------
        TypeError
            A field has the wrong type or dtype.
        ValueError
            A field has the wrong shape or values.
        """
        _check_array("images", self.images, np.uint8, 4)
        _check_array("labels", self.labels, np.int64, 1)
        count, channels = self.images.shape[:2]
        if self.images.size == 0:
            raise ValueError(f"images: shape {self.images.shape} holds no pixels; expected at least one image")
        if len(self.labels) != count:
            raise ValueError(f"labels: {len(self.labels)} labels for {count} images; expected one label per image")
        if not isinstance(self.classes, tuple) or not all(isinstance(c, str) for c in self.classes):
            raise TypeError(f"classes: got {self.classes!r}; expected a tuple of str")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes: names repeat in {self.classes!r}; expected distinct names")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            raise ValueError(f"labels: values from {low} to {high}; expected 0 to {len(self.classes) - 1}")
        for field in ("mean", "std"):
            value = getattr(self, field)
            _check_array(field, value, np.float32, 1)
            if value.shape != (channels,) or not np.isfinite(value).all():
                raise ValueError(f"{field}: got {value!r}; expected {channels} finite values, one per channel")
        if not (self.std > 0).all():
            raise ValueError(f"std: got {self.std!r}; expected values above 0")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.images.shape[1:]))
        return f"Dataset({self.name!r}, {self.split}, {len(self)} images {shape}, {len(self.classes)} classes)"

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        """Number of channels C of every image."""
        return int(self.images.shape[1])

    def subset(self, n: int, seed: int = 0) -> Dataset:
        """Return `n` images drawn without replacement, in their original order.

        The choice is a pure function of (len(self), n, seed), and a smaller subset is contained in a larger one of
        the same seed. It sorts the raw output of PCG64, which NumPy promises never to change (NEP 19), so the subset
        is the same on every version. `mean` and `std` stay those of the whole train split.

        Parameters
        ----------
        n : int
            1 to len(self).
        seed : int
            Not negative.

        Raises
        ------
        ValueError
            `n` or `seed` out of range.
        """
        if not 1 <= n <= len(self):
            raise ValueError(f"n: got {n}; expected 1 to {len(self)}, the number of images")
        if seed < 0:
            raise ValueError(f"seed: got {seed}; expected 0 or more")
        keys = np.random.PCG64(seed).random_raw(len(self))
        chosen = np.sort(np.argsort(keys, kind="stable")[:n])
        source = f"{self.source}; {n} of {len(self)} images, subset seed {seed}".removeprefix("; ")
        return replace(self, images=self.images[chosen], labels=self.labels[chosen], source=source)


def channel_stats(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, in units where white (255) is 1.

    Counts byte values and works on the counts, so the sums are exact integers and the result does not depend on the
    order of summation.

    Parameters
    ----------
    images : ndarray of uint8, shape (N, C, H, W)

    Returns
    -------
    mean, std : ndarray of float32, shape (C,)
        A channel that is constant over the whole set gets std 1, so that normalising it gives zeros rather than a
        division by zero.
    """
    values = np.arange(256, dtype=np.int64)
    mean, std = [], []
    for channel in range(images.shape[1]):
        counts = np.zeros(256, np.int64)
        for part in range(0, len(images), 1000):  # bincount widens bytes to int64, so go in parts
            counts += np.bincount(images[part : part + 1000, channel].ravel(), minlength=256)
        total = int(counts.sum())
        first, second = int(counts @ values), int(counts @ values**2)
        # Python integers: exact up to the one division.
        variance = (second * total - first * first) / (total * total * 255 * 255)
        mean.append(first / (total * 255))
        std.append(variance**0.5 or 1.0)
    return np.array(mean, np.float32), np.array(std, np.float32)


def make_splits(
    name: str,
    classes: tuple[str, ...],
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    source: str = "",
) -> tuple[Dataset, Dataset]:
    """Build the (train, test) pair, both carrying the train split's channel statistics.

    Parameters
    ----------
    name, classes, source
        As in `Dataset`.
    train, test : (images, labels)
        uint8 (N, C, H, W) and int64 (N,).

    Raises
    ------
    ValueError
        As `Dataset`, or when the two splits differ in image shape.
    """
    if train[0].shape[1:] != test[0].shape[1:]:
        raise ValueError(
            f"{name}: train images have shape {train[0].shape[1:]}, test images {test[0].shape[1:]}; expected the same"
        )
    mean, std = channel_stats(train[0])
    return (
        Dataset(*train, classes, name, mean, std, "train", source),
        Dataset(*test, classes, name, mean, std, "test", source),
    )


def _check_array(name: str, value: object, dtype: type, ndim: int) -> None:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name}: got {type(value).__name__}; expected a NumPy array")
    if value.dtype != dtype:
        raise TypeError(f"{name}: got dtype {value.dtype}; expected {np.dtype(dtype)}")
    if value.ndim != ndim:
        raise ValueError(f"{name}: got shape {value.shape}; expected {ndim} dimension{'s' * (ndim > 1)}")
