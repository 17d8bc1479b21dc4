"""NumPy twins of the quantising kernels: integer arithmetic on the bits of float32 numbers, written to be read.

A float32 number is sign (1 bit), biased exponent (8 bits) and mantissa (23 bits), so an integer add that carries out of
the mantissa raises the exponent by one. Rounding to a power of two is therefore one add and one shift: what is added
decides from which mantissa on the number rounds up. Every function here returns the same bits as its C kernel.
"""
from __future__ import annotations

from typing import Any

import numpy as np

ABS_MASK = 0x7FFFFFFF
INFINITY_BITS = 0x7F800000  # absolute bits from here on are infinity or NaN
SMALLEST_NORMAL_BITS = 0x00800000
LOG_THRESHOLD = 0x004AFB0C  # 2^23 - 0x3504F4: mantissas above sqrt 2 carry
LINEAR_THRESHOLD = 0x00400000  # mantissas from 1.5 on carry
THRESHOLDS = {"log": LOG_THRESHOLD, "linear": LINEAR_THRESHOLD}

# Multipliers and shifts of the mixer, found by our own random search for the smallest avalanche bias.
MIX_A, MIX_B = 0x49C9E4C5, 0x3875CECB
HIGH_STEP = 0x9E3779B1  # odd; spreads the upper half of a 64-bit index
MASK32 = 0xFFFFFFFF


def mix32(x: Any) -> Any:
    """A bijection of 32-bit words in which every input bit flips every output bit about half of the time.

    Parameters
    ----------
    x : int or uint32 numpy.ndarray
        One word or many.

    Returns
    -------
    int or uint32 numpy.ndarray
        Mixed words. Our own constants; xor-shift-multiply in the manner of the finalisers of hash functions.
    """
    x = ((x ^ (x >> 15)) * MIX_A) & MASK32
    x = ((x ^ (x >> 14)) * MIX_B) & MASK32
    return x ^ (x >> 16)


def random_bits(key: tuple[int, int], index: np.ndarray) -> np.ndarray:
    """The random word of each index of a stream: two keyed rounds of :func:`mix32`, no state.

    Parameters
    ----------
    key : tuple of int
        Two 32-bit words.
    index : numpy.ndarray
        uint64, any shape.

    Returns
    -------
    numpy.ndarray
        uint32, shape of ``index``.
    """
    high = (index >> np.uint64(32)).astype(np.uint32) * np.uint32(HIGH_STEP)
    first = mix32(index.astype(np.uint32) ^ np.uint32(key[0]))
    return mix32(first + (np.uint32(key[1]) ^ high))


def logical_bits(shape: tuple[int, ...], stream: Any) -> np.ndarray:
    """The stream's words for a tensor of ``shape``, counted in logical C order from the stream's offset."""
    size = int(np.prod(shape, dtype=np.int64))
    index = np.arange(size, dtype=np.uint64).reshape(shape) + np.uint64(stream.offset)
    return random_bits(stream.key, index)


def absmax_bits(x: np.ndarray, keep: tuple[int, ...]) -> np.ndarray:
    """Largest absolute bits of ``x`` over the axes not kept: uint32, C order, kept dims; Inf and NaN are on top."""
    reduced = tuple(axis for axis in range(x.ndim) if axis not in keep)
    found = (x.view(np.uint32) & np.uint32(ABS_MASK)).max(axis=reduced, keepdims=True, initial=0)
    return np.ascontiguousarray(found).reshape(found.shape)


def pot_encode(x: np.ndarray, beta: np.ndarray, bits: int, stream: Any, addend: int, half: int) -> np.ndarray:
    """Twin of the C kernel of the same name; see :func:`minilp.kernels.quantise.pot_encode`.

    Parameters
    ----------
    x : numpy.ndarray
        float32, any strides, no Inf or NaN.
    beta : numpy.ndarray
        int32, broadcasts against ``x``.
    bits : int
        Width of a code.
    stream : Stream or None
        Stochastic rounding by linear distance; None rounds to nearest with ``addend``.
    addend : int
        What carries a mantissa into the exponent (``THRESHOLDS``).
    half : int
        1 keeps elements from half the smallest power on at the smallest power; 0 leaves that to ``addend``.

    Returns
    -------
    numpy.ndarray
        int8 signed levels in the memory order of ``x``.
    """
    emax = 2 ** (bits - 2) - 1
    base = beta + np.int32(126 - emax)  # biased exponent of the smallest power, less one: level = exponent - base
    word = x.view(np.int32)
    magnitude = word & np.int32(ABS_MASK)
    if stream is None:
        level = (magnitude + np.int32(addend)) >> 23
        level -= base
        if half:
            np.maximum(level, np.minimum((magnitude >> 23) - base + 1, 1), out=level)
        level[magnitude < SMALLEST_NORMAL_BITS] = 0
    else:
        level = _stochastic_level(magnitude, base, logical_bits(x.shape, stream))
    np.clip(level, 0, 2 * emax + 1, out=level)
    np.negative(level, out=level, where=word < 0)
    return _in_order_of(x, level, np.int8)


def _stochastic_level(magnitude: np.ndarray, base: np.ndarray, draw: np.ndarray) -> np.ndarray:
    """Level by linear distance: the carry above the smallest power, a comparison with |x| / smallest power below it."""
    exponent = magnitude >> 23
    above = ((magnitude + (draw >> np.uint32(9)).astype(np.int32)) >> 23) - base
    # |x| / smallest power as a 32-bit fraction: the mantissa with its hidden bit (a subnormal has none), shifted down
    mantissa = magnitude.astype(np.uint32)
    fraction = np.where(exponent > 0, mantissa << np.uint32(8) | np.uint32(1 << 31), mantissa << np.uint32(9))
    distance = base - exponent
    fraction >>= np.clip(distance, 0, 31).astype(np.uint32)
    fraction[np.broadcast_to(distance > 31, fraction.shape)] = 0
    return np.where(exponent > base, above, (draw < fraction).astype(np.int32))


def pot_decode(codes: np.ndarray, beta: np.ndarray, bits: int) -> np.ndarray:
    """float32 values of PoT codes, in their memory order: the exponent field is |code| + 126 + beta - emax."""
    emax = 2 ** (bits - 2) - 1
    wide = codes.astype(np.int32)
    word = np.abs(wide)
    word += beta + np.int32(126 - emax)
    word <<= 23
    word |= wide & np.int32(-0x80000000)
    word[codes == 0] = 0
    return word.view(np.float32)


def fixed_encode(x: np.ndarray, exponent: np.ndarray, bits: int, stream: Any) -> np.ndarray:
    """Twin of the C kernel: x / 2^exponent to an integer, nearest even or stochastic, saturating at the top code.

    Above eight bits, where there is no C kernel, codes are int16.
    """
    top = np.float32(2 ** (bits - 1) - 1)
    scaled = np.abs(x)
    with np.errstate(over="ignore"):  # far beyond the top code; saturates in the next line
        scaled *= np.ldexp(np.float32(1), -exponent)
    np.minimum(scaled, top, out=scaled)
    if stream is None:
        level = np.rint(scaled)
    else:
        level = np.floor(scaled)
        draw = (logical_bits(x.shape, stream) >> np.uint32(8)).astype(np.float32)
        level += draw < (scaled - level) * np.float32(2**24)
    return _in_order_of(x, np.copysign(level, x), np.int8 if bits <= 8 else np.int16)


def fixed_decode(codes: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """float32 values of fixed-point codes: code * 2^exponent."""
    values = codes.astype(np.float32)
    values *= np.ldexp(np.float32(1), exponent)
    return values


def _in_order_of(x: np.ndarray, values: np.ndarray, dtype: Any) -> np.ndarray:
    """``values`` as ``dtype`` in the memory order of ``x``."""
    out = np.empty_like(x, dtype=dtype)
    np.copyto(out, values, casting="unsafe")
    return out


def outside(flat: np.ndarray, threshold: float) -> np.ndarray:
    """int64 positions in a flat float32 array where |x| > threshold."""
    return np.flatnonzero(np.abs(flat) > np.float32(threshold)).astype(np.int64, copy=False)
