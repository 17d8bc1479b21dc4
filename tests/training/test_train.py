"""Training: what it writes and returns, that it repeats itself exactly, and how it ends when it goes wrong."""
import csv
import json

import numpy as np
import pytest

import minilp
from minilp import data, recipe
from minilp.formats import Fixed
from minilp.nn import functional
from minilp.training import Diverged, TrainConfig, checkpoint, compare, evaluate, load, machine, rundir, train
from minilp.training.scores import evaluate_model
from minilp.training.session import Session
from minilp.training.tasks import CLASSIFICATION

COLUMNS = ["epoch", "train_loss", "train_acc", "test_loss", "test_acc", "images_per_s", "seconds"]


def test_run_directory_has_everything(finished):
    names = {path.name for path in finished.path.iterdir()}
    assert {"config.json", "metrics.csv", "log.txt", "checkpoint.safetensors", "result.json"} <= names
    with open(finished.path / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS and [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert all(0 <= float(row["train_acc"]) <= 1 and float(row["images_per_s"]) > 0 for row in rows)
    result = json.loads((finished.path / "result.json").read_text())
    assert {"config", "commit", "epochs", "test_acc", "seconds", "images_per_s", "energy_pj_per_image", "peak_bytes",
            "backend"} <= set(result)
    assert result["epochs"] == [{k: float(v) for k, v in row.items()} for row in rows]
    assert result["test_acc"] == float(rows[-1]["test_acc"]) == finished.test_acc
    assert result["config"] == json.loads((finished.path / "config.json").read_text())
    assert result["config"]["recipe"] == "potq" and result["config"]["seed"] == 0
    assert result["peak_bytes"] > 10e6
    assert result["backend"]["name"] == minilp.backend().name


def test_it_learns(options, tmp_path):
    result = train(**{**options, "epochs": 12, "augment": "none"}, out=tmp_path / "run")
    assert result.test_acc > 0.9 > result.rows[0]["test_acc"]


def test_curves_are_drawn_where_matplotlib_is(pictures, finished):
    assert (finished.path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["potq", "fp32"])
def test_same_seed_same_numbers(options, tmp_path, contents, name):
    if name == "fp32":
        options["settings"] = ["model.width=4"]
    for run in ("one", "two"):
        train(**options, recipe=name, out=tmp_path / run)
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one == two
    train(**options, recipe=name, seed=1, out=tmp_path / "three")
    assert contents(tmp_path / "three")["metrics.csv"] != one["metrics.csv"]


@pytest.mark.parametrize("name", ["potq", "fp32"])
def test_thread_count_changes_no_number(needs_c, options, tmp_path, contents, name):
    if name == "fp32":
        options["settings"] = ["model.width=4"]
    for threads in (1, 2):
        train(**{**options, "threads": threads}, recipe=name, out=tmp_path / str(threads))
    one, two = (checkpoint.load(tmp_path / n / "checkpoint.safetensors")[0] for n in ("1", "2"))
    assert set(one) == set(two)
    assert all(one[key].tobytes() == two[key].tobytes() for key in one)
    assert contents(tmp_path / "1")["metrics.csv"] == contents(tmp_path / "2")["metrics.csv"]


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_every_schedule_trains(options, tmp_path, schedule):
    options["epochs"] = 1
    assert len(train(**options, schedule=schedule, out=tmp_path / "run").rows) == 1


def test_learning_rates_of_the_schedules(tiny):
    def rates(schedule):
        config = TrainConfig.create(str(tiny), epochs=4, batch_size=8, lr=0.4, schedule=schedule)
        session = Session(config, data.load(config.data)[0])
        seen = []
        for _ in range(4 * len(session.loader)):
            seen.append(session.optimizer.param_groups[0]["lr"])
            session.schedule.step()
        return seen

    assert set(rates("constant")) == {0.4}
    assert rates("step") == pytest.approx([0.4] * 12 + [0.04] * 6 + [0.004] * 6)
    cosine, onecycle = rates("cosine"), rates("onecycle")
    assert cosine[0] == 0.4 and cosine[12] == pytest.approx(0.2) and cosine == sorted(cosine, reverse=True)
    assert max(onecycle) == pytest.approx(0.4, rel=0.05) and onecycle[0] < 0.05 > onecycle[-1]


def test_evaluation_repeats_the_test_accuracy_to_the_last_bit(finished):
    found = evaluate(finished.path)
    last = finished.rows[-1]
    assert (found.loss, found.acc) == (last["test_loss"], last["test_acc"])
    assert found.recorded == found.acc and found.count == 20 and found.epoch == 3


def test_evaluation_repeats_itself_with_stochastic_activations_in_one_batch(options, tmp_path):
    options["settings"] = ["model.width=4", "act.rounding=stochastic"]
    result = train(**{**options, "batch_size": 20}, out=tmp_path / "run")
    _, test = data.load(options["data"])
    loader = data.Loader(test, 20, shuffle=False)
    scores = [evaluate_model(CLASSIFICATION, result.model, loader, seed=0) for _ in range(2)]
    assert scores[0] == scores[1] == (result.rows[-1]["test_loss"], result.test_acc)


def test_load_gives_the_trained_model(finished):
    model = minilp.random.get_state(), load(finished.path), minilp.random.get_state()
    assert model[0] == model[2], "loading a run must not disturb the caller's streams"
    state, trained = model[1].state_dict(), finished.model.state_dict()
    assert all(state[name].tobytes() == trained[name].tobytes() for name in trained) and set(state) == set(trained)
    assert not model[1].training and not finished.model.training


def test_load_needs_no_data(finished, tmp_path):
    config = json.loads((finished.path / "config.json").read_text())
    config["data"] = str(tmp_path / "gone.npz")
    (finished.path / "config.json").write_text(json.dumps(config))
    assert load(finished.path).fc.weight.data.tobytes() == finished.model.fc.weight.data.tobytes()


@pytest.mark.parametrize(("name", "lr", "roles"), [("fp32", 1e35, ("weight", "act", "wgrad")),
                                                   ("potq", 1e35, ("weight", "act", "error", "wgrad"))])
def test_divergence_names_step_layer_and_role_and_keeps_the_checkpoint(options, tmp_path, name, lr, roles):
    options.update(recipe=name, lr=lr, schedule="constant", settings=["model.width=4"])
    with pytest.raises(Diverged) as caught:
        train(**options, save_every=1, out=tmp_path / "run")
    message = str(caught.value)
    assert f"step {caught.value.step}" in message and "layer" in message
    assert any(role in message for role in roles)
    stored = json.loads((tmp_path / "run" / "result.json").read_text())
    assert stored["diverged"] == {"epoch": caught.value.epoch, "step": caught.value.step, "message": message}
    assert stored["test_acc"] is stored["test_loss"] is stored["energy_pj"] is None and stored["command"]
    assert "diverged" in str(compare([tmp_path / "run"], plot=None))
    with pytest.raises(Diverged, match=f"step {caught.value.step} "):  # the same numbers lead to the same end
        train(out=tmp_path / "run", resume=True, quiet=True)
    arrays, meta = checkpoint.load(tmp_path / "run" / "checkpoint.safetensors")
    assert 0 < meta["step"] <= caught.value.step
    assert all(np.isfinite(array).all() for name, array in arrays.items() if name.startswith("model."))


def test_a_nan_in_one_layer_is_found_there(tiny):
    config = TrainConfig.create(str(tiny), recipe="fp32", batch_size=8)
    session = Session(config, data.load(config.data)[0])
    x, y = next(session.loader.epoch(0))
    session.step([(x, y)])
    before = {name: array.copy() for name, array in session.model.state_dict().items()}
    session.model.conv2.weight.data[0, 0, 0, 0] = np.nan
    with pytest.raises(Diverged, match=r"step 1 .*weight of layer 'conv2' \(role weight\)") as caught:
        session.step([(x, y)])
    assert (caught.value.place.layer, caught.value.place.role) == ("conv2", "weight")
    assert session.model.fc.weight.data.tobytes() == before["fc.weight"].tobytes(), "no update may be made"


def test_an_infinite_gradient_stops_before_the_update(tiny, monkeypatch):
    config = TrainConfig.create(str(tiny), recipe="fp32", batch_size=8)
    session = Session(config, data.load(config.data)[0])
    x, y = next(session.loader.epoch(0))
    session.model.conv3.weight.data *= np.float32(1e-6)  # batch norm divides its gradient by this
    before = session.model.state_dict()
    loss = functional.cross_entropy
    monkeypatch.setattr(functional, "cross_entropy", lambda *args, **options: loss(*args, **options) * 1e38)
    with pytest.raises(Diverged, match=r"step 0 .*layer 'conv3' \(role wgrad\)"):
        session.step([(x, y)])
    after = dict(session.model.named_parameters())
    assert all(after[name].data.tobytes() == before[name].tobytes() for name in after), "no update may be made"


def test_an_update_that_overflows_is_not_saved(options, tmp_path):
    config = TrainConfig.create(options["data"], recipe="fp32", batch_size=8)
    session = Session(config, data.load(config.data)[0])
    session.save(tmp_path / "c", 0)
    good = (tmp_path / "c").read_bytes()
    session.model.bn2.bias.data[1] = np.inf
    with pytest.raises(Diverged, match=r"bias of layer 'bn2' \(role weight\)"):
        session.save(tmp_path / "c", 0)
    assert (tmp_path / "c").read_bytes() == good


def test_other_errors_inside_a_step_are_not_called_divergence(tiny):
    config = TrainConfig.create(str(tiny), recipe="fp32", batch_size=8)
    session = Session(config, data.load(config.data)[0])
    with pytest.raises(RuntimeError, match="step 0"):
        session.step([(np.zeros((8, 5, 8, 8), np.float32), np.zeros(8, np.int64))])


def test_a_recipe_of_ones_own(options, tmp_path):
    own = recipe.potq().set("act.bits", 4)
    options["settings"] = ["model.width=4"]
    result = train(**options, recipe=own, out=tmp_path / "run")
    assert TrainConfig.load(result.path / "config.json").recipe == own == result.config.recipe


def test_default_directories_never_overwrite(options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options["epochs"] = 1
    first, second = train(**options), train(**options)
    assert (str(first.path), str(second.path)) == ("runs/tiny-small_cnn-potq-s0", "runs/tiny-small_cnn-potq-s0-2")
    (second.path / "result.json").unlink()
    options["quiet"] = False
    third = train(**options)
    assert third.path.name.endswith("-3")
    assert "--resume --out runs/tiny-small_cnn-potq-s0-2" in capsys.readouterr().out


def test_a_named_directory_is_never_overwritten(options, finished):
    with pytest.raises(ValueError, match="holds a finished run"):
        train(**options, out=finished.path)
    (finished.path / "result.json").unlink()
    with pytest.raises(ValueError, match="unfinished run; continue it with --resume"):
        train(**options, out=finished.path)


def test_two_processes_cannot_train_in_one_directory(options, finished):
    (finished.path / "result.json").unlink()
    other = rundir.RunDirectory(finished.path)
    other.lock()
    with pytest.raises(ValueError, match="another process is training"):
        train(out=finished.path, resume=True, quiet=True)
    other.unlock()
    train(out=finished.path, resume=True, quiet=True)


def test_nothing_is_written_when_the_model_does_not_fit(options, tmp_path):
    options["settings"] = ["model.depth=3"]
    with pytest.raises(ValueError, match="depth"):
        train(**options, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_output_on_a_pipe_is_one_line_an_epoch(options, tmp_path, capsys):
    train(**{**options, "quiet": False}, out=tmp_path / "run")
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].startswith(f"minilp {minilp.__version__} on ")
    assert "integer kernels" in lines[0] if minilp.backend().name == "c" else "NumPy" in lines[0]
    assert sum(line.startswith("epoch ") for line in lines) == 3
    assert any("test accuracy" in line and "images/s" in line for line in lines)
    assert any(str(tmp_path / "run") in line for line in lines)
    assert err == ""
    log = (tmp_path / "run" / "log.txt").read_text().splitlines()
    assert log == [line for line in lines if not line.startswith(
        ("test accuracy", "energy: ", "run directory", "again", "check"))]


def test_the_kernels_named_are_those_that_run(needs_c):
    with minilp.use_kernels("shift"):
        assert machine.kernels(recipe.potq()) == "shift/add integer kernels"
        assert machine.kernels(recipe.potq().set("act", None)) == "float32 kernels, shift/add integer kernels"
    with minilp.use_kernels("emulate"):
        assert machine.kernels(recipe.potq()) == "integer kernels on int8 digits"
        assert machine.kernels(recipe.potq(6)) == "shift/add integer kernels"
    assert machine.kernels(recipe.get("int8")) == "integer table kernel"
    assert machine.kernels(recipe.fp32()) == "float32 kernels"
    assert "integer table kernel" in machine.kernels(recipe.potq().set("weight.format", Fixed(8)))
    assert "emulated in float64" in machine.kernels(recipe.potq().set("weight.format", Fixed(12)))
    with minilp.use_backend("numpy"):
        assert "NumPy" in machine.kernels(recipe.potq())


def test_a_terminal_gets_a_progress_bar(options, tmp_path, monkeypatch, capsys):
    import io
    import sys

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    train(**{**options, "quiet": False}, out=tmp_path / "run")
    text = terminal.getvalue()
    assert "loss" in text and "acc" in text and "img/s" in text and "epoch 3/3" in text
    assert sum(line.startswith("epoch ") for line in capsys.readouterr().out.splitlines()) == 3
