"""Counts times prices."""
from __future__ import annotations

import collections
from dataclasses import dataclass

from minilp.energy.counts import Counts
from minilp.energy.prices import Price, PriceList


@dataclass(frozen=True)
class Priced:
    """What counts cost by one list.

    Attributes
    ----------
    prices : PriceList
        Whose numbers.
    rows : dict of (str, str) to float
        (layer, role) -> value in the list's unit; memory traffic, where asked for, is the role ``"memory"``.
    used : dict of str to Price
        The price that each operation was charged at, by the operation's name; not always a price of the same name.
    """

    prices: PriceList
    rows: dict[tuple[str, str], float]
    used: dict[str, Price]

    def total(self, *roles: str, layer: str | None = None) -> float:
        """In the list's unit: of some roles (all without any) and one layer or all."""
        return sum(value for (name, role), value in self.rows.items()
                   if (not roles or role in roles) and layer in (None, name))

    @property
    def picojoules(self) -> float | None:
        """The total in picojoules; None where the list's unit is no energy."""
        factor = self.prices.picojoules
        return None if factor is None else self.total() * factor


def price(counts: Counts, prices: PriceList, memory: bool = False) -> Priced:
    """Price what was counted.

    Parameters
    ----------
    counts : Counts
        From a real step or from shapes.
    prices : PriceList
        Roles that it does not cover are left out.
    memory : bool
        Price memory traffic too (operation ``memory_bit``). The papers' figures do not contain it.

    Returns
    -------
    Priced

    Raises
    ------
    Unpriced
        If an operation of a covered role has no price, or its operations are not known.
    """
    rows: collections.defaultdict[tuple[str, str], float] = collections.defaultdict(float)
    used: dict[str, Price] = {}
    for entry in counts.entries:
        if entry.role not in prices.covers:
            continue
        whole = entry.mac in prices.prices
        for name, number in ({entry.mac: entry.macs} if whole else entry.operations).items():
            found = prices.find(name, f"{entry.role} of layer {entry.layer or '(unnamed)'}")
            used[name] = found
            rows[entry.layer, entry.role] += number * found.value
    if memory:
        found = used["memory_bit"] = prices.find("memory_bit", "memory traffic")
        for layer, row in counts.traffic.items():
            rows[layer, "memory"] += sum(row.values()) * found.value
    return Priced(prices, dict(rows), used)
