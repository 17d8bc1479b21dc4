"""Batches of sentence pairs by token count, as pure functions of (seed, epoch, batch index), like `Loader`'s.

Pairs are sorted by the length of their longer side, so that little of a batch is padding. Which pairs of one length
meet in a batch, and the order of the batches, are drawn anew each epoch; the lengths along the sorted row are the same
in every epoch, and with them the number of batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from minilp.data.loader import whole
from minilp.data.parallel import ParallelText
from minilp.data.vocabulary import BOS, EOS, PAD

Batch = tuple[np.ndarray, np.ndarray]


class TokenLoader:
    """Cut sentence pairs into padded batches.

    Parameters
    ----------
    dataset : ParallelText
    batch_tokens : int
        Most places of a batch on either side, padding included: pairs times the longest side (with its end token).
        A single pair that is longer makes a batch of its own.
    shuffle : bool
        False sorts by length, equal lengths in stored order, always the same (evaluation).
    seed : int
        Not negative; independent of `minilp.manual_seed`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.

    Examples
    --------
    >>> from minilp import data
    >>> train, val, test = data.load_text("numbers")
    >>> x, y = next(data.TokenLoader(train, 512).epoch(0))    # (N, S) words and an end, (N, 1 + T) begin, digits, end
    """

    def __init__(self, dataset: ParallelText, batch_tokens: int, shuffle: bool = True, seed: int = 0) -> None:
        if not isinstance(dataset, ParallelText):
            raise TypeError(f"dataset: got {type(dataset).__name__}; expected a minilp.data.ParallelText")
        self.dataset = dataset
        self.batch_tokens = whole("batch_tokens", batch_tokens, 1)
        self.shuffle = bool(shuffle)
        self.seed = whole("seed", seed, 0)
        pairs = zip(dataset.sources, dataset.targets, strict=True)
        self._lengths = np.array([max(len(source), len(target)) + 1 for source, target in pairs])
        self._cuts = self._cut(np.sort(self._lengths))

    def _cut(self, lengths: np.ndarray) -> list[slice]:
        """Where batches begin and end along ascending lengths."""
        cuts, first = [], 0
        for place, length in enumerate(lengths):
            if place > first and (place - first + 1) * length > self.batch_tokens:
                cuts.append(slice(first, place))
                first = place
        return [*cuts, slice(first, len(lengths))]

    def __len__(self) -> int:
        """Batches of an epoch, the same in all."""
        return len(self._cuts)

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The pairs of each batch of an epoch, int64 indices into the dataset."""
        epoch = whole("epoch", epoch, 0)
        if not self.shuffle:
            row = np.argsort(self._lengths, kind="stable")
            return [row[cut] for cut in self._cuts]
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=(epoch,))))
        mixed = rng.permutation(len(self.dataset))
        row = mixed[np.argsort(self._lengths[mixed], kind="stable")]
        return [row[self._cuts[number]] for number in rng.permutation(len(self._cuts))]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield batches `start`, `start` + 1, ... of one epoch.

        Parameters
        ----------
        epoch : int
            Not negative.
        start : int
            First batch, 0 to len(self); len(self) yields nothing.

        Yields
        ------
        x : ndarray of int64, shape (N, S)
            Sources and their end token, then padding.
        y : ndarray of int64, shape (N, 1 + T)
            Begin token, targets and their end token, then padding: a model reads ``y[:, :-1]`` and predicts
            ``y[:, 1:]``.

        Raises
        ------
        ValueError
            An argument out of range (at the call, not at the first batch).
        """
        batches = self.batches(epoch)
        if whole("start", start, 0) > len(self):
            raise ValueError(f"start: got {start}; expected 0 to {len(self)}, the number of batches")
        return self._walk(batches[start:])

    def _walk(self, batches: list[np.ndarray]) -> Iterator[Batch]:
        for chosen in batches:
            yield (pad_sources([self.dataset.sources[k] for k in chosen]),
                   padded([np.concatenate([[BOS], self.dataset.targets[k], [EOS]]) for k in chosen]))


def pad_sources(sentences: Sequence[np.ndarray | list[int]]) -> np.ndarray:
    """Token ids of source sentences as a model reads them: each with its end, then padding; int64 (N, S)."""
    return padded([np.concatenate([ids, [EOS]]) for ids in sentences])


def padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of different length as one array, `PAD` at their ends; int64 (N, longest)."""
    out = np.full((len(rows), max(map(len, rows))), PAD, np.int64)
    for row, ids in zip(out, rows, strict=True):
        row[: len(ids)] = ids
    return out
