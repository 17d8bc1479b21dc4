"""NumPy twins of the LNS kernels, and the tables that both backends read: powers of two with a fractional exponent.

A level k stands for ``2^((k - top) / gamma)`` times the group's largest magnitude. To find it no logarithm is taken:
t = |x| / maximum is divided once, its exponent field gives the octave, and its mantissa is compared with a table of
thresholds inside one octave. The tables come from integer square roots, so they are the same on every machine.
"""
from __future__ import annotations

import math
from functools import cache, lru_cache
from typing import Any

import numpy as np

from minilp.kernels.reference_quantise import logical_bits

RULES = ("nearest", "linear", "exponent")
LATTICE = 4096  # steps an octave from which the exponent rule interpolates, unless gamma is finer
LOG_BITS = 22  # the exponent rule knows log2 t to 2^-22 octaves
_FRACTION = 160  # bits behind the point of the integers that roots() multiplies


@cache
def roots(n: int) -> np.ndarray:
    """``2^(k / n)`` for k = 0 .. n - 1, rounded to float64 from 160-bit integers.

    Parameters
    ----------
    n : int
        A power of two.

    Returns
    -------
    numpy.ndarray
        float64, read-only, ascending from 1. Our own derivation: the step is n = 2^b times an integer square root, the
        rest are products, whose errors stay below 2^-140.
    """
    step, one = 2 << _FRACTION, 1 << _FRACTION
    for _ in range(n.bit_length() - 1):
        step = math.isqrt(step << _FRACTION)
    found, value, drop = np.empty(n), one, _FRACTION - 52
    for k in range(n):
        found[k] = (value + (1 << (drop - 1))) >> drop  # at most 2^53: exact in float64
        value = value * step >> _FRACTION
    found *= 2.0**-52
    found.flags.writeable = False
    return found


@cache
def edges(gamma: int, between: bool) -> np.ndarray:
    """1, then gamma ascending mantissas from which the level inside an octave is one higher, then 4, out of reach.

    Parameters
    ----------
    gamma : int
        Levels an octave.
    between : bool
        True: half-way in the logarithm, ``2^((r + 0.5) / gamma)``, to round to nearest. False: the levels themselves,
        ``2^((r + 1) / gamma)``, to find the level below.

    Returns
    -------
    numpy.ndarray
        float64 of length gamma + 2.
    """
    inside = roots(2 * gamma)[1::2] if between else np.append(roots(gamma)[1:], 2.0)
    found = np.concatenate([[1.0], inside, [4.0]])
    found.flags.writeable = False
    return found


@cache
def buckets(gamma: int, between: bool) -> np.ndarray:
    """How many edges lie at or below the start of each of 2 gamma equal pieces of [1, 2): where the C search starts.

    A piece is shorter than the distance of two edges, so one comparison more is enough.

    Returns
    -------
    numpy.ndarray
        int64 of length 2 gamma; the leading 1 of :func:`edges` does not count.
    """
    starts = 1 + np.arange(2 * gamma) / (2 * gamma)
    found = np.searchsorted(edges(gamma, between)[1:], starts, side="right")
    found.flags.writeable = False
    return found


@lru_cache(maxsize=64)
def values(gamma: int, top: int) -> np.ndarray:
    """What a level is worth in units of the largest magnitude: 0, then ``2^((k - top) / gamma)`` for k = 1 .. top.

    Returns
    -------
    numpy.ndarray
        float64 of length top + 1.
    """
    distance = np.arange(1, top + 1) - top
    found = np.concatenate([[0.0], np.ldexp(roots(gamma)[distance % gamma], distance // gamma)])
    found.flags.writeable = False
    return found


def lattice(gamma: int) -> int:
    """Steps an octave of the table that the exponent rule interpolates in."""
    return max(gamma, LATTICE)


def encode(x: np.ndarray, maximum: np.ndarray, gamma: int, top: int, rule: str, stream: Any, dtype: Any) -> np.ndarray:
    """Twin of ``mlp_lns_encode``; see :func:`minilp.kernels.lns.lns_encode`.

    Parameters
    ----------
    x : numpy.ndarray
        float32, any strides, finite.
    maximum : numpy.ndarray
        float32, positive, broadcasts against ``x``.
    gamma, top : int
        Levels an octave, and the largest level.
    rule : {"nearest", "linear", "exponent"}
        The last two draw from ``stream``.
    stream : Stream or None
    dtype : numpy dtype
        Of the codes.

    Returns
    -------
    numpy.ndarray
        Signed levels in the memory order of ``x``.
    """
    magnitude = np.abs(x).astype(np.float64)
    half, power = np.frexp(magnitude / maximum.astype(np.float64))
    mantissa, octave = 2 * half, power - 1  # [1, 2), and the power of two before it
    if rule == "nearest":
        level = _position(mantissa, octave, gamma, True) + top
    elif rule == "linear":
        level = _linear(magnitude, mantissa, octave, maximum, gamma, top, logical_bits(x.shape, stream))
    else:
        level = _exponent(mantissa, octave, gamma, logical_bits(x.shape, stream)) + top
    level = np.clip(level, 0 if rule == "linear" else 1, top)  # by linear distance a small number may become 0
    level[magnitude == 0] = 0
    np.negative(level, out=level, where=x < 0)
    out = np.empty_like(x, dtype=dtype)
    np.copyto(out, level, casting="unsafe")
    return out


def _position(mantissa: np.ndarray, octave: np.ndarray, gamma: int, between: bool) -> np.ndarray:
    """gamma log2 t as an integer: the nearest, or the one below."""
    count = np.searchsorted(edges(gamma, between)[1:], mantissa, side="right")
    return octave.astype(np.int64) * gamma + count


def _linear(magnitude: np.ndarray, mantissa: np.ndarray, octave: np.ndarray, maximum: np.ndarray, gamma: int, top: int,
            draw: np.ndarray) -> np.ndarray:
    """Up with the probability (|x| - low) / (high - low), where low and high are the float32 values of two levels."""
    level = np.clip(_position(mantissa, octave, gamma, False) + top, 0, top - 1)
    worth, scale = values(gamma, top), maximum.astype(np.float64)
    low, high = ((scale * worth[level + i]).astype(np.float32).astype(np.float64) for i in (0, 1))
    return level + (draw.astype(np.float64) * (high - low) < (magnitude - low) * 2.0**32)


def _exponent(mantissa: np.ndarray, octave: np.ndarray, gamma: int, draw: np.ndarray) -> np.ndarray:
    """Up with the probability of the fraction of gamma log2 t; log2 between two lattice points by a straight line."""
    fine = lattice(gamma)
    bits = LOG_BITS - fine.bit_length() + 1
    points = edges(fine, False)
    below = np.clip(np.searchsorted(points[1:], mantissa, side="right"), 0, fine - 1)
    between = (mantissa - points[below]) / (points[below + 1] - points[below])
    position = (octave.astype(np.int64) * fine + below << bits) + np.rint(between * 2.0**bits).astype(np.int64)
    shift = LOG_BITS - gamma.bit_length() + 1
    return position + (draw >> np.uint32(32 - shift)).astype(np.int64) >> shift


def decode(codes: np.ndarray, maximum: np.ndarray, gamma: int, top: int) -> np.ndarray:
    """float32 values of codes, in their memory order: sign times float32(maximum * 2^((|code| - top) / gamma))."""
    wide = codes.astype(np.int32)
    exact = np.empty_like(codes, dtype=np.float64)
    np.take(values(gamma, top), np.abs(wide), out=exact)
    exact *= maximum.astype(np.float64)
    found = exact.astype(np.float32)
    np.negative(found, out=found, where=wide < 0)
    return found
