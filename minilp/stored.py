"""What a model's parameters live as between steps: the roles ``update`` and ``state`` of a recipe."""
from __future__ import annotations

import dataclasses
from typing import Any

from minilp.formats import LNS
from minilp.roles import Role


def lns_update(bits: int = 16, forward: LNS | None = None, rounding: str = "nearest") -> Role:
    """The role ``update`` that goes with a forward LNS: finer, over the same octaves.

    Parameters
    ----------
    bits : int
        B_U, the width of the stored weights: 16 down to 10 in the authors' figure.
    forward : LNS or None
        The format of the weights in the forward pass; None is ``LNS(bits=8, gamma=8)``.
    rounding : {"nearest", "stochastic"}
        Of updates.

    Returns
    -------
    Role
        ``LNS(bits, gamma * 2^(bits - forward.bits), zero="code")``: 16 bits have gamma 2048, 12 have 128, 10 have 32.
        Zero takes a code, so that a stored weight is exactly ``bits`` wide; that costs the smallest level.
    """
    forward = LNS(bits=8, gamma=8) if forward is None else forward
    return Role(LNS(bits=bits, gamma=_same_octaves(forward, bits), zero="code"), rounding=rounding)


def set_bits(role: Role | None, bits: Any) -> Role:
    """Change the width of a stored LNS and, with it, gamma: gamma_U = gamma * 2^(B_U - B) keeps the octaves.

    Parameters
    ----------
    role : Role
        Of an LNS.
    bits : int
        The new width.

    Returns
    -------
    Role

    Raises
    ------
    ValueError
        If no whole gamma has these octaves, or the format refuses the width.
    """
    assert role is not None and isinstance(role.format, LNS)
    fmt = role.format
    gamma = _same_octaves(fmt, bits) if isinstance(bits, int) and 1 <= bits <= 64 else fmt.gamma
    return dataclasses.replace(role, format=dataclasses.replace(fmt, bits=bits, gamma=gamma))


def _same_octaves(fmt: LNS, bits: int) -> int:
    scaled = fmt.gamma * 2.0 ** (bits - fmt.bits)
    if scaled != int(scaled):
        raise ValueError(f"update.bits: {bits} bits over the octaves of {fmt} need {scaled:g} levels an octave, "
                         f"expected 1 at least")
    return int(scaled)


def check(update: Role | None, state: Role | None) -> None:
    """Refuse what these roles cannot do. Raises ValueError: they have one scale per tensor and no transforms."""
    for name, role in (("update", update), ("state", state)):
        if role is not None and (role.keep or role.before):
            raise ValueError(f"{name}: stored numbers have one scale per tensor and no transform in front, "
                             f"got {role!r}")


def apply(model: Any, update: Role | None, state: Role | None) -> None:
    """Let the parameters of a model live as the codes of a role.

    Parameters
    ----------
    model : Module
        All its parameters take part but the scalars that transforms learn (such as PRC's gamma), which stay float32.
    update : Role or None
        What parameters live as. None makes them float32.
    state : Role or None
        What the optimizer's memory of them is rounded to after every step.
    """
    learned = {id(param) for module in model.modules() if getattr(module, "q", None) is not None
               for param in module.q.parameters().values()}
    for param in model.parameters():
        if id(param) in learned:
            continue
        param.state_role = state
        if update is not None:
            param.live_as(update.format, rounding=update.rounding)
        elif param.code is not None:
            param.live_as(None)
