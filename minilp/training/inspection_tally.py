"""Counts over one operand of one layer: what its numbers were, and what became of them as codes."""
from __future__ import annotations

from typing import Any

import numpy as np

from minilp.formats import Format, QTensor

LOWEST = -149  # exponent of the smallest float32 number
NAMES = {(): "tensor", (0,): "n", (1,): "c", (0, 1): "nc"}


class Tally:
    """Sums over the tensors that play one role in one layer.

    Parameters
    ----------
    fmt : Format
        What codes them.
    """

    def __init__(self, fmt: Format) -> None:
        self.format = fmt
        self.elements = self.zeros = self.lost = self.top = self.groups = self.empty = 0
        self.magnitude = self.error = self.scale_bits = 0.0
        self.own_format: Format | None = None
        self.own_error = 0.0
        self.counts, self.coded = np.zeros(278, np.int64), np.zeros(278, np.int64)
        self.grouping = "tensor"
        self.ratios: list[np.ndarray] = []

    def add(self, x: np.ndarray, q: QTensor) -> None:
        """Count a float32 tensor and its codes."""
        value = q.decode()
        zero = value == 0
        ends = q.format.codes()[[0, -1]]  # ascending, so the values of largest magnitude on either side
        self.elements += x.size
        self.zeros += int(np.count_nonzero(zero))
        self.lost += int(np.count_nonzero(zero & (x != 0)))
        self.top += int(np.count_nonzero((q.codes == ends[0]) | (q.codes == ends[1])))
        self.magnitude += float(np.abs(x).sum(dtype=np.float64))
        self.error += float(np.abs(x - value).sum(dtype=np.float64))
        self.scale_bits += q.nbits - q.format.bits * q.size
        for counts, numbers in ((self.counts, x), (self.coded, value)):
            power = np.frexp(numbers[numbers != 0])[1] - 1
            counts += np.bincount(power - LOWEST, minlength=len(counts))
        self._count_groups(x, q)

    def compare(self, x: np.ndarray, q: QTensor) -> None:
        """Count the error of the codes that the model itself made of the same tensor."""
        self.own_format = q.format
        self.own_error += float(np.abs(x - q.decode()).sum(dtype=np.float64))

    def _count_groups(self, x: np.ndarray, q: QTensor) -> None:
        """Group maxima relative to the tensor's. A group is what shares all its scales."""
        parts = [max((scale.shape[axis] for scale in q.scales), default=1) for axis in range(x.ndim)]
        maxima = np.abs(x)
        for axis, count in enumerate(parts):
            if count == 1:
                maxima = maxima.max(axis=axis, keepdims=True, initial=0)
            elif count < x.shape[axis]:  # blocks along the axis
                block = int(getattr(q.format, "block", -(-x.shape[axis] // count)))
                maxima = np.maximum.reduceat(maxima, np.arange(0, x.shape[axis], block), axis=axis)
        axes = tuple(axis for axis, count in enumerate(parts) if count > 1)
        whole = all(parts[axis] == x.shape[axis] for axis in axes)
        self.grouping = NAMES.get(axes, f"axes {axes}") if whole else f"blocks {axes}"
        if q.format.blocks_along_sum:
            self.grouping = "block"
        self.groups += maxima.size
        self.empty += int(np.count_nonzero(maxima == 0))
        if axes and maxima.any():
            self.ratios.append(np.log2(maxima[maxima != 0].astype(np.float64) / float(maxima.max())))

    def row(self) -> dict[str, Any]:
        """The counts as plain numbers, for tables and JSON.

        Returns
        -------
        dict
            ``format``, ``bits``, ``elements`` (as often as they are encoded: once for each contraction where a format
            has blocks along the sum); ``zeros``, ``lost`` (not 0 before) and ``top`` as shares of the
            elements; ``are`` = sum |x - Q(x)| / sum |x| (0 for a tensor of zeros); ``own_format`` and ``own_are``, the
            same of the model's own codes, or None; ``grouping``, ``asked`` (a format's ``group``, or None), ``groups``,
            ``group_elements``, ``empty_groups`` (share), ``group_log2_median`` and ``group_log2_low``
            (median and tenth percentile of log2 of a group's maximum over the tensor's, empty groups left out; None
            without groups); ``scale_bits`` per element; ``log2_low``, ``counts`` and ``coded``: how many numbers lie in
            each binade from 2^log2_low on, before and after.
        """
        found = np.flatnonzero(self.counts + self.coded)
        low, high = (int(found[0]), int(found[-1]) + 1) if found.size else (0, 0)
        ratios = np.concatenate(self.ratios) if self.ratios else None
        count = max(self.elements, 1)
        return {
            "format": str(self.format), "bits": self.format.bits, "elements": self.elements,
            "zeros": self.zeros / count, "lost": self.lost / count, "top": self.top / count,
            "are": self.error / self.magnitude if self.magnitude else 0.0,
            "own_format": None if self.own_format is None else str(self.own_format),
            "own_are": None if self.own_format is None else
            (self.own_error / self.magnitude if self.magnitude else 0.0),
            "grouping": self.grouping, "asked": getattr(self.format, "group", None), "groups": self.groups,
            "group_elements": self.elements / max(self.groups, 1),
            "empty_groups": self.empty / max(self.groups, 1),
            "group_log2_median": None if ratios is None else float(np.median(ratios)),
            "group_log2_low": None if ratios is None else float(np.quantile(ratios, 0.1)),
            "scale_bits": self.scale_bits / count,
            "log2_low": low + LOWEST, "counts": self.counts[low:high].tolist(), "coded": self.coded[low:high].tolist(),
        }
