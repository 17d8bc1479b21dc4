"""A training that is killed at any moment and resumed ends with exactly the files of one that was left alone."""
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from minilp import cli, files, nn
from minilp.training import Interrupted, checkpoint, train
from minilp.training.session import Session


class Kill(BaseException):
    """Stands for SIGKILL: nothing in the code under test catches it."""


def half_a_line(path, text):
    with path.open("a") as file:
        file.write(text[:len(text) // 2])


def dying(monkeypatch, moment):
    """Let the process 'die' at the ``moment``-th operation on the disk; returns the list of operations seen."""
    seen = []

    def wrap(module, name, partial):
        real = getattr(module, name)

        def operation(*args, **kw):
            seen.append(name)
            if len(seen) == moment:
                partial(*args)
                raise Kill
            return real(*args, **kw)
        monkeypatch.setattr(module, name, operation)

    wrap(os, "fsync", lambda *_: None)
    wrap(os, "replace", lambda *_: None)
    wrap(files, "append", half_a_line)
    return seen


def test_death_at_every_operation_on_the_disk(options, tmp_path, contents, monkeypatch):
    """Every fsync, rename and append of a whole training in turn, with half-written lines and files left behind."""
    options.update(epochs=2, batch_size=15, save_every=2)
    train(**options, out=tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    moment, total = 1, None
    while total is None:
        run = tmp_path / f"killed{moment}"
        with monkeypatch.context() as patch:
            seen = dying(patch, moment)
            try:
                train(**options, out=run)
                total = len(seen)
            except Kill:
                pass
        if total is None:
            train(**options, out=run, resume=(run / "config.json").exists())
            assert contents(run) == whole, f"killed at operation {moment}, {seen[-1]}"
        moment += 1
    assert total > 30


def command(options, out, resume):
    words = [sys.executable, "-m", "minilp", "train", "--out", str(out)]
    words += ["--resume"] if resume else []
    for name, value in options.items():
        if name not in ("quiet", "settings"):
            words += [f"--{name.replace('_', '-')}", str(value)]
    for line in options["settings"]:
        words += ["--set", line]
    return words


def start(options, out):
    return subprocess.Popen(command(options, out, (out / "config.json").exists()), stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_sigkill_at_twenty_random_moments(options, tmp_path, contents):
    options.update(epochs=60, save_every=2)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    began = time.perf_counter()
    done = start(options, whole)
    done.stdout.readline()
    startup = time.perf_counter() - began
    out, err = done.communicate(timeout=120)
    assert done.returncode == 0, out + err
    training = time.perf_counter() - began - startup
    rng, kills, finished = random.Random(0), 0, 0
    while kills < 20:
        process = start(options, killed)
        if kills % 5:  # four times out of five while it trains and writes, else while it starts and reads
            process.stdout.readline()
            process_time = rng.uniform(0, training / 12)
        else:
            process_time = rng.uniform(0, startup)
        time.sleep(process_time)
        finished += process.poll() is not None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
    assert finished <= 5, "most processes had ended before their signal came"
    last = start(options, killed)
    out, err = last.communicate(timeout=120)
    assert last.returncode == 0, out + err
    assert contents(killed) == contents(whole)


def test_ctrl_c_finishes_the_step_saves_and_resumes_exactly(options, tmp_path, contents, monkeypatch):
    train(**options, out=tmp_path / "whole")
    step = Session.step

    def step_then_ctrl_c(self, batches):
        step(self, batches)
        if self.step_number == 8:  # in the middle of the second epoch
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(Session, "step", step_then_ctrl_c)
        with pytest.raises(Interrupted, match=f"minilp train --resume --out {tmp_path / 'stopped'}"):
            train(**options, out=tmp_path / "stopped")
    assert signal.getsignal(signal.SIGINT) is before
    meta = checkpoint.load(tmp_path / "stopped" / "checkpoint.safetensors")[1]
    assert (meta["epoch"], meta["batch"], meta["step"]) == (1, 2, 8)
    assert meta["sums"]["seen"] == 16 and meta["sums"]["train_seconds"] > 0
    train(out=tmp_path / "stopped", resume=True, quiet=True)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_ctrl_c_during_evaluation(options, tmp_path, contents, monkeypatch):
    train(**options, out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("minilp.training.loop.evaluate_model", lambda *args: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Interrupted):
            train(**options, out=tmp_path / "stopped")
    train(out=tmp_path / "stopped", resume=True, quiet=True)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_ctrl_c_on_the_command_line(options, tmp_path):
    options.update(epochs=500)
    process = start(options, tmp_path / "run")
    while not process.stdout.readline().startswith("epoch 2/"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"minilp train --resume --out {tmp_path / 'run'}" in err and "Traceback" not in err
    assert checkpoint.load(tmp_path / "run" / "checkpoint.safetensors")[1]["epoch"] >= 2


def test_dropout_goes_on_with_its_stream(options, tmp_path, contents, monkeypatch):
    """A model whose numbers depend on a generator's state."""
    from minilp import models

    def build(name, num_classes, in_channels, **_):
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, num_classes))

    monkeypatch.setattr(models, "build", build)
    options["settings"] = []
    train(**options, out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        dying(patch, 28)
        with pytest.raises(Kill):
            train(**options, out=tmp_path / "killed")
    assert checkpoint.load(tmp_path / "killed" / "checkpoint.safetensors")[1]["generators"]
    train(**options, out=tmp_path / "killed", resume=True)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_resume_of_a_finished_run_changes_nothing(finished, contents, capsys):
    before = contents(finished.path)
    again = train(out=finished.path, resume=True)
    assert contents(finished.path) == before
    assert again.rows == finished.rows and "finished already" in capsys.readouterr().out


def test_resume_without_a_directory_takes_the_latest_unfinished_run(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options["epochs"] = 1
    runs = [train(**options).path for _ in range(3)]
    for run in runs[:2]:
        (run / "result.json").unlink()
    resumed = train(data=options["data"], resume=True, quiet=True)
    assert resumed.path == runs[1] and not (runs[0] / "result.json").exists()


def test_resume_refuses_another_configuration(finished):
    with pytest.raises(ValueError, match=r"lr: .*started with 0\.1, got 0\.2"):
        train(lr=0.2, out=finished.path, resume=True)
    with pytest.raises(ValueError, match=r"settings: .*act\.bits=3"):
        train(settings=["act.bits=3"], out=finished.path, resume=True)
    train(lr=0.1, threads=2, save_every=7, out=finished.path, resume=True, quiet=True)


def test_resume_of_nothing_is_an_error(tmp_path, options, monkeypatch):
    with pytest.raises(ValueError, match="nothing to resume"):
        train(**options, out=tmp_path / "typo", resume=True)
    assert not (tmp_path / "typo").exists()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no unfinished run called runs/"):
        train(resume=True)


def test_damaged_files_are_named(finished):
    (finished.path / "result.json").unlink()
    (finished.path / "metrics.csv").write_text("epoch\n")
    with pytest.raises(ValueError, match=r"metrics\.csv: has 1 lines"):
        train(out=finished.path, resume=True, quiet=True)
    (finished.path / "checkpoint.safetensors").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors: not a minilp checkpoint"):
        train(out=finished.path, resume=True, quiet=True)
    assert cli.main(["eval", str(finished.path)]) == 2


def test_a_checkpoint_of_another_model_is_refused(finished, options, tmp_path):
    other = train(**{**options, "settings": ["model.width=6"]}, out=tmp_path / "other")
    (finished.path / "result.json").unlink()
    (finished.path / "checkpoint.safetensors").write_bytes((other.path / "checkpoint.safetensors").read_bytes())
    with pytest.raises(ValueError, match="does not fit"):
        train(out=finished.path, resume=True, quiet=True)


def test_the_checkpoint_holds_all_that_moves(finished):
    arrays, meta = checkpoint.load(finished.path / "checkpoint.safetensors")
    assert {"config", "epoch", "batch", "step", "sums", "log_lines", "optimizer", "schedule", "loader", "random",
            "generators"} <= set(meta)
    assert any(name.startswith("model.") and name.endswith("running_mean") for name in arrays)
    assert any(name.startswith("optimizer.") for name in arrays)
    assert any("prc_gamma" in name for name in arrays)
    assert meta["config"]["recipe_config"]["act"]["format"]["name"] == "pot"
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
