"""Fine-tuning from a float32 checkpoint: what a run starts from, what it records, at a size that teaches nothing."""
import dataclasses
import json

import numpy as np
import pytest

from minilp import cli
from minilp.experiments import finetune, run_one, sweep, widths, widths_report
from minilp.formats import LNS
from minilp.training import load, train

SMALL = ["model.d_model=16", "model.nhead=2", "model.num_encoder_layers=1", "model.num_decoder_layers=1",
         "model.dim_feedforward=16", "data.pairs=60", "data.held_out=10"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A float32 training of a second."""
    return train("numbers", recipe="fp32", epochs=1, batch_size=100, settings=SMALL, threads=1, quiet=True,
                 out=tmp_path_factory.mktemp("runs") / "numbers")


@pytest.fixture(scope="module")
def task(run):
    return finetune.Task(str(run.path), pairs=40, batch_size=100)


@pytest.mark.parametrize("optimizer", ["madam", "adamw"])
def test_it_starts_from_the_checkpoint(run, task, optimizer):
    trained = dict(load(run.path).named_parameters())
    plain, _ = task.begin(task.config(optimizer, 2.0**-9, None, None, 0))
    for name, param in plain.model.named_parameters():
        if trained[name].data.any():  # Madam redraws what is zero throughout
            assert np.array_equal(param.data, trained[name].data), name
    stored, _ = task.begin(task.config(optimizer, 2.0**-9, 12, "nearest", 0))
    for name, param in stored.model.named_parameters():
        assert param.code.format == LNS(12, 128, zero="code", draw="exponent")
        value, bound = trained[name].data, np.abs(param.data).max()
        inside = (np.abs(value) <= bound) & (np.abs(value) > bound * 2.0**-15)
        np.testing.assert_allclose(param.data[inside], value[inside], rtol=2.0 ** (1 / 128) - 1, err_msg=name)
    assert len(plain.loader.dataset) == 40 and plain.config.recipe.act == stored.config.recipe.act


def test_before_any_step_is_the_checkpoint_under_the_contractions(run, task):
    same = dataclasses.replace(task, settings=("weight=none", "act=none", "error=none", "wgrad=none"))
    assert task.before()["val_acc"] != 0
    assert same.before()["val_loss"] == pytest.approx(run.rows[-1]["val_loss"], rel=1e-5)


def test_a_sweep_is_recorded_resumed_and_shown(task, tmp_path):
    file, lines = tmp_path / "rows.json", []
    record = sweep((16, 10), task=task, rates={"madam": 2.0**-9, "adamw": 2.0**-12}, json_file=file, say=lines.append)
    assert json.loads(file.read_text()) == record and {r["optimizer"] for r in record["rows"]} == {"madam", "adamw"}
    assert {r["bits"] for r in record["rows"]} == {None, 16, 10}
    assert all(0 <= r["val_acc"] <= 1 and "test_acc" not in r for r in record["rows"])
    again = sweep((16, 10), task=task, rates={"madam": 2.0**-9, "adamw": 2.0**-12}, json_file=file)
    assert again == record
    text = widths_report.table(record)
    assert "val accuracy in %" in text and f"before any step: {record['before']['val_acc']:.2%}" in text


def test_small_steps_are_lost_in_narrow_weights_to_nearest(task):
    """AdamW's steps of 2^-16 are below half a gap of all but the smallest weights at 10 bits."""
    assert run_one(task, "adamw", 2.0**-16, 10, "nearest")["unmoved"] > 0.9
    assert run_one(task, "adamw", 2.0**-16, 10, "stochastic")["unmoved"] < run_one(
        task, "adamw", 2.0**-16, 10, "nearest")["unmoved"]


def test_what_cannot_be_fine_tuned_is_named(run, task, tmp_path):
    with pytest.raises(ValueError, match=r"run: .* is no run directory with a checkpoint"):
        sweep(task=finetune.Task(str(tmp_path)))
    with pytest.raises(ValueError, match="pairs: expected 1 to 60"):
        sweep(task=dataclasses.replace(task, pairs=61))
    coded = train("numbers", recipe="int8", epochs=1, batch_size=100, settings=SMALL, threads=1, quiet=True,
                  out=tmp_path / "coded")
    with pytest.raises(ValueError, match=r"expected a float32 training .*int8"):
        sweep(task=finetune.Task(str(coded.path)))
    pictures = train("shapes10", recipe="fp32", epochs=1, train_images=8, batch_size=8, threads=1, quiet=True,
                     settings=["model.width=4"], out=tmp_path / "pictures")
    with pytest.raises(ValueError, match=r"expected a translation, .* is image classification"):
        sweep(task=finetune.Task(str(pictures.path)))


def test_the_command(run, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    picture, seen, real = tmp_path / "plot.png", [], widths.sweep
    monkeypatch.setattr(widths, "sweep", lambda bits, task, **given: seen.append((bits, task)) or real(
        bits, task=task, **given))
    words = ["experiment", "finetune", str(run.path), "--pairs", "40", "--batch-size", "100", "--bits", "16,11",
             "--lr", "madam=0.002", "--lr", "adamw=0.0001", "--set", "model.dropout=0.1", "--plot", str(picture),
             "--json", str(tmp_path / "rows.json")]
    assert cli.main(words) == 0
    assert seen == [((16, 11), finetune.Task(str(run.path), 40, 100, "lns-madam", ("model.dropout=0.1",)))]
    out = capsys.readouterr().out
    assert "madam: learning rate 0.002" in out and "before any step" in out and picture.stat().st_size > 1000
    with pytest.raises(SystemExit, match="2"):
        cli.main([*words[:3], "--bits", "16;10"])
    assert "'16;10'" in capsys.readouterr().err
