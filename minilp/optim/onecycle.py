"""The one-cycle policy: warm-up, then a long way down, with the momentum moving the other way."""
from __future__ import annotations

import math
from collections.abc import Sequence

from minilp.optim.optimizer import Optimizer
from minilp.optim.schedules import LRScheduler


class OneCycleLR(LRScheduler):
    """One cycle (Smith & Topin 2018), PyTorch's numbers.

    The learning rate rises from ``max_lr / div_factor`` to ``max_lr`` in the first ``pct_start`` of the steps and then
    falls to ``max_lr / div_factor / final_div_factor``. One step is one batch.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups to schedule.
    max_lr : float or sequence of float
        Highest learning rate, one for all groups or one per group. The optimizer's own ``lr`` is replaced.
    total_steps : int or None
        Steps of the whole cycle; or None and ``epochs * steps_per_epoch``.
    epochs, steps_per_epoch : int or None
        See ``total_steps``.
    pct_start : float
        Share of the steps spent rising, in [0, 1].
    anneal_strategy : {"cos", "linear"}
        Shape of the rise and fall.
    cycle_momentum : bool
        Move ``momentum`` (or the first of ``betas``) from ``max_momentum`` down to ``base_momentum`` and back.
    base_momentum, max_momentum : float
        See ``cycle_momentum``.
    div_factor, final_div_factor : float
        See above.
    three_phase : bool
        Fall to the initial learning rate as long as it rose, and to the last one in the remaining steps.
    last_epoch : int
        See :class:`~minilp.optim.LRScheduler`.

    Raises
    ------
    ValueError
        If an option is out of range, or :meth:`step` is called after the last step.
    """

    def __init__(self, optimizer: Optimizer, max_lr: float | Sequence[float], total_steps: int | None = None,
                 epochs: int | None = None, steps_per_epoch: int | None = None, pct_start: float = 0.3,
                 anneal_strategy: str = "cos", cycle_momentum: bool = True, base_momentum: float = 0.85,
                 max_momentum: float = 0.95, div_factor: float = 25.0, final_div_factor: float = 1e4,
                 three_phase: bool = False, last_epoch: int = -1) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("total_steps: give it, or both epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        if total_steps < 1:
            raise ValueError(f"total_steps: expected an integer >= 1, got {total_steps!r}")
        if not 0 <= pct_start <= 1:
            raise ValueError(f"pct_start: expected a number in [0, 1], got {pct_start!r}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy: expected 'cos' or 'linear', got {anneal_strategy!r}")
        groups = optimizer.param_groups
        peaks = list(max_lr) if isinstance(max_lr, Sequence) else [max_lr] * len(groups)
        if len(peaks) != len(groups):
            raise ValueError(f"max_lr: expected {len(groups)} values, one per group, got {len(peaks)}")
        self.momentum_key = next((k for k in ("betas", "momentum") if k in optimizer.defaults), None)
        if cycle_momentum and self.momentum_key is None:
            raise ValueError("cycle_momentum: the optimizer has neither momentum nor betas")
        self.total_steps, self.anneal_strategy, self.cycle_momentum = total_steps, anneal_strategy, cycle_momentum
        self.base_momentum, self.max_momentum = base_momentum, max_momentum
        self.peaks, self.lows = peaks, [peak / div_factor / final_div_factor for peak in peaks]
        # Each phase: the step at which it ends, and the corners it leads from and to (PyTorch's, fractional steps too).
        rise = pct_start * total_steps - 1
        if three_phase:
            self.phases = [(rise, "first", "peak"), (2 * pct_start * total_steps - 2, "peak", "first"),
                           (total_steps - 1, "first", "last")]
        else:
            self.phases = [(rise, "first", "peak"), (total_steps - 1, "peak", "last")]
        for group, peak in zip(groups, peaks, strict=True):
            group["initial_lr"] = peak / div_factor
        super().__init__(optimizer, last_epoch)

    def apply(self, t: int) -> None:
        """See :meth:`LRScheduler.apply`.

        Raises
        ------
        ValueError
            If ``t`` is beyond ``total_steps``.
        """
        if t > self.total_steps:
            raise ValueError(f"OneCycleLR: step {t} of a cycle of {self.total_steps} steps")
        i = next((i for i, phase in enumerate(self.phases) if t <= phase[0]), len(self.phases) - 1)
        begin = self.phases[i - 1][0] if i else 0.0
        end, start, goal = self.phases[i]
        way = (t - begin) / (end - begin) if end > begin else 1.0
        for group, first, peak, last in zip(self.optimizer.param_groups, self.base_lrs, self.peaks, self.lows,
                                            strict=True):
            corner = {"first": first, "peak": peak, "last": last}
            group["lr"] = self._between(corner[start], corner[goal], way)
            if self.cycle_momentum:
                high, low = self.max_momentum, self.base_momentum
                momentum = self._between(low if start == "peak" else high, low if goal == "peak" else high, way)
                if self.momentum_key == "betas":
                    group["betas"] = (momentum, *group["betas"][1:])
                else:
                    group["momentum"] = momentum

    def _between(self, start: float, goal: float, way: float) -> float:
        if self.anneal_strategy == "cos":
            return goal + (start - goal) / 2.0 * (math.cos(math.pi * way) + 1)
        return start + (goal - start) * way
