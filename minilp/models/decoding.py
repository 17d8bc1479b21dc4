"""From a trained encoder-decoder to sentences: greedy and beam search, with a key/value cache where it is exact.

Integers have fixed meanings: 0 padding, 1 begin, 2 end, 3 unknown. Results hold neither begin nor end.
"""
from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from minilp.autograd import Tensor
from minilp.autograd.grad_mode import no_grad
from minilp.models.transformer import Transformer, integers
from minilp.nn.attention import MultiheadAttention
from minilp.nn.contraction import Contraction
from minilp.nn.tokens import Tokens
from minilp.nn.transformer import Cache
from minilp.roles import Role

PAD, BOS, EOS, UNK = 0, 1, 2, 3


def obstacle(model: Transformer) -> str | None:
    """Why a key/value cache would change what a model says, or None if it would not.

    Without a cache every token so far is computed again at each step. That gives the same numbers only if a token's do
    not depend on those beside it: where activations are float32, or every token has scales of its own (MX; ``keep``
    with axis 0), rounds to nearest and meets no transform that reads the whole tensor. Attention's products, where they
    are coded, have one scale for all tokens of a sentence.

    Parameters
    ----------
    model : Transformer
        With its recipe.

    Returns
    -------
    str or None
        Names the first layer of the decoder in the way.
    """
    for name, layer in model.named_modules():
        q = layer.q if isinstance(layer, Contraction) and not name.startswith("encoder.") else None
        if q is None:
            continue
        if isinstance(layer, MultiheadAttention) and q.products is not None and q.products.act is not None:
            return f"{name} codes attention's products with one scale for each sentence and head"
        if not _by_token(q.roles.act):
            return f"the activations of {name} have one scale for all tokens, round stochastically or are transformed"
    return None


def _by_token(role: Role | None) -> bool:
    return role is None or (role.rounding == "nearest" and not role.before
                            and (role.format.blocks_along_sum or 0 in role.keep))


class _Decoder:
    """Log-probabilities of the next token of every row, with or without a cache."""

    def __init__(self, model: Transformer, src: Any, cached: bool | None) -> None:
        self.model = model
        reason = obstacle(model)
        if cached is None:
            cached = reason is None
            if reason is not None:
                warnings.warn(f"decoding without a key/value cache: {reason}", RuntimeWarning, stacklevel=3)
        elif cached and reason is not None:
            raise ValueError(f"cached: a cache would change the result: {reason}")
        self.memory, self.seen = model.encode(integers("src", src))
        self.cache: Cache | None = model.start(self.memory, self.seen) if cached else None
        self.rows = np.arange(self.seen.shape[0])  # the source sentence of each row

    def next(self, prefix: np.ndarray) -> np.ndarray:
        """Logits (rows, V) behind ``prefix`` (rows, t), of which a cache has seen all but the last column."""
        if self.cache is not None:
            return self.model.step(prefix[:, -1], self.cache).data
        memory, seen = (self.memory, self.seen) if np.array_equal(self.rows, np.arange(self.seen.shape[0])) \
            else _picked(self.memory, self.seen, self.rows)
        logits, tokens = self.model.decode(prefix, memory, seen)
        assert tokens.mask is None  # a prefix has no padding: what comes behind the end is the end again
        return tokens.spread(logits.data)[:, -1]

    def pick(self, rows: np.ndarray) -> None:
        """Go on with chosen rows, which may repeat."""
        self.rows = self.rows[rows]
        if self.cache is not None:
            self.cache = self.cache.picked(rows)


def _picked(memory: Tensor, seen: Tokens, rows: np.ndarray) -> tuple[Tensor, Tokens]:
    """The encoder's result for chosen sentences."""
    real = np.ones(seen.shape, bool) if seen.mask is None else seen.mask
    chosen = Tokens((len(rows), seen.shape[1]), real[rows])
    return Tensor(np.ascontiguousarray(chosen.gather(seen.spread(memory.data)[rows]))), chosen


def greedy(model: Transformer, src: Any, max_len: int, *, cached: bool | None = None) -> list[list[int]]:
    """The most likely next token, again and again.

    Parameters
    ----------
    model : Transformer
        Is evaluated; its mode afterwards is the one before.
    src : ndarray of int
        (N, S), padding 0.
    max_len : int
        Most tokens of a result, the end not counted; the model's own limit is observed too.
    cached : bool, optional
        Keep keys and values from step to step. None does so where it is exact (:func:`obstacle`) and else warns.

    Returns
    -------
    list of list of int
        N sentences, without begin and end.

    Raises
    ------
    ValueError
        If a cache is asked for where it is not exact, or ``max_len`` is below 1.

    Warns
    -----
    RuntimeWarning
        If there is no cache because it would not be exact.
    """
    return beam(model, src, 1, 0.0, max_len, cached=cached)


def beam(model: Transformer, src: Any, beam_size: int, length_penalty: float, max_len: int, *,
         cached: bool | None = None) -> list[list[int]]:
    """The best sentence that a search with a few candidates finds.

    A finished sentence of n tokens, its end counted, scores its log-probability over
    ``((5 + n) / 6) ** length_penalty`` (Wu et al. 2016, arXiv 1609.08144, equation 14, without coverage). The search
    for a sentence ends when ``beam_size`` candidates are finished, or at ``max_len``; what is unfinished then counts
    where nothing is finished.

    Parameters
    ----------
    model : Transformer
        Is evaluated; its mode afterwards is the one before.
    src : ndarray of int
        (N, S), padding 0.
    beam_size : int
        Candidates; 1 is the greedy search.
    length_penalty : float
        0 compares log-probabilities, larger values favour longer sentences.
    max_len : int
        As for :func:`greedy`.
    cached : bool, optional
        As for :func:`greedy`.

    Returns
    -------
    list of list of int
        N sentences, without begin and end.

    Raises
    ------
    ValueError
        If a number is out of range, or a cache is asked for where it is not exact.

    Warns
    -----
    RuntimeWarning
        If there is no cache because it would not be exact.
    """
    for name, value in (("beam_size", beam_size), ("max_len", max_len)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    training = model.training
    try:
        with no_grad():
            decoder = _Decoder(model.eval(), src, cached)
            return _search(decoder, beam_size, length_penalty, min(max_len, model.max_len))
    finally:
        model.train(training)


def _search(decoder: _Decoder, beams: int, length_penalty: float, max_len: int) -> list[list[int]]:
    """Rows are candidates, ``beams`` for each sentence, best first; those of finished sentences idle along."""
    n = len(decoder.rows)
    if not n:
        return []
    decoder.pick(np.repeat(np.arange(n), beams))
    prefix = np.full((n * beams, 1), BOS)
    score = np.tile(np.where(np.arange(beams) == 0, 0.0, -np.inf), (n, 1))  # at first the candidates are one
    finished: list[list[tuple[float, list[int]]]] = [[] for _ in range(n)]
    for length in range(1, max_len + 1):
        log_p = _log_softmax(decoder.next(prefix))
        log_p[:, [PAD, BOS]] = -np.inf
        vocabulary = log_p.shape[1]
        total = (score[:, :, None] + log_p.reshape(n, beams, vocabulary)).reshape(n, -1)
        # twice as many as there are beams: each may end in one way, so at least as many others are left
        best = _best(total, min(2 * beams, total.shape[1]))
        parents, tokens = np.empty((n, beams), int), np.full((n, beams), EOS)
        for i in range(n):
            kept = 0
            for place in best[i]:
                beam_index, token = divmod(int(place), vocabulary)
                if token == EOS:
                    if kept < beams and len(finished[i]) < beams and total[i, place] > -np.inf:
                        words = prefix[i * beams + beam_index, 1:].tolist()
                        finished[i].append((total[i, place] / ((5 + length) / 6) ** length_penalty, words))
                elif kept < beams:
                    parents[i, kept], tokens[i, kept], score[i, kept] = i * beams + beam_index, token, total[i, place]
                    kept += 1
        if all(len(found) == beams for found in finished):
            break
        decoder.pick(parents.reshape(-1))
        prefix = np.concatenate([prefix[parents.reshape(-1)], tokens.reshape(-1, 1)], axis=1)
    for i, found in enumerate(finished):
        if not found:  # cut off: the best as it stands, they are equally long
            found.append((score[i, 0], prefix[i * beams, 1:].tolist()))
    return [max(found, key=lambda one: one[0])[1] for found in finished]


def _best(total: np.ndarray, count: int) -> np.ndarray:
    """Indices of the ``count`` largest of each row, largest first, ties by index."""
    some = np.argpartition(-total, count - 1, axis=1)[:, :count]
    some.sort(axis=1)
    return np.take_along_axis(some, np.argsort(-np.take_along_axis(total, some, 1), axis=1, kind="stable"), 1)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    """float64, for sums over a sentence."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
