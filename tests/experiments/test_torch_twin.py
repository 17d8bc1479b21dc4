"""The torch twin: the same start and the same batches as minilp's own float32 training, a record of the same form."""
import json
import pathlib
import shlex

import jsonschema
import numpy as np
import pytest

from minilp import cli
from minilp.experiments import torch_twin
from minilp.results import read, sweep
from minilp.training import Diverged, train

SCHEMA = json.loads((pathlib.Path(__file__).resolve().parents[2] / "lessons" / "result.schema.json").read_text())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """48 training and 16 test images of 16 x 16 in ten classes."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "few.npz"
    arrays = {}
    for split, count in (("train", 48), ("test", 16)):
        arrays[f"y_{split}"] = np.arange(count) % 10
        arrays[f"x_{split}"] = rng.integers(0, 256, (count, 3, 16, 16)).astype(np.uint8)
    np.savez(path, **arrays)
    return {"data": str(path), "model": "resnet20", "epochs": 2, "batch_size": 16, "augment": "crop_flip", "threads": 1,
            "quiet": True}


def test_it_begins_as_minilp_does(torch, pictures, tmp_path):
    """With a rate of almost 0 the losses of all steps are those of the initial weights, to float32 accuracy."""
    options = {**pictures, "epochs": 1, "lr": 1e-8}
    theirs = torch_twin.train(**options, out=tmp_path / "theirs")
    ours = train(**options, recipe="fp32", out=tmp_path / "ours")
    assert theirs["epochs"][0]["train_loss"] == pytest.approx(ours.rows[0]["train_loss"], rel=1e-5)
    assert theirs["epochs"][0]["train_acc"] == ours.rows[0]["train_acc"]
    assert theirs["test_loss"] == pytest.approx(ours.rows[0]["test_loss"], rel=1e-4)


def test_it_follows_minilp_through_schedule_momentum_and_decay(torch, pictures, tmp_path):
    """Six steps at a rate that moves the loss: both losses stay together, and neither is that of standing still."""
    options = {**pictures, "lr": 0.02, "weight_decay": 0.05}
    theirs = torch_twin.train(**options, out=tmp_path / "theirs")
    ours = train(**options, recipe="fp32", out=tmp_path / "ours")
    still = train(**{**options, "lr": 1e-8}, recipe="fp32", out=tmp_path / "still")
    for row, other, stands in zip(theirs["epochs"], ours.rows, still.rows, strict=True):
        moved = abs(other["train_loss"] - stands["train_loss"])
        assert abs(row["train_loss"] - other["train_loss"]) < 0.1 * moved + 1e-3, (row, other, stands)


def test_its_record_is_that_of_a_training(torch, pictures, tmp_path):
    found = torch_twin.train(**{**pictures, "epochs": 1}, out=tmp_path / "run")
    jsonschema.validate(found, SCHEMA)
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == found
    assert found["config"]["recipe"] == "torch-fp32" and found["backend"]["name"] == "torch"
    assert found["energy_pj_per_image"] is not None
    program, *words = shlex.split(found["command"])
    args = vars(cli.parser().parse_args(words))
    assert program == "minilp" and args["run"].__name__ == "_torch_twin" and args["epochs"] == 1


def test_an_epoch_at_a_time_gives_the_same_numbers(torch, pictures, tmp_path, monkeypatch):
    whole = torch_twin.train(**pictures, out=tmp_path / "whole")
    real, calls = torch_twin._Twin._epoch, []

    def once(self, epoch, stopped, progress):
        if calls:
            raise KeyboardInterrupt
        calls.append(epoch)
        return real(self, epoch, stopped, progress)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch_twin._Twin, "_epoch", once)
        torch_twin.train(**pictures, out=tmp_path / "parts")
    assert not (tmp_path / "parts" / "result.json").exists()
    parts = torch_twin.train(**pictures, out=tmp_path / "parts", resume=True)
    losses = [[row["train_loss"] for row in found["epochs"]] for found in (whole, parts)]
    assert losses[0] == losses[1] and whole["test_acc"] == parts["test_acc"]


def test_divergence_is_recorded(torch, pictures, tmp_path):
    with pytest.raises(Diverged, match="the loss is"):
        torch_twin.train(**{**pictures, "lr": 1e30, "schedule": "constant"}, out=tmp_path / "run")
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    jsonschema.validate(found, SCHEMA)
    assert found["diverged"]["step"] > 0


@pytest.mark.parametrize(("given", "words"), [({"recipe": "potq"}, "recipe: .*'potq'"), ({"optimizer": "adamw"}, "sgd"),
                                              ({"settings": ["model.width=8"]}, "width"), ({"model": "vgg11"}, "twin"),
                                              ({"init": "runs/x"}, "init: .*only None, got 'runs/x'")])
def test_what_it_has_not_is_refused(torch, pictures, tmp_path, given, words):
    with pytest.raises(ValueError, match=words):
        torch_twin.train(**{**pictures, **given}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_sweep_runs_it(torch, pictures, tmp_path):
    defaults = {key: value for key, value in pictures.items() if key not in ("quiet", "threads")}
    done = sweep({"defaults": {**defaults, "epochs": 1}, "runs": [{"recipe": "torch-fp32"}, {"recipe": "fp32"}]},
                 results=tmp_path / "results", runs=tmp_path / "runs", threads=1, quiet=True)
    assert [row["state"] for row in done.rows] == ["recorded"] * 2, done
    assert {record.config.recipe.name for record in read(tmp_path / "results")} == {"torch-fp32", "fp32"}
