"""The energy of a run: every step of every epoch, by the default price list; unknown costs lose no training."""
import dataclasses
import json
import tracemalloc

import numpy as np
import pytest

from minilp import energy, recipe
from minilp.formats import Fixed
from minilp.training import train


class Costless(Fixed):
    """A format that does not say what it costs."""

    def cost(self, other):
        raise NotImplementedError("nobody knows")


def test_a_run_is_all_its_steps_and_evaluations(finished):
    """44 training images in 5 batches of 8 and one of 4, 20 test images in 2 of 8 and one of 4, three epochs."""
    shapes = energy.shapes_of(finished.model, (3, 8, 8))
    prices, chosen = energy.load_prices(), finished.config.recipe

    def cost(size, training):
        return energy.price(energy.count_shapes(shapes, chosen, size, training=training), prices).picojoules

    epoch, tested = 5 * cost(8, True) + cost(4, True), 2 * cost(8, False) + cost(4, False)
    assert finished.energy_pj_per_image == pytest.approx(epoch / 44)
    assert finished.energy_pj == pytest.approx(3 * (epoch + tested))
    stored = json.loads((finished.path / "result.json").read_text())
    assert stored["energy_pj_per_image"] == finished.energy_pj_per_image and stored["energy_note"] is None
    assert stored["energy_prices"] == energy.prices.DEFAULT


def test_the_summary_names_it(options, tmp_path, capsys):
    train(**{**options, "epochs": 1, "quiet": False}, recipe="mls", out=tmp_path / "run")
    assert "uJ a training image" in capsys.readouterr().out


def test_a_format_without_costs_trains_and_says_so(options, tmp_path):
    own = recipe.Recipe(weight=Costless(8), act=Costless(8))
    found = train(**{**options, "epochs": 1, "settings": ["model.width=4"]}, recipe=own, out=tmp_path / "run")
    assert found.energy_pj_per_image is None and found.energy_pj is None
    stored = json.loads((found.path / "result.json").read_text())
    assert "nobody knows" in stored["energy_note"]


def test_counting_changes_nothing_of_the_model(finished):
    before = {name: np.array(value) for name, value in finished.model.state_dict(decoded=True).items()}
    from minilp import data
    from minilp.training.run_energy import run_energy
    sets = data.load(finished.config.data)
    again = run_energy(finished.config, finished.model, *sets)
    assert again["energy_pj"] == finished.energy_pj
    for name, value in finished.model.state_dict(decoded=True).items():
        assert np.array_equal(value, before[name]), name


def test_an_epoch_is_never_held_in_memory(finished):
    """20,000 images take 15 MB as float32; counting needs two batches of 8 at a time, and the model's own arrays."""
    from minilp import data
    from minilp.training.run_energy import run_energy
    train_set, test_set = data.load(finished.config.data)
    many = dataclasses.replace(train_set, images=np.resize(train_set.images, (20_000, *train_set.images.shape[1:])),
                               labels=np.resize(train_set.labels, 20_000))
    tracemalloc.start()
    try:
        run_energy(finished.config, finished.model, many, test_set)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8e6
