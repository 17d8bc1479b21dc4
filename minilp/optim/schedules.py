"""Learning rate schedules: the learning rate as a pure function of the number of steps taken.

PyTorch computes most of its schedules by recursion, each step from the last; here every schedule is a closed formula
with the same numbers, so that step t after a resume is step t of the uninterrupted run to the last bit. The price:
two schedules on one optimizer do not multiply, the later call wins. Use :class:`SequentialLR` to chain them in time.
"""
from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from minilp.optim.optimizer import Optimizer


class LRScheduler:
    """The base of all schedules. A subclass writes one method, ``lr_at``.

    The constructor sets the learning rate of step 0; call :meth:`step` after each ``optimizer.step()`` (or each
    epoch; the unit is the caller's).

    Parameters
    ----------
    optimizer : Optimizer
        Its ``param_groups[i]["lr"]`` are written. The learning rates it has when the first schedule is built are kept
        as ``param_groups[i]["initial_lr"]``.
    last_epoch : int
        Number of the last step; -1 to start.

    Attributes
    ----------
    base_lrs : list of float
        One initial learning rate per group.
    last_epoch : int
        Steps taken (PyTorch's name).
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer: expected an Optimizer, got {type(optimizer).__name__}")
        self.optimizer = optimizer
        self.base_lrs = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self.step()

    def lr_at(self, t: int, base_lr: float) -> float:
        """The learning rate after ``t`` steps. The method a subclass writes.

        Parameters
        ----------
        t : int
            Steps taken, from 0.
        base_lr : float
            The initial learning rate of the group.

        Returns
        -------
        float
            The learning rate.
        """
        raise TypeError(f"{type(self).__name__} must define lr_at(t, base_lr)")

    def apply(self, t: int) -> None:
        """Write the options of step ``t`` into the groups; more than the learning rate where a schedule has more."""
        for group, base_lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = self.lr_at(t, base_lr)

    def step(self) -> None:
        """Go on by one step."""
        self.last_epoch += 1
        self.apply(self.last_epoch)

    def get_last_lr(self) -> list[float]:
        """The learning rates in force, one per group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Position and base learning rates as plain JSON; the settings belong to whoever builds the schedule."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned and write the learning rate of that step.

        Parameters
        ----------
        state_dict : mapping
            From a schedule of the same settings.

        Raises
        ------
        ValueError
            If it has another number of groups.
        """
        if len(state_dict["base_lrs"]) != len(self.base_lrs):
            raise ValueError(f"state_dict: {len(state_dict['base_lrs'])} groups, "
                             f"the optimizer has {len(self.base_lrs)}")
        self.base_lrs = list(state_dict["base_lrs"])
        self.last_epoch = int(state_dict["last_epoch"])
        for group, base_lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["initial_lr"] = base_lr
        self.apply(self.last_epoch)


class LambdaLR(LRScheduler):
    """The initial learning rate times a function of the step.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups to schedule.
    lr_lambda : callable or list of callable
        step -> factor; one for all groups or one per group. Not saved in ``state_dict``.
    last_epoch : int
        See :class:`LRScheduler`.

    Raises
    ------
    ValueError
        If the list does not have one entry per group.
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
                 last_epoch: int = -1) -> None:
        groups = len(optimizer.param_groups)
        self.lr_lambdas = [lr_lambda] * groups if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != groups:
            raise ValueError(f"lr_lambda: expected {groups} functions, one per group, got {len(self.lr_lambdas)}")
        super().__init__(optimizer, last_epoch)

    def apply(self, t: int) -> None:
        """See :meth:`LRScheduler.apply`."""
        for group, base_lr, factor in zip(self.optimizer.param_groups, self.base_lrs, self.lr_lambdas, strict=True):
            group["lr"] = base_lr * factor(t)


class ConstantLR(LRScheduler):
    """A smaller constant learning rate for the first ``total_iters`` steps.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups to schedule.
    factor : float
        Multiplies the learning rate until then.
    total_iters : int
        Number of steps.
    last_epoch : int
        See :class:`LRScheduler`.
    """

    def __init__(self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5,
                 last_epoch: int = -1) -> None:
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def lr_at(self, t: int, base_lr: float) -> float:
        """See :meth:`LRScheduler.lr_at`."""
        return base_lr * self.factor if t < self.total_iters else base_lr


class LinearLR(LRScheduler):
    """Warm-up (or decay): the factor goes from ``start_factor`` to ``end_factor`` on a straight line.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups to schedule.
    start_factor, end_factor : float
        Factor at step 0, and from step ``total_iters`` on.
    total_iters : int
        Number of steps between them.
    last_epoch : int
        See :class:`LRScheduler`.
    """

    def __init__(self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0,
                 total_iters: int = 5, last_epoch: int = -1) -> None:
        if not 0 < start_factor <= 1:
            raise ValueError(f"start_factor: expected a number in (0, 1], got {start_factor!r}")
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)

    def lr_at(self, t: int, base_lr: float) -> float:
        """See :meth:`LRScheduler.lr_at`."""
        way = min(t / self.total_iters, 1.0) if self.total_iters else 1.0
        return base_lr * (self.start_factor + (self.end_factor - self.start_factor) * way)


class InverseSqrtLR(LRScheduler):
    """Warm-up on a straight line, then down with the inverse square root of the step.

    The Transformer's schedule (Vaswani et al. 2017, section 5.3), told by its peak: step t, counted from 1, has the
    initial learning rate times ``min(t / warmup_steps, sqrt(warmup_steps / t))``. PyTorch has none of this kind.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups to schedule.
    warmup_steps : int
        The step that has the initial learning rate.
    last_epoch : int
        See :class:`LRScheduler`.

    Raises
    ------
    ValueError
        If ``warmup_steps`` is less than 1.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int = 4000, last_epoch: int = -1) -> None:
        if warmup_steps < 1:
            raise ValueError(f"warmup_steps: expected an integer >= 1, got {warmup_steps!r}")
        self.warmup_steps = warmup_steps
        super().__init__(optimizer, last_epoch)

    def lr_at(self, t: int, base_lr: float) -> float:
        """See :meth:`LRScheduler.lr_at`."""
        return base_lr * min((t + 1) / self.warmup_steps, math.sqrt(self.warmup_steps / (t + 1)))


class StepLR(LRScheduler):
    """The learning rate is multiplied by ``gamma`` every ``step_size`` steps.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups to schedule.
    step_size : int
        Steps between two drops.
    gamma : float
        Factor of each drop.
    last_epoch : int
        See :class:`LRScheduler`.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        if step_size < 1:
            raise ValueError(f"step_size: expected an integer >= 1, got {step_size!r}")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def lr_at(self, t: int, base_lr: float) -> float:
        """See :meth:`LRScheduler.lr_at`."""
        return base_lr * self.gamma ** (t // self.step_size)


class MultiStepLR(LRScheduler):
    """The learning rate is multiplied by ``gamma`` at each milestone.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups to schedule.
    milestones : iterable of int
        Steps; any order, a repeated one counts twice.
    gamma : float
        Factor of each drop.
    last_epoch : int
        See :class:`LRScheduler`.
    """

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1,
                 last_epoch: int = -1) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def lr_at(self, t: int, base_lr: float) -> float:
        """See :meth:`LRScheduler.lr_at`."""
        return base_lr * self.gamma ** bisect_right(self.milestones, t)


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the initial learning rate down to ``eta_min`` in ``T_max`` steps, then up again (SGDR's
    formula, Loshchilov & Hutter 2017, without restarts).

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups to schedule.
    T_max : int
        Steps of one half period.
    eta_min : float
        Lowest learning rate.
    last_epoch : int
        See :class:`LRScheduler`.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        if T_max < 1:
            raise ValueError(f"T_max: expected an integer >= 1, got {T_max!r}")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def lr_at(self, t: int, base_lr: float) -> float:
        """See :meth:`LRScheduler.lr_at`."""
        return self.eta_min + (base_lr - self.eta_min) * (1 + math.cos(math.pi * t / self.T_max)) / 2
