"""What a whole training takes in energy: real steps on its own batches are counted, then multiplied."""
from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from minilp import energy, random
from minilp.nn import Module
from minilp.training.build import build_optimizer
from minilp.training.config import TrainConfig
from minilp.training.task import Batch, Task

MOST_COUNTED = 8
"""Kinds of steps that are counted one by one. Images have two at most, the last batch being smaller; of sentences,
whose batches have many shapes, so many are counted, from the smallest to the largest, and stand for all."""

Step = list[Batch]
Steps = Callable[[], Iterable[Step]]  # an epoch, begun anew at every call: its batches are too many to hold


def run_energy(config: TrainConfig, model: Module, train: Any, held_out: Any) -> dict[str, Any]:
    """Energy of a training by the default price list: operations only, no memory traffic.

    Steps run on copies of the model, so that it, its optimizer and all random streams stay as they are.

    Parameters
    ----------
    config : TrainConfig
        What was trained.
    model : Module
        The trained model.
    train, held_out : Dataset or ParallelText
        What it was trained on, and evaluated on after each epoch.

    Returns
    -------
    dict
        ``energy_pj_per_image`` or ``energy_pj_per_token`` (training, without evaluation), ``energy_pj`` (the whole run,
        with an evaluation an epoch), ``energy_prices`` (the list), ``energy_note``: how it was estimated where not
        every kind of step was counted. Both energies are None where an operation has no known cost; the note says
        which.
    """
    task = config.task
    found, each = no_energy(task), f"energy_pj_per_{task.unit}"
    seeds = random.get_state()
    try:
        prices = energy.load_prices()

        def cost(steps: Steps, training: bool) -> float:
            def one(step: Step) -> float:
                twin = copy.deepcopy(model)
                if not training:
                    counts = energy.count_evaluation(twin, step, task.outputs)
                else:
                    counts = energy.count_training(twin, build_optimizer(config, twin), step, task.loss)
                return energy.price(counts, prices).picojoules or 0.0

            return _summed(task, steps, one)

        epoch = cost(_steps(task.loader(config, train, training=True), config.accumulate), True)
        tested = cost(_steps(task.loader(config, held_out, training=False), 1), False)
        found.update({each: epoch / task.size(train), "energy_pj": config.epochs * (epoch + tested),
                      "energy_prices": prices.name})
        if task.unit == "token":
            found["energy_note"] = (f"estimated from {MOST_COUNTED} batches of an epoch, from the smallest to the "
                                    f"largest; translating the test sentences is not in it")
    except (ValueError, ArithmeticError, NotImplementedError) as error:  # a training is not lost for want of a price
        found["energy_note"] = str(error)
    finally:
        random.set_state(seeds)
    return found


def no_energy(task: Task) -> dict[str, Any]:
    """The entries of result.json where no energy is known."""
    return {f"energy_pj_per_{task.unit}": None, "energy_pj": None, "energy_prices": None, "energy_note": None}


def _steps(loader: Any, accumulate: int) -> Steps:
    """An epoch's batches in groups."""
    def begin() -> Iterator[Step]:
        remaining = iter(loader.epoch(0))
        while group := list(itertools.islice(remaining, accumulate)):
            yield group
    return begin


def _summed(task: Task, steps: Steps, one: Callable[[Step], float]) -> float:
    """Sum of a cost over steps, counted once for each kind of step, or estimated from some."""
    sizes: list[int] = []
    kinds: dict[tuple[Any, ...], tuple[int, Step]] = {}
    for step in steps():
        sizes.append(sum(task.count(y) for _, y in step))
        kind = tuple((x.shape, y.shape) for x, y in step)
        if kind in kinds or len(kinds) <= MOST_COUNTED:
            times, first = kinds.get(kind, (0, step))
            kinds[kind] = times + 1, first
    if len(kinds) <= MOST_COUNTED:
        return sum(times * one(step) for times, step in kinds.values())
    ordered = sorted(range(len(sizes)), key=sizes.__getitem__)
    chosen = {ordered[(2 * k + 1) * len(ordered) // (2 * MOST_COUNTED)] for k in range(MOST_COUNTED)}
    costs = sum(one(step) for number, step in enumerate(steps()) if number in chosen)
    return costs / sum(sizes[number] for number in chosen) * sum(sizes)


def describe(task: Task, result: dict[str, Any]) -> str:
    """The line of a training's summary, from what :func:`run_energy` returned."""
    each, whole = result.get(f"energy_pj_per_{task.unit}"), result.get("energy_pj")
    if each is None or whole is None:
        return f"energy: not known ({result.get('energy_note') or 'not counted'})"
    note = f" ({result['energy_note']})" if result["energy_note"] else ""
    return (f"energy: {each / 1e6:.4g} uJ a training {task.unit}, {whole / 1e12:.4g} J the run with its evaluations"
            f"{note}; operations only, priced by {result['energy_prices']} (minilp energy says more)")
