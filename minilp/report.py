"""Tables and explanations of number formats, in words: what ``minilp formats`` and ``minilp explain`` print."""
from __future__ import annotations

import math

from minilp import recipe as recipes
from minilp.formats import Format, available
from minilp.recipe import Recipe
from minilp.roles import literal


def find_format(spec: str) -> Format:
    """A format from a short text.

    Parameters
    ----------
    spec : str
        A format's name (``pot``), its name and fields (``pot:bits=4``), or a recipe's name (``potq``), which stands for
        the format of its weights.

    Returns
    -------
    Format

    Raises
    ------
    ValueError
        For an unknown name or field; the message lists the known ones.
    """
    name, _, fields = spec.partition(":")
    if name in recipes.PRESETS and name not in available():
        role = recipes.get(name).weight
        if role is None:
            raise ValueError(f"format: recipe {name!r} codes nothing, its numbers are plain float32")
        return role.format
    if name.lower() not in available():
        raise ValueError(f"format: expected one of {', '.join(available())}, or a recipe out of "
                         f"{', '.join(recipes.PRESETS)}, got {spec!r}")
    config = {"name": name}
    for field in filter(None, fields.split(",")):
        key, equals, value = field.partition("=")
        if not equals:
            raise ValueError(f"format: expected NAME:FIELD=VALUE,..., got {spec!r}")
        config[key.strip()] = literal(value)
    try:
        return Format.from_config(config)
    except TypeError as error:
        raise ValueError(f"format: {spec!r} does not say enough: {error}") from error


def explain(spec: str, a: float, b: float) -> str:
    """One multiply-accumulate, field by field.

    Parameters
    ----------
    spec : str
        See :func:`find_format`.
    a, b : float
        The factors.

    Returns
    -------
    str
        Some lines of text.

    Raises
    ------
    ValueError
        For an unknown format, or a factor that is not finite.
    """
    for name, value in (("a", a), ("b", b)):
        if not math.isfinite(value):
            raise ValueError(f"{name}: expected a finite number, got {value!r}")
    return find_format(spec).explain(a, b)


def formats() -> str:
    """Every registered format at its default settings: bits, levels, range in units of the scale, scale, source.

    Returns
    -------
    str
        A table; a format that has required fields stands there by name only.
    """
    table = [("format", "bits", "levels", "range / scale", "scale", "source")]
    for name in available():
        try:
            fmt = Format.from_config(name)
        except TypeError:
            table.append((name, "?", "?", "?", "?", f"needs its fields: minilp explain {name}:FIELD=VALUE A B"))
            continue
        span = fmt.range
        table.append((str(fmt), str(fmt.bits), str(fmt.levels), f"{span[0]:g} to {span[1]:g}" if span else "?",
                      fmt.scaling or "?", fmt.source or "?"))
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in table)


def describe_recipe(recipe: Recipe) -> str:
    """A recipe in one line: what each role that is not float32 does.

    Parameters
    ----------
    recipe : Recipe
        Any recipe.

    Returns
    -------
    str
        Such as ``potq: weight PoT(bits=5) after wbc; act PoT(bits=5) after prc; error PoT(bits=5)``.
    """
    parts = []
    for name in recipes.ROLES:
        role = getattr(recipe, name)
        if role is not None:
            keep = f" keep={role.keep}" if role.keep else ""
            rounding = " stochastic" if role.rounding == "stochastic" else ""
            before = f" after {', '.join(step.name for step in role.before)}" if role.before else ""
            parts.append(f"{name} {role.format}{keep}{rounding}{before}")
    text = f"{recipe.name}: {'; '.join(parts) or 'float32 throughout'}"
    for place in ("first", "last"):
        if getattr(recipe, place) != "same":
            text += f"; {place} layer {'float32' if getattr(recipe, place) is None else 'of its own'}"
    return text + "".join(f"; {pattern} overridden" for pattern, _ in recipe.overrides)
