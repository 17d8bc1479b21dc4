"""Exercises: the stub that says which one is empty, the check that says what it expected, comparisons in words."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np


class EmptyExercise(Exception):
    """An exercise's stub was called."""


class WrongAnswer(AssertionError):
    """An exercise's function gave something else than expected; the message has the call, both values and the case."""


def fast() -> bool:
    """Whether the environment says ``FAST=1``: lessons then draw fewer numbers and train shorter (what CI runs)."""
    return os.environ.get("FAST", "") == "1"


def todo(number: int) -> None:
    """What stands in a student's notebook where an exercise's lines are to be written.

    Parameters
    ----------
    number : int
        Of the exercise.

    Raises
    ------
    EmptyExercise
        Always.
    """
    raise EmptyExercise(f"exercise {number} is empty: write your lines in place of lab.todo({number}), run that cell, "
                        f"then this one again")


def check(number: int, function: Callable[..., Any], cases: Iterable[tuple[tuple[Any, ...], Any]]) -> None:
    """Call an exercise's function and hold what it returns equal, by ``==`` and in shape, to what is expected.

    Parameters
    ----------
    number : int
        Of the exercise.
    function : callable
        What the reader wrote.
    cases : iterable of (tuple, object)
        Arguments, and the expected result: a number, an array, or a tuple of them.

    Raises
    ------
    EmptyExercise
        If the function is still the stub.
    WrongAnswer
        At the first case that fails.
    ValueError
        If there is no case, so that nothing would be checked.
    """
    done = 0
    for arguments, expected in cases:
        call = f"{function.__name__}({', '.join(_words(value) for value in arguments)})"
        try:
            got = function(*(value.copy() if isinstance(value, np.ndarray) else value for value in arguments))
        except EmptyExercise:
            raise
        except Exception as error:
            raise WrongAnswer(f"exercise {number}: {call} raised {type(error).__name__}: {error}; expected "
                              f"{_words(expected)}") from error
        if got is None:
            raise WrongAnswer(f"exercise {number}: {call} returned nothing; expected {_words(expected)}. Does the "
                              f"function end with return?")
        if not _equal(got, expected):
            raise WrongAnswer(f"exercise {number}: {call} gave {_words(got)}; expected {_words(expected)}"
                              f"{_where(got, expected)}")
        done += 1
    if not done:
        raise ValueError(f"check: exercise {number} has no cases, expected at least one")
    print(f"exercise {number}: right, {done} case{'s' if done > 1 else ''}")


def guess(mine: float | None, got: float, unit: str = "") -> None:
    """Print a prediction beside what came out.

    Parameters
    ----------
    mine : float or None
        The reader's guess; None where the reader made none.
    got : float
        What was computed.
    unit : str
        Behind both numbers.
    """
    unit = f" {unit}" if unit else ""
    if mine is None:
        print(f"no guess written; it is {got:.6g}{unit}")
    else:
        print(f"you said {mine:.6g}{unit}; it is {got:.6g}{unit}" + (", as you said" if mine == got else ""))


def same(what: str, first: Any, second: Any) -> bool:
    """Print whether two arrays are the same bit for bit, else in how many places and by how much they differ.

    Parameters
    ----------
    what : str
        What is compared, for the printed line.
    first, second : array_like
        Numbers of one shape.

    Returns
    -------
    bool
        Whether all elements are equal by ``==``; NaN equals nothing.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape:
        raise ValueError(f"same: {what}: expected arrays of one shape, got {first.shape} and {second.shape}")
    wrong = np.count_nonzero(first != second)
    if not wrong:
        print(f"{what}: exact, all {first.size} equal")
        return True
    gap = np.abs(first.astype(np.float64) - second.astype(np.float64)).max()
    print(f"{what}: {wrong} of {first.size} differ, by {gap:.3g} at most")
    return False


def _equal(got: Any, expected: Any) -> bool:
    if isinstance(expected, tuple):
        return (isinstance(got, tuple) and len(got) == len(expected)
                and all(_equal(g, e) for g, e in zip(got, expected, strict=True)))
    return np.shape(got) == np.shape(expected) and bool(np.array_equal(got, expected))


def _where(got: Any, expected: Any) -> str:
    """Which element of an array is the first that differs, and how it should have been."""
    if not isinstance(expected, np.ndarray) or np.shape(got) != expected.shape or not expected.ndim:
        return ""
    index = tuple(int(i) for i in np.argwhere(np.asarray(got) != expected)[0])
    return f". First difference at {index}: {np.asarray(got)[index]}, expected {expected[index]}"


def _words(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return np.array2string(value, threshold=8, edgeitems=3, separator=", ").replace("\n", "")
    if callable(value):
        return getattr(value, "__name__", repr(value))
    return repr(value.item() if isinstance(value, np.generic) else value)
