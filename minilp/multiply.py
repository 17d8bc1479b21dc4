"""Two operands, coded or float, and a Spec: who multiplies them, and a count of how.

The first operand's format is asked, then the second's; if neither has a kernel but both have a table of small
integers, the table kernel multiplies those; else the decoded operands are multiplied in float64. :func:`executed` says
which.
"""
from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from minilp.formats import QTensor, Spec
from minilp.formats.values import float_contraction
from minilp.table_contract import TABLE, table_contract
from minilp.watch import watchers

EMULATED = "emulated in float64"
_executed: collections.Counter[str] = collections.Counter()


@contextlib.contextmanager
def executed() -> Iterator[collections.Counter[str]]:
    """Count how the contractions inside a ``with`` block were computed.

    Yields
    ------
    collections.Counter
        ``"KIND: HOW"`` -> number of contractions, filled at the end; HOW is ``"FORMAT x FORMAT in integers"`` (with
        ``" (table kernel)"`` behind it where that one ran, and for two PoT ``" (shift/add)"``, ``" (int8 digits)"`` or
        ``" (NumPy)"``; with ``", one by one"`` behind it for a batch of matrix products that goes matrix by matrix),
        ``"emulated in float64"`` or ``"float32"``.
    """
    before = _executed.copy()
    seen: collections.Counter[str] = collections.Counter()
    try:
        yield seen
    finally:
        seen.update(_executed - before)


def multiply(a: QTensor | np.ndarray, b: QTensor | np.ndarray, spec: Spec) -> np.ndarray:
    """Contract two operands, coded or float.

    Parameters
    ----------
    a, b : QTensor or numpy.ndarray
        In the order that :class:`Spec` gives. With one float operand the contraction runs in float32 on the decoded
        values.
    spec : Spec
        Kind and geometry.

    Returns
    -------
    numpy.ndarray
        float32 result in its logical shape.

    Raises
    ------
    ValueError
        If a scale varies along an axis that the contraction sums over and the format's kernel cannot sum in runs.
    """
    result = _multiply(a, b, spec)
    for watcher in watchers:
        watcher.contracted(a, b, spec, result)
    return result


def _multiply(a: QTensor | np.ndarray, b: QTensor | np.ndarray, spec: Spec) -> np.ndarray:
    if not (isinstance(a, QTensor) and isinstance(b, QTensor)):
        _executed[f"{spec.kind}: float32"] += 1
        return float_contraction(decoded(a), decoded(b), spec)
    for position, operand in enumerate((a, b)):
        if operand.keep and not operand.format.sums_in_runs:
            _check_kept(operand, spec, position)
    result, how = _asked(a, b, spec)
    if result is NotImplemented and spec.layout is not None:
        result, how = _one_by_one(a, b, spec)
    if result is NotImplemented:
        result, how = float_contraction(a.decode().astype(np.float64), b.decode().astype(np.float64), spec), EMULATED
    _executed[f"{spec.kind}: {how}"] += 1
    return result.astype(np.float32, copy=False)


def _check_kept(operand: QTensor, spec: Spec, position: int) -> None:
    """Refuse an operand that keeps a scale of its own along an axis that is summed over."""
    bad = [axis for axis in operand.keep if axis in spec.axes[position] and operand.shape[axis] > 1]
    if bad:
        which = ("first", "second")[position]
        raise ValueError(f"{spec.kind}: the {which} operand {operand.format} keeps its own scale along axis "
                         f"{bad[0]}, which this contraction sums over, and its kernel has one scale per sum")


def _asked(a: QTensor, b: QTensor, spec: Spec) -> tuple[Any, str]:
    """The result of the first format, or table kernel, that has one, and how; NotImplemented if none has."""
    batched = spec.layout is not None
    for fmt in (a.format, b.format):
        if batched and not fmt.batches:
            continue
        result = fmt.contract(a, b, spec)
        if result is not NotImplemented:
            swap = a.format.exact_contract and not b.format.exact_contract
            speaker, other = (b.format, a.format) if swap else (a.format, b.format)
            return result, f"{a.format} x {b.format} {speaker.arithmetic_with(other, batched)}"
    return table_contract(a, b, spec), f"{a.format} x {b.format} in integers {TABLE}"


def _one_by_one(a: QTensor, b: QTensor, spec: Spec) -> tuple[Any, str]:
    """A batch of matrix products as so many products of a linear layer."""
    single = Spec({"nt": "linear", "nn": "linear_input_grad", "tn": "linear_weight_grad"}[spec.layout or ""])
    found, how = [], EMULATED
    for i in range(a.shape[0]):
        result, how = _asked(a.matrix(i), b.matrix(i), single)
        if result is NotImplemented:
            return NotImplemented, EMULATED
        found.append(result)
    if not found:
        return NotImplemented, EMULATED
    return np.stack(found), how + ", one by one"


def decoded(operand: QTensor | np.ndarray) -> np.ndarray:
    """The float32 values of an operand that may be coded."""
    return operand.decode() if isinstance(operand, QTensor) else operand
