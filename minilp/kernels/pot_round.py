"""Integer accumulators to float32: scale by a power of two and round to nearest even, exactly once.

``float32(acc) * 2**e`` would round twice where the result is a float32 subnormal, so those are rounded as integers.
"""
from __future__ import annotations

import numpy as np

from minilp.kernels.pot_geometry import Array


def to_float32(acc: Array, exponent: int) -> Array:
    """``acc * 2**exponent`` as float32, rounded to nearest even once (our own derivation).

    Parameters
    ----------
    acc : np.ndarray
        int64, any shape.
    exponent : int

    Returns
    -------
    np.ndarray
        float32, same shape and memory order.

    Raises
    ------
    OverflowError
        If a result is beyond the largest float32.
    """
    exponent = max(-1000, min(1000, exponent))
    with np.errstate(over="ignore", under="ignore"):
        out: Array = np.ldexp(acc.astype(np.float32), np.int32(exponent))
    if not np.isfinite(out).all():
        raise OverflowError(f"a result is beyond the largest float32 (scale exponent {exponent})")
    if exponent < -126:
        # Below 2**-126 float32 is a fixed-point grid of step 2**-149. int64 sums reach at most 2**62.
        limit = -126 - exponent
        tiny = np.abs(acc) < (1 << limit) if limit < 63 else np.ones(acc.shape, bool)
        steps = shift_right_nearest_even(acc, -149 - exponent) if exponent < -149 else acc
        small = np.ldexp(np.where(tiny, steps, 0).astype(np.float32), np.int32(max(exponent, -149)))
        out = np.where(tiny, small, out)
    return out


def shift_right_nearest_even(acc: Array, shift: int) -> Array:
    """``acc / 2**shift`` (int64 within ``+-2**62``, ``shift >= 1``) rounded to the nearest integer, ties to even."""
    if shift >= 63:  # |acc| is at most half a step, and half goes to the even zero
        return np.zeros_like(acc)
    floor = acc >> shift
    rest = acc - (floor << shift)
    half = np.int64(1) << np.int64(shift - 1)
    up = (rest > half) | ((rest == half) & (floor & 1 == 1))
    rounded: Array = floor + up
    return rounded


def limbs_to_float32(high: Array, low: Array, width: int, exponent: int) -> Array:
    """``(high * 2**width + low) * 2**exponent`` as float32, rounded to nearest even once.

    Where the sum fits int64 it is rounded as such. Elsewhere ``high`` alone has more than 24 + 2 bits, and ``low`` can
    only decide between "exactly" and "a little more": one sticky bit below ``high`` says so.

    Parameters
    ----------
    high, low : np.ndarray
        int64 with ``0 <= low < 2**width`` and ``|high| < 2**61``.
    width : int
        At most 30.
    exponent : int

    Returns
    -------
    np.ndarray
        float32.

    Raises
    ------
    OverflowError
        If a result is beyond the largest float32.
    """
    fits = np.abs(high) < (1 << 31)
    narrow = to_float32(np.where(fits, (high << width) + low, 0), exponent)
    sticky = to_float32(np.where(fits, 0, 2 * high + (low != 0)), exponent + width - 1)
    return np.where(fits, narrow, sticky)


def limbs_to_int64(high: Array, low: Array, width: int) -> Array:
    """``high * 2**width + low`` as int64.

    Raises
    ------
    OverflowError
        If a sum leaves int64.
    """
    limit = 1 << (63 - width)
    if ((high < -limit) | (high >= limit)).any():
        raise OverflowError("a sum does not fit int64; ask for out='float32'")
    joined: Array = (high << width) + low
    return joined
