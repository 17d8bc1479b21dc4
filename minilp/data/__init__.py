"""Data sets in memory, and the loader that cuts them into batches.

>>> from minilp import data
>>> train, test = data.load("shapes10")
>>> for x, y in data.Loader(train, batch_size=128, augment="crop_flip"): ...
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from minilp.data import cifar10, folder, multi30k, numbers, shapes10
from minilp.data.dataset import Dataset
from minilp.data.loader import Loader
from minilp.data.parallel import ParallelText
from minilp.data.token_loader import TokenLoader
from minilp.data.vocabulary import SubwordVocabulary, Vocabulary, WordVocabulary

__all__ = ["Dataset", "Loader", "ParallelText", "SubwordVocabulary", "TokenLoader", "Vocabulary", "WordVocabulary",
           "available", "available_text", "describe", "load", "load_text"]


def available() -> tuple[str, ...]:
    """Names of images that `load` knows; it takes paths as well."""
    return ("cifar10", "shapes10")


def available_text() -> tuple[str, ...]:
    """Names of sentence pairs that `load_text` knows."""
    return ("multi30k", "numbers")


def load_text(name: str, root: str | os.PathLike[str] | None = None, **options: Any
              ) -> tuple[ParallelText, ParallelText, ParallelText]:
    """Load sentence pairs by name. Never downloads.

    Parameters
    ----------
    name : str
        "multi30k" (files), or "numbers" (generated).
    root : path-like, optional
        Where multi30k's folder is; default $MINILP_DATA, else ~/.cache/minilp.
    **options
        Of `multi30k.load` or `numbers.load`.

    Returns
    -------
    train, val, test : ParallelText

    Raises
    ------
    FileNotFoundError, ImportError, ValueError
        The files or sentencepiece are not there, the name or an option is unknown, or a file is damaged.
    """
    if name not in available_text():
        raise ValueError(f"data: {name!r} is no set of sentence pairs; expected {' or '.join(available_text())}")
    try:
        return numbers.load(**options) if name == "numbers" else multi30k.load(root, **options)
    except TypeError as error:
        raise ValueError(f"data: {name} does not take {options} ({error})") from error


def load(name_or_path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> tuple[Dataset, Dataset]:
    """Load a data set by name, or one's own images by path. Never downloads.

    Parameters
    ----------
    name_or_path : str or path-like
        "shapes10" (generated), "cifar10", a folder with train/CLASS/*.png and test/CLASS/*.png, or an .npz file.
    root : path-like, optional
        Where cifar10's files are; default $MINILP_DATA, else ~/.cache/minilp.

    Returns
    -------
    train, test : Dataset

    Raises
    ------
    FileNotFoundError
        The files are not there; for cifar10 the message says how to get them.
    ValueError
        Neither a known name nor a path, or damaged files.
    """
    name = os.fspath(name_or_path)
    if name == "shapes10":
        return shapes10.load()
    if name == "cifar10":
        return cifar10.load(root)
    path = Path(name).expanduser()
    if name in available_text():
        raise ValueError(f"data: {name} holds sentence pairs; load_text reads it")
    looks_like_path = len(path.parts) > 1 or path.is_absolute() or path.suffix == ".npz"
    if path.exists() or looks_like_path:
        return folder.load(path)
    raise ValueError(
        f"data: {name!r} is neither a data set nor an existing path; expected one of {', '.join(available())},"
        " a folder with train/ and test/, or an .npz file"
    )


def describe(name_or_path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> str:
    """Load a data set and summarise it in a few printable lines.

    Parameters and errors as `load` and `load_text`.

    Returns
    -------
    str
        Sizes, classes, images per class, channel statistics and origin; of sentence pairs the vocabulary, lengths and
        an example. No newline at the end.
    """
    if name_or_path in available_text():
        return _describe_text(*load_text(os.fspath(name_or_path), root))
    train, test = load(name_or_path, root)
    lines = [f"{train.name}: {train.source}"]
    for split in (train, test):
        channels, height, width = split.images.shape[1:]
        counts = [int((split.labels == k).sum()) for k in range(split.num_classes)]
        spread = f"{counts[0]}" if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
        size = f"{height} x {width} x {channels}"
        lines.append(f"  {split.split:<5}  {len(split):>6} images of {size}, {spread} per class")
    names = ", ".join(train.classes[:20]) + (", ..." if train.num_classes > 20 else "")
    lines.append(f"  {train.num_classes} classes: {names}")
    mean, std = (" ".join(f"{v:.4f}" for v in values) for values in (train.mean, train.std))
    lines.append(f"  train mean {mean}, std {std}")
    return "\n".join(lines)


def _describe_text(*splits: ParallelText) -> str:
    first = splits[0]
    lines = [f"{first.name}: {first.languages[0]} to {first.languages[1]}, {first.vocabulary.size} tokens"]
    for split in splits:
        sides = [[len(ids) for ids in side] for side in (split.sources, split.targets)]
        lengths = " and ".join(f"{sum(side) / len(side):.1f} (at most {max(side)})" for side in sides)
        lines.append(f"  {split.split:<5}  {len(split):>6} pairs, tokens of a sentence {lengths}")
    lines.append(f"  first: {first.texts[0][0]}\n      -> {first.texts[0][1]}")
    return "\n".join([*lines, *(f"  {note}" for split in splits for note in split.notes)])
