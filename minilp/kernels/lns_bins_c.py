"""The C kernels behind :func:`minilp.kernels.lns_bins.lns_contract`, for operands that it has checked.

Operands are unfolded to matrices whose rows are the reduction, samples innermost. The fast kernel
(``cext/lns_bins_planes.c``) has one operand in the lanes, split into planes by remainder; what it does not do, the
literal loops (``cext/lns_bins_mac.c``) do.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from minilp.kernels import structs
from minilp.kernels.backend import check, count, vector_tier
from minilp.kernels.layout import empty
from minilp.kernels.pot_geometry import Array, Geometry
from minilp.kernels.reference_lns_bins import close
from minilp.kernels.reference_pot import contract_with, group_operands, join_groups

if TYPE_CHECKING:
    from minilp.kernels.lns_bins import Plan

PLANES, SPAN = 16, 22
"""Most remainders, and most octaves of the operand in the lanes, that the fast kernel takes (``cext/lns_bins.h``)."""
TERMS = 1 << 22
"""Terms that the fast kernel sorts in one call for a weight gradient."""


def contract(a: Array, b: Array, g: Geometry, plan: Plan) -> Array:
    """The exact contraction by the fastest kernel that takes it; arguments and result as the twin's."""
    spans = plan.top_a // plan.gamma, plan.top_b // plan.gamma
    narrow = max(spans) if g.kind == "conv2d_weight_grad" else spans[0]  # either may be in the lanes of that one
    if plan.sums or plan.gamma > PLANES or narrow > SPAN or not (a.size and b.size):
        return literal(a, b, g, plan)
    name = f"lns_bins_{g.kind}[{vector_tier()}]"
    count(name)
    a, b = a.astype(np.int16), b.astype(np.int16)

    def rows(left: Array, right: Array) -> Array:
        return planes(np.ascontiguousarray(right), np.ascontiguousarray(left), plan.top_a, plan.top_b, plan, name)

    def bins(left: Array, right: Array) -> Array:
        """(columns, K) activations times (K, features) errors, as bins; the wider one lies in the lanes."""
        wide, tops = [left, right.T], [plan.top_b, plan.top_a]
        turn = left.shape[0] < right.shape[1]
        if turn:
            wide, tops = wide[::-1], tops[::-1]
        total = np.zeros((plan.gamma, len(wide[1]), len(wide[0])), np.int64)
        step = max(1, TERMS // max(len(wide[1]), 1))
        for k in range(0, left.shape[1], step):
            x, w = (np.ascontiguousarray(m[:, k:k + step]) for m in wide)
            total += planes(x, w, tops[0], tops[1], plan, name, turned=True)
        return total if turn else total.swapaxes(1, 2)

    parts = []
    for x, y in group_operands(a, b, g):
        if g.kind == "conv2d_weight_grad":
            sums = close(contract_with(bins, x, y, g.group()), plan)
            with np.errstate(over="ignore"):
                parts.append(sums if plan.scale is None else (sums * plan.scale).astype(np.float32))
        else:
            parts.append(contract_with(rows, x, y, g.group()))
    return join_groups(parts, g)


def planes(x: Array, w: Array, top_x: int, top_w: int, plan: Plan, name: str, turned: bool = False) -> Array:
    """One call of the fast kernel: ``w`` (rows, K) times ``x`` (K, lanes), int16 codes.

    Parameters
    ----------
    turned : bool
        ``x`` is (lanes, K), and the bins are wanted rather than their sums.

    Returns
    -------
    np.ndarray
        (rows, lanes) as float32 (with a scale) or float64, or (gamma, rows, lanes) int64 bins.
    """
    shape = (w.shape[0], x.shape[0 if turned else 1])
    out = {"out_bins": np.empty((plan.gamma, *shape), np.int64)} if turned else _target(shape, plan)
    result = next(iter(out.values()))
    if 0 in shape or w.shape[1] == 0:
        result[...] = 0
        return result
    _call("mlp_lns_planes", name, x=x, w=w, turned=turned, constants=plan.constants, scale=plan.scale or 0.0, **out,
          gamma=plan.gamma, lut=plan.lut, top_x=top_x, top_w=top_w, rows=shape[0], lanes=shape[1], depth=w.shape[1])
    return result


def literal(a: Array, b: Array, g: Geometry, plan: Plan) -> Array:
    """The loops of lns_bins_mac.c on unfolded rows; any plan. Arguments and result as :func:`contract`."""
    name = f"lns_{'counts' if plan.sums else 'bins'}_{g.kind}[scalar]"
    count(name)

    def product(left: Array, right: Array) -> Array:
        rows, columns = _int32(left), _int32(right.T)
        out = _target((len(rows), len(columns)), plan)
        _call("mlp_lns_rows", name, a=rows, b=columns, constants=plan.constants, scale=plan.scale or 0.0, **out,
              gamma=plan.gamma, lut=plan.lut, sums=plan.sums, rows_a=len(rows), rows_b=len(columns),
              depth=rows.shape[1])
        return next(iter(out.values()))

    # results are rounded inside the kernel, so the whole sum has to be one row
    return join_groups([contract_with(product, x, y, g.group(), sample_major=True)
                        for x, y in group_operands(a, b, g)], g)


def contract_narrow(a: Array, b: Array, g: Geometry, gamma: int, constants: Array, bits: int, shift: int,
                    vector: int) -> tuple[Array, int]:
    """The narrow accumulator in scalar C; arguments and result as the twin's."""
    name = f"lns_narrow_{g.kind}[scalar]"
    count(name)
    overflows = np.zeros(1, np.int64)

    def product(left: Array, right: Array) -> Array:
        rows, columns = _int32(left), _int32(right.T)
        out = np.empty((len(rows), len(columns)), np.int64)
        _call("mlp_lns_narrow", name, overflows, a=rows, b=columns, constants=constants, out=out, gamma=gamma,
              lut=len(constants), bits=bits, shift=shift, vector=vector, rows_a=len(rows), rows_b=len(columns),
              depth=rows.shape[1])
        return out

    parts = [contract_with(product, x, y, g.group(), sample_major=True) for x, y in group_operands(a, b, g)]
    return join_groups(parts, g).astype(np.float64), int(overflows[0])


def _target(shape: tuple[int, int], plan: Plan) -> dict[str, Array]:
    """The output that the plan asks for, by the name of its C field."""
    if plan.scale is None:
        return {"out_double": empty(shape, np.float64)}
    return {"out_float": empty(shape, np.float32)}


def _int32(x: Array) -> Array:
    return np.ascontiguousarray(x, np.int32)


def _call(struct: str, name: str, *more: Array, **fields: Any) -> None:
    """Fill a C geometry, arrays as pointers, and run the contraction that takes it."""
    check(structs.run(struct, f"{struct}_contract", *more, **fields), name)
