"""What a list of measurements is worth: a median with its interval, a straight line with its residual."""
from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Median and its 95 % interval from order statistics (binomial, normal approximation).

    Parameters
    ----------
    values : sequence of float
        At least one measurement.

    Returns
    -------
    tuple of float
        (median, low, high); with fewer than 6 values the interval is the whole range.
    """
    ordered, n = sorted(values), len(values)
    half = 1.96 * n**0.5 / 2
    low, high = max(0, int(n / 2 - half)), min(n - 1, int(n / 2 + half))
    return statistics.median(ordered), ordered[low], ordered[high]


def straight_line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, list[float]]:
    """The least-squares line through points, and how far each point lies from it.

    Parameters
    ----------
    x, y : sequence of float
        At least two different x.

    Returns
    -------
    (float, float, list of float)
        Slope, intercept, and (y - line) / line for each point.

    Raises
    ------
    ValueError
        If all x are equal.
    """
    if len(set(x)) < 2:
        raise ValueError(f"straight_line: x needs two different values, got {list(x)}")
    slope, intercept = statistics.linear_regression(x, y)
    return slope, intercept, [b / (intercept + slope * a) - 1 for a, b in zip(x, y, strict=True)]


def interleaved(work: Sequence[Callable[[], object]], rounds: int,
                clock: Callable[[], float] = time.perf_counter) -> list[list[float]]:
    """Time several functions in turn, so that a machine that drifts or is shared drifts under all of them alike.

    Parameters
    ----------
    work : sequence of callable
        Called without arguments, in order, ``rounds + 1`` times; the first round warms up and does not count.
    rounds : int
        At least 1.
    clock : callable
        Seconds; ``time.thread_time`` leaves out what other programs take, for work in one thread.

    Returns
    -------
    list of list of float
        For each function its seconds, in the order of the rounds.

    Raises
    ------
    ValueError
        If ``rounds`` is smaller than 1.
    """
    at_least(1, rounds=rounds)
    seconds: list[list[float]] = [[] for _ in work]
    for turn in range(rounds + 1):
        for function, times in zip(work, seconds, strict=True):
            start = clock()
            function()
            if turn:
                times.append(clock() - start)
    return seconds


def clock_for(threads: int) -> tuple[Callable[[], float], str]:
    """The clock for work in so many threads, and its name.

    One thread is timed by its own processor time (``"processor"``), which leaves out what other programs take; several
    by the time that passes (``"wall"``).

    Parameters
    ----------
    threads : int
    """
    return (time.thread_time, "processor") if threads == 1 else (time.perf_counter, "wall")


def at_least(least: int, **values: int) -> None:
    """Check numbers that count something.

    Raises
    ------
    ValueError
        Naming the first that is smaller than ``least``.
    """
    for name, value in values.items():
        if value < least:
            raise ValueError(f"bench: {name} must be at least {least}, got {value}")
