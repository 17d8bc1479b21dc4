"""What a whole training takes in energy: a real step of each batch size it met is counted, then multiplied."""
from __future__ import annotations

import collections
import copy
from typing import Any

import numpy as np

from minilp import energy, random
from minilp.data import Dataset, Loader
from minilp.nn import Module
from minilp.training.config import TrainConfig
from minilp.training.session import build_optimizer

NO_ENERGY: dict[str, Any] = {"energy_pj_per_image": None, "energy_pj": None, "energy_prices": None, "energy_note": None}
"""The entries of result.json where no energy is known."""


def run_energy(config: TrainConfig, model: Module, train: Dataset, test: Dataset) -> dict[str, Any]:
    """Energy of a training by the default price list: operations only, no memory traffic.

    Steps run on copies of the model, so that it, its optimizer and all random streams stay as they are.

    Parameters
    ----------
    config : TrainConfig
        What was trained.
    model : Module
        The trained model.
    train, test : Dataset
        The images, each epoch all of them.

    Returns
    -------
    dict
        ``energy_pj_per_image`` (training, without evaluation), ``energy_pj`` (the whole run, with evaluation),
        ``energy_prices`` (the list), ``energy_note``. Both energies are None where an operation has no known cost;
        the note says which.
    """
    found = dict(NO_ENERGY)
    seeds = random.get_state()
    try:
        prices = energy.load_prices()
        training, testing = _batches(len(train), config.batch_size), _batches(len(test), config.batch_size)
        steps: dict[int, list[float]] = {}
        x, y = next(iter(Loader(train, config.batch_size, shuffle=False).epoch(0)))
        for size in {**training, **testing}:
            twin, rows = copy.deepcopy(model), np.arange(size) % len(x)
            counted = energy.count_step(twin, build_optimizer(config, twin), x[rows], y[rows])
            steps[size] = [energy.price(counts, prices).picojoules or 0.0 for counts in counted]
        epoch = sum(times * steps[size][0] for size, times in training.items())
        evaluated = sum(times * steps[size][1] for size, times in testing.items())
        found.update(energy_pj_per_image=epoch / len(train), energy_pj=config.epochs * (epoch + evaluated),
                     energy_prices=prices.name)
    except (ValueError, ArithmeticError) as error:  # a training that went well is not lost for want of a price
        found["energy_note"] = str(error)
    finally:
        random.set_state(seeds)
    return found


def _batches(images: int, batch_size: int) -> collections.Counter[int]:
    """Batch size -> how many batches of it an epoch has."""
    sizes = collections.Counter({batch_size: images // batch_size, images % batch_size: 1})
    return collections.Counter({size: times for size, times in sizes.items() if size and times})


def describe(result: dict[str, Any]) -> str:
    """The line of a training's summary, from what :func:`run_energy` returned."""
    per_image, whole = result.get("energy_pj_per_image"), result.get("energy_pj")
    if per_image is None or whole is None:
        return f"energy: not known ({result.get('energy_note') or 'not counted'})"
    return (f"energy: {per_image / 1e6:.4g} uJ a training image, {whole / 1e12:.4g} J the run with its evaluations; "
            f"operations only, priced by {result['energy_prices']} (minilp energy says more)")
