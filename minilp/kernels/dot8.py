"""The int8 engine: contractions of integers of one or two int8 digits, exact, on the CPU's integer multipliers.

Two clients: the table kernel (:mod:`minilp.kernels.table`) and the emulation of power-of-two contractions
(:mod:`minilp.kernels.pot_emulate`). Their NumPy twins are the twins here too; this file only calls C.
"""
from __future__ import annotations

import functools

import numpy as np

from minilp.kernels.backend import BAD_CODE, UNSUPPORTED, check, ffi, lib
from minilp.kernels.float32 import pointer
from minilp.kernels.layout import empty, from_chwn, to_chwn
from minilp.kernels.pot_geometry import Array, Geometry

TERMS = 131072
"""The most products of two digits whose sums are proven to fit int32 (``cext/dot8.h``)."""
BASE = 130
"""Weight of the second digit of a number. Both digits of ``2**e``, e = 0 .. 14, and their difference fit int8, as
``2**7 = BASE - 2`` (our own derivation). The differences are multiplied too: three products, not four."""
LANES = 32


class BadCode(ValueError):
    """A code among the operands has no digits."""


@functools.cache
def power_digits(bits: int) -> Array:
    """Digits of the power-of-two codes 0 .. 15: ``2**(code - 1)`` is ``digits[0] + BASE * digits[1]``.

    Parameters
    ----------
    bits : int
        Width of the format, 3 to 5. Up to 4 bits, codes up to 7 stand for at most 64, and one digit will do.

    Returns
    -------
    np.ndarray
        int8 of shape (1, 16) or (2, 16); the low digit within +-64, the high one within 0 .. 126, their
        difference within +-122. Made once and read-only.
    """
    value = np.where(np.arange(16), 1 << np.maximum(np.arange(16) - 1, 0), 0)
    if bits <= 4:
        digits = np.where(value <= 64, value, 0).astype(np.int8)[None]
    else:
        high = (value + BASE // 2) // BASE
        digits = np.stack([value - BASE * high, high]).astype(np.int8)
    digits.flags.writeable = False
    return digits


def contract(a: Array, b: Array, g: Geometry, digits_a: Array | None, digits_b: Array | None,
             scales: tuple[Array | float, Array | float] | None, tops: tuple[int, int] = (15, 15)) -> Array | None:
    """Contract two arrays of codes.

    Parameters
    ----------
    a, b : np.ndarray
        int8 codes, 4-D, in the operand order of ``pot_contract``; not empty.
    g : Geometry
    digits_a, digits_b : np.ndarray or None
        int8 of shape (planes, 16), digits of the codes 0 .. 15 (a negative code has the digits negated); two digits of
        a code differ by at most 127. None where the codes are the integers, within +-127.
    scales : (np.ndarray or float, np.ndarray or float) or None
        float64 along result axis 0 and 1, each one number or of that axis's length; None for the sums themselves,
        which the weight gradient and contractions of more than :data:`TERMS` products give in any case.
    tops : (int, int)
        The largest code of ``a`` and of ``b``, where they have digits.

    Returns
    -------
    np.ndarray or None
        Forward and for the input gradient float32 ``float64(sum) * (scale * scale)`` rounded to nearest even, or int64
        sums, in the layout of ``pot_contract``. None where a tile would be too large, or K too long to be cut into
        pieces.

    Raises
    ------
    BadCode
        If a code that the sums take in is beyond its ``tops``.
    """
    weight = g.kind == "conv2d_weight_grad"
    a, b = to_chwn(a), to_chwn(b) if weight else np.ascontiguousarray(b)
    if weight:
        sums = np.empty((g.features, g.channels // g.groups, *g.kernel), np.int64)
        return sums if _run(a, b, g, digits_a, digits_b, None, sums, tops) else None
    shape = (g.features, *g.out_size, g.batch) if g.kind == "conv2d" else (g.channels, *g.size, g.batch)
    if g.depth <= TERMS:
        result = empty(shape, np.int64 if scales is None else np.float32)
        return from_chwn(result) if _run(a, b, g, digits_a, digits_b, scales, result, tops) else None
    total = _in_pieces(a, b, g, digits_a, digits_b, shape, tops)
    return None if total is None else from_chwn(total)


def _run(a: Array, b: Array, g: Geometry, digits_a: Array | None, digits_b: Array | None,
         scales: tuple[Array | float, Array | float] | None, result: Array, tops: tuple[int, int]) -> bool:
    """One call of the C core on stored operands; False where it does not apply."""
    first, second = (1.0, 1.0) if scales is None else scales
    rows = _numbers(second, len(result), len(result))
    lanes = _numbers(first, g.batch, -(-g.batch // LANES) * LANES)
    digits = [ffi.NULL if table is None else pointer(table, "int8_t") for table in (digits_a, digits_b)]
    planes = [1 if table is None else len(table) for table in (digits_a, digits_b)]
    outs = (pointer(result), ffi.NULL) if result.dtype == np.float32 else (ffi.NULL, pointer(result, "int64_t"))
    call = ffi.new("mlp_dot8 *", [g.sizes, pointer(a, "int8_t"), pointer(b, "int8_t"), *digits, *planes, *tops,
                                  pointer(rows, "double"), pointer(lanes, "double"), *outs])
    status = getattr(lib(), f"mlp_dot8_{g.kind}")(call)
    if status == UNSUPPORTED:
        return False
    if status == BAD_CODE:
        raise BadCode(f"dot8_{g.kind}: a code is beyond +-{tops[0]} in the first operand, or +-{tops[1]} in the second")
    check(status, f"dot8_{g.kind}")
    return True


def _numbers(value: Array | float, count: int, length: int) -> Array:
    """float64 of ``length``: ``value``, which is one number or ``count`` of them, then zeros."""
    if isinstance(value, float):
        return _repeated(value, count, length)
    numbers = np.zeros(length)
    numbers[:count] = value
    return numbers


@functools.lru_cache(maxsize=1024)
def _repeated(value: float, count: int, length: int) -> Array:
    """The same for one number: the scales of a training repeat from step to step."""
    numbers = np.where(np.arange(length) < count, value, 0.0)
    numbers.flags.writeable = False
    return numbers


def _in_pieces(a: Array, b: Array, g: Geometry, digits_a: Array | None, digits_b: Array | None,
               shape: tuple[int, ...], tops: tuple[int, int]) -> Array | None:
    """Sums of more than :data:`TERMS` products: a few channels at a time, added up in int64."""
    taps, forward = g.kernel[0] * g.kernel[1], g.kind == "conv2d"
    step = TERMS // taps
    if g.groups > 1 or step == 0:
        return None
    total, part = np.zeros(shape, np.int64), np.empty(shape, np.int64)
    for start in range(0, len(a), step):
        few = min(step, len(a) - start)
        w = np.ascontiguousarray(b[:, start:start + few] if forward else b[start:start + few])
        piece = Geometry(g.kind, g.batch, few if forward else g.channels, g.features if forward else few, 1, g.size,
                         g.out_size, g.kernel, g.stride, g.padding, g.dilation)
        if not _run(a[start:start + few], w, piece, digits_a, digits_b, None, part, tops):
            return None
        total += part
    return total
