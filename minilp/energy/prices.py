"""Price lists: what an operation costs, who says so, and how far that is to be believed. Data in one JSON file each."""
from __future__ import annotations

import json
import pathlib
import re
from dataclasses import dataclass
from typing import Any

from minilp.energy.counts import Unpriced
from minilp.energy.events import ROLES

FOLDER = pathlib.Path(__file__).parent / "prices"
PROVENANCES = ("verified", "recalled", "default")
"""Read in the source; from memory or derived from remembered numbers; our own assumption."""
PICOJOULES = {"pJ": 1.0, "fJ": 1e-3, "nJ": 1e3}
DEFAULT = "horowitz-45nm"


@dataclass(frozen=True)
class Price:
    """One number: operation, value in the list's unit, source, process node, provenance."""

    operation: str
    value: float
    source: str
    node: str
    provenance: str


@dataclass(frozen=True)
class PriceList:
    """Prices by operation.

    Attributes
    ----------
    name, title, unit, node : str
        A unit that is no energy (pJ, fJ, nJ) gives ratios only.
    prices : dict of str to Price
        An operation that starts with ``mac_`` is a whole multiply-accumulate of formats, and goes before its parts;
        ``memory_bit`` is for traffic.
    covers : tuple of str
        The roles that it speaks of; the others are left out, and reports say so.
    wider : bool
        Integer operations narrower than a listed width are charged as the next wider listed one.
    notes : tuple of str
        What a reader must know.
    path : str
        The file.
    """

    name: str
    title: str
    unit: str
    node: str
    prices: dict[str, Price]
    covers: tuple[str, ...] = ROLES
    wider: bool = False
    notes: tuple[str, ...] = ()
    path: str = ""

    @property
    def picojoules(self) -> float | None:
        """Picojoules in one unit; None where the unit is no energy."""
        return PICOJOULES.get(self.unit)

    def find(self, operation: str, where: str = "") -> Price:
        """The price of one operation.

        Parameters
        ----------
        operation : str
            Such as ``int8_mul``.
        where : str
            For the message: who needs it.

        Raises
        ------
        Unpriced
            If there is none, naming operation and list. There is no free operation but a listed zero.
        """
        if operation in self.prices:
            return self.prices[operation]
        match = re.fullmatch(r"int(\d+)_(\w+)", operation)
        if self.wider and match:
            same = (re.fullmatch(rf"int(\d+)_{match[2]}", name) for name in self.prices)
            widths = [int(other[1]) for other in same if other and int(other[1]) > int(match[1])]
            if widths:
                return self.prices[f"int{min(widths)}_{match[2]}"]
        raise Unpriced(f"prices: operation {operation!r}{f' ({where})' if where else ''} has no price in the list "
                       f"{self.name!r} ({self.path}); add it there or to a list of your own")


def available_prices() -> list[str]:
    """Names of the lists that come with minilp."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def load_prices(name: str | pathlib.Path = DEFAULT) -> PriceList:
    """Read a price list.

    Parameters
    ----------
    name : str or path
        One of :func:`available_prices`, or a JSON file: an object with ``"unit"`` and ``"prices"``, a list of objects
        with ``"operation"``, ``"value"`` (not negative), ``"source"`` and ``"provenance"`` (verified, recalled or
        default), and optionally ``"node"``. Beside these: ``"name"``, ``"title"``, ``"node"``, ``"covers"``,
        ``"wider"``, ``"notes"`` and ``"extends"``, the name of a list whose prices hold where this one has none.

    Returns
    -------
    PriceList

    Raises
    ------
    ValueError
        If there is no such list, or the file is not one; the message says where.
    """
    path = FOLDER / f"{name}.json"
    if not path.is_file():
        path = pathlib.Path(name)
        if not path.is_file():
            raise ValueError(f"prices: expected one of {', '.join(available_prices())} or a JSON file, "
                             f"got {str(name)!r}")
    try:
        raw = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"prices: {path}: not JSON ({error})") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("prices"), list) or not isinstance(raw.get("unit"), str):
        raise ValueError(f"prices: {path}: expected an object with \"unit\" and a list \"prices\"")
    return _build(raw, path)


def _build(raw: dict[str, Any], path: pathlib.Path) -> PriceList:
    known = {"name", "title", "unit", "node", "prices", "covers", "wider", "notes", "extends"}
    if set(raw) - known:
        raise ValueError(f"prices: {path}: unknown key {sorted(set(raw) - known)[0]!r}; "
                         f"known: {', '.join(sorted(known))}")
    base = load_prices(raw["extends"]) if "extends" in raw else None
    if base is not None and base.unit != raw["unit"]:
        raise ValueError(f"prices: {path}: unit {raw['unit']!r} differs from that of {base.name}, {base.unit!r}")
    node = str(raw.get("node", "not stated"))
    prices = dict(base.prices) if base else {}
    for number, row in enumerate(raw["prices"], 1):
        wanted = {"operation", "value", "source", "provenance"}
        if not isinstance(row, dict) or not wanted <= set(row) or set(row) - wanted - {"node"}:
            raise ValueError(f"prices: {path}: price {number}: expected {', '.join(sorted(wanted))} and perhaps node, "
                             f"got {row!r}")
        value = row["value"]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            raise ValueError(f"prices: {path}: {row['operation']}: value must be a number >= 0, got {value!r}")
        if row["provenance"] not in PROVENANCES or not str(row["source"]).strip():
            raise ValueError(f"prices: {path}: {row['operation']}: expected a source and a provenance out of "
                             f"{', '.join(PROVENANCES)}, got {row['source']!r} and {row['provenance']!r}")
        prices[row["operation"]] = Price(row["operation"], float(value), row["source"], row.get("node", node),
                                         row["provenance"])
    covers = tuple(raw.get("covers", base.covers if base else ROLES))
    if not set(covers) <= set(ROLES):
        raise ValueError(f"prices: {path}: covers: expected roles out of {', '.join(ROLES)}, got {covers}")
    return PriceList(str(raw.get("name", path.stem)), str(raw.get("title", "")), raw["unit"], node, prices, covers,
                     bool(raw.get("wider", base.wider if base else False)), tuple(raw.get("notes", ())), str(path))
