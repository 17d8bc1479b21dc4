"""NumPy twins of the contractions of logarithmic codes: the same integers, read as matrices.

By remainder an operand splits into integer planes ``sign << q``. A pair of planes contracts as an ordinary matrix
product and belongs to one bin, ``(r_a + r_b) mod gamma``, shifted by one where the remainders carry. Where a bin does
not fit int64, products are counted one by one per exponent sum.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from minilp.kernels.backend import count
from minilp.kernels.pot_geometry import Array, Geometry
from minilp.kernels.reference_pot import contract_with, group_operands, join_groups

if TYPE_CHECKING:
    from minilp.kernels.lns_bins import Plan

MOST_PAIRS = 256
"""Pairs of planes up to which matrix products are used; above it the products are scattered one by one."""
ROOM = 1 << 22
"""Accumulators that one piece of a scattered contraction keeps."""


def contract(a: Array, b: Array, g: Geometry, plan: Plan) -> Array:
    """The exact contraction.

    Parameters
    ----------
    a, b : np.ndarray
        int32 codes on the lattice of ``plan.gamma``, 4-D, in the operand order of ``lns_contract``.
    g : Geometry
    plan : Plan

    Returns
    -------
    np.ndarray
        float32 if the plan has a scale, else the float64 sums; layout as ``lns_contract``.
    """
    count(f"lns_{'counts' if plan.sums else 'bins'}_{g.kind}[numpy]")

    def bins(left: Array, right: Array) -> Array:
        return _bins(left, right, plan.gamma)

    def counts(left: Array, right: Array) -> Array:
        return _counts(left, right, plan)

    parts = []
    for x, y in group_operands(a, b, g):
        if plan.sums:  # counts are closed inside the product, so the whole sum has to be one row
            parts.append(contract_with(counts, x, y, g.group(), sample_major=True))
        else:
            parts.append(close(contract_with(bins, x, y, g.group()), plan))
    sums = join_groups(parts, g)
    if plan.scale is None:
        return sums
    with np.errstate(over="ignore"):
        return (sums * plan.scale).astype(np.float32)


def close(bins: Array, plan: Plan) -> Array:
    """Bins by remainder (gamma, ...), int64, to float64 sums: joined by the table's entries, constants, ascending."""
    low = plan.gamma // plan.lut
    total = np.zeros(bins.shape[1:])
    for top in range(plan.lut):
        part = bins[top * low:(top + 1) * low]
        whole = part[0] if low == 1 else sum(part[s] * np.int64(plan.gamma + s) for s in range(low))
        total += plan.constants[top] * whole.astype(np.float64)
    return total


def _parts(codes: Array) -> tuple[Array, Array]:
    """Signs as int64 and exponents as int32 (0 where the code is zero)."""
    return np.sign(codes).astype(np.int64), np.maximum(np.abs(codes) - 1, 0)


def _bins(left: Array, right: Array, gamma: int) -> Array:
    """Product of code matrices (rows, K) and (K, columns) as int64 bins (gamma, rows, columns)."""
    shift = gamma.bit_length() - 1
    (sign_l, exp_l), (sign_r, exp_r) = _parts(left), _parts(right)
    rests_l, rests_r = (np.unique(e[s != 0] & (gamma - 1)) for s, e in ((sign_l, exp_l), (sign_r, exp_r)))
    out = np.zeros((gamma, left.shape[0], right.shape[1]), np.int64)
    if not (rests_l.size and rests_r.size):
        return out
    top = (int(exp_l.max()) + int(exp_r.max())) >> shift
    if rests_l.size * rests_r.size > MOST_PAIRS:
        table = np.int64(1) << (np.arange((top + 1) << shift) >> shift)
        for k in range(left.shape[1]):
            p, sign = exp_l[:, k, None] + exp_r[k], sign_l[:, k, None] * sign_r[k]
            index = (p & (gamma - 1))[None]
            np.put_along_axis(out, index, np.take_along_axis(out, index, 0) + (sign * table[p])[None], 0)
        return out
    exact = top + max(left.shape[1] - 1, 0).bit_length() <= 53  # every partial sum of a pair fits float64
    dtype = np.float64 if exact else np.int64

    def planes(sign: Array, exponent: Array, rests: Array) -> list[Array]:
        whole = sign << (exponent >> shift)
        return [np.where(exponent & (gamma - 1) == r, whole, 0).astype(dtype) for r in rests]

    stack = np.concatenate(planes(sign_l, exp_l, rests_l))  # one tall product for each plane of the other operand
    for i, r in enumerate(rests_r):
        products = stack @ planes(sign_r, exp_r, rests_r[i:i + 1])[0]
        for part, s in zip(products.reshape(len(rests_l), *out.shape[1:]), rests_l, strict=True):
            carry, rest = divmod(int(r) + int(s), gamma)
            out[rest] += part.astype(np.int64) << carry
    return out


def _counts(left: Array, right: Array, plan: Plan) -> Array:
    """Product of code matrices as float64 sums, by way of one signed count per exponent sum."""
    (sign_l, exp_l), (sign_r, exp_r) = _parts(left), _parts(right)
    rows, columns = left.shape[0], right.shape[1]
    out = np.zeros((rows, columns))
    step = max(1, ROOM // max(plan.sums * rows, 1))
    low = plan.gamma // plan.lut
    weights = np.array([1] if low == 1 else [plan.gamma + s for s in range(low)], np.int64)
    for start in range(0, columns, step):
        part = slice(start, min(start + step, columns))
        seen = np.zeros((plan.sums, rows, part.stop - start), np.int64)
        for k in range(left.shape[1]):
            index = (exp_l[:, k, None] + exp_r[k, part])[None]
            sign = (sign_l[:, k, None] * sign_r[k, part])[None]
            np.put_along_axis(seen, index, np.take_along_axis(seen, index, 0) + sign, 0)
        seen = seen.reshape(plan.sums // plan.gamma, plan.lut, low, rows, -1)
        wholes = (seen * weights[:, None, None]).sum(axis=2)
        for top in range(plan.lut):
            f = np.zeros(out[:, part].shape)
            for q in reversed(range(len(wholes))):  # the largest octave first
                f = f + f + wholes[q, top].astype(np.float64)
            out[:, part] += plan.constants[top] * f
    return out


def contract_narrow(a: Array, b: Array, g: Geometry, gamma: int, constants: Array, bits: int, shift: int,
                    vector: int) -> tuple[Array, int]:
    """The narrow accumulator: exact sums of ``vector`` products, shifted right, added with saturation.

    Parameters
    ----------
    a, b : np.ndarray
        int32 codes on the lattice, 4-D.
    g : Geometry
    gamma : int
    constants : np.ndarray
        int64, one per bin; fewer than gamma of them mean the hybrid conversion.
    bits, shift, vector : int

    Returns
    -------
    (np.ndarray, int)
        float64 of the accumulator's integers, and the additions that saturated.
    """
    count(f"lns_narrow_{g.kind}[numpy]")
    overflows, low = 0, gamma // len(constants)
    log_gamma, highest = gamma.bit_length() - 1, (1 << (bits - 1)) - 1

    def walk(left: Array, right: Array) -> Array:
        nonlocal overflows
        (sign_l, exp_l), (sign_r, exp_r) = _parts(left), _parts(right)
        total = np.zeros((left.shape[0], right.shape[1]), np.int64)
        p = np.arange(int(exp_l.max(initial=0)) + int(exp_r.max(initial=0)) + 1)
        mitchell = np.ones_like(p) if low == 1 else gamma + p % low
        table: Array = (constants[p % gamma // low] * mitchell) << (p >> log_gamma)
        for start in range(0, left.shape[1], vector):
            part = np.zeros_like(total)
            for k in range(start, min(start + vector, left.shape[1])):
                part += sign_l[:, k, None] * sign_r[k] * table[exp_l[:, k, None] + exp_r[k]]
            total += part >> shift
            held = np.clip(total, -highest - 1, highest)
            overflows += int(np.count_nonzero(held != total))
            total = held
        return total

    parts = [contract_with(walk, x, y, g.group(), sample_major=True) for x, y in group_operands(a, b, g)]
    return join_groups(parts, g).astype(np.float64), overflows
