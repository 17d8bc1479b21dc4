"""Translating with a trained model: the function behind ``minilp translate``."""
from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from typing import Any

from minilp.data import Vocabulary
from minilp.models.decoding import obstacle
from minilp.models.transformer import Transformer
from minilp.nn import Module
from minilp.training.decode import check_decoding, decode_all
from minilp.training.evaluation import load

BATCH_TOKENS = 2048


def translate(run: str | os.PathLike[str] | Module, sentences: str | Iterable[str], *, beam: int = 1,
              length_penalty: float = 1.0) -> list[str]:
    """Translate sentences with the model of a run.

    Warns (UserWarning) where a sentence holds something that the vocabulary does not know, where it is longer than the
    model can read and is cut off there, and where the recipe's scales rule out a key/value cache.

    Parameters
    ----------
    run : path or Module
        A run directory of a translation, or the model that :func:`minilp.load` made of one.
    sentences : str or iterable of str
        One sentence, or several.
    beam : int
        Translations that are followed at once; 1 is greedy.
    length_penalty : float
        See :func:`~minilp.training.decode.check_decoding`.

    Returns
    -------
    list of str
        One a sentence, in their order.

    Raises
    ------
    ValueError
        If the run is no translation, a sentence is empty, or an option is impossible.
    """
    check_decoding(beam_size=beam, length_penalty=length_penalty)
    model = run if isinstance(run, Module) else load(run)
    vocabulary: Vocabulary | None = getattr(model, "vocabulary", None)
    if vocabulary is None or not isinstance(model, Transformer):
        raise ValueError(f"run: expected a run of a translation, which has a vocabulary; got {_name(run)}")
    texts = [sentences] if isinstance(sentences, str) else list(sentences)
    sources = [_encoded(number, text, vocabulary, model.longest) for number, text in enumerate(texts, 1)]
    if reason := obstacle(model):
        warnings.warn(f"slow, without a key/value cache: {reason}", stacklevel=2)
    found = decode_all(model, sources, BATCH_TOKENS, model.longest, 0, beam_size=beam, length_penalty=length_penalty)
    assert found is not None
    return [vocabulary.decode(ids) for ids in found]


def _encoded(number: int, text: str, vocabulary: Vocabulary, longest: int) -> list[int]:
    """Token ids of a sentence."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"sentences: number {number} is empty or no text, got {text!r}")
    ids = vocabulary.encode(text)
    if unknown := vocabulary.unknown(text):
        warnings.warn(f"sentence {number}: not in the vocabulary: {unknown}", stacklevel=3)
    if len(ids) > longest:
        warnings.warn(f"sentence {number} has {len(ids)} tokens and is cut off after {longest}, all that the model can "
                      f"read", stacklevel=3)
    return ids[:longest]


def _name(run: Any) -> str:
    return f"a {type(run).__name__}" if isinstance(run, Module) else f"{os.fspath(run)!r}"
