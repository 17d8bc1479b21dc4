"""From two coded tensors to the table kernel: integer contractions for every format that has a table and a unit."""
from __future__ import annotations

from typing import Any

import numpy as np

from minilp.formats import QTensor, Spec, batched
from minilp.kernels import table

TABLE = "(table kernel)"


def table_contract(a: QTensor, b: QTensor, spec: Spec) -> Any:
    """Contract two coded tensors through their tables of small integers.

    Parameters
    ----------
    a, b : QTensor
        Operands, in the order that :class:`minilp.formats.Spec` gives; their formats may differ.
    spec : Spec
        Kind and geometry.

    Returns
    -------
    numpy.ndarray or NotImplemented
        float32, the exact integer sum times both units, rounded once where these are powers of two; NotImplemented if
        an operand has no table, no unit, or a unit that varies along an axis that is summed.

    Raises
    ------
    OverflowError
        If a result is beyond the largest float32.
    """
    tables: list[np.ndarray] = []
    units: list[np.ndarray] = []
    for q, axes in zip((a, b), spec.axes, strict=True):
        entries = q.format.table()
        if entries is None or q.codes.dtype.itemsize != 1:
            return NotImplemented
        unit = q.format.unit(q)
        if unit is NotImplemented or any(unit.shape[axis] > 1 for axis in axes):
            return NotImplemented
        tables.append(entries)
        units.append(unit)
    if spec.layout is not None:
        return batched.exact(spec.layout, a.codes, b.codes, tables[0], tables[1],
                             *batched.on_result(spec, units, (a, b)))
    units = [np.ravel(unit) for unit in units]
    return table.contract(spec.kind, a.codes, b.codes, table_a=tables[0], table_b=tables[1], scale_a=units[0],
                          scale_b=units[1], stride=spec.stride, padding=spec.padding, dilation=spec.dilation,
                          groups=spec.groups, size=spec.size)
