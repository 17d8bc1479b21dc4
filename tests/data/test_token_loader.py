"""Batches of sentences by token count, the vocabularies of words, and the generated numbers."""
import copy
import pickle

import numpy as np
import pytest

from minilp import data
from minilp.data import TokenLoader, WordVocabulary, numbers
from minilp.data.parallel import make_text
from minilp.data.vocabulary import BOS, EOS, PAD, UNK, from_file


@pytest.fixture(scope="module")
def train():
    return numbers.load(300, 20)[0]


def same(a, b):
    return all((x == u).all() and (y == v).all() for (x, y), (u, v) in zip(a, b, strict=True))


@pytest.mark.parametrize(("number", "text"), [
    (0, "zero"), (13, "thirteen"), (40, "forty"), (99, "ninety nine"), (100, "one hundred"), (402, "four hundred two"),
    (1000, "one thousand"), (21_017, "twenty one thousand seventeen"),
    (999_999, "nine hundred ninety nine thousand nine hundred ninety nine")])
def test_number_words(number, text):
    assert numbers.words(number) == text
    assert len(text.split()) <= numbers.MAX_LEN


def test_numbers_are_disjoint_known_and_the_same_every_time():
    splits = data.load_text("numbers")
    assert [len(split) for split in splits] == [4000, 500, 500]
    seen = [target for split in splits for _, target in split.texts]
    assert len(set(seen)) == 5000 and not any(split.notes for split in splits)
    for source, target in splits[0].texts[:50]:
        assert numbers.words(int(target.replace(" ", ""))) == source
    assert data.load_text("numbers")[2].texts == splits[2].texts
    assert data.load_text("numbers", seed=1)[0].texts != splits[0].texts
    with pytest.raises(ValueError, match="pairs, held_out"):
        numbers.load(0)


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_pair_once_in_batches_of_bounded_size(train, shuffle):
    loader = TokenLoader(train, 96, shuffle=shuffle, seed=1)
    assert len(loader) > 20
    for epoch in (0, 3):
        batches = list(loader.epoch(epoch))
        assert len(batches) == len(loader)
        assert sorted(np.concatenate(loader.batches(epoch))) == list(range(300))
        for (x, y), chosen in zip(batches, loader.batches(epoch), strict=True):
            assert x.dtype == y.dtype == np.int64 and len(x) == len(y) == len(chosen)
            assert len(x) * max(x.shape[1], y.shape[1] - 1) <= 96
            for row, source in zip(x, [train.sources[k] for k in chosen], strict=True):
                assert row[: len(source) + 1].tolist() == [*source, EOS] and (row[len(source) + 1 :] == PAD).all()
            for row, target in zip(y, [train.targets[k] for k in chosen], strict=True):
                assert row[: len(target) + 2].tolist() == [BOS, *target, EOS] and (row[len(target) + 2 :] == PAD).all()


def test_epochs_and_seeds_differ_and_evaluation_does_not(train):
    shuffled = TokenLoader(train, 96, seed=1)
    assert not same([next(shuffled.epoch(0))], [next(shuffled.epoch(1))])
    together = [{frozenset(batch.tolist()) for batch in shuffled.batches(e)} for e in (0, 1)]
    assert len(together[0] & together[1]) < len(shuffled) / 2  # other pairs meet, not only another order
    assert {len(batch) for batch in shuffled.batches(0)} == {len(batch) for batch in TokenLoader(train, 96).batches(9)}
    fixed = TokenLoader(train, 96, shuffle=False)
    assert same(fixed.epoch(0), fixed.epoch(7))
    assert same(fixed.epoch(0), TokenLoader(train, 96, shuffle=False, seed=5).epoch(0))


def test_resume_at_any_batch_continues_the_same_epoch(train):
    whole = list(TokenLoader(train, 200, seed=4).epoch(2))
    for start in range(len(whole) + 1):
        assert same(TokenLoader(train, 200, seed=4).epoch(2, start), whole[start:])
    with pytest.raises(ValueError, match="start"):
        TokenLoader(train, 200).epoch(0, len(whole) + 1)


def test_a_pair_longer_than_a_batch_has_one_of_its_own(train):
    loader = TokenLoader(train, 1)
    assert len(loader) == 300 and all(len(x) == 1 for x, _ in loader.epoch(0))


@pytest.mark.parametrize(("arguments", "error", "words"), [((None, 5), TypeError, "dataset"), ((..., 0), ValueError,
                         "batch_tokens: got 0"), ((..., 1.5), TypeError, "batch_tokens")])
def test_wrong_arguments(train, arguments, error, words):
    with pytest.raises(error, match=words):
        TokenLoader(*(train if a is ... else a for a in arguments))


def test_word_vocabulary():
    known = WordVocabulary(("a", "b"))
    assert known.size == 6 and known.encode("b a x") == [5, 4, UNK]
    assert known.decode([BOS, 5, 4, UNK, EOS, PAD]) == "b a"
    assert known.unknown("b x a y") == "x y"
    assert from_file(known.file, known.to_bytes()) == known == pickle.loads(pickle.dumps(known))
    assert copy.deepcopy(known) is known
    with pytest.raises(ValueError, match="distinct"):
        WordVocabulary(("a", "a"))
    with pytest.raises(ValueError, match="expected a file"):
        from_file("words.txt", b"")


def test_sub_words_survive_their_file(needs_text):
    made = data.SubwordVocabulary.train(["a dog and a cat and a frog"] * 9, 24)
    again = from_file(made.file, made.to_bytes())
    assert again == made == pickle.loads(pickle.dumps(made))
    assert again.decode(again.encode("a cat and a dog")) == "a cat and a dog"
    with pytest.raises(ValueError, match="no sentencepiece model"):
        from_file(made.file, b"junk")


def test_nothing_but_ids_of_sentences_is_accepted(train):
    with pytest.raises(ValueError, match="equally many"):
        data.ParallelText(train.sources, train.targets[1:], train.texts, train.vocabulary, "x", "train", ("a", "b"), 9)
    bad = (np.array([PAD], np.int32), *train.sources[1:])
    with pytest.raises(ValueError, match="sources: sentence 0"):
        data.ParallelText(bad, train.targets, train.texts, train.vocabulary, "x", "train", ("a", "b"), 9)
    with pytest.raises(ValueError, match="no train pair"):
        make_text([("one two", "1 2")], numbers.VOCABULARY, "x", "train", ("a", "b"), 1)


def test_descriptions():
    text = data.describe("numbers")
    assert "words to digits, 44 tokens" in text and "4000 pairs" in text and "->" in text
