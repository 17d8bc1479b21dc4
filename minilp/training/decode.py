"""Translating many sentences: in batches of similar length, greedily or with a beam."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minilp.contract import rounding_context
from minilp.data.token_loader import pad_sources
from minilp.models import decoding
from minilp.models.transformer import Transformer

LONGER = 10
"""A translation may have twice the tokens of its source and so many more, within what the model can place."""


def check_decoding(*, beam_size: int = 1, length_penalty: float = 1.0) -> None:
    """Refuse impossible options of decoding.

    Parameters
    ----------
    beam_size : int
        Translations that are followed at once; 1 is greedy.
    length_penalty : float
        Of a beam, see :func:`minilp.models.decoding.beam`; without effect on greedy decoding.

    Raises
    ------
    ValueError
        Naming the option, what came and what was expected.
    """
    if isinstance(beam_size, bool) or not isinstance(beam_size, int) or beam_size < 1:
        raise ValueError(f"beam_size: expected an integer >= 1, got {beam_size!r}")
    if isinstance(length_penalty, bool) or not isinstance(length_penalty, (int, float)) or length_penalty < 0:
        raise ValueError(f"length_penalty: expected a number >= 0, got {length_penalty!r}")


def describe_decoding(*, beam_size: int = 1, length_penalty: float = 1.0) -> str:
    """The options in words."""
    return "greedy" if beam_size == 1 else f"beam {beam_size}, length penalty {length_penalty:g}"


def decode_all(model: Transformer, sources: Sequence[Any], batch_tokens: int, max_len: int, seed: int, *,
               beam_size: int = 1, length_penalty: float = 1.0, stopped: Callable[[], bool] = lambda: False
               ) -> list[list[int]] | None:
    """Translate sentences, given as token ids.

    Batches are made of the shortest first; equal lengths keep their order. Dynamic scales depend on the batch, so the
    same sentences in the same batches give the same translations.

    Parameters
    ----------
    model : Transformer
        Put into evaluation mode meanwhile.
    sources : sequence of sequence of int
        Without begin and end.
    batch_tokens : int
        Most places of a batch of sources, padding included.
    max_len : int
        Most tokens of a translation.
    seed : int
        Of the rounding streams.
    beam_size, length_penalty
        See :func:`check_decoding`.
    stopped : callable
        Asked before each batch; True ends it.

    Returns
    -------
    list of list of int, or None
        Token ids without begin and end, in the order of the sources; None if it was stopped.
    """

    found: list[list[int]] = [[] for _ in sources]
    cached = decoding.obstacle(model) is None
    order = sorted(range(len(sources)), key=lambda k: len(sources[k]))
    mode = model.training
    model.eval()
    try:
        number = 0
        while order:
            if stopped():
                return None
            size = 1
            while size < len(order) and (size + 1) * (len(sources[order[size]]) + 1) <= batch_tokens:
                size += 1
            batch, order = order[:size], order[size:]
            src = pad_sources([np.asarray(sources[k]) for k in batch])
            limit = min(max_len, 2 * src.shape[1] + LONGER)
            with rounding_context(seed, number, microbatch=1), np.errstate(over="ignore", invalid="ignore"):
                out = decoding.beam(model, src, beam_size, length_penalty, limit, cached=cached)
            for k, ids in zip(batch, out, strict=True):
                found[k] = [int(i) for i in ids]
            number += 1
    finally:
        model.train(mode)
    return found
