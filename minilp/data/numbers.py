"""A translation task that needs no files: English number words to digits, "four hundred two" to "4 0 2".

Every number occurs once, so the numbers of val and test are never trained on. What has to be learned is where zeros
go, and that word and digit do not stand at the same place: a model must attend.
"""

from __future__ import annotations

import numpy as np

from minilp.data.parallel import ParallelText, make_text
from minilp.data.vocabulary import WordVocabulary

ONES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
        "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
LIMIT = 1_000_000
VOCABULARY = WordVocabulary((*ONES, *TENS, "hundred", "thousand", *"0123456789"))
MAX_LEN = 9  # nine hundred twenty three thousand four hundred fifty six


def words(number: int) -> str:
    """A number from 0 to 999999 in English words, without "and".

    Raises
    ------
    ValueError
        It is not.
    """
    if not 0 <= number < LIMIT:
        raise ValueError(f"number: expected 0 to {LIMIT - 1}, got {number}")
    if number < 20:
        return ONES[number]
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if number >= size:
            rest = f" {words(number % size)}" if number % size else ""
            return f"{words(number // size)} {name}{rest}"
    return TENS[number // 10 - 2] + (f" {ONES[number % 10]}" if number % 10 else "")


def load(pairs: int = 4000, held_out: int = 500, seed: int = 0) -> tuple[ParallelText, ParallelText, ParallelText]:
    """Generate train, val and test.

    Parameters
    ----------
    pairs : int
        Training pairs.
    held_out : int
        Pairs of val, and of test.
    seed : int
        Which numbers.

    Returns
    -------
    train, val, test : ParallelText
        Disjoint. Half of the numbers are drawn below 10000, so that short ones are there too.

    Raises
    ------
    ValueError
        If a count is less than 1, or there are not so many numbers.
    """
    if min(pairs, held_out) < 1 or pairs + 2 * held_out > LIMIT // 100:
        raise ValueError(f"pairs, held_out: expected at least 1 each and at most {LIMIT // 100} altogether, got "
                         f"{pairs} and twice {held_out}")
    total = pairs + 2 * held_out
    keys = np.random.PCG64(seed).random_raw(4 * total).astype(np.uint64)  # raw output: NumPy keeps it for ever
    limits = np.where(np.arange(4 * total) % 2 == 0, np.uint64(LIMIT // 100), np.uint64(LIMIT))
    chosen = list(dict.fromkeys((keys % limits).tolist()))[:total]
    parts = {"train": chosen[:pairs], "val": chosen[pairs : pairs + held_out], "test": chosen[pairs + held_out :]}
    train, val, test = (make_text([(words(k), " ".join(str(k))) for k in part], VOCABULARY, "numbers", split,
                                  ("words", "digits"), MAX_LEN) for split, part in parts.items())
    return train, val, test
