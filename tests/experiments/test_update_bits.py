"""The sweep over update widths: what it runs, records, resumes and shows, at a size that teaches nothing."""
import dataclasses
import json
import pathlib

import numpy as np
import pytest

from minilp import cli
from minilp.experiments import Task, run_one, sweep, widths, widths_report
from minilp.formats import LNS

RESULTS = pathlib.Path(__file__).resolve().parents[2] / "lessons" / "results"
TINY = Task(train_images=24, test_images=10, epochs=2, batch_size=8, width=4)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two widths, two optimizers: (record, file, lines said)."""
    file, lines = tmp_path_factory.mktemp("sweep") / "rows.json", []
    return sweep((16, 10), ("madam", "sgd"), task=TINY, json_file=file, say=lines.append), file, lines


def row(optimizer, lr, bits, acc, seed=0, rounding="stochastic"):
    """A row as the report needs it."""
    return {"optimizer": optimizer, "lr": lr, "bits": bits, "rounding": None if bits is None else rounding,
            "seed": seed, "test_acc": acc}


def test_every_width_and_optimizer_is_recorded_at_the_rate_the_search_found(swept):
    record, file, lines = swept
    assert json.loads(file.read_text()) == record and len(lines) == len(record["rows"]) + 2
    rates = record["learning_rates"]["stochastic"]
    for name in ("madam", "sgd"):
        mine = [r for r in record["rows"] if r["optimizer"] == name]
        assert {r["bits"] for r in mine if r["lr"] == rates[name]} == {None, 16, 10}
        tried = {r["lr"]: r["train_loss"] for r in mine if r["bits"] == 16}
        assert {rates[name] / 2, rates[name] * 2} <= set(tried) and tried[rates[name]] == min(tried.values())
    assert all(0 <= r["test_acc"] <= 1 and r["diverged"] is None for r in record["rows"])
    assert all((r["unmoved"] is None) == (r["bits"] is None) for r in record["rows"])


def test_a_finished_sweep_runs_nothing_and_a_cut_off_one_goes_on(swept, tmp_path, monkeypatch):
    record, _, _ = swept
    ran, real = [], widths.run_one
    monkeypatch.setattr(widths, "run_one", lambda *args: ran.append(args) or real(*args))
    file = tmp_path / "rows.json"
    cut = {**record, "rows": record["rows"][:-1]}
    file.write_text(json.dumps(cut))
    again = sweep((16, 10), ("madam", "sgd"), task=TINY, json_file=file)
    last = record["rows"][-1]
    assert [args[1:4] for args in ran] == [(last["optimizer"], last["lr"], last["bits"])]
    volatile = ("seconds", "commit")
    assert [{k: v for k, v in r.items() if k not in volatile} for r in again["rows"]] == [
        {k: v for k, v in r.items() if k not in volatile} for r in record["rows"]]
    sweep((16, 10), ("madam", "sgd"), task=TINY, json_file=file)
    assert len(ran) == 1


@pytest.mark.parametrize("optimizer", ["madam", "sgd", "adamw"])
def test_the_weights_are_stored_as_the_row_says(optimizer):
    for bits, gamma in ((16, 2048), (12, 128), (10, 32)):
        role = TINY.config(optimizer, 0.1, bits, "nearest", 0).recipe.update
        assert role.format == LNS(bits, gamma, zero="code", draw="exponent") and role.rounding == "nearest"
    plain = TINY.config(optimizer, 0.1, None, None, 0)
    assert plain.recipe.update is None and plain.optimizer == optimizer
    assert plain.recipe.weight == TINY.config(optimizer, 0.1, 10, "nearest", 0).recipe.weight


def test_narrow_weights_stay_where_they_are_under_small_steps_to_nearest():
    """Madam's step of lr * gamma units: 64 at 16 bits; an eighth at 10 bits is rounded away below g* = 4."""
    wide, narrow = (run_one(TINY, "madam", 2.0**-8, bits, "nearest") for bits in (16, 10))
    assert wide["unmoved"] < 0.5 < 0.9 < narrow["unmoved"]


def test_a_diverged_run_is_a_row():
    found = run_one(dataclasses.replace(TINY, epochs=3), "sgd", 1e30, 16)
    assert found["diverged"] and found["test_acc"] is found["train_loss"] is found["unmoved"] is None
    assert "diverged" in widths.describe(found)


@pytest.mark.parametrize("best", [2.0**-5, 0.25, 1.0, 4.0])
def test_the_search_finds_the_lowest_loss_and_tries_both_neighbours(best):
    tried = []
    found = widths.search(lambda lr: tried.append(lr) or {"train_loss": abs(np.log2(lr / best))}, 0.25)
    assert found == best and {best / 2, best * 2, 0.25} <= set(tried)


def test_the_search_turns_away_from_divergence():
    assert widths.search(lambda lr: {"train_loss": None if lr > 0.3 else 1 - lr}, 1.0) == 0.25


def test_bad_arguments_are_named_before_anything_runs(swept, tmp_path, monkeypatch):
    monkeypatch.setattr(widths, "run_one", None)
    with pytest.raises(ValueError, match=r"optimizers.*madam.*'adam'"):
        sweep(optimizers=("adam",), task=TINY)
    with pytest.raises(ValueError, match="bits"):
        sweep((3,), task=TINY)
    with pytest.raises(ValueError, match="rounding"):
        sweep(rounding="up", task=TINY)
    with pytest.raises(ValueError, match="rates: expected some of sgd, got 'madam'"):
        sweep(optimizers=("sgd",), rates={"madam": 0.1}, task=TINY)
    with pytest.raises(ValueError, match="seeds"):
        sweep(seeds=(), task=TINY)
    with pytest.raises(ValueError, match=r"records the task.*'epochs': 2.*'epochs': 3"):
        sweep(task=dataclasses.replace(TINY, epochs=3), json_file=swept[1])
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ValueError, match=r"other\.json is no record"):
        sweep(task=TINY, json_file=tmp_path / "other.json")


def test_the_table_has_means_over_seeds_and_the_loss_from_wide_to_narrow():
    record = {"learning_rates": {"stochastic": {"madam": 0.5, "sgd": 0.1}}, "rows": [
        row("madam", 0.5, 16, 0.9), row("madam", 0.5, 16, 0.8, seed=1), row("madam", 0.5, 10, 0.8),
        row("madam", 0.5, 10, 0.8, seed=1), row("madam", 0.25, 16, 0.1), row("sgd", 0.1, None, 0.7),
        row("sgd", 0.1, 16, 0.6), row("sgd", 0.1, 10, None)]}
    lines = [line.split() for line in widths_report.table(record).splitlines()]
    assert lines[0] == ["stochastic", "lr", "float32", "16", "10", "16", "to", "10"]
    assert lines[1] == ["madam", "0.5", "-", "85.00", "80.00", "-5.00"]
    assert lines[2] == ["sgd", "0.1", "70.00", "60.00", "diverged", "-"]


def test_roundings_have_blocks_of_their_own_and_share_float32():
    record = {"learning_rates": {"stochastic": {"sgd": 0.1}, "nearest": {"sgd": 0.1}}, "rows": [
        row("sgd", 0.1, None, 0.7), row("sgd", 0.1, 16, 0.6), row("sgd", 0.1, 16, 0.5, rounding="nearest")]}
    assert widths_report.scores(record) == {"stochastic": {"sgd": {None: [0.7], 16: [0.6]}},
                                                 "nearest": {"sgd": {None: [0.7], 16: [0.5]}}}


def test_the_plot_is_the_same_bytes_for_the_same_record(swept, tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("a.png", "b.png"):
        assert widths_report.plot(swept[0], tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_command_records_prints_and_draws(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    real = widths.sweep
    monkeypatch.setattr(widths, "sweep", lambda bits, task, **given: real(bits, ("sgd",), task=TINY, **given))
    file, picture = tmp_path / "rows.json", tmp_path / "plot.png"
    words = ["experiment", "update-bits", "--bits", "16", "--rounding", "nearest", "--json", str(file),
             "--plot", str(picture)]
    assert cli.main([*words, "--lr", "sgd=0.25"]) == 0
    out = capsys.readouterr().out
    rows = json.loads(file.read_text())["rows"]
    assert {r["lr"] for r in rows} == {0.25}, "a given rate is not searched"
    assert "sgd: learning rate 0.25" in out and "rounding of updates: nearest" in out and f"plot: {picture}" in out
    assert picture.stat().st_size > 1000 and {r["rounding"] for r in rows} == {None, "nearest"}


@pytest.mark.parametrize("text", ["sgd", "sgd=fast"])
def test_a_bad_rate_on_the_command_line_is_named(text, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["experiment", "update-bits", "--lr", text])
    assert repr(text) in capsys.readouterr().err


def test_the_recorded_sweep_is_complete_and_its_rates_are_those_of_the_search():
    record = json.loads((RESULTS / "update-bits-shapes10-small_cnn.json").read_text())
    assert record["task"] == dataclasses.asdict(Task()) and all(len(r["commit"]) == 40 for r in record["rows"])
    found = widths_report.scores(record)["stochastic"]
    assert {name: set(widths) for name, widths in found.items()} == {
        name: {None, *widths.BITS} for name in ("madam", "sgd", "adamw")}
    for name, lr in record["learning_rates"]["stochastic"].items():
        losses = {r["lr"]: r["train_loss"] for r in record["rows"] if (r["optimizer"], r["bits"]) == (name, 16)}
        assert losses[lr] == min(losses.values()) and {lr / 2, lr * 2} <= set(losses)
