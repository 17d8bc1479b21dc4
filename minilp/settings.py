"""What ``--set KEY=VALUE`` changes: a recipe, one field of a format wherever it plays, the options of a model."""
from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

from minilp.formats import Format, available
from minilp.roles import Role, Roles, literal, set_in_roles


class _Changeable(Protocol):
    """A recipe, for this file, which lies below it."""

    def set(self, key: str, value: Any) -> Any: ...


Changeable = TypeVar("Changeable", bound=_Changeable)
Record = TypeVar("Record")  # a Recipe or a Roles
STORED = ("update", "state")


def change(recipe: Changeable, lines: Iterable[str], owners: Iterable[str] = ()
           ) -> tuple[Changeable, dict[str, dict[str, Any]]]:
    """Apply the lines of ``--set``, in order.

    Parameters
    ----------
    recipe : Recipe
        What a key changes (:meth:`minilp.recipe.Recipe.set`), unless it begins with the name of an owner.
    lines : iterable of "key=value"
        ``act.bits=4``; with the owner ``model`` also ``model.width=32``.
    owners : iterable of str
        Who takes keyword arguments instead.

    Returns
    -------
    (Recipe, dict)
        A changed copy; owner -> option -> value.

    Raises
    ------
    ValueError
        If a line is not of that form, or names nothing in the recipe.
    """
    options: dict[str, dict[str, Any]] = {owner: {} for owner in owners}
    for line in lines:
        key, equals, value = line.partition("=")
        if not (key and equals):
            raise ValueError(f"set: expected key=value, such as act.bits=4, got {line!r}")
        owner, _, option = key.partition(".")
        if owner in options:
            options[owner][option] = literal(value)
            continue
        try:
            recipe = recipe.set(key, value)
        except TypeError as error:
            raise ValueError(f"set: {line!r}: {error}") from error
    return recipe, options


def set_in_layer(roles: Roles, path: str, value: Any) -> Roles | None:
    """A changed copy of one layer's roles.

    Parameters
    ----------
    roles : Roles
    path : str
        ROLE, ROLE.FIELD or FORMATNAME.FIELD; "" takes None, which is float32.
    value : object
        The new value.

    Returns
    -------
    Roles or None

    Raises
    ------
    ValueError
        If the path names nothing; the message lists what there is.
    """
    head, _, rest = path.partition(".")
    if not path and value is None:
        return None
    return set_in_formats(roles, head, rest, value) if head in available() else set_in_roles(roles, path, value)


def set_in_formats(record: Record, name: str, field: str, value: Any) -> Record:
    """Change a field of every format of one name.

    Parameters
    ----------
    record : Recipe or Roles
        Where to look: in every role of the contractions, and in a recipe's ``first``, ``last`` and ``overrides`` too;
        not in ``update`` and ``state``, whose numbers are stored and much finer.
    name : str
        Registered name of a format, such as ``mls``.
    field : str
        One of its fields.
    value : object
        The new value.

    Returns
    -------
    Recipe or Roles
        A changed copy.

    Raises
    ------
    ValueError
        If no role has such a format, or the format no such field; the message lists what there is.
    """
    there = {fmt.name: fmt for fmt in _formats(record)}
    if name not in there:
        raise ValueError(f"set: no role has the format {name!r}; there is {', '.join(sorted(there)) or 'only float32'}")
    known = [entry.name for entry in dataclasses.fields(there[name])]
    if field not in known:
        raise ValueError(f"set: {name} has no field {field!r}; it has {', '.join(known) or 'none'}")
    return _changed(record, name, {field: value})


def _formats(value: Any) -> Iterator[Format]:
    """Every format in a recipe, in its places and in its overrides."""
    if isinstance(value, Role):
        yield value.format
    elif isinstance(value, tuple):
        for item in value:
            yield from _formats(item)
    elif dataclasses.is_dataclass(value):
        for entry in dataclasses.fields(value):
            if entry.name not in STORED:
                yield from _formats(getattr(value, entry.name))


def _changed(value: Any, name: str, change: dict[str, Any]) -> Any:
    """A copy in which every format of that name has the change."""
    if isinstance(value, Role):
        fmt = value.format
        return dataclasses.replace(value, format=dataclasses.replace(fmt, **change)) if fmt.name == name else value
    if isinstance(value, tuple):
        return tuple(_changed(item, name, change) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{entry.name: _changed(getattr(value, entry.name), name, change)
                                             for entry in dataclasses.fields(value) if entry.name not in STORED})
    return value
