"""Codes in as few bytes as they need: ``bits`` bits an element, one after the other, no padding between elements.

Element i (logical C order) fills bits i*b to (i+1)*b - 1 of the byte string, least significant bit first, as a
two's-complement field; the last byte is padded with zeros.
"""
from __future__ import annotations

import numpy as np

_CHUNK = 1 << 16  # elements at a time (a multiple of 8, so chunks end on whole bytes): bounds the memory in between


def packed_size(count: int, bits: int) -> int:
    """Bytes that ``count`` codes of ``bits`` bits take: ceil(bits * count / 8)."""
    return -(-bits * count // 8)


def pack_bits(codes: np.ndarray, bits: int) -> np.ndarray:
    """Pack integer codes.

    Parameters
    ----------
    codes : numpy.ndarray
        Signed or unsigned integers, any shape; each must fit ``bits`` bits, as two's complement or unsigned.
    bits : int
        1 to 32.

    Returns
    -------
    numpy.ndarray
        uint8 of length :func:`packed_size`.

    Raises
    ------
    ValueError
        If ``bits`` is out of range or a code does not fit.
    """
    _check_bits(bits)
    flat = np.ascontiguousarray(codes).reshape(-1).astype(np.int64)
    low, high = (0, 1 << bits) if codes.dtype.kind == "u" else (-(1 << (bits - 1)), 1 << (bits - 1))
    if flat.size and (flat.min() < low or flat.max() >= high):
        raise ValueError(f"pack: codes from {flat.min()} to {flat.max()} do not fit {bits} bits ({low} to {high - 1})")
    out = np.empty(packed_size(flat.size, bits), np.uint8)
    places = np.arange(bits)
    for start in range(0, flat.size, _CHUNK):
        part = flat[start:start + _CHUNK]
        packed = np.packbits(((part[:, None] >> places) & 1).astype(np.uint8), bitorder="little")
        out[start * bits // 8:start * bits // 8 + packed.size] = packed
    return out


def unpack_bits(packed: np.ndarray, bits: int, count: int, signed: bool = True) -> np.ndarray:
    """The inverse of :func:`pack_bits`.

    Parameters
    ----------
    packed : numpy.ndarray
        uint8 of length :func:`packed_size`.
    bits : int
        1 to 32.
    count : int
        Number of codes.
    signed : bool
        Read fields as two's complement.

    Returns
    -------
    numpy.ndarray
        int64 of length ``count``.

    Raises
    ------
    ValueError
        If the number of bytes does not fit ``bits`` and ``count``.
    """
    _check_bits(bits)
    if packed.dtype != np.uint8 or packed.shape != (packed_size(count, bits),):
        raise ValueError(f"unpack: {count} codes of {bits} bits take {packed_size(count, bits)} bytes (uint8), "
                         f"got {packed.dtype} of shape {packed.shape}")
    out = np.empty(count, np.int64)
    weights = 1 << np.arange(bits, dtype=np.int64)
    if signed:
        weights[-1] = -weights[-1]
    for start in range(0, count, _CHUNK):
        stop = min(start + _CHUNK, count)
        fields = np.unpackbits(packed[start * bits // 8:packed_size(stop, bits)], bitorder="little")
        out[start:stop] = fields[:(stop - start) * bits].reshape(-1, bits) @ weights
    return out


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 32:
        raise ValueError(f"bits must be 1 to 32, got {bits}")
