"""Counts: what shapes and formats come to in operations, per layer and role, before anybody speaks of energy."""
from __future__ import annotations

import collections
from typing import Any, NamedTuple

from minilp.energy import events
from minilp.energy.events import Encoding, Normalised, Product, Tally, Updated
from minilp.formats import Format
from minilp.formats.minifloat import Minifloat

# Operations an element of a normalisation. Forward and backward of a batch norm together are the 9 multiplications and
# 10 additions of our reconstruction of MLS's accounting; how they split, and layer norm's being the same, is ours.
NORMS = {("norm_training", False): {"fp32_mul": 3, "fp32_add": 4}, ("norm_training", True): {"fp32_mul": 6,
         "fp32_add": 6}, ("norm_eval", False): {"fp32_mul": 1, "fp32_add": 1}, ("norm_eval", True): {"fp32_mul": 3,
         "fp32_add": 3}, ("layer_norm", False): {"fp32_mul": 3, "fp32_add": 4},
         ("layer_norm", True): {"fp32_mul": 6, "fp32_add": 6}}
FP32_MAC = {"fp32_mul": 1, "fp32_add": 1}


class Unpriced(ValueError):
    """An operation that nobody priced, or arithmetic whose operations nobody named. Never free, always an error."""


class Entry(NamedTuple):
    """Operations of one layer in one role. For a product also ``mac``, the name of its whole multiply-accumulate."""

    layer: str
    role: str
    operations: dict[str, int]
    mac: str = ""
    macs: int = 0


class Counts:
    """What was counted; see :func:`minilp.energy.count` and :func:`minilp.energy.count_shapes`.

    Attributes
    ----------
    tally : dict
        The records of :mod:`minilp.energy.events` and how often each came.
    images : int
        Images (sequences) that went through the model.
    elementwise : dict
        Names of operations outside of all roles -> elements of their results: listed, neither counted nor priced.
    seconds : float
        Time spent counting, by the hooks' own clock.
    """

    def __init__(self) -> None:
        self.tally: Tally = {}
        self.images, self.seconds = 0, 0.0
        self.elementwise: dict[str, int] = {}
        self._entries: tuple[Entry, ...] | None = None

    def fill(self, tally: Tally, *, images: int, elementwise: dict[str, int] | None = None,
             seconds: float = 0.0) -> Counts:
        """Take the records; returns these counts."""
        self.tally, self.images, self.seconds = dict(tally), images, seconds
        self.elementwise, self._entries = elementwise or {}, None
        return self

    def __eq__(self, other: object) -> bool:
        """The same records as often, for as many images."""
        return isinstance(other, Counts) and (self.tally, self.images) == (other.tally, other.images)

    __hash__ = None  # type: ignore[assignment]

    @property
    def macs(self) -> dict[str, dict[str, int]]:
        """Multiply-accumulates: layer -> forward, input_grad, weight_grad; only layers that multiply."""
        found: dict[str, dict[str, int]] = {}
        for event, times in self.tally.items():
            if isinstance(event, Product):
                row = found.setdefault(event.layer, dict.fromkeys(events.PRODUCTS, 0))
                row[event.role] += event.macs * times
        return found

    def total_macs(self, role: str | None = None) -> int:
        """Multiply-accumulates of all layers, of one of the three products or of all."""
        return sum(n for row in self.macs.values() for which, n in row.items() if role in (None, which))

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Everything in operations.

        Raises
        ------
        Unpriced
            If a format, transform or optimizer does not say what its arithmetic takes.
        """
        if self._entries is None:
            try:
                self._entries = tuple(entry for event, times in self.tally.items() for entry in _expand(event, times))
            except NotImplementedError as error:
                raise Unpriced(f"energy: {error}") from error
        return self._entries

    def operations(self, role: str | None = None, layer: str | None = None) -> collections.Counter[str]:
        """Operations by name, of one role and layer or of all. Raises Unpriced as :attr:`entries`."""
        found: collections.Counter[str] = collections.Counter()
        for entry in self.entries:
            if role in (None, entry.role) and layer in (None, entry.layer):
                found.update(entry.operations)
        return found

    @property
    def traffic(self) -> dict[str, collections.Counter[str]]:
        """Bits moved: layer -> tensor class -> bits, every tensor read or written once where it is used.

        A product reads both operands at their format's width, scales included, and writes its result in float32
        ("result"); encoding reads float32 ("float") and writes codes; an optimizer reads gradient and parameter, and
        reads and writes the parameter and what it remembers ("update"). No cache is modelled: our own derivation.
        """
        found: dict[str, collections.Counter[str]] = {}
        for event, times in self.tally.items():
            row = found.setdefault(event.layer, collections.Counter())
            if isinstance(event, Product):
                row[event.first.tensor] += event.first.nbits * times
                row[event.second.tensor] += event.second.nbits * times
                row["result"] += 32 * event.outputs * times
            elif isinstance(event, Encoding):
                width = 32 if event.source is None else event.source.stored_bits
                row["float" if event.source is None else "update"] += width * event.coded.elements * times
                row[event.coded.tensor] += event.coded.nbits * times
            elif isinstance(event, Normalised):
                row["float"] += (3 if event.backward else 2) * 32 * times
            else:
                width = 32 if event.format is None else event.format.stored_bits
                row["update"] += (32 + 2 * width + 2 * 32 * event.states) * times
        return found

    def __repr__(self) -> str:
        return f"Counts({self.images} images, {self.total_macs():,} MACs, {len(self.macs)} layers that multiply)"


def short_name(fmt: Format | None) -> str:
    """``fp32``, ``fp8``, ``pot5``, ``mls4``, ``lns8``, ...: a format in the name of a whole multiply-accumulate."""
    if fmt is None:
        return "fp32"
    return f"fp{fmt.bits}" if isinstance(fmt, Minifloat) else f"{fmt.name}{fmt.bits}"


def mac_name(a: Format | None, b: Format | None) -> str:
    """Name of a whole multiply-accumulate: ``mac_fp8``, ``mac_lns5_lns8``; one float operand makes it ``mac_fp32``."""
    names = sorted({short_name(a), short_name(b)}) if a is not None and b is not None else ["fp32"]
    return "mac_" + "_".join(names)


def _ask(a: Any, b: Any, method: str) -> Any:
    """What one of two formats says about the pair; the first one's error where neither knows."""
    try:
        return getattr(a, method)(b)
    except NotImplementedError as error:
        try:
            return getattr(b, method)(a)
        except NotImplementedError:
            raise error from None


def _times(operations: dict[str, int], count: int) -> dict[str, int]:
    return {name: number * count for name, number in operations.items()}


def _expand(event: Any, times: int) -> list[Entry]:
    """One kind of record as operations."""
    layer = event.layer
    if isinstance(event, Product):
        return _expand_product(event, times)
    if isinstance(event, Encoding):
        operations: collections.Counter[str] = collections.Counter()
        if event.source is None:
            for step in event.role.before:
                operations.update(step.cost())
            assert event.coded.format is not None
            operations.update(event.coded.format.encode_cost())
            operations.update({"int32_add": 1} if event.role.rounding == "stochastic" else {})
        elif event.source != event.coded.format:
            operations.update({"int32_add": 1})  # a finer lattice narrowed by a shift and a rounding add
        return [Entry(layer, events.QUANTISATION, _times(operations, event.coded.elements * times))]
    if isinstance(event, Normalised):
        return [Entry(layer, events.NORM, _times(NORMS[event.kind, event.backward], times))]
    assert isinstance(event, Updated)
    if isinstance(event.operations, str):
        raise NotImplementedError(event.operations)
    return [Entry(layer, events.OPTIMIZER, _times(dict(event.operations), times))]


def _expand_product(event: Product, times: int) -> list[Entry]:
    a, b, macs = event.first.format, event.second.format, event.macs * times
    name = mac_name(a, b)
    if a is None or b is None:
        return [Entry(event.layer, event.role, _times(FP32_MAC, macs), name, macs)]
    extra, outputs = _ask(a, b, "sum_cost"), event.outputs * times
    found = [Entry(event.layer, event.role, _times(_ask(a, b, "cost"), macs), name, macs)]
    scaling = collections.Counter(_times(extra["run"], outputs * event.runs))
    scaling.update(_times(extra["output"], outputs))
    found.append(Entry(event.layer, events.SCALING, dict(scaling)))
    if extra["tree"]:
        found.append(Entry(event.layer, events.TREE, _times(extra["tree"], outputs * event.runs)))
    return found
