"""Greedy and beam search: against searches written out, with and without the cache, under every recipe."""
import itertools
import warnings

import numpy as np
import pytest

import minilp
from minilp import models, optim, recipe, rounding_context
from minilp.autograd.grad_mode import no_grad
from minilp.models.decoding import BOS, EOS, beam, greedy, obstacle
from minilp.nn import functional as F

VOCABULARY = 12
SRC = np.array([[5, 6, 7, 2], [8, 2, 0, 0], [9, 4, 2, 0], [11, 10, 9, 2]])


def build(seed=0, **options):
    minilp.manual_seed(seed)
    return models.build("transformer", **{"src_vocab_size": VOCABULARY, "tgt_vocab_size": VOCABULARY, "d_model": 16,
                                          "nhead": 2, "num_encoder_layers": 1, "num_decoder_layers": 2,
                                          "dim_feedforward": 24, "max_len": 10, **options})


def trained(model, steps=40):
    """Taught to copy, so that logits are far apart and sentences end."""
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    rng = np.random.default_rng(0)
    for step in range(steps):
        words = rng.integers(4, VOCABULARY, (16, 3))
        words[:, 2] = np.where(rng.random(16) < 0.5, EOS, words[:, 2])
        src = np.concatenate([words, np.where(words[:, 2:] == EOS, 0, EOS)], axis=1)
        tgt = np.concatenate([np.full((16, 1), BOS), src], axis=1)
        optimizer.zero_grad()
        with rounding_context(0, step):
            rows, tokens = model.logits(src, tgt[:, :-1])
            F.cross_entropy(rows, tokens.gather(tgt[:, 1:]), ignore_index=0).backward()
            optimizer.step()
    return model


def log_p(model, src, words):
    """Log-probabilities of the token behind ``words``, from a whole pass."""
    logits = model(src[None], np.array([[BOS, *words]])).data[0, -1].astype(np.float64)
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


def test_greedy_takes_the_most_likely_token():
    model = trained(build()).eval()
    for src, found in zip(SRC, greedy(model, SRC, 6), strict=True):
        words = []
        while len(words) < 6:
            scores = log_p(model, src, words)
            scores[[0, BOS]] = -np.inf
            if scores.argmax() == EOS:
                break
            words.append(int(scores.argmax()))
        assert found == words
    assert greedy(model, SRC, 2) == [words[:2] for words in greedy(model, SRC, 6)]


def test_wide_beam_finds_the_best_of_all_sentences():
    """With as many candidates as there are sentences the search is exhaustive; the penalty decides between lengths."""
    model = build(3, src_vocab_size=6, tgt_vocab_size=6).eval()
    src = np.array([4, 5, 2])
    for penalty in (0.0, 1.0, 3.0):
        best = max((sum(log_p(model, src, words[:i])[w] for i, w in enumerate((*words, EOS)))
                    / ((5 + n + 1) / 6) ** penalty, words)
                   for n in range(3) for words in itertools.product((3, 4, 5), repeat=n))
        # each length has at most 3^n candidates; max_len 3 leaves those of up to two words finished
        assert beam(model, src[None], 40, penalty, 3) == [list(best[1])]


def test_beam_of_one_is_greedy_and_more_is_no_worse():
    model = trained(build(1), 8).eval()
    assert beam(model, SRC, 1, 0.6, 6) == greedy(model, SRC, 6)

    def total(src, words):
        return sum(log_p(model, src, words[:i])[w] for i, w in enumerate([*words, EOS]))

    for src, one, four in zip(SRC, greedy(model, SRC, 9), beam(model, SRC, 6, 0.0, 9), strict=True):
        if len(one) < 9:
            assert total(src, four) >= total(src, one) - 1e-6


def test_model_keeps_its_mode_and_errors_name_the_argument():
    model = build()
    greedy(model, SRC, 2)
    assert model.training
    assert greedy(model, np.zeros((0, 3), int), 2) == []
    for call, words in ((lambda: beam(model, SRC, 0, 0.0, 3), "beam_size"), (lambda: greedy(model, SRC, 0), "max_len")):
        with pytest.raises(ValueError, match=words):
            call()


@pytest.mark.parametrize(("name", "settings"), [
    ("fp32", ()), ("mxfp8", ()), ("mxint8", ()), ("int8", (("act.keep", (0,)),)), ("fp8", (("act.keep", (0,)),)),
    ("mls", (("act.keep", (0,)), ("attention", "float"))),
    ("potq", (("act.keep", (0,)), ("act.before", ())))])
def test_cache_gives_the_same_tokens(name, settings):
    """And the same numbers at every step, where scales belong to tokens."""
    model = trained(build())
    chosen = recipe.get(name)
    for key, value in settings:
        chosen = chosen.set(key, value)
    chosen.apply(model).eval()
    assert obstacle(model) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = beam(model, SRC, 3, 0.6, 6)
    assert kept == beam(model, SRC, 3, 0.6, 6, cached=False)
    assert greedy(model, SRC, 6) == greedy(model, SRC, 6, cached=False)
    with no_grad():
        cache, words = model.start(*model.encode(SRC)), np.array([[BOS, 5, 6], [BOS, 7, 9], [BOS, 4, 4], [BOS, 8, 5]])
        steps = [model.step(words[:, i], cache).data for i in range(3)]
        whole = model(SRC, words).data
    for i, logits in enumerate(steps):
        np.testing.assert_allclose(logits, whole[:, i], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "words"), [
    ("potq", "one scale for all tokens"), ("int8", "one scale for all tokens"), ("mls", "codes attention's products"),
    ("lns-madam", "codes attention's products")])
def test_others_decode_without_a_cache_and_say_so(name, words):
    model = recipe.apply(name, build())
    with pytest.warns(RuntimeWarning, match=words):
        found = greedy(model, SRC, 4)
    assert found == greedy(model, SRC, 4, cached=False)
    with pytest.raises(ValueError, match="cached"):
        greedy(model, SRC, 4, cached=True)
