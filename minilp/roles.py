"""What one layer's numbers are: a Role for each operand, and the LayerRecipe a layer holds at run time."""
from __future__ import annotations

import ast
import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilp import transforms
from minilp.autograd.parameter import Parameter
from minilp.formats import Format
from minilp.transforms import Transform


@dataclass(frozen=True)
class Role:
    """One role's numbers: the format, which axes keep a scale of their own, rounding, and the steps before encoding.

    Parameters
    ----------
    format : Format
        How the numbers are coded.
    keep : tuple of int
        Axes that keep their own scale; ``()`` is one scale per tensor.
    rounding : {"nearest", "stochastic"}
        Nearest even, or stochastic from a counter-based stream.
    before : tuple of Transform
        Applied in order before encoding.
    """

    format: Format
    keep: tuple[int, ...] = ()
    rounding: str = "nearest"
    before: tuple[Transform, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.format, Format):
            raise TypeError(f"Role: format must be a Format, got {self.format!r}")
        if self.rounding not in ("nearest", "stochastic"):
            raise ValueError(f"Role: rounding must be 'nearest' or 'stochastic', got {self.rounding!r}")
        object.__setattr__(self, "keep", tuple(self.keep))
        object.__setattr__(self, "before", tuple(self.before))
        for step in self.before:
            if not isinstance(step, Transform):
                raise TypeError(f"Role: before must hold Transforms, got {step!r}")

    def to_config(self) -> dict[str, Any]:
        """The role as plain JSON."""
        return {"format": self.format.to_config(), "keep": list(self.keep), "rounding": self.rounding,
                "before": [step.to_config() for step in self.before]}

    @staticmethod
    def from_config(config: dict[str, Any] | None) -> Role | None:
        """The inverse of :meth:`to_config`; None stays None."""
        if config is None:
            return None
        return Role(Format.from_config(config["format"]), tuple(config["keep"]), config["rounding"],
                    tuple(transforms.from_config(step) for step in config["before"]))


def of_products(roles: Roles) -> Roles | None:
    """The roles of a product of two activations, each a batch of matrices (attention's scores and context).

    Formats and rounding are those of ``act`` and ``error``. Every matrix of the batch (one head of one sentence) keeps
    a scale of its own; a scale for each token is what formats have that sum in runs of one scale (MLS: a group for each
    token, MX: blocks along the sum), for the backward products sum over the tokens. Transforms stay out: they are made
    for the inputs of layers, and learn one value a layer. All of this is our choice.

    Parameters
    ----------
    roles : Roles
        Of the layer.

    Returns
    -------
    Roles or None
        None if both are float32.
    """
    both = {name: None if role is None else Role(role.format, () if role.format.blocks_along_sum else (0,),
                                                 role.rounding)
            for name, role in (("act", roles.act), ("error", roles.error))}
    return None if roles.act is None and roles.error is None else Roles(**both)


def as_role(name: str, value: Any) -> Role | None:
    if value is None or isinstance(value, Role):
        return value
    if isinstance(value, Format):
        return Role(value)
    raise TypeError(f"{name}: expected a Role, a Format or None (float32), got {value!r}")


@dataclass(frozen=True)
class Roles:
    """The four roles that one layer's contractions use; None in a role means float32.

    A contraction runs in float32 as soon as one of its two operands does.
    """

    weight: Role | None = None
    act: Role | None = None
    error: Role | None = None
    wgrad: Role | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, as_role(field.name, getattr(self, field.name)))

    def to_config(self) -> dict[str, Any]:
        """The roles as plain JSON."""
        roles = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: role.to_config() if role else None for name, role in roles.items()}

    @staticmethod
    def from_config(config: dict[str, Any]) -> Roles:
        """The inverse of :meth:`to_config`."""
        return Roles(**{name: Role.from_config(role) for name, role in config.items()})


class LayerRecipe:
    """What a weighted layer holds at run time: its roles, its place in the model, its learned transform parameters.

    Parameters
    ----------
    roles : Roles
        What plays which role in this layer.
    name : str
        Dotted name, for messages.
    index : int
        Place among the weighted layers; selects the layer's rounding streams.
    attention : {"coded", "float"}
        Whether the two products of attention are coded, if the layer has them.

    Attributes
    ----------
    products : Roles or None
        What the operands of attention's products play, ``act`` and ``error``; None is float32. See :func:`of_products`.
    """

    def __init__(self, roles: Roles, name: str = "", index: int = 0, attention: str = "coded") -> None:
        self.roles, self.name, self.index = roles, name, index
        self.products = of_products(roles) if attention == "coded" else None
        self.calls = 0
        self.clock: tuple[int, int, int] | None = None
        self._parameters: dict[str, Parameter] = {}
        for role in ("weight", "act", "error"):
            played = getattr(roles, role)
            for step in played.before if played else ():
                for key, learned in step.parameters().items():
                    self._parameters[f"{role}_{step.name}_{key}"] = Parameter(
                        np.float32(learned.value), weight_decay=learned.weight_decay, bounds=learned.bounds)

    def parameters(self) -> dict[str, Parameter]:
        """The learned scalars by name, such as ``act_prc_gamma``; the layer registers them."""
        return self._parameters

    def next_call(self, clock: tuple[int, int, int]) -> int:
        """The number of this forward call within one context that set ``clock``, counted from 0.

        By identity: a step that is run again starts again at 0, even with nothing else in between.
        """
        if clock is not self.clock:
            self.clock, self.calls = clock, 0
        self.calls += 1
        return self.calls - 1

    def __repr__(self) -> str:
        return f"LayerRecipe({self.name or 'unnamed'}: {self.roles})"


def literal(value: Any) -> Any:
    """Read a command-line string as a Python literal where it is one (``none``, ``true`` and ``false`` in any case)."""
    if not isinstance(value, str):
        return value
    named = {"none": None, "true": True, "false": False}
    if value.lower() in named:
        return named[value.lower()]
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def set_in_roles(roles: Roles, path: str, value: Any) -> Roles:
    """A changed copy of ``roles``: ``path`` is ROLE or ROLE.FIELD. Raises ValueError for an unknown role."""
    head, _, rest = path.partition(".")
    known = [field.name for field in dataclasses.fields(Roles)]
    if head not in known:
        raise ValueError(f"set: unknown role {head!r}; one layer has {', '.join(known)}")
    return dataclasses.replace(roles, **{head: set_in_role(getattr(roles, head), head, rest, value)})


def set_in_role(role: Role | None, name: str, path: str, value: Any) -> Role | None:
    """A changed copy of one role; see ``Recipe.set``. Raises ValueError where ``path`` names nothing."""
    if path == "" and (value is None or isinstance(value, (Role, Format))):
        return as_role(name, value)
    if path == "format" or path == "":
        fmt = value if isinstance(value, Format) else Format.from_config(value)
        return Role(fmt) if role is None else dataclasses.replace(role, format=fmt)
    if role is None:
        raise ValueError(f"set: {name} is float32, so it has no {path!r}; set {name}.format first")
    if path == "before":
        steps = value.split("+") if isinstance(value, str) else value or ()
        return dataclasses.replace(role, before=tuple(transforms.from_config(s) if not isinstance(s, Transform) else s
                                                      for s in steps))
    if path == "keep":
        return dataclasses.replace(role, keep=(value,) if isinstance(value, int) else tuple(value or ()))
    if path == "rounding":
        return dataclasses.replace(role, rounding=value)
    step_name, dot, field = path.partition(".")
    if dot:
        if step_name not in [step.name for step in role.before]:
            raise ValueError(f"set: {name} has no transform {step_name!r} in front of it; it has "
                             f"{', '.join(step.name for step in role.before) or 'none'}")
        return dataclasses.replace(role, before=tuple(
            _replace_field(step, f"{name}.{step_name}", field, value) if step.name == step_name else step
            for step in role.before))
    return dataclasses.replace(role, format=_replace_field(role.format, name, path, value))


def _replace_field(record: Any, owner: str, field: str, value: Any) -> Any:
    known = [f.name for f in dataclasses.fields(record)]
    if field not in known:
        raise ValueError(f"set: {owner} has no field {field!r}; it has {', '.join(known)}"
                         + ("" if isinstance(record, Transform) else ", rounding, keep, before, format"))
    return dataclasses.replace(record, **{field: value})
