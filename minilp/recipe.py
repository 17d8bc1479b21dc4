"""Recipes: which format plays which role in a training step, for the whole model and layer by layer.

Six words name the six places where numbers can be coded: ``weight``, ``act``, ``error``, ``wgrad``, ``update`` and
``state``. A :class:`Recipe` is a value: frozen, printable, comparable, stored in every checkpoint.
"""
from __future__ import annotations

import dataclasses
import fnmatch
from dataclasses import dataclass
from typing import Any

from minilp import stored
from minilp.formats import LNS, available
from minilp.roles import LayerRecipe, Role, Roles, as_role, literal, set_in_role
from minilp.settings import set_in_formats, set_in_layer

ROLES = ("weight", "act", "error", "wgrad", "update", "state")
OPTIMIZERS = ("sgd", "adamw", "madam")

@dataclass(frozen=True)
class Recipe:
    """What plays which role in a model.

    Parameters
    ----------
    weight, act, error, wgrad, update, state : Role, Format or None
        A bare format is short for ``Role(format)``; None is float32. ``update`` is what parameters live as between
        steps (see :meth:`Parameter.live_as`), ``state`` what the optimizer's memory is rounded to.
    first, last : "same", None or Roles
        The first and last weighted layer in registration order: like the rest, float32, or roles of their own.
    attention : {"coded", "float"}
        Whether attention's two contractions are coded too.
    overrides : mapping or tuple of pairs
        Shell-style pattern on a layer's dotted name -> Roles, or None for float32; the first match wins, and wins over
        ``first`` and ``last``.
    name : str
        What reports call it.
    optimizer : {"sgd", "adamw", "madam"}
        What a training takes where nobody says otherwise.
    """

    weight: Role | None = None
    act: Role | None = None
    error: Role | None = None
    wgrad: Role | None = None
    update: Role | None = None
    state: Role | None = None
    first: str | Roles | None = "same"
    last: str | Roles | None = "same"
    attention: str = "coded"
    overrides: tuple[tuple[str, Roles | None], ...] = ()
    name: str = "custom"
    optimizer: str = "sgd"

    def __post_init__(self) -> None:
        for name in ROLES:
            object.__setattr__(self, name, as_role(name, getattr(self, name)))
        for name in ("first", "last"):
            value = getattr(self, name)
            if not (value is None or value == "same" or isinstance(value, Roles)):
                raise ValueError(f"{name}: expected 'same', None (float32) or Roles, got {value!r}")
        if self.attention not in ("coded", "float"):
            raise ValueError(f"attention: expected 'coded' or 'float', got {self.attention!r}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer: expected one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}")
        stored.check(self.update, self.state)
        pairs = self.overrides.items() if isinstance(self.overrides, dict) else self.overrides
        object.__setattr__(self, "overrides", tuple((str(pattern), roles) for pattern, roles in pairs))

    @property
    def roles(self) -> Roles:
        """The plain roles, as a layer in the middle of the model uses them."""
        return Roles(self.weight, self.act, self.error, self.wgrad)

    def for_layer(self, name: str, index: int, count: int) -> Roles | None:
        """The roles of one layer.

        Parameters
        ----------
        name : str
            Dotted name of the layer.
        index, count : int
            Its place among the weighted layers in registration order, and how many there are.

        Returns
        -------
        Roles or None
            None if every role is float32.
        """
        roles: Any = "same"
        if index == 0:
            roles = self.first
        if index == count - 1 and self.last != "same":
            roles = self.last
        for pattern, override in self.overrides:
            if fnmatch.fnmatchcase(name, pattern):
                roles = override
                break
        if roles == "same":
            roles = self.roles
        return None if roles is None or roles == Roles() else roles

    def apply(self, model: Any) -> Any:
        """Give every weighted layer its roles, and let parameters live as ``update`` says; the optimizer comes after.

        Parameters
        ----------
        model : Module
            Layers with a ``set_recipe`` method (Linear, Conv2d, MultiheadAttention) take part; names, first and last
            follow registration order.

        Returns
        -------
        Module
            The same model.

        Raises
        ------
        ValueError
            If an override matches no layer.
        """
        layers = [(name, module) for name, module in model.named_modules() if hasattr(module, "set_recipe")]
        for pattern, _ in self.overrides:
            if not any(fnmatch.fnmatchcase(name, pattern) for name, _ in layers):
                names = ", ".join(name for name, _ in layers)
                raise ValueError(f"overrides: {pattern!r} matches no layer; layers are {names}")
        for index, (name, module) in enumerate(layers):
            roles = self.for_layer(name, index, len(layers))
            module.set_recipe(None if roles is None else LayerRecipe(roles, name, index, self.attention))
        stored.apply(model, self.update, self.state)
        return model

    def set(self, key: str, value: Any) -> Recipe:
        """A changed copy: the ``--set key=value`` of the command line.

        Parameters
        ----------
        key : str
            ``ROLE.FIELD`` with a field of the role (``rounding``, ``keep``, ``before``), of its format (``bits``), or
            ``ROLE.TRANSFORM.FIELD`` (``act.prc.init``); ``ROLE`` alone takes ``none``. ``FORMAT.FIELD``, such as
            ``mls.group``, sets it in all roles of the contractions. ``update.bits`` of an LNS takes gamma with it, so
            that the octaves stay (2048 at 16 bits, 128 at 12). A prefix ``first.``, ``last.`` or ``PATTERN:`` changes
            only those layers (``PATTERN:`` with the value ``none``: float32).
        value : object
            A string is read as a Python literal where it is one; ``before`` also takes names joined by ``+``.

        Returns
        -------
        Recipe
            A new recipe; this one is unchanged.

        Raises
        ------
        ValueError
            If the key names nothing; the message lists what there is.
        """
        value = literal(value)
        pattern, colon, rest = key.partition(":")
        if colon:
            changed = dict(self.overrides)
            changed[pattern] = set_in_layer(changed.get(pattern) or self.roles, rest, value)
            return dataclasses.replace(self, overrides=tuple(changed.items()))
        head, _, rest = key.partition(".")
        if head in ("first", "last"):
            if not rest:
                return dataclasses.replace(self, **{head: value})
            place = getattr(self, head)
            start = place if isinstance(place, Roles) else self.roles
            changes: dict[str, Any] = {head: set_in_layer(start, rest, value)}
            return dataclasses.replace(self, **changes)
        if head == "attention" and not rest:
            return dataclasses.replace(self, attention=value)
        if key == "update.bits" and isinstance(getattr(self.update, "format", None), LNS):
            return dataclasses.replace(self, update=stored.set_bits(self.update, value))
        if head in ROLES:
            changes = {head: set_in_role(getattr(self, head), head, rest, value)}
            return dataclasses.replace(self, **changes)
        if head in available():
            return set_in_formats(self, head, rest, value)
        raise ValueError(f"set: unknown key {key!r}; it starts with one of {', '.join(ROLES)}, first, last, attention, "
                         f"a format's name such as mls, or a layer pattern and a colon")

    def to_config(self) -> dict[str, Any]:
        """The recipe as plain JSON."""
        config: dict[str, Any] = {"name": self.name, "attention": self.attention,
                                  "optimizer": self.optimizer}
        for role in ROLES:
            value = getattr(self, role)
            config[role] = value.to_config() if value else None
        for place in ("first", "last"):
            value = getattr(self, place)
            config[place] = value.to_config() if isinstance(value, Roles) else value
        config["overrides"] = [[p, r.to_config() if r else None] for p, r in self.overrides]
        return config

    @staticmethod
    def from_config(config: dict[str, Any]) -> Recipe:
        """The inverse of :meth:`to_config`."""
        fields = dict(config)
        for role in ROLES:
            fields[role] = Role.from_config(fields[role])
        for place in ("first", "last"):
            if isinstance(fields[place], dict):
                fields[place] = Roles.from_config(fields[place])
        fields["overrides"] = tuple((p, None if r is None else Roles.from_config(r)) for p, r in fields["overrides"])
        return Recipe(**fields)


def get(name: str, **options: Any) -> Recipe:
    """A preset by name.

    Parameters
    ----------
    name : str
        ``"fp32"``, ``"potq"``, ``"mls"``, ``"lns-madam"`` (or ``"lns_madam"``) ...
    **options
        What the preset takes, such as ``bits=4``.

    Raises
    ------
    ValueError
        For an unknown name; the message lists the presets.
    """
    from minilp.presets import PRESETS

    preset = PRESETS.get(name.replace("_", "-"))
    if preset is None:
        raise ValueError(f"recipe: unknown name {name!r}; presets are {', '.join(PRESETS)}")
    return preset(**options)


def apply(recipe: Recipe | str, model: Any) -> Any:
    """Apply a recipe, or a preset by name, to a model; see :meth:`Recipe.apply`."""
    return (get(recipe) if isinstance(recipe, str) else recipe).apply(model)


def __getattr__(name: str) -> Any:
    """``PRESETS`` and the presets themselves (``recipe.potq``); they live in :mod:`minilp.presets`, a floor above."""
    from minilp import presets

    if name in presets.__all__:
        return getattr(presets, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
