"""A report of one training step: counts first, joules second, beside fp32 and fp8, and who said each price."""
from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from minilp import recipe as recipes
from minilp.energy import events
from minilp.energy.counts import Counts
from minilp.energy.prices import DEFAULT, PriceList, load_prices
from minilp.energy.pricing import Priced, price
from minilp.energy.step import count_named
from minilp.models.specimen import SEQUENCE_MODELS
from minilp.recipe import Recipe
from minilp.report import describe_recipe
from minilp.settings import change

BASELINES = ("fp32", "fp8")
SEQUENCES = (*SEQUENCE_MODELS, "bert")
"""How names of models begin that read sentences."""
SHORT = {events.FORWARD: "forward", events.INPUT_GRAD: "in grad", events.WEIGHT_GRAD: "w grad",
         events.QUANTISATION: "quantise", events.SCALING: "scaling", events.TREE: "tree", events.NORM: "norm",
         events.OPTIMIZER: "optim", "memory": "memory"}


@dataclass(frozen=True)
class Report:
    """What :func:`report` found; printing it gives the tables.

    Attributes
    ----------
    model : str
        Its name.
    recipe : Recipe
        What was counted.
    batch_size : int
        Images, or sentences, of the step. Everything shown is for one.
    executed : bool
        Whether a real step ran; else the shapes were counted.
    counts : dict of str to Counts
        By recipe: the asked one first, then the baselines.
    priced : dict of str to Priced
        The same, priced.
    """

    model: str
    recipe: Recipe
    batch_size: int
    executed: bool
    counts: dict[str, Counts]
    priced: dict[str, Priced]

    @property
    def each(self) -> str:
        """What everything shown is for: an image or a sentence."""
        return "sentence" if self.model.startswith(SEQUENCES) else "image"

    @property
    def prices(self) -> PriceList:
        """The price list."""
        return self.priced[self.recipe.name].prices

    def __str__(self) -> str:
        return "\n\n".join([self._head(), self._counts(), self._energy(), self._against(), self._sources()])

    def _head(self) -> str:
        how = "counted in a real training step" if self.executed else "counted from the shapes of its layers"
        return (f"{self.model}, batch {self.batch_size}: {how}; all numbers per {self.each}\n"
                f"{describe_recipe(self.recipe)}")

    def _counts(self) -> str:
        counts, n = self.counts[self.recipe.name], self.batch_size
        rows: list[tuple[str, ...]] = [("layer", "MACs forward", "MACs input grad", "MACs weight grad")]
        rows += [(name or "(unnamed)", *(_number(row[which] / n) for which in events.PRODUCTS))
                 for name, row in counts.macs.items()]
        rows.append(("total", *(_number(counts.total_macs(which) / n) for which in events.PRODUCTS)))
        lines = [table(rows), ""]
        for role in events.ROLES:
            found = {name: number for name, number in counts.operations(role).items() if number}
            if found:
                lines.append(f"{role:<13}" + ", ".join(f"{_number(number / n)} {name}"
                                                       for name, number in sorted(found.items())))
        if counts.elementwise:
            lines.append("neither counted nor priced (elements): " + ", ".join(
                f"{name} {_number(number / n)}" for name, number in counts.elementwise.items()))
        if self.executed:
            lines.append(f"counting took {counts.seconds * 1e3:.1f} ms of the step")
        return "\n".join(lines)

    def _energy(self) -> str:
        priced, n = self.priced[self.recipe.name], self.batch_size
        unit, scale = self.unit
        roles = [role for role in (*events.ROLES, "memory") if priced.total(role)]
        rows = [(f"{unit} per {self.each}", *(SHORT[role] for role in roles), "total")]
        layers = dict.fromkeys(layer for layer, _ in priced.rows)
        for layer in layers:
            if priced.total(layer=layer):
                values = [*(priced.total(role, layer=layer) for role in roles), priced.total(layer=layer)]
                rows.append((layer or "(unnamed)", *(f"{value * scale / n:.4g}" for value in values)))
        values = [*(priced.total(role) for role in roles), priced.total()]
        rows.append(("total", *(f"{value * scale / n:.4g}" for value in values)))
        return table(rows)

    @property
    def unit(self) -> tuple[str, float]:
        """What energies are shown in, and how many of it are one unit of the list: nJ where the list's is an energy."""
        factor = self.prices.picojoules
        return (self.prices.unit, 1.0) if factor is None else ("nJ", factor / 1e3)

    def _against(self) -> str:
        unit, scale = self.unit
        heads = ("recipe", f"{unit} products", "saved by it", f"{unit} everything", "saved by it")
        rows: list[tuple[str, ...]] = [heads]
        own = self.priced[self.recipe.name]
        for name, priced in self.priced.items():
            row = [name]
            for roles in (events.PRODUCTS, ()):
                value = priced.total(*roles)
                row += [f"{value * scale / self.batch_size:.4g}", _saved(own.total(*roles), value)]
            rows.append(tuple(row))
        left = [role for role in events.ROLES if role not in self.prices.covers]
        words = f"\nnot covered by the list and left out: {', '.join(left)}" if left else ""
        return f"{self.recipe.name} against the baselines\n{table(rows)}{words}"

    def _sources(self) -> str:
        listed = self.prices
        lines = [f"prices: {listed.name}, {listed.title} ({listed.node}); unit {listed.unit}", *listed.notes]
        used = {name: found for priced in self.priced.values() for name, found in priced.used.items()}
        lines.append("VERIFIED was read in the source; RECALLED, DEFAULT and the rule of wider operations are our "
                     "assumptions")
        for name, found in sorted(used.items()):
            how = "" if found.operation == name else f" (as {found.operation})"
            lines.append(f"  {name}{how}: {found.value:g} {listed.unit}, {found.provenance.upper()}: {found.source}; "
                         f"{found.node}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON, of the whole step; divide by ``batch_size`` for an image.

        The recipe's own counts stand at the top (``macs_forward``, ..., ``layers``), those of the others, with the same
        keys, under ``baselines``.
        """
        found = {name: self._one(counts, self.priced[name]) for name, counts in self.counts.items()}
        return {"model": self.model, "recipe": self.recipe.name, "recipe_config": self.recipe.to_config(),
                "batch_size": self.batch_size, "executed": self.executed, "prices": self.prices.name,
                **found.pop(self.recipe.name), "baselines": found}

    @staticmethod
    def _one(counts: Counts, priced: Priced) -> dict[str, Any]:
        def macs(row: dict[str, int]) -> dict[str, int]:
            return {f"macs_{which}": row[which] for which in events.PRODUCTS}

        factor, layers = priced.prices.picojoules, {}
        for name in dict.fromkeys(entry.layer for entry in counts.entries):
            layers[name] = {**macs(counts.macs.get(name, dict.fromkeys(events.PRODUCTS, 0))),
                            "operations": {role: dict(counts.operations(role, name)) for role in events.ROLES
                                           if counts.operations(role, name)},
                            "energy": {role: value for (layer, role), value in priced.rows.items() if layer == name}}
        total = {which: counts.total_macs(which) for which in events.PRODUCTS}
        return {**macs(total), "operations": dict(counts.operations()), "unit": priced.prices.unit,
                "energy": priced.total(), "picojoules": {priced.prices.name: priced.picojoules},
                "picojoules_per_unit": factor, "layers": layers,
                "traffic_bits": {name: dict(row) for name, row in counts.traffic.items()}, "seconds": counts.seconds}

    def write_json(self, path: Any) -> None:
        """Write :meth:`to_json` to a file."""
        with open(path, "w") as file:
            file.write(json.dumps(self.to_json(), indent=1) + "\n")


def report(model: str, recipe: str | Recipe, settings: Iterable[str] = (), *, batch_size: int = 128,
           prices: Any = DEFAULT, memory: bool = False, baselines: Sequence[str] = BASELINES) -> Report:
    """Count and price one training step of a model, and of the same model under the baselines.

    Parameters
    ----------
    model : str
        A model that runs, or a network that is shapes only; see :func:`minilp.energy.count_named`.
    recipe : str or Recipe
        A preset's name, or a recipe.
    settings : iterable of "key=value"
        Changes to the recipe; ``model.KEY=VALUE`` are options of the model.
    batch_size : int
        Images a step.
    prices : str, path or PriceList
        See :func:`minilp.energy.load_prices`.
    memory : bool
        Price memory traffic too.
    baselines : sequence of str
        Recipes to hold it against.

    Returns
    -------
    Report

    Raises
    ------
    ValueError
        If an argument is wrong, or an operation has no price (:class:`~minilp.energy.Unpriced`).
    """
    listed = prices if isinstance(prices, PriceList) else load_prices(prices)
    chosen, options = change(recipe if isinstance(recipe, Recipe) else recipes.get(recipe), settings, ["model"])
    counts: dict[str, Counts] = {}
    executed = False
    for each in (chosen, *(recipes.get(name) for name in baselines if name != chosen.name)):
        counts[each.name], executed = count_named(model, each, batch_size, options["model"])
    priced = {name: price(found, listed, memory) for name, found in counts.items()}
    return Report(model, chosen, batch_size, executed, counts, priced)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words as aligned columns, the first to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w)
                               for i, (cell, w) in enumerate(zip(row, widths, strict=True))) for row in rows)


def _saved(own: float, other: float) -> str:
    return f"{1 - own / other:.2%}" if other else "-"


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:,.1f}"
