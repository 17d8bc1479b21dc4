"""Pairs of sentences in two languages, as text and as token numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minilp.data.vocabulary import UNK, Vocabulary

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, eq=False)
class ParallelText:
    """Sentence pairs of one split.

    Parameters
    ----------
    sources, targets : tuple of ndarray of int32
        Token ids of each sentence, without begin and end; at least one pair, none of them empty.
    texts : tuple of (str, str)
        The same sentences as they were read.
    vocabulary : Vocabulary
        Of both languages.
    name : str
        What was asked for: "multi30k" or "numbers".
    split : str
        "train", "val" or "test".
    languages : (str, str)
        Of source and target.
    max_len : int
        Most tokens of a sentence that the data may have, without begin and end.
    notes : tuple of str
        What was changed on the way in: sentences dropped, cut or not fully known.

    Raises
    ------
    ValueError
        Naming the argument, what came and what was expected.
    """

    sources: tuple[np.ndarray, ...]
    targets: tuple[np.ndarray, ...]
    texts: tuple[tuple[str, str], ...]
    vocabulary: Vocabulary
    name: str
    split: str
    languages: tuple[str, str]
    max_len: int
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        counts = len(self.sources), len(self.targets), len(self.texts)
        if len(set(counts)) != 1 or counts[0] == 0:
            raise ValueError(f"sources, targets, texts: expected equally many and at least one, got {counts}")
        for name in ("sources", "targets"):
            for number, ids in enumerate(getattr(self, name)):
                if not 1 <= len(ids) <= self.max_len or ids.min() < UNK or ids.max() >= self.vocabulary.size:
                    raise ValueError(f"{name}: sentence {number} has the ids {ids}; expected 1 to {self.max_len} from "
                                     f"{UNK} to {self.vocabulary.size - 1}")

    def __len__(self) -> int:
        return len(self.texts)

    def __repr__(self) -> str:
        return f"ParallelText({self.name!r}, {self.split}, {len(self)} pairs, {self.vocabulary!r})"

    @property
    def tokens(self) -> int:
        """int: target tokens that a model has to predict, the end of each sentence among them."""
        return sum(len(ids) + 1 for ids in self.targets)


def make_text(pairs: Pairs, vocabulary: Vocabulary, name: str, split: str, languages: tuple[str, str],
              max_len: int, notes: Sequence[str] = ()) -> ParallelText:
    """Encode the pairs of a split.

    A training pair with more than `max_len` tokens on a side is dropped: half a translation teaches to stop in the
    middle. In the other splits every pair counts, and the tokens beyond are cut off; references stay whole.

    Parameters
    ----------
    pairs : sequence of (str, str)
        None of them blank.
    vocabulary : Vocabulary
        Of both languages.
    name, split, languages
        As in `ParallelText`.
    max_len : int
        Most tokens of a sentence, without begin and end.
    notes : sequence of str
        Of what happened before.

    Returns
    -------
    ParallelText
        Its notes say how many pairs were dropped or cut, and how many hold something unknown.

    Raises
    ------
    ValueError
        If nothing is left.
    """
    encoded = [tuple(np.array(vocabulary.encode(text), np.int32) for text in pair) for pair in pairs]
    long = [max(map(len, ids)) > max_len for ids in encoded]
    said = list(notes)
    if sum(long):
        what = "dropped" if split == "train" else "cut off there"
        said.append(f"{sum(long)} {split} pairs have a side of more than {max_len} tokens: {what}")
    if split == "train":
        kept = [number for number, too_long in enumerate(long) if not too_long]
    else:
        kept, encoded = list(range(len(encoded))), [tuple(ids[:max_len] for ids in pair) for pair in encoded]
    if not kept:
        raise ValueError(f"{name}: no {split} pair of at most {max_len} tokens is left of {len(pairs)}")
    if strange := sum(any(UNK in ids for ids in encoded[number]) for number in kept):
        said.append(f"{strange} {split} pairs hold something that is not in the vocabulary")
    return ParallelText(tuple(encoded[k][0] for k in kept), tuple(encoded[k][1] for k in kept),
                        tuple((pairs[k][0], pairs[k][1]) for k in kept), vocabulary, name, split, languages,
                        max_len, tuple(said))
