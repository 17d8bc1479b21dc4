"""The base of the layers that multiply: Linear and Conv2d."""
from __future__ import annotations

from minilp.nn.module import Module
from minilp.recipe import Recipe
from minilp.roles import LayerRecipe


class Contraction(Module):
    """A layer with a weight, and a recipe for the numbers of its three contractions.

    Attributes
    ----------
    q : LayerRecipe or None
        What plays which role; None is plain float32. Assigning is the same as :meth:`set_recipe`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._q: LayerRecipe | None = None
        self._q_names: tuple[str, ...] = ()

    @property
    def q(self) -> LayerRecipe | None:
        """The layer's recipe; None is plain float32."""
        return self._q

    @q.setter
    def q(self, q: LayerRecipe | Recipe | None) -> None:
        self.set_recipe(q)

    def set_recipe(self, q: LayerRecipe | Recipe | None) -> None:
        """Choose the layer's numbers; the parameters that the recipe learns become parameters of the layer.

        Build the optimizer afterwards: learned parameters of the recipe before are dropped.

        Parameters
        ----------
        q : LayerRecipe, Recipe or None
            A whole Recipe gives its plain roles; None is plain float32.

        Raises
        ------
        TypeError
            If it is something else.
        KeyError
            If a learned parameter has the name of something the layer has.
        """
        if isinstance(q, Recipe):
            q = LayerRecipe(q.roles, attention=q.attention)
        if q is not None and not isinstance(q, LayerRecipe):
            raise TypeError(f"q: expected a Recipe, a LayerRecipe or None, got {type(q).__name__}")
        for name in self._q_names:
            delattr(self, name)
        self._q, self._q_names = q, ()
        learned = q.parameters() if q is not None else {}
        for name, param in learned.items():
            self.register_parameter(name, param)
            self._q_names += (name,)

    def _q_repr(self) -> str:
        """``, q=weight/act/error`` in short: format and bits, such as pot5/pot5/pot5."""
        if self._q is None:
            return ""
        played = [getattr(self._q.roles, name) for name in ("weight", "act", "error")]
        short = ("float32" if r is None else f"{type(r.format).__name__.lower()}{r.format.bits}" for r in played)
        return ", q=" + "/".join(short)
