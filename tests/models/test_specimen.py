"""Models by name with data that fit them, and the commands that use them."""
import numpy as np
import pytest

from minilp import energy, models, recipe
from minilp.energy.report import report
from minilp.models.specimen import SEQUENCE_MODELS, specimen
from minilp.training import inspect_recipe

TINY = {"d_model": 16, "nhead": 2, "dim_feedforward": 16}
SMALL = {"transformer": {**TINY, "num_encoder_layers": 1, "num_decoder_layers": 1, "src_vocab_size": 30,
                         "tgt_vocab_size": 30}, "encoder": {**TINY, "num_layers": 1, "vocab_size": 30}}


@pytest.mark.parametrize("name", ["small_cnn", *SEQUENCE_MODELS])
def test_a_batch_goes_forward_and_back(name):
    made = specimen(name, 3, SMALL.get(name))
    loss = made.loss(made.model, made.x, made.y)
    loss.backward()
    assert np.isfinite(loss.item()) and len(made.x) == 3
    assert all(param.grad is not None for param in made.model.parameters() if param.requires_grad)
    again = specimen(name, 3, SMALL.get(name))
    assert np.array_equal(made.x, again.x) and np.array_equal(made.y, again.y)


def test_every_token_of_an_encoder_may_have_a_label():
    made = specimen("encoder", 3, {**SMALL["encoder"], "per_token": True, "num_classes": 5})
    assert made.y.shape == (48,) and made.y.max() < 5 and made.outputs(made.model, made.x, made.y).shape == (48, 5)


@pytest.mark.parametrize("name", SEQUENCE_MODELS)
def test_energy_of_a_step_on_sentences(name):
    counts, executed = energy.count_named(name, recipe.get("potq"), 2, SMALL[name])
    assert executed and counts.total_macs("forward") > 0
    settings = [f"model.{key}={value}" for key, value in SMALL[name].items()]
    text = str(report(name, "potq", settings, batch_size=2))
    assert "all numbers per sentence" in text and "nJ per sentence" in text


def test_groups_of_a_transformer():
    rows = inspect_recipe("transformer", "mls", batch_size=1).rows
    assert {row["role"] for row in rows} == {"weight", "act", "error"}
    assert any(row["layer"].startswith("decoder.") for row in rows)


def test_all_models_have_a_specimen():
    assert set(SEQUENCE_MODELS) < set(models.available())
