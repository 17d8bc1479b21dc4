"""Multi30k: 29,000 descriptions of pictures in English and German, 1,014 for validation, 1,000 for testing.

Elliott, Frank, Sima'an and Specia 2016, "Multi30K: Multilingual English-German Image Descriptions"; the files
train, val and test_2016_flickr, each .en.gz and .de.gz, one sentence a line. The sub-word vocabulary is learned from
both sides of train, once, and kept in the user's cache under a name made of its size and the text.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import zlib
from pathlib import Path

from minilp import files
from minilp.data.cifar10 import data_root
from minilp.data.parallel import ParallelText, make_text
from minilp.data.vocabulary import SubwordVocabulary

FOLDER = "multi30k"
FILES = {"train": "train", "val": "val", "test": "test_2016_flickr"}
LANGUAGES = ("en", "de")
VOCAB_SIZE = 4000
MAX_LEN = 64


def load(root: str | os.PathLike[str] | None = None, *, vocab_size: int = VOCAB_SIZE, max_len: int = MAX_LEN,
         source: str = "en", target: str = "de") -> tuple[ParallelText, ParallelText, ParallelText]:
    """Read the three splits.

    Parameters
    ----------
    root : path, optional
        Folder that holds multi30k/; default $MINILP_DATA, else ~/.cache/minilp.
    vocab_size : int
        Sub-words of the joint vocabulary.
    max_len : int
        Most sub-words of a sentence: longer training pairs are dropped, others cut (`make_text`).
    source, target : {"en", "de"}
        Which way to translate.

    Returns
    -------
    train, val, test : ParallelText
        A training pair with a blank side is dropped, and a note says so.

    Raises
    ------
    FileNotFoundError
        A file is missing; the message says where it was looked for.
    ImportError
        sentencepiece is not installed.
    ValueError
        Naming the file or argument: a broken gzip file, text that is not UTF-8, sides with different numbers of lines,
        a blank line in val or test.
    """
    if {source, target} != set(LANGUAGES):
        raise ValueError(f"source, target: expected {' and '.join(LANGUAGES)} in either order, got {source!r} and "
                         f"{target!r}")
    for name, value, least in (("vocab_size", vocab_size, 100), ("max_len", max_len, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name}: expected an integer >= {least}, got {value!r}")
    folder = data_root(root) / FOLDER
    sides = {split: {which: _lines(folder / f"{stem}.{which}.gz") for which in LANGUAGES}
             for split, stem in FILES.items()}
    found = []
    vocabulary = None
    for split, text in sides.items():
        pairs, notes = _pairs(folder / FILES[split], split, text[source], text[target], (source, target))
        if vocabulary is None:
            vocabulary = cached_vocabulary([line for which in LANGUAGES for line in text[which] if line], vocab_size)
        found.append(make_text(pairs, vocabulary, FOLDER, split, (source, target), max_len, notes))
    train, val, test = found
    return train, val, test


def _lines(path: Path) -> list[str]:
    """The sentences of a file, without blanks at their ends."""
    try:
        data = gzip.decompress(path.read_bytes())
    except FileNotFoundError as error:
        names = ", ".join(f"{stem}.{which}.gz" for stem in FILES.values() for which in LANGUAGES)
        raise FileNotFoundError(f"data: {path} is not there. Multi30k is read from the folder {path.parent}, files "
                                f"{names}; elsewhere? Give --root DIR or set MINILP_DATA to the folder that holds "
                                f"{FOLDER}/. The built-in data set numbers needs no files") from error
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path}: broken gzip file: {error}") from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}: line {line} is not UTF-8 text ({error.reason})") from error
    return [line.strip() for line in text.removesuffix("\n").split("\n")]  # splitlines would cut at U+2028 as well


def _pairs(stem: Path, split: str, source: list[str], target: list[str], languages: tuple[str, str]
           ) -> tuple[list[tuple[str, str]], list[str]]:
    """Sentence pairs, and notes on those left out."""
    if len(source) != len(target):
        raise ValueError(f"{stem}: the files .{languages[0]}.gz and .{languages[1]}.gz have {len(source)} and "
                         f"{len(target)} lines; expected as many, line k of one being the translation of line k")
    pairs = list(zip(source, target, strict=True))
    blank = [number for number, pair in enumerate(pairs, 1) if not all(pair)]
    if not blank:
        return pairs, []
    if split != "train":
        raise ValueError(f"{stem}: line {blank[0]} is blank on a side ({len(blank)} such lines); a {split} set with "
                         f"sentences left out would not be comparable")
    kept = [pair for pair in pairs if all(pair)]
    if not kept:
        raise ValueError(f"{stem}: all {len(pairs)} lines are blank on a side")
    return kept, [f"{len(blank)} {split} pairs are blank on a side (the first is line {blank[0]}): dropped"]


def cached_vocabulary(sentences: list[str], size: int) -> SubwordVocabulary:
    """The vocabulary learned from sentences: from the cache where the same text and size are there, else learned.

    The cache is a folder below $XDG_CACHE_HOME, else ~/.cache. Where it cannot be written the vocabulary is learned
    every time; a damaged entry is learned anew.

    Parameters
    ----------
    sentences : list of str
        What to learn from.
    size : int
        Tokens.

    Returns
    -------
    SubwordVocabulary

    Raises
    ------
    ImportError, ValueError
        As `SubwordVocabulary.train`.
    """
    key = hashlib.sha256("\n".join([str(size), *sentences]).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "minilp" / "vocabularies"
    path = folder / f"{FOLDER}-{size}-{key}.model"
    with contextlib.suppress(OSError, ValueError):
        return SubwordVocabulary.from_bytes(path.read_bytes())
    made = SubwordVocabulary.train(sentences, size)
    with contextlib.suppress(OSError):  # read-only, full, or another process has just written the same bytes
        folder.mkdir(parents=True, exist_ok=True)
        files.write_atomic(path, made.to_bytes())
    return made
