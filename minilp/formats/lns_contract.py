"""What LNS does with coded tensors: contractions on the decoded values or in bins, and coarser lattices by a shift."""
from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from minilp.formats.qtensor import QTensor
from minilp.formats.spec import Spec
from minilp.formats.values import float_contraction
from minilp.kernels import coded
from minilp.kernels.backend import active
from minilp.kernels.lns import code_dtype, lns_table

if TYPE_CHECKING:
    from minilp.formats.lns import LNS

SHORT = 2048  # a table of so many values stays in the first-level cache


def contract(a: QTensor, b: QTensor, spec: Spec) -> Any:
    """Contract two LNS tensors the way the first one's format says.

    Parameters
    ----------
    a, b : QTensor
        In the order that :class:`Spec` gives; both of some LNS.
    spec : Spec
        Kind and geometry.

    Returns
    -------
    numpy.ndarray or NotImplemented
        float32; NotImplemented for a batch of matrix products in bins, which go one by one.

    Raises
    ------
    ValueError
        If a scale varies along an axis that the contraction sums over.
    """
    for q, axes, which in zip((a, b), spec.axes, ("first", "second"), strict=True):
        bad = [axis for axis in axes if q.scales[0].shape[axis] > 1]
        if bad:
            raise ValueError(f"{spec.kind}: the scale of the {which} operand varies along its axis {bad[0]}, which "
                             f"this contraction sums over; LNS needs one scale per sum")
    if a.format.path == "float":  # type: ignore[attr-defined]
        return _in_float(a, b, spec)
    if spec.layout is not None:
        return NotImplemented
    from minilp.kernels.lns_bins import lns_contract  # the bins' tables are built on import
    fa: LNS = a.format  # type: ignore[assignment]
    fb: LNS = b.format  # type: ignore[assignment]
    return lns_contract(spec.kind, a.codes, b.codes, gamma_a=fa.gamma, gamma_b=fb.gamma, scale=_scale(a, b, spec),
                        lut=fa.lut, accumulator=fa.accumulator, stride=spec.stride, padding=spec.padding,
                        dilation=spec.dilation, groups=spec.groups, size=spec.size)


def _in_float(a: QTensor, b: QTensor, spec: Spec) -> np.ndarray:
    """Float32 on the decoded values; activations and errors under one maximum are decoded inside the kernel."""
    left, right = _coded(a), _coded(b)
    if left is None or not spec.kind.startswith("conv2d"):
        return float_contraction(a.decode(), b.decode(), spec)
    geometry = (spec.stride, spec.padding, spec.dilation, spec.groups, spec.size)
    if spec.kind != "conv2d_weight_grad":
        return coded.contract(spec.kind, left, b.decode(), *geometry)
    return float_contraction(a.decode(), b.decode(), spec) if right is None else \
        coded.contract(spec.kind, left, right, *geometry)


def _coded(q: QTensor) -> coded.Coded | None:
    """The operand as codes and a short table, if that is what it is and the C core is there to read it."""
    fmt: LNS = q.format  # type: ignore[assignment]
    if active() != "c" or q.scales[0].size > 1 or fmt.top > SHORT:
        return None
    return coded.Coded(q.codes, lns_table(q.scales[0].item(), fmt.gamma, fmt.top))


def _scale(a: QTensor, b: QTensor, spec: Spec) -> np.ndarray:
    """The product of both smallest levels, which sums of 2^(e / gamma) are times: float64, broadcasts to the result."""
    shape = (a.shape[spec.kept[0]], b.shape[spec.kept[1]], *(1 for _ in a.shape[2:]))
    if spec.kind == "conv2d_weight_grad":
        shape = (shape[0], shape[1] // spec.groups, 1, 1)
    both = []
    for position, q in enumerate((a, b)):
        fmt: LNS = q.format  # type: ignore[assignment]
        lowest = q.scales[0].astype(np.float64).reshape(-1) * 2.0**-fmt.octaves
        both.append(lowest if lowest.size == 1 else spec.on_result(lowest, position, shape))
    return both[0] * both[1]


def narrow(q: QTensor, target: LNS, keep: tuple[int, ...]) -> QTensor:
    """See :meth:`minilp.formats.LNS.narrow`."""
    from minilp.formats.lns import LNS
    fine = q.format
    if not (isinstance(fine, LNS) and isinstance(target, LNS)):
        raise TypeError(f"narrow: expected a tensor of some LNS and an LNS to round it to, got {fine} and {target}")
    if target.gamma > fine.gamma:
        raise ValueError(f"narrow: target must have at most {fine.gamma} levels an octave, as {fine} has; got {target}")
    shift = (fine.gamma // target.gamma).bit_length() - 1
    found = np.empty_like(q.codes, dtype=code_dtype(target.top))
    if not keep:
        np.take(_coarse_codes(fine.top, target.top, shift), q.codes, out=found, mode="wrap")
        return QTensor(target, found, q.scales, keep=q.keep)
    kept = tuple(sorted({*q.keep, *keep}))
    level = np.abs(q.codes.astype(np.int32))
    highest = level.max(axis=tuple(axis for axis in range(q.ndim) if axis not in kept), keepdims=True, initial=0)
    highest[highest == 0] = fine.top
    maximum = fine.decode(QTensor(fine, highest.astype(q.codes.dtype),
                                  (np.broadcast_to(q.scales[0], highest.shape),)))
    found[...] = _coarse(q.codes.astype(np.int32), highest, target.top, shift)
    return QTensor(target, found, (maximum,), keep=kept)


def _coarse(codes: np.ndarray, highest: int | np.ndarray, top: int, shift: int) -> np.ndarray:
    """int32 codes of levels up to ``highest`` on a lattice with 2^shift times fewer levels an octave, up to ``top``."""
    level = np.abs(codes)
    distance = (highest - level + ((1 << shift) >> 1)) >> shift
    return np.sign(codes) * np.maximum(top - distance, 1)


@lru_cache(maxsize=16)
def _coarse_codes(highest: int, top: int, shift: int) -> np.ndarray:
    """What each code becomes: those of 0 .. highest, then of -highest .. -1, as indices below zero count."""
    codes = np.concatenate([np.arange(highest + 1), np.arange(-highest, 0)]).astype(np.int32)
    table = _coarse(codes, highest, top, shift).astype(code_dtype(top))
    table.flags.writeable = False
    return table
