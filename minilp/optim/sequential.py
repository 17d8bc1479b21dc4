"""Schedules in sequence."""
from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from minilp.optim.optimizer import Optimizer
from minilp.optim.schedules import LRScheduler


class SequentialLR(LRScheduler):
    """One schedule after the other, e.g. a linear warm-up and then a cosine.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups to schedule.
    schedulers : sequence of LRScheduler
        Each counts its steps from its own milestone.
    milestones : sequence of int
        Steps at which the next one takes over; one fewer than schedules, ascending.
    last_epoch : int
        See :class:`LRScheduler`.

    Raises
    ------
    ValueError
        If the numbers do not fit, or a schedule belongs to another optimizer.
    """

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int],
                 last_epoch: int = -1) -> None:
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(f"milestones: expected {len(schedulers) - 1} for {len(schedulers)} schedules, "
                             f"got {len(milestones)}")
        if list(milestones) != sorted(milestones):
            raise ValueError(f"milestones: expected ascending steps, got {list(milestones)}")
        if any(s.optimizer is not optimizer for s in schedulers):
            raise ValueError("schedulers: all must belong to the optimizer that is passed in")
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        super().__init__(optimizer, last_epoch)

    def apply(self, t: int) -> None:
        """See :meth:`LRScheduler.apply`."""
        i = bisect_right(self.milestones, t)
        self.schedulers[i].apply(t - (self.milestones[i - 1] if i else 0))

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`LRScheduler.state_dict`; with the states of the parts."""
        return {**super().state_dict(), "schedulers": [s.state_dict() for s in self.schedulers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """See :meth:`LRScheduler.load_state_dict`."""
        for part, saved in zip(self.schedulers, state_dict["schedulers"], strict=True):
            part.load_state_dict(saved)
        super().load_state_dict(state_dict)
