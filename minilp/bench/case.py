"""What ``--recipe potq:pot.bits=4`` names: a recipe, and the settings that are for it alone."""
from __future__ import annotations

import re
from dataclasses import dataclass

from minilp.training.config import TrainConfig

_NEXT_SETTING = re.compile(r",(?=[^,=]+=)")  # a comma in front of another KEY=, not one inside a value


@dataclass(frozen=True)
class Case:
    """A recipe under measurement.

    Attributes
    ----------
    recipe : str
        A preset's name.
    settings : tuple of str
        ``KEY=VALUE`` changes, as for ``minilp train --set``.
    """

    recipe: str
    settings: tuple[str, ...] = ()

    @staticmethod
    def parse(text: str, shared: tuple[str, ...] = ()) -> Case:
        """Read ``RECIPE`` or ``RECIPE:KEY=VALUE,KEY=VALUE``.

        Parameters
        ----------
        text : str
            Such as ``potq``, ``potq:pot.bits=4`` or ``lns-madam:lns.path=bins``.
        shared : tuple of str
            Settings that come before those in ``text``.

        Returns
        -------
        Case

        Raises
        ------
        ValueError
            If the recipe or a setting does not exist; the message says what does.
        """
        name, _, rest = text.partition(":")
        case = Case(name, (*shared, *(_NEXT_SETTING.split(rest) if rest else ())))
        TrainConfig.create(recipe=case.recipe, settings=case.settings)
        return case

    def __str__(self) -> str:
        return self.recipe + (":" + ",".join(self.settings) if self.settings else "")
