"""One field of one format, changed wherever the format plays: the ``mls.group=n`` of the command line."""
from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, TypeVar

from minilp.formats import Format, available
from minilp.roles import Role, Roles, set_in_roles

Record = TypeVar("Record")  # a Recipe or a Roles
STORED = ("update", "state")


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
