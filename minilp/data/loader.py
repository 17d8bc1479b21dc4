"""Batches for training and evaluation, as pure functions of (seed, epoch, batch index).

The loader keeps no position. The order of epoch e comes from a Generator made from (seed, e), the augmentation of
batch b from one made from (seed, e, b). So a training that was killed asks for `epoch(e, start=b)` and sees the
batches it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minilp.data.augment import crop_flip
from minilp.data.dataset import Dataset

AUGMENTATIONS = (None, "crop_flip")
"""What `Loader` accepts as `augment`."""

_ORDER, _AUGMENT = 0, 1  # first word of the stream's key, so that the two uses never share a stream


class Loader:
    """Cut a dataset into normalised float32 batches.

    Parameters
    ----------
    dataset : Dataset
    batch_size : int
        At least 1. The last batch of an epoch is smaller where the count does not divide.
    shuffle : bool
        A fresh order each epoch; False walks the images in their stored order, always the same (evaluation).
    seed : int
        Not negative; the root of order and augmentation. Independent of `minilp.manual_seed`.
    augment : None or "crop_flip"
        See `minilp.data.augment`.
    drop_last : bool
        Leave out the smaller last batch.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.

    Examples
    --------
    >>> from minilp import data
    >>> train, test = data.load("shapes10")
    >>> loader = data.Loader(train, batch_size=128, seed=0)
    >>> x, y = next(loader.epoch(0))
    >>> x.shape, x.dtype, y.shape
    ((128, 3, 32, 32), dtype('float32'), (128,))
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        augment: str | None = None,
        drop_last: bool = False,
    ) -> None:
        if not isinstance(dataset, Dataset):
            raise TypeError(f"dataset: got {type(dataset).__name__}; expected a minilp.data.Dataset")
        self.dataset = dataset
        self.batch_size = whole("batch_size", batch_size, 1)
        self.shuffle = bool(shuffle)
        self.seed = whole("seed", seed, 0)
        if augment not in AUGMENTATIONS:
            raise ValueError(f"augment: got {augment!r}; expected one of {', '.join(map(repr, AUGMENTATIONS))}")
        self.augment = augment
        self.drop_last = bool(drop_last)
        if len(self) == 0:
            raise ValueError(f"batch_size: got {batch_size} with drop_last, but the dataset has {len(dataset)} images;"
                             " expected at least one full batch")
        # (u / 255 - mean) / std as one multiply and one add; both constants are rounded to float32 once.
        mean, std = dataset.mean.astype(np.float64), dataset.std.astype(np.float64)
        self._scale = (1.0 / (255.0 * std)).astype(np.float32).reshape(-1, 1, 1, 1)
        self._shift = (-mean / std).astype(np.float32).reshape(-1, 1, 1, 1)
        self._next_epoch = 0

    def __len__(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Walk one epoch: 0 the first time, 1 the second, and so on. `epoch` does not disturb the count."""
        epoch = self._next_epoch
        self._next_epoch += 1
        return self.epoch(epoch)

    def order(self, epoch: int) -> np.ndarray:
        """Indices into the dataset in the order in which `epoch` visits them, int64 (N,)."""
        epoch = whole("epoch", epoch, 0)
        if not self.shuffle:
            return np.arange(len(self.dataset))
        return self._rng(_ORDER, epoch).permutation(len(self.dataset))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield batches `start`, `start` + 1, ... of one epoch.

        Parameters
        ----------
        epoch : int
            Not negative.
        start : int
            First batch, 0 to len(self); len(self) yields nothing.

        Yields
        ------
        x : ndarray of float32, shape (B, C, H, W)
            Normalised; fresh memory for each batch, stored batch innermost (a view of a (C, H, W, B) array).
        y : ndarray of int64, shape (B,)

        Raises
        ------
        ValueError
            An argument out of range (at the call, not at the first batch).
        """
        order = self.order(epoch)
        if whole("start", start, 0) > len(self):
            raise ValueError(f"start: got {start}; expected 0 to {len(self)}, the number of batches")
        return self._walk(order, epoch, start)

    def _walk(self, order: np.ndarray, epoch: int, start: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch in range(start, len(self)):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            images = self.dataset.images[chosen]
            if self.augment == "crop_flip":
                images = crop_flip(images, self._rng(_AUGMENT, epoch, batch))
            yield self._normalise(images), self.dataset.labels[chosen]

    def _normalise(self, images: np.ndarray) -> np.ndarray:
        """uint8 (B, C, H, W) -> float32, the batch innermost in memory."""
        count, *rest = images.shape
        # Turn the bytes over first: moving 1-byte elements across memory is cheaper than moving floats.
        turned = np.ascontiguousarray(images.reshape(count, -1).T).reshape(*rest, count)
        out = np.multiply(turned, self._scale, dtype=np.float32)
        out += self._shift
        return out.transpose(3, 0, 1, 2)

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=key)))


def whole(name: str, value: int, least: int) -> int:
    """An argument that must be an integer of at least `least`. Raises TypeError or ValueError that names it."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: got {value!r}; expected an integer")
    if value < least:
        raise ValueError(f"{name}: got {value}; expected {least} or more")
    return int(value)
