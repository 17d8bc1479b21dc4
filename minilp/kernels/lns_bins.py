"""Contractions of logarithmic codes in integers: exponent add, sign XOR, one accumulator per remainder.

A code c is 0 for zero, else ``sign(c) * 2**(e / gamma)`` with ``e = |c| - 1``. The exponent sum of a product is
``p = q * gamma + r``: it adds ``sign << q`` to the integer bin of remainder r, and only the finished bins meet the
constants ``2**(r / gamma)``. Zhao et al., LNS-Madam (arXiv 2106.13914), section 2.3; widths and the narrow accumulator
are our assumptions where the docstrings say so.
"""
from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilp.kernels import lns_bins_c, reference_lns_bins
from minilp.kernels.backend import KernelError, active
from minilp.kernels.layout import Pair
from minilp.kernels.pot_geometry import KINDS, Array, Geometry, geometry

INT64_ROOM = 62  # bits that a bin may need: sign and one bit to spare
FLOAT64_ROOM = 1000  # octaves that counts may span: their sum is a float64
VECTOR = 32  # products summed exactly before the narrow accumulator sees them: the paper's vector length (recalled)
LUT_BITS = 8  # fractional bits of a constant in the narrow mode: our assumption


@dataclass(frozen=True)
class Plan:
    """How one contraction runs, the same for C and NumPy.

    Attributes
    ----------
    gamma, lut : int
        Remainders of the lattice, and bins (table entries).
    top_a, top_b : int
        Largest exponent present in each operand, in steps of 1 / gamma.
    sums : int
        0 for int64 bins, else how many exponent sums are counted one by one.
    constants : np.ndarray
        float64 of length ``lut``, by which the finished bins are multiplied.
    scale : float or None
        Multiplies the sum before it is rounded to float32; None leaves float64 sums.
    """

    gamma: int
    lut: int
    top_a: int
    top_b: int
    sums: int
    constants: Array
    scale: float | None


def lut_table(gamma: int, lut: int | None = None) -> Array:
    """The constants of the remainders as a table of ``lut`` entries and Mitchell's line give them.

    Parameters
    ----------
    gamma : int
        Steps per octave, a power of two.
    lut : int, optional
        Entries, a power of two up to gamma. None or gamma: exact. 1: Mitchell's approximation alone.

    Returns
    -------
    np.ndarray
        float64 of length gamma: ``2**(r_M / gamma) * (1 + r_L / gamma)``, r_M being r less its low bits r_L.

    Raises
    ------
    ValueError
        If gamma or lut is not a power of two in range.

    Notes
    -----
    LNS-Madam section 2.3, hybrid conversion. The error is never negative.
    """
    gamma, lut = _power_of_two("lut_table", "gamma", gamma), _check_lut("lut_table", lut, gamma)
    low = gamma // lut
    return np.array([2.0 ** ((r - r % low) / gamma) * (1 + r % low / gamma) for r in range(gamma)])


def lns_contract(kind: str, a: Array, b: Array, *, gamma_a: int, gamma_b: int, scale: Any, lut: int | None = None,
                 accumulator: int | None = None, accumulator_shift: int = 14, stride: Pair = (1, 1),
                 padding: Pair = (0, 0), dilation: Pair = (1, 1), groups: int = 1, size: Pair | None = None,
                 return_overflows: bool = False) -> Any:
    """Contract two arrays of logarithmic codes with one integer accumulator per remainder.

    Parameters
    ----------
    kind : str
        As :func:`minilp.kernels.pot.pot_contract`: ``"conv2d"``, ``"conv2d_input_grad"``, ``"conv2d_weight_grad"``, or
        the same three of ``"linear"``; so is the order of the operands.
    a, b : np.ndarray
        int8, int16 or int32 codes of any strides. 0 is zero and adds nothing; else the sign and ``|code| - 1`` steps.
    gamma_a, gamma_b : int
        Steps per octave of each operand, powers of two. The finer one is the lattice of the products.
    scale : float or np.ndarray
        Multiplies the sums in float64; one number, or anything that broadcasts against the logical result.
    lut : int, optional
        Constants in the table. None or the larger gamma: exact. Fewer (1, 2, 4, ...): bins by the top bits of the
        remainder, and the low bits r_L enter a product as ``(gamma + r_L) << q`` (hybrid conversion).
    accumulator : int, optional
        None: exact sums. 24: the paper's accumulator as we model it (see Notes); any width from 8 to 48.
    accumulator_shift : int
        Bits cut from each vector sum in that mode, from 0 to 40.
    stride, padding, dilation : (int, int)
    groups : int
    size : (int, int), optional
        (H, W) of the input for ``conv2d_input_grad``, (KH, KW) for ``conv2d_weight_grad``; None for the rest.
    return_overflows : bool
        With ``accumulator``: return (result, number of additions that saturated).

    Returns
    -------
    np.ndarray or (np.ndarray, int)
        float32. Activations and errors as logical (N, C, H, W) views of (C, H, W, N) storage; weight gradients in C
        order.

    Raises
    ------
    TypeError
        If an operand is not an array of int8, int16 or int32, or the scale is not a number.
    ValueError
        If a shape or an option is out of range; the message names it.
    KernelError
        If the codes span more octaves than float64, or a vector sum of the narrow mode more than 62 bits.
    OverflowError
        If a result is beyond the largest float32.

    Warns
    -----
    RuntimeWarning
        If additions saturated and ``return_overflows`` is false; the message has their number.

    Notes
    -----
    The result is ``float32(scale * sum_r v_r * bin_r)``, r ascending, in float64. Bins are exact: int64 where the codes
    present prove it wide enough, else one count per exponent sum, closed from the largest octave down in float64. Both
    are free of the order of the products. Octaves below the smallest code present are counted into the scale.

    Narrow mode, our assumptions throughout: products in vectors of 32 along the reduction, in the order (c, ky, kx)
    forward, (o, ky, kx) for the input gradient, (n, y, x) for the weight gradient; each vector's bins times constants
    of 8 fractional bits, exact; an arithmetic shift right, which floors; a saturating two's complement addition.
    """
    if kind not in KINDS:
        raise ValueError(f"lns_contract: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    for name, x in (("a", a), ("b", b)):
        if not isinstance(x, np.ndarray) or x.dtype not in (np.int8, np.int16, np.int32):
            raise TypeError(f"lns_contract: {name} must be an int8, int16 or int32 array of codes, got "
                            f"{x.dtype if isinstance(x, np.ndarray) else type(x).__name__}")
    gamma = max(_power_of_two("lns_contract", "gamma_a", gamma_a), _power_of_two("lns_contract", "gamma_b", gamma_b))
    lut = _check_lut("lns_contract", lut, gamma)
    scales = _check_scale(scale)
    _check_narrow(accumulator, accumulator_shift, return_overflows)
    linear = kind.startswith("linear")
    if linear:
        if size is not None or groups != 1 or stride != (1, 1) or padding != (0, 0) or dilation != (1, 1):
            raise ValueError(f"lns_contract: {kind} takes no size, stride, padding, dilation or groups")
        for name, x in (("a", a), ("b", b)):
            if x.ndim != 2:
                raise ValueError(f"lns_contract: {kind}: {name} must have 2 axes, got shape {x.shape}")
        a, b = a[:, :, None, None], b[:, :, None, None]
        size = None if kind == "linear" else (1, 1)
    g = geometry(kind.replace("linear", "conv2d"), a, b, stride, padding, dilation, groups, size)
    shape = _result_shape(g)[:2] if linear else _result_shape(g)
    if scales.size != 1 and not _broadcasts(scales.shape, shape):
        raise ValueError(f"lns_contract: scale must broadcast against the result {shape}, got shape {scales.shape}")
    a, b = _on_lattice(a, gamma // gamma_a), _on_lattice(b, gamma // gamma_b)
    overflows = 0
    if accumulator is None:
        result = _exact(kind, a, b, g, gamma, lut, scales, linear)
    else:
        result, overflows = _narrow(kind, a, b, g, gamma, lut, accumulator, accumulator_shift)
        result = _scaled(result[:, :, 0, 0] if linear else result, np.ldexp(scales, accumulator_shift))
    if not np.isfinite(result).all():
        raise OverflowError(f"{kind}: a result is beyond the largest float32")
    if return_overflows:
        return result, overflows
    if overflows:
        warnings.warn(f"{kind}: {overflows} additions saturated the {accumulator}-bit accumulator", RuntimeWarning,
                      stacklevel=2)
    return result


def _exact(kind: str, a: Array, b: Array, g: Geometry, gamma: int, lut: int, scales: Array, linear: bool) -> Array:
    """The exact contraction: proves the bins wide enough or counts, runs, and applies the scale."""
    terms, extra = max(g.depth - 1, 0).bit_length() + 1, 0 if lut == gamma else gamma.bit_length()
    tops, base = (_top(a), _top(b)), 0
    if sum(tops) // gamma + terms + extra > INT64_ROOM:  # take off the octaves below the smallest codes
        lows = [_bottom(x) // gamma * gamma for x in (a, b)]
        a, b = (x - np.sign(x) * x.dtype.type(low) for x, low in zip((a, b), lows, strict=True))
        tops, base = (max(tops[0] - lows[0], 0), max(tops[1] - lows[1], 0)), sum(lows) // gamma
    octaves, sums = sum(tops) // gamma, 0
    if octaves + terms + extra > INT64_ROOM:
        sums = (octaves + 1) * gamma
    if base + octaves + terms + extra > FLOAT64_ROOM or g.depth >= 2 ** 31:
        raise KernelError(f"{kind}: products of up to {base + octaves} octaves with K={g.depth}: a float64 sum is "
                          f"proven safe up to {FLOAT64_ROOM} bits")
    scales = np.ldexp(scales, base)
    constants = np.array([2.0 ** (r / lut) for r in range(lut)]) / (1 if lut == gamma else gamma)
    plan = Plan(gamma, lut, *tops, sums, constants, float(scales.reshape(-1)[0]) if scales.size == 1 else None)
    run = lns_bins_c.contract if active() == "c" else reference_lns_bins.contract
    result = run(a, b, g, plan)
    if linear:
        result = result[:, :, 0, 0]
    return result if plan.scale is not None else _scaled(result, scales)


def _narrow(kind: str, a: Array, b: Array, g: Geometry, gamma: int, lut: int, bits: int,
            shift: int) -> tuple[Array, int]:
    """The modelled accumulator: its integers as float64, and how many additions saturated."""
    fraction = LUT_BITS + (0 if lut == gamma else gamma.bit_length() - 1)
    needed = (_top(a) + _top(b)) // gamma + fraction + 2 + VECTOR.bit_length()
    if needed > INT64_ROOM:
        raise KernelError(f"{kind}: a vector of {VECTOR} products can need {needed} bits, int64 is proven safe up to "
                          f"{INT64_ROOM}")
    constants = np.array([round(2.0 ** (r / lut) * 2 ** LUT_BITS) for r in range(lut)], np.int64)
    run = lns_bins_c.contract_narrow if active() == "c" else reference_lns_bins.contract_narrow
    return run(a, b, g, gamma, constants, bits, shift + fraction, VECTOR)


def _scaled(sums: Array, scales: Array) -> Array:
    """float64 sums times the scale, rounded to float32 once, in the memory order of the sums."""
    with np.errstate(over="ignore", invalid="ignore"):  # the caller looks for what is beyond float32
        return np.multiply(sums, scales.reshape(()) if scales.size == 1 else scales).astype(np.float32)


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Whether an array of one shape broadcasts against a result without widening it."""
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(shape[::-1], to[::-1], strict=False))


def _on_lattice(x: Array, ratio: int) -> Array:
    """Codes on the finer lattice, int32, in the memory order of ``x``."""
    bound = int(np.iinfo(x.dtype).max) if x.dtype != np.int32 else _top(x) + 1
    if (bound + 1) * ratio >= 2 ** 29:
        raise ValueError(f"lns_contract: codes up to {bound} on a lattice {ratio} times finer leave the kernel's range "
                         f"of 2**29")
    x = x.astype(np.int32, copy=False)
    return x if ratio == 1 else x * np.int32(ratio) - np.sign(x) * np.int32(ratio - 1)


def _top(x: Array) -> int:
    """Largest exponent present, 0 where every code is zero."""
    return max(int(x.max()), -int(x.min()), 1) - 1 if x.size else 0


def _bottom(x: Array) -> int:
    """Smallest exponent present, 0 where every code is zero."""
    present = np.abs(x[x != 0])
    return int(present.min()) - 1 if present.size else 0


def _result_shape(g: Geometry) -> tuple[int, ...]:
    """Logical shape of what a contraction gives."""
    return {"conv2d": (g.batch, g.features, *g.out_size), "conv2d_input_grad": (g.batch, g.channels, *g.size),
            "conv2d_weight_grad": (g.features, g.channels // g.groups, *g.kernel)}[g.kind]


def _power_of_two(who: str, name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1 or value & (value - 1):
        raise ValueError(f"{who}: {name} must be a power of two, at least 1, got {value!r}")
    if value > 2 ** 15:
        raise ValueError(f"{who}: {name} must be at most 2**15, got {value!r}")
    return int(value)


def _check_lut(who: str, lut: int | None, gamma: int) -> int:
    lut = gamma if lut is None else _power_of_two(who, "lut", lut)
    if lut > gamma:
        raise ValueError(f"{who}: lut must be at most gamma, {gamma}, got {lut}")
    return lut


def _check_scale(scale: Any) -> Array:
    try:
        scales = np.asarray(scale, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"lns_contract: scale must be a number or an array of numbers, got {scale!r}") from None
    if not np.isfinite(scales).all():
        raise ValueError("lns_contract: scale must be finite")
    return scales


def _check_narrow(accumulator: int | None, shift: int, return_overflows: bool) -> None:
    for name, value, low, high in (("accumulator", accumulator, 8, 48), ("accumulator_shift", shift, 0, 40)):
        if value is None and name == "accumulator":
            if return_overflows:
                raise ValueError("lns_contract: overflows are counted with accumulator=24 only, got None")
        elif isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
            raise ValueError(f"lns_contract: {name} must be an int from {low} to {high}, got {value!r}")
