"""Multi30k's files: read, checked, encoded; the vocabulary is learned once and found again."""
import gzip
import re
import sys

import numpy as np
import pytest

from minilp import data
from minilp.data import multi30k
from minilp.data.vocabulary import UNK, SubwordVocabulary

pytestmark = pytest.mark.usefixtures("needs_text")
ANIMALS = [("dog", "Hund"), ("cat", "Kater"), ("horse", "Hengst"), ("bird", "Vogel"), ("fish", "Fisch")]
VERBS = [("runs", "rennt"), ("sleeps", "schläft"), ("waits", "wartet"), ("jumps", "springt"), ("eats", "isst")]
PLACES = [("on the beach", "am Strand"), ("in the park", "im Park"), ("behind the house", "hinter dem Haus")]
PAIRS = [(f"A {a} {v} {p}.", f"Ein {x} {y} {z}.") for a, x in ANIMALS for v, y in VERBS for p, z in PLACES]


def write(root, **splits):
    """The six files; a split is a list of pairs, by default some of PAIRS."""
    folder = root / "multi30k"
    folder.mkdir(exist_ok=True)
    for split, stem in multi30k.FILES.items():
        for side, which in enumerate(multi30k.LANGUAGES):
            pairs = splits.get(split, PAIRS if split == "train" else PAIRS[:10])
            text = "".join(f"{pair[side]}\n" for pair in pairs)
            (folder / f"{stem}.{which}.gz").write_bytes(gzip.compress(text.encode()))
    return root


def load(root, **options):
    return multi30k.load(root, **{"vocab_size": 120, **options})


def test_three_splits_with_one_vocabulary(tmp_path):
    train, val, test = load(write(tmp_path))
    assert (len(train), len(val), len(test)) == (75, 10, 10)
    assert train.vocabulary is val.vocabulary is test.vocabulary and train.vocabulary.size == 120
    assert train.texts[0] == PAIRS[0] and train.languages == ("en", "de") and train.notes == ()
    for source, target, pair in zip(train.sources, train.targets, train.texts, strict=True):
        assert tuple(train.vocabulary.decode(ids.tolist()) for ids in (source, target)) == pair
    assert train.tokens == sum(map(len, train.targets)) + 75


def test_the_other_direction(tmp_path):
    train, _, _ = load(write(tmp_path), source="de", target="en")
    assert train.texts[0] == PAIRS[0][::-1] and train.languages == ("de", "en")
    assert train.vocabulary == load(tmp_path)[0].vocabulary


def test_the_vocabulary_is_learned_once_for_a_text_and_size(tmp_path, monkeypatch):
    first = load(write(tmp_path))[0].vocabulary
    entry, = (tmp_path / "cache").rglob("*.model")
    assert entry.read_bytes() == first.to_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(SubwordVocabulary, "train", lambda *_: pytest.fail("learned again"))
        assert load(tmp_path)[0].vocabulary == first
    assert load(tmp_path, vocab_size=110)[0].vocabulary.size == 110
    write(tmp_path, train=PAIRS + [("An owl", "Eine Eule")])
    assert load(tmp_path)[0].vocabulary != first
    assert len(list((tmp_path / "cache").rglob("*.model"))) == 3
    entry.write_bytes(b"damaged")
    assert load(write(tmp_path))[0].vocabulary == first and entry.read_bytes() == first.to_bytes()


def test_without_a_cache_it_is_learned_each_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert load(write(tmp_path))[0].vocabulary == load(tmp_path)[0].vocabulary


def test_missing_files_and_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train\.en\.gz is not there.*--root DIR.*MINILP_DATA"):
        load(tmp_path)
    (write(tmp_path) / "multi30k" / "val.de.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"val\.de\.gz is not there"):
        data.load_text("multi30k", tmp_path)


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ImportError, match=r"pip install 'minilp\[text\]'"):
        load(write(tmp_path))


@pytest.mark.parametrize("damage", [lambda b: b"plain text", lambda b: b[:60], lambda b: b[:30] + b"\x55" + b[31:],
                                    lambda b: b[:-4] + bytes(4)])
def test_broken_gzip_files_are_named(tmp_path, damage):
    path = write(tmp_path) / "multi30k" / "val.en.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=re.escape(f"{path}: broken gzip file")):
        load(tmp_path)


def test_text_that_is_not_utf8(tmp_path):
    path = write(tmp_path) / "multi30k" / "train.de.gz"
    path.write_bytes(gzip.compress(b"gut\nschl\xe4ft\n"))
    with pytest.raises(ValueError, match=r"train\.de\.gz: line 2 is not UTF-8"):
        load(tmp_path)


def test_mismatched_line_counts(tmp_path):
    path = write(tmp_path) / "multi30k" / "test_2016_flickr.de.gz"
    path.write_bytes(gzip.compress(b"Ein Hund.\n"))
    with pytest.raises(ValueError, match=r"test_2016_flickr: the files \.en\.gz and \.de\.gz have 10 and 1 lines"):
        load(tmp_path)


def test_blank_sentences_are_dropped_from_train_and_refused_elsewhere(tmp_path):
    blank = [PAIRS[0], ("", "Ein Hund."), ("A dog.", "  "), *PAIRS[1:]]
    train, _, _ = load(write(tmp_path, train=blank))
    assert len(train) == 75 and train.notes == ("2 train pairs are blank on a side (the first is line 2): dropped",)
    with pytest.raises(ValueError, match=r"test_2016_flickr: line 2 is blank on a side \(2 such lines\)"):
        load(write(tmp_path, test=blank))


def test_a_line_separator_of_unicode_does_not_end_a_line(tmp_path):
    train, _, _ = load(write(tmp_path, train=[("A dog\u2028runs", "Ein Hund\x85rennt"), *PAIRS]))
    assert len(train) == 76


def test_long_sentences_are_dropped_from_train_and_cut_elsewhere(tmp_path):
    long = ("A dog runs and " * 8 + "waits.", "Ein Hund rennt und " * 8 + "wartet.")
    train, val, _ = load(write(tmp_path, train=[long, *PAIRS], val=[*PAIRS[:3], long]), max_len=30)
    assert len(train) == 75 and train.notes == ("1 train pairs have a side of more than 30 tokens: dropped",)
    assert len(val) == 4 and len(val.sources[3]) == len(val.targets[3]) == 30 and val.texts[3] == long
    assert val.notes == ("1 val pairs have a side of more than 30 tokens: cut off there",)
    with pytest.raises(ValueError, match="no train pair of at most 1 tokens"):
        load(tmp_path, max_len=1)


def test_unknown_characters_are_counted(tmp_path):
    _, val, _ = load(write(tmp_path, val=[("A 犬 runs.", "Ein Hund."), *PAIRS[:2]]))
    assert val.notes == ("1 val pairs hold something that is not in the vocabulary",)
    assert UNK in val.sources[0] and "犬" in val.vocabulary.unknown("A 犬 runs.")
    assert val.vocabulary.unknown(PAIRS[0][0]) == ""


@pytest.mark.parametrize(("options", "words"), [({"source": "fr"}, "source, target.*'fr'"),
                                                ({"target": "en"}, "source, target"),
                                                ({"vocab_size": 5}, "vocab_size.*5"), ({"max_len": 0}, "max_len.*0"),
                                                ({"vocab_size": 9000}, "vocab_size: .*9000")])
def test_wrong_arguments(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        load(write(tmp_path), **options)


def test_names_and_options(tmp_path):
    with pytest.raises(ValueError, match=r"'wmt'.*multi30k or numbers"):
        data.load_text("wmt")
    with pytest.raises(ValueError, match="numbers does not take"):
        data.load_text("numbers", vocab_size=3)
    with pytest.raises(ValueError, match="load_text reads it"):
        data.load("multi30k", tmp_path)


def test_the_real_files(multi30k_root):
    train, val, test = data.load_text("multi30k", multi30k_root)
    assert (len(train), len(val), len(test)) == (29000, 1014, 1000)
    assert train.vocabulary.size == multi30k.VOCAB_SIZE and not train.notes + val.notes + test.notes
    assert train.texts[0][0] == "Two young, White males are outside near many bushes."
    spaced = [(train.vocabulary.decode(ids.tolist()), text) for ids, (_, text) in
              zip(test.targets, test.texts, strict=True)]
    assert np.mean([decoded == " ".join(text.split()) for decoded, text in spaced]) > 0.99
