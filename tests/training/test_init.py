"""``--init RUN``: a training that begins with the weights another one ended with."""
import json
import shutil

import numpy as np
import pytest

from minilp import cli
from minilp.training import TrainConfig, checkpoint, train
from minilp.training.initial import LEARNED

STILL = {"epochs": 1, "lr": 0.0, "weight_decay": 0.0}
"""A training that changes no parameter: what it ends with is what it began with."""


def parameters(path):
    """The parameters in a run's checkpoint, codes decoded; statistics of batch norm left out."""
    arrays, _ = checkpoint.load(path / "checkpoint.safetensors")
    return {name: array if isinstance(array, np.ndarray) else array.decode() for name, array in arrays.items()
            if name.startswith("model.") and "running" not in name and "batches" not in name}


@pytest.mark.parametrize(("before", "after"), [("fp32", "potq"), ("potq", "fp32"), ("potq", "mls"), ("fp32", "fp32")])
def test_weights_are_those_of_the_run_whatever_the_recipes(options, tmp_path, before, after):
    own = {"fp32": [], "mls": [], "potq": ["error.rounding=stochastic"]}
    first = train(**{**options, "recipe": before, "settings": ["model.width=4", *own[before]]}, out=tmp_path / "first")
    second = train(**{**options, **STILL, "recipe": after, "settings": ["model.width=4"]}, init=first.path,
                   out=tmp_path / "second")
    old, new = parameters(first.path), parameters(second.path)
    shared = {name for name in old if not LEARNED.search(name)}
    assert shared == {name for name in new if not LEARNED.search(name)} and len(shared) > 5
    assert all(np.array_equal(old[name], new[name]) for name in shared)
    learned = {name: value for name, value in new.items() if LEARNED.search(name)}
    assert bool(learned) == (after == "potq") and all(value == np.float32(0.9) for value in learned.values())
    assert f"weights of {first.path}: small_cnn, recipe {before}, 3 epochs trained" in (
        second.path / "log.txt").read_text()


def test_weights_that_live_as_codes_are_decoded_and_encoded(options, tmp_path):
    options = {**options, "settings": ["model.width=4"], "lr": None, "epochs": 1}
    codes = train(**{**options, "recipe": "lns-madam"}, out=tmp_path / "codes")
    floats = train(**{**options, **STILL, "recipe": "fp32"}, init=codes.path, out=tmp_path / "floats")
    old, new = parameters(codes.path), parameters(floats.path)
    assert all(np.array_equal(old[name], new[name]) for name in new)
    again = train(**{**options, **STILL, "recipe": "lns-madam"}, init=codes.path, out=tmp_path / "again")
    assert all(np.array_equal(old[name], array) for name, array in parameters(again.path).items())


def test_the_record_and_the_command_name_the_run(options, tmp_path, finished):
    tuned = train(**{**options, "epochs": 1}, init=finished.path, out=tmp_path / "tuned")
    stored = json.loads((tuned.path / "result.json").read_text())
    assert stored["config"]["init"] == str(finished.path) and f"--init {finished.path}" in stored["command"]
    args = vars(cli.parser().parse_args(["train", "--init", "runs/x"]))
    assert args["init"] == "runs/x"
    assert TrainConfig.from_config(stored["config"]) == tuned.config


def test_a_resumed_run_does_not_need_it_any_more(options, tmp_path, finished):
    whole = train(**options, init=finished.path, out=tmp_path / "whole")
    train(**options, init=finished.path, out=tmp_path / "cut")
    (tmp_path / "cut" / "result.json").unlink()
    moved = tmp_path / "moved"
    shutil.move(finished.path, moved)
    resumed = train(out=tmp_path / "cut", resume=True, quiet=True)
    assert resumed.test_acc == whole.test_acc
    (tmp_path / "cut" / "result.json").unlink()
    with pytest.raises(ValueError, match=r"init: the run in .* was started with .*finished.*moved"):
        train(out=tmp_path / "cut", resume=True, init=moved, quiet=True)


def test_what_does_not_fit_is_named_and_nothing_is_written(options, tmp_path, finished):
    out = tmp_path / "run"
    with pytest.raises(ValueError, match=r"init: expected a run directory with .*safetensors, got .*nowhere"):
        train(**options, init=tmp_path / "nowhere", out=out)
    with pytest.raises(ValueError, match=r"init: .*finished holds a small_cnn that does not fit:\n(.|\n)*shape"):
        train(**{**options, "settings": ["model.width=8"]}, init=finished.path, out=out)
    with pytest.raises(ValueError, match=r"init: .*finished holds a small_cnn that does not fit:\n(.|\n)*missing"):
        train(**{**options, "settings": []}, model="resnet20", init=finished.path, out=out)
    assert not out.exists()


def test_sentences_need_the_same_vocabulary(tmp_path):
    options = {"recipe": "fp32", "epochs": 1, "batch_size": 200, "threads": 1, "quiet": True, "settings": [
        "model.d_model=16", "model.nhead=2", "model.num_encoder_layers=1", "model.num_decoder_layers=1",
        "model.dim_feedforward=16", "data.pairs=60", "data.held_out=15"]}
    first = train("numbers", **options, out=tmp_path / "first")
    second = train("numbers", **{**options, **STILL}, init=first.path, out=tmp_path / "second")
    old, new = parameters(first.path), parameters(second.path)
    assert all(np.array_equal(old[name], new[name]) for name in old)
    (first.path / "vocabulary.json").write_text("{}")
    with pytest.raises(ValueError, match=r"init: .*first was trained with another vocabulary\.json"):
        train("numbers", **options, init=first.path, out=tmp_path / "third")
