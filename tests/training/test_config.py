"""The configuration: defaults per data set, checks that name the argument, and the way to JSON and back."""
import dataclasses
import json
import shlex

import pytest

from minilp import cli, recipe
from minilp.formats import PoT
from minilp.recipe import Recipe
from minilp.training import TrainConfig


def test_no_argument_means_potq_on_shapes10():
    config = TrainConfig.create()
    assert (config.data, config.model, config.recipe.name) == ("shapes10", "small_cnn", "potq")
    assert config.augment == "none" and config.name == "shapes10-small_cnn-potq-s0"


def test_cifar10_has_the_usual_recipe():
    config = TrainConfig.create("cifar10", "resnet20", "fp32")
    assert (config.batch_size, config.lr, config.momentum, config.weight_decay, config.augment, config.schedule) == (
        128, 0.2, 0.9, 5e-4, "crop_flip", "onecycle")


def test_given_values_win_over_defaults():
    config = TrainConfig.create("cifar10", lr=0.05, epochs=2, augment="none")
    assert (config.lr, config.epochs, config.augment, config.batch_size) == (0.05, 2, "none", 128)


@pytest.mark.parametrize("settings", [["act.bits=4", "model.width=8", "error.rounding=stochastic"],
                                      {"act.bits": 4, "model.width": 8, "error.rounding": "stochastic"}])
def test_settings_reach_recipe_and_model(settings):
    config = TrainConfig.create(settings=settings)
    assert config.recipe.act.format == PoT(bits=4) and config.recipe.weight.format == PoT(bits=5)
    assert config.recipe.error.rounding == "stochastic"
    assert config.model_options == {"width": 8}


def test_json_round_trip_is_exact(tmp_path):
    config = TrainConfig.create(settings=["act.bits=4", "model.width=8"], lr=0.1, seed=3, save_every=5, threads=2,
                                root=tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config.to_config()))
    assert TrainConfig.load(tmp_path / "config.json") == config
    assert config.to_config()["recipe"] == "potq"


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig.create().lr = 1.0


@pytest.mark.parametrize(("arguments", "words"), [
    ({"data": "cifar100"}, ["data", "'cifar100'", "shapes10"]),
    ({"model": "resnet21"}, ["model", "'resnet21'", "resnet20"]),
    ({"recipe": "int9"}, ["recipe", "'int9'", "potq"]),
    ({"epochs": 0}, ["epochs", "0", ">= 1"]),
    ({"epochs": 1.5}, ["epochs", "1.5", "integer"]),
    ({"batch_size": True}, ["batch_size", "True", "integer"]),
    ({"lr": -0.1}, ["lr", "-0.1", ">= 0"]),
    ({"lr": float("nan")}, ["lr", "nan", "finite"]),
    ({"momentum": 1.0}, ["momentum", "1.0", "< 1"]),
    ({"weight_decay": "x"}, ["weight_decay", "'x'", "number"]),
    ({"schedule": "linear"}, ["schedule", "'linear'", "cosine"]),
    ({"augment": "mixup"}, ["augment", "'mixup'", "crop_flip"]),
    ({"seed": -1}, ["seed", "-1", ">= 0"]),
    ({"threads": 0}, ["threads", "0", ">= 1"]),
    ({"save_every": -2}, ["save_every", "-2", ">= 0"]),
    ({"learning_rate": 0.1}, ["learning_rate", "lr"]),
    ({"settings": ["act.bits"]}, ["set", "'act.bits'", "key=value"]),
    ({"settings": ["act.bots=4"]}, ["set", "bots", "bits"]),
    ({"settings": ["activation.bits=4"]}, ["set", "activation.bits", "act"]),
    ({"settings": ["act.bits=four"]}, ["bits", "four"]),
    ({"settings": ["act.bits=99"]}, ["bits", "99"]),
])
def test_errors_name_the_argument_what_came_and_what_was_expected(arguments, words):
    with pytest.raises(ValueError, match=words[0]) as caught:
        TrainConfig.create(**arguments)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"data": "shapes10"}'])
def test_a_damaged_config_is_refused_by_name(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json: not the configuration"):
        TrainConfig.load(tmp_path / "config.json")


def test_the_printed_command_gives_the_same_training():
    config = TrainConfig.create("cifar10", "resnet20", lr=0.07, epochs=3, settings=["act.bits=4", "model.shortcut=A"])
    program, *arguments = shlex.split(config.command())
    args = vars(cli.parser().parse_args(arguments))
    again = TrainConfig.create(settings=args.pop("set"), **{k: v for k, v in args.items()
                                                            if k not in ("run", "out", "resume")})
    assert program == "minilp" and again == config


def test_a_recipe_of_ones_own_has_no_command():
    config = TrainConfig.create(recipe=dataclasses.replace(recipe.potq(), act=None))
    assert "from Python" in config.command()
    assert "from Python" in TrainConfig.create(recipe=Recipe(weight=PoT(4))).command()
