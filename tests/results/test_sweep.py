"""Sweeps: what is recorded is skipped, what was cut off goes on, errors and divergence stay with their training."""
import json
import os
import signal
import subprocess
import sys
import time

import pytest

import minilp
from minilp import cli
from minilp.results import read, sweep
from minilp.training import train
from minilp.training.rundir import RunDirectory


@pytest.fixture
def folders(tmp_path):
    return {"results": tmp_path / "results", "runs": tmp_path / "runs"}


def scores(result):
    return [{key: row[key] for key in ("train_loss", "train_acc", "test_loss", "test_acc")} for row in result["epochs"]]


def test_it_trains_what_is_missing_and_only_that(defaults, folders, tmp_path):
    plan = {"defaults": defaults, "runs": [{"recipe": "fp32", "seeds": [0, 1]}, {"recipe": "potq"}]}
    listed = sweep(plan, **folders, only_list=True)
    assert [row["state"] for row in listed.rows] == ["missing"] * 3 and not folders["results"].exists()
    done = sweep(plan, **folders, jobs=2, threads=1, quiet=True)
    assert [row["state"] for row in done.rows] == ["recorded"] * 3 and not done.failed
    assert "3 of 3 recorded" in str(done)
    paths = sorted(folders["results"].iterdir())
    assert [path.name for path in paths] == [f"tiny-small_cnn-{name}.json" for name in (
        "fp32-e1-b8-model.width=4-s0", "fp32-e1-b8-model.width=4-s1", "potq-e1-b8-model.width=4-s0")]
    settings = defaults.pop("set")
    for record in read(folders["results"]):
        again = train(**defaults, recipe=record.config.recipe.name, seed=record.config.seed, settings=settings,
                      out=tmp_path / "again" / record.path.stem, quiet=True)
        assert 100 * again.test_acc == record.score and scores({"epochs": again.rows}) == scores(record.result)

    before = {path: path.stat().st_mtime_ns for path in paths}
    paths[0].rename(folders["results"] / "renamed.json")
    again = sweep({**plan, "defaults": {**defaults, "set": settings}}, **folders, quiet=True)
    assert [row["state"] for row in again.rows] == ["recorded"] * 3
    assert {path.name for path in folders["results"].iterdir()} == {"renamed.json", *(p.name for p in paths[1:])}
    assert all(path.stat().st_mtime_ns == before[path] for path in paths[1:])


def test_errors_and_divergence_do_not_lose_the_others(defaults, folders, capfd):
    plan = {"defaults": defaults, "runs": [{"recipe": "potq", "set": ["model.depth=3"]},
                                           {"recipe": "fp32", "lr": 1e35, "schedule": "constant"}, {"recipe": "fp32"}]}
    done = sweep(plan, **folders, threads=1)
    assert [row["state"] for row in done.rows] == ["failed", "diverged", "recorded"] and done.failed
    assert "depth" in done.rows[0]["words"] and done.rows[1]["score"] is None
    assert [record.diverged for record in read(folders["results"])].count(True) == 1
    out = capfd.readouterr().out
    assert "failed tiny" in out and "diverged" in out and "epoch 1/1" in out
    again = sweep(plan, **folders, threads=1, quiet=True)  # only the failed one is tried again
    assert [row["state"] for row in again.rows] == ["failed", "diverged", "recorded"]
    assert capfd.readouterr().out == ""


LONG = 60  # epochs: long enough to be met in the middle


@pytest.mark.parametrize("by", ["SIGKILL", "SIGINT"])
def test_cut_off_it_goes_on_to_the_same_numbers(defaults, folders, tmp_path, by):
    """The sweep's process is killed, or gets a Ctrl-C; its training notices, saves and stops."""
    plan = {"defaults": {**defaults, "epochs": LONG}, "runs": [{"recipe": "potq"}, {"recipe": "fp32"}]}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    command = [sys.executable, "-m", "minilp", "sweep", str(tmp_path / "plan.json"), "--threads", "1",
               *(word for name, path in folders.items() for word in (f"--{name}", str(path)))]
    # what runs in the background of a shell may ignore SIGINT, and its children would too
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    signal.signal(signal.SIGINT, before)
    run = RunDirectory(folders["runs"] / f"tiny-small_cnn-potq-e{LONG}-b8-model.width=4-s0")
    try:
        wait_for(lambda: run.started and run.file("metrics.csv").exists() and len(run.rows()) >= 2)
    finally:
        process.send_signal(getattr(signal, by))
        _, errors = process.communicate(timeout=60)
    assert process.returncode == (-9 if by == "SIGKILL" else 130), errors
    if by == "SIGINT":
        assert b"the same command goes on" in errors
    wait_for(lambda: is_free(run))
    stopped_at = len(run.rows())
    assert 2 <= stopped_at < LONG and not run.finished
    listed = sweep(plan, **folders, only_list=True)
    assert [row["state"] for row in listed.rows] == ["unfinished", "missing"]
    assert f"{stopped_at} of {LONG} epochs" in str(listed)

    done = sweep({**plan, "runs": plan["runs"][:1]}, **folders, threads=1, quiet=True)
    assert done.rows[0]["state"] == "recorded"
    settings = defaults.pop("set")
    whole = train(**{**defaults, "epochs": LONG}, recipe="potq", settings=settings, out=tmp_path / "whole", quiet=True)
    assert scores(read(folders["results"])[0].result) == scores({"epochs": whole.rows})


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.01)


def is_free(run):
    """Whether no process trains there."""
    try:
        run.lock()
    except ValueError:
        return False
    run.unlock()
    return True


def test_a_killed_training_is_an_error_of_its_own(defaults, folders, monkeypatch):
    plan = {"defaults": {**defaults, "epochs": LONG}, "runs": [{"recipe": "fp32"}]}
    from minilp.results import sweeping

    started = sweeping.subprocess.Popen

    def start_and_kill(*args, **kwargs):
        process = started(*args, **kwargs)
        os.kill(process.pid, signal.SIGKILL)
        return process

    monkeypatch.setattr(sweeping.subprocess, "Popen", start_and_kill)
    done = sweep(plan, **folders, quiet=True)
    assert done.failed and "status -9" in done.rows[0]["words"]


def test_a_finished_run_is_recorded_without_training(defaults, folders, tmp_path):
    """Cut off between the end of a training and its record; but a run of another configuration is refused."""
    settings = defaults.pop("set")
    name = "tiny-small_cnn-fp32-e1-b8-model.width=4-s0"
    train(**defaults, recipe="fp32", settings=settings, out=folders["runs"] / name, quiet=True)
    result = (folders["runs"] / name / "result.json").read_bytes()
    plan = {"defaults": {**defaults, "set": settings}, "runs": [{"recipe": "fp32"}]}
    assert sweep(plan, **folders, quiet=True).rows[0]["state"] == "recorded"
    assert (folders["results"] / f"{name}.json").read_bytes() == result
    (folders["results"] / f"{name}.json").unlink()
    other = json.loads(result)
    other["config"]["lr"] = 0.3
    (folders["runs"] / name / "result.json").write_text(json.dumps(other))
    refused = sweep(plan, **folders, quiet=True)
    assert refused.failed and "another configuration" in refused.rows[0]["words"]


@pytest.mark.parametrize("wrong", [{"jobs": 0}, {"jobs": True}, {"threads": 0}])
def test_arguments_are_checked(wrong, defaults, folders):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected an integer >= 1"):
        sweep({"defaults": defaults, "runs": [{}]}, **folders, **wrong)


def test_a_damaged_record_ends_a_sweep_before_it_trains(defaults, folders):
    folders["results"].mkdir()
    (folders["results"] / "broken.json").write_text("{")
    with pytest.raises(ValueError, match=r"broken\.json"):
        sweep({"defaults": defaults, "runs": [{}]}, **folders, quiet=True)
    assert not folders["runs"].exists()


def test_the_command_lists_and_fails(defaults, folders, tmp_path, capsys):
    (tmp_path / "plan.json").write_text(json.dumps({"defaults": defaults, "runs": [{"recipe": "fp32"}]}))
    words = [str(tmp_path / "plan.json"), "--results", str(folders["results"]), "--runs", str(folders["runs"])]
    assert cli.main(["sweep", *words, "--list"]) == 0
    assert "missing" in capsys.readouterr().out
    (tmp_path / "plan.json").write_text(json.dumps({"defaults": defaults, "runs": [{"set": ["model.depth=3"]}]}))
    assert cli.main(["sweep", *words]) == 1
    assert "failed" in capsys.readouterr().out
    assert cli.main(["sweep", str(tmp_path / "none.json")]) == 2
    assert minilp.sweep is sweep
