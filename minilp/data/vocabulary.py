"""From text to token numbers and back. Four numbers have the same meaning everywhere: padding, begin, end, unknown."""

from __future__ import annotations

import functools
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

PAD, BOS, EOS, UNK = 0, 1, 2, 3
"""Ids of padding, begin and end of a sentence, and of what the vocabulary does not know."""

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")


class Vocabulary(ABC):
    """What a translation model's numbers mean. Immutable; its file is `to_bytes`."""

    file: str
    """Name of its file in a run directory."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of tokens, the four special ones included."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of a sentence, without begin and end; `UNK` for what is not known."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids; special ones are left out."""

    @abstractmethod
    def unknown(self, text: str) -> str:
        """The pieces of a sentence that become `UNK`, joined by blanks; "" if all is known."""

    @abstractmethod
    def to_bytes(self) -> bytes:
        """The whole vocabulary as the content of a file; `from_bytes` reads it."""

    def __deepcopy__(self, memo: Any) -> Vocabulary:
        return self  # immutable, and a copy of a model needs no second one


@dataclass(frozen=True)
class WordVocabulary(Vocabulary):
    """A list of words separated by blanks, for languages of a few words.

    Parameters
    ----------
    words : tuple of str
        Distinct, without blanks; word k has the id k + 4.
    """

    words: tuple[str, ...]
    file = "vocabulary.json"

    def __post_init__(self) -> None:
        if len(set(self.words)) != len(self.words) or any(word.split() != [word] for word in self.words):
            raise ValueError(f"words: expected distinct words without blanks, got {self.words!r}")

    @property
    def size(self) -> int:
        """See `Vocabulary.size`."""
        return len(SPECIAL) + len(self.words)

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words, len(SPECIAL))}

    def encode(self, text: str) -> list[int]:
        """See `Vocabulary.encode`."""
        return [self._ids.get(word, UNK) for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        """See `Vocabulary.decode`."""
        return " ".join(self.words[i - len(SPECIAL)] for i in ids if i >= len(SPECIAL))

    def unknown(self, text: str) -> str:
        """See `Vocabulary.unknown`."""
        return " ".join(word for word in text.split() if word not in self._ids)

    def to_bytes(self) -> bytes:
        """See `Vocabulary.to_bytes`: JSON."""
        return (json.dumps(list(self.words)) + "\n").encode()

    @staticmethod
    def from_bytes(data: bytes) -> WordVocabulary:
        """Read `to_bytes`. Raises ValueError if it is something else."""
        words = json.loads(data)
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError("no JSON list of words")
        return WordVocabulary(tuple(words))


@dataclass(frozen=True)
class SubwordVocabulary(Vocabulary):
    """Sub-words of a sentencepiece model, the optional extra `text`.

    Parameters
    ----------
    model : bytes
        The content of a sentencepiece .model file whose special ids are ours.

    Raises
    ------
    ValueError
        If it is no such file.
    """

    model: bytes
    file = "vocabulary.model"

    def __post_init__(self) -> None:
        processor = self._processor
        ids = processor.pad_id(), processor.bos_id(), processor.eos_id(), processor.unk_id()
        if ids != (PAD, BOS, EOS, UNK):
            raise ValueError(f"the special ids are {ids}, expected {(PAD, BOS, EOS, UNK)} for pad, bos, eos, unk")

    def __repr__(self) -> str:
        return f"SubwordVocabulary({self.size} sub-words)"

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model}  # the processor is made anew where it is needed

    def __setstate__(self, state: dict[str, Any]) -> None:
        object.__setattr__(self, "model", state["model"])

    @functools.cached_property
    def _processor(self) -> Any:
        found = require_sentencepiece().SentencePieceProcessor()
        try:
            found.LoadFromSerializedProto(self.model)
        except RuntimeError as error:
            raise ValueError(f"no sentencepiece model ({error})") from error
        return found

    @property
    def size(self) -> int:
        """See `Vocabulary.size`."""
        return int(self._processor.get_piece_size())

    def encode(self, text: str) -> list[int]:
        """See `Vocabulary.encode`."""
        return list(self._processor.encode(text))

    def decode(self, ids: Sequence[int]) -> str:
        """See `Vocabulary.decode`."""
        return str(self._processor.decode([int(i) for i in ids if i > UNK]))

    def unknown(self, text: str) -> str:
        """See `Vocabulary.unknown`."""
        pieces = zip(self._processor.encode(text), self._processor.encode(text, out_type=str), strict=True)
        return " ".join(piece for number, piece in pieces if number == UNK)

    def to_bytes(self) -> bytes:
        """See `Vocabulary.to_bytes`: the sentencepiece model."""
        return self.model

    @staticmethod
    def from_bytes(data: bytes) -> SubwordVocabulary:
        """Read `to_bytes`. Raises ValueError if it is something else."""
        return SubwordVocabulary(data)

    @staticmethod
    def train(sentences: Iterable[str], size: int) -> SubwordVocabulary:
        """Learn byte pair encoding (Sennrich et al. 2016) from sentences; the same sentences give the same sub-words.

        Every character of the sentences is in the vocabulary.

        Parameters
        ----------
        sentences : iterable of str
            Of all languages together.
        size : int
            Tokens, the special ones included.

        Raises
        ------
        ImportError
            sentencepiece is not installed.
        ValueError
            The sentences do not yield that many sub-words, or have more characters than that.
        """
        out = io.BytesIO()
        try:
            require_sentencepiece().SentencePieceTrainer.train(
                sentence_iterator=iter(sentences), model_writer=out, vocab_size=size, model_type="bpe",
                character_coverage=1.0, pad_id=PAD, bos_id=BOS, eos_id=EOS, unk_id=UNK, num_threads=1, minloglevel=2)
        except RuntimeError as error:
            raise ValueError(f"vocab_size: sentencepiece cannot make {size} sub-words of this text "
                             f"({error})") from error
        return SubwordVocabulary(out.getvalue())


KINDS: tuple[type[WordVocabulary] | type[SubwordVocabulary], ...] = (WordVocabulary, SubwordVocabulary)


def from_file(name: str, data: bytes) -> Vocabulary:
    """The vocabulary of a file, by its name (`Vocabulary.file`) and content.

    Raises
    ------
    ImportError
        It takes sentencepiece, which is not installed.
    ValueError
        No vocabulary has such a file, or the content is damaged.
    """
    for kind in KINDS:
        if kind.file == name:
            return kind.from_bytes(data)
    raise ValueError(f"vocabulary: expected a file {' or '.join(kind.file for kind in KINDS)}, got {name!r}")


def require_sentencepiece() -> Any:
    """The sentencepiece module. Raises ImportError that says how to get it."""
    try:
        import sentencepiece
    except ImportError as error:
        raise ImportError("sub-words need sentencepiece, which is not installed: pip install 'minilp[text]'. "
                          "The built-in data set numbers needs nothing") from error
    return sentencepiece
