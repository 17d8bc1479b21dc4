"""The standard normal distribution function for arrays; NumPy has no erf.

Our own derivation. For a = |x|, Phi(-a) = e^(-a^2/2) P(t) with t = (a - K) / (a + K) in [-1, 1): the exponential
carries the whole decay, and P is smooth down to a = infinity, where it vanishes like 1/a. P is interpolated once, on
first use, at Chebyshev nodes whose values come from math.erfc, or where that underflows from the continued fraction of
Mills' ratio. Then Phi(x) is that, or one minus that, so the small tail keeps its relative accuracy.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from minilp.autograd.arrays import Array

_K = 4.0
# Highest power: enough that the interpolation error is below the dtype's rounding.
_DEGREE = {np.dtype(np.float32): 11, np.dtype(np.float64): 26}
# Elements per block, so that the dozen passes over a block stay in the first-level caches.
_BLOCK = 8192


def _scaled_tail(t: float) -> float:
    """P(t) = e^(a^2/2) Phi(-a) for one t < 1."""
    a = _K * (1 + t) / (1 - t)
    if a < 25:
        return 0.5 * math.erfc(a / math.sqrt(2)) * math.exp(a * a / 2)
    fraction = a
    for n in range(30, 0, -1):  # Mills' ratio = 1 / (a + 1 / (a + 2 / (a + 3 / (a + ...
        fraction = a + n / fraction
    return 1 / (fraction * math.sqrt(2 * math.pi))


@functools.cache
def _coefficients(dtype: np.dtype[Any]) -> Array:
    """Powers of t, lowest first."""
    series = np.polynomial.chebyshev.chebinterpolate(np.vectorize(_scaled_tail), _DEGREE[dtype])
    return np.polynomial.chebyshev.cheb2poly(series).astype(dtype)


def normal_cdf_pdf(x: Array) -> tuple[Array, Array]:
    """Return Phi(x) and phi(x), distribution and density of the standard normal.

    Parameters
    ----------
    x : ndarray
        Any shape and strides, float32 or float64.

    Returns
    -------
    cdf, pdf : ndarray
        New arrays in x's shape, dtype and memory order.

    Raises
    ------
    TypeError
        If x is not float32 or float64.
    """
    if x.dtype not in _DEGREE:
        raise TypeError(f"expected a float32 or float64 array, got {x.dtype}")
    dense = x.copy(order="K")  # whatever the strides were, its elements now follow each other in memory
    cdf, pdf = np.empty_like(dense), np.empty_like(dense)
    source, cdf_flat, pdf_flat = (z.ravel(order="K") for z in (dense, cdf, pdf))
    powers = _coefficients(x.dtype)
    k, half, scale = x.dtype.type(_K), x.dtype.type(0.5), x.dtype.type(1 / math.sqrt(2 * math.pi))
    for start in range(0, source.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        z, p, e = source[block], cdf_flat[block], pdf_flat[block]
        np.multiply(z, z, out=e)
        np.multiply(e, -half, out=e)
        np.exp(e, out=e)
        a = np.abs(z)
        t = a - k
        np.add(a, k, out=a)
        np.divide(t, a, out=t)
        p.fill(powers[-1])
        for coefficient in powers[-2::-1]:
            np.multiply(p, t, out=p)
            np.add(p, coefficient, out=p)
        np.multiply(p, e, out=p)
        np.subtract(z > 0, p, out=p)  # p is at most 1/2, so |1 - p| and |0 - p| are the two cases without a branch
        np.abs(p, out=p)
        np.multiply(e, scale, out=e)
    return cdf, pdf
