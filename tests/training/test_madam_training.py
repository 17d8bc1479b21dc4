"""Trainings without a float copy of any weight: they learn, resume to the same bits, and evaluate to the same bits."""
import json
import shlex

import numpy as np
import pytest

import minilp
from minilp import cli, data, recipe
from minilp.contract import executed
from minilp.formats import LNS, QTensor
from minilp.optim import SGD, AdamW, Madam
from minilp.stored import lns_update
from minilp.training import Diverged, TrainConfig, checkpoint, evaluate, load, train
from minilp.training.session import Session


@pytest.fixture
def madam(options):
    """Arguments of ``train`` for LNS-Madam on the tiny data."""
    del options["lr"]
    settings = ["model.width=4", "update.bits=10", "update.rounding=stochastic"]
    return {**options, "recipe": "lns-madam", "settings": settings}


@pytest.fixture
def subset(tmp_path):
    """480 training and 200 test images of shapes10."""
    sets = data.shapes10.load(train=480, test=200)
    arrays = {}
    for name, images in zip(("train", "test"), sets, strict=True):
        arrays[f"x_{name}"], arrays[f"y_{name}"] = images.images, images.labels
    np.savez(tmp_path / "subset.npz", **arrays)
    return str(tmp_path / "subset.npz")


def test_two_epochs_on_shapes10_lower_the_loss(subset, tmp_path):
    result = train(subset, recipe="lns-madam", epochs=2, batch_size=16, augment="none", lr=1 / 16, quiet=True,
                   settings=["model.width=8"], out=tmp_path / "run")
    assert result.rows[1]["train_loss"] < 0.99 * result.rows[0]["train_loss"]
    found = evaluate(result.path)
    assert found.recorded == found.acc == result.test_acc and found.loss == result.rows[-1]["test_loss"]
    for name, param in result.model.named_parameters():
        assert param.code.format == LNS(16, 2048, zero="code"), name


def test_it_learns_at_ten_bits(madam, tmp_path):
    result = train(**{**madam, "epochs": 25, "augment": "none", "lr": 1 / 32}, out=tmp_path / "run")
    assert result.test_acc > 0.8 > result.rows[0]["test_acc"]


@pytest.mark.parametrize("optimizer", ["madam", "adamw", "sgd"])
def test_a_stop_and_a_resume_change_no_bit(madam, tmp_path, contents, monkeypatch, optimizer):
    madam["optimizer"] = optimizer
    train(**madam, out=tmp_path / "whole")
    step = Session.step

    def stop(self, batches):
        if self.step_number == 9:  # in the middle of the second epoch
            raise KeyboardInterrupt
        step(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            train(**madam, save_every=4, out=tmp_path / "killed")
    assert checkpoint.load(tmp_path / "killed" / "checkpoint.safetensors")[1]["step"] == 8
    train(out=tmp_path / "killed", resume=True, save_every=0, quiet=True)
    whole, killed = contents(tmp_path / "whole"), contents(tmp_path / "killed")
    for name in ("metrics.csv", "log.txt"):
        assert killed[name] == whole[name]
    one, two = (checkpoint.load(tmp_path / run / "checkpoint.safetensors")[0] for run in ("whole", "killed"))
    assert set(one) == set(two)
    for name, value in one.items():
        if isinstance(value, QTensor):
            assert (value.codes == two[name].codes).all() and (value.scales[0] == two[name].scales[0]).all(), name
        else:
            assert value.tobytes() == two[name].tobytes(), name


def test_the_checkpoint_holds_packed_integers_and_no_float_weight(madam, tmp_path):
    from safetensors import safe_open

    result = train(**{**madam, "epochs": 1}, out=tmp_path / "run")
    model = result.model
    with safe_open(result.path / "checkpoint.safetensors", framework="numpy") as file:
        raw = {name: file.get_tensor(name) for name in file.keys()}
    for name, param in model.named_parameters():
        packed = raw[f"model.{name}"]
        assert packed.dtype == np.uint8 and packed.shape == (-(-10 * param.size // 8),)
        assert raw[f"model.{name}.scale.0"].size == 1
    floats = [name for name, array in raw.items() if array.dtype == np.float32 and array.size > 1]
    assert floats and all(name.endswith((".v", "running_mean", "running_var")) for name in floats)
    arrays, meta = checkpoint.load(result.path / "checkpoint.safetensors")
    assert "codes" not in meta and arrays["model.conv1.weight"].format == LNS(10, 32, zero="code")
    again = load(result.path)
    for name, param in model.named_parameters():
        other = dict(again.named_parameters())[name].code
        assert (other.codes == param.code.codes).all() and other.scales[0] == param.code.scales[0]


def test_codes_that_do_not_fit_are_a_damaged_file(madam, tmp_path):
    arrays = {"w": lns_update(10).format.encode(np.ones(3, np.float32))}
    checkpoint.save(tmp_path / "good", arrays, {})
    data_bytes = (tmp_path / "good").read_bytes()
    (tmp_path / "bad").write_bytes(data_bytes.replace(b'\\"shape\\": [3]', b'\\"shape\\": [9]'))
    assert (tmp_path / "bad").read_bytes() != data_bytes
    with pytest.raises(ValueError, match="bad: codes that do not fit their format"):
        checkpoint.load(tmp_path / "bad")


def test_every_contraction_but_the_ends_is_coded(madam):
    config = TrainConfig.create(madam["data"], recipe="lns-madam", batch_size=8, settings=["model.width=4"])
    train_set, _ = data.load(config.data)
    session = Session(config, train_set)
    with executed() as seen:
        session.step(next(session.coming()))
    assert seen["conv2d: LNS(bits=8, gamma=8) x LNS(bits=8, gamma=8) in float32 on decoded codes (path=float)"] == 2
    assert sum(count for kind, count in seen.items() if "LNS" in kind) == 6, "two layers, three contractions"


# The choice of the optimizer

def test_defaults_come_from_the_recipe_and_the_optimizer():
    config = TrainConfig.create("shapes10", recipe="lns-madam")
    assert (config.optimizer, config.lr, config.momentum, config.weight_decay) == ("madam", 1 / 16, None, 0.0)
    config = TrainConfig.create("cifar10", recipe="lns-madam")
    assert (config.lr, config.batch_size, config.optimizer_options) == (0.04, 64, {"p_scale": 8}), "the data set's wish"
    config = TrainConfig.create("cifar10", recipe="lns-madam", settings=["optimizer.p_scale=3"], batch_size=128)
    assert (config.batch_size, config.optimizer_options) == (128, {"p_scale": 3})
    assert config.schedule_options == {"pct_start": 0.1}
    config = TrainConfig.create("cifar10", recipe="lns-madam", settings=["schedule.pct_start=0.2"])
    assert config.schedule_options == {"pct_start": 0.2}, "the user's word goes before the default"
    assert TrainConfig.create("cifar10", recipe="lns-madam", schedule="cosine").schedule_options == {}
    config = TrainConfig.create("cifar10", recipe="lns_madam", optimizer="sgd")
    assert (config.optimizer, config.lr, config.momentum, config.weight_decay) == ("sgd", 0.2, 0.9, 5e-4)
    assert config.schedule_options == {}
    config = TrainConfig.create("cifar10", optimizer="adamw", lr=0.01)
    assert (config.optimizer, config.lr, config.momentum, config.weight_decay) == ("adamw", 0.01, None, 1e-2)
    assert TrainConfig.create("cifar10", recipe="potq").optimizer == "sgd"


@pytest.mark.parametrize(("name", "kind"), [("sgd", SGD), ("adamw", AdamW), ("madam", Madam)])
def test_the_session_builds_it_and_its_options_reach_it(tiny, name, kind):
    setting = {"sgd": "optimizer.dampening=0", "adamw": "optimizer.eps=1e-6", "madam": "optimizer.p_scale=2"}[name]
    config = TrainConfig.create(str(tiny), recipe="fp32", optimizer=name, settings=[setting])
    optimizer = Session(config, data.load(config.data)[0]).optimizer
    key, _, value = setting.removeprefix("optimizer.").partition("=")
    assert type(optimizer) is kind and optimizer.param_groups[0][key] == float(value)
    assert "momentum" in optimizer.param_groups[0] if name == "sgd" else "momentum" not in optimizer.param_groups[0]


@pytest.mark.parametrize(("arguments", "words"), [
    ({"optimizer": "lion"}, "optimizer: expected one of sgd, adamw, madam, got 'lion'"),
    ({"optimizer": "madam", "momentum": 0.9}, "momentum: madam has none, got 0.9"),
    ({"settings": ["optimizer.betas"]}, "key=value"),
])
def test_wrong_choices_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        TrainConfig.create(**arguments)


def test_an_option_that_the_optimizer_lacks_is_named(tiny):
    config = TrainConfig.create(str(tiny), optimizer="madam", settings=["optimizer.nesterov=true"])
    with pytest.raises(ValueError, match=r"set: madam does not take .*nesterov"):
        Session(config, data.load(config.data)[0])


@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "step", "constant"])
def test_options_reach_the_schedule(tiny, schedule):
    setting = {"onecycle": "pct_start=0.5", "cosine": "eta_min=0.05", "step": "gamma=0.5", "constant": "factor=0.5"}
    total = {"constant": ["schedule.total_iters=1000"]}.get(schedule, [])
    config = TrainConfig.create(str(tiny), recipe="fp32", schedule=schedule, lr=0.1, epochs=3,
                                settings=[f"schedule.{setting[schedule]}", *total])
    session = Session(config, data.load(config.data)[0])
    rates = []
    for _ in range(3 * len(session.loader) - 1):
        rates.append(session.optimizer.param_groups[0]["lr"])
        session.optimizer.step()
        session.schedule.step()
    rates.append(session.optimizer.param_groups[0]["lr"])
    if schedule == "onecycle":
        assert np.argmax(rates) == round(0.5 * len(rates)) - 1
    elif schedule == "cosine":
        assert 0.05 < rates[-1] < 0.07 and rates[0] == 0.1
    else:
        assert {"step": [0.1, 0.05, 0.025], "constant": [0.05]}[schedule] == pytest.approx(sorted(set(rates))[::-1])


def test_an_option_that_the_schedule_lacks_is_named(tiny):
    config = TrainConfig.create(str(tiny), settings=["schedule.warmup=3"])
    with pytest.raises(ValueError, match=r"set: schedule onecycle does not take .*warmup"):
        Session(config, data.load(config.data)[0])


def test_configuration_and_command_give_the_same_training():
    settings = ["update.bits=10", "optimizer.p_scale=2", "update.rounding=stochastic", "schedule.pct_start=0.1"]
    config = TrainConfig.create("cifar10", "resnet20", "lns-madam", settings=settings)
    assert config.recipe.update == lns_update(10, rounding="stochastic")
    assert config.optimizer_options == {"p_scale": 2} and config.schedule_options == {"pct_start": 0.1}
    assert TrainConfig.from_config(json.loads(json.dumps(config.to_config()))) == config
    _, *arguments = shlex.split(config.command())
    args = vars(cli.parser().parse_args(arguments))
    again = TrainConfig.create(settings=args.pop("set"), **{k: v for k, v in args.items()
                                                            if k not in ("run", "out", "resume")})
    assert again == config


def test_a_configuration_without_the_fields_that_have_defaults_is_read():
    config = TrainConfig.create("cifar10", recipe="fp32")
    fields = config.to_config()
    del fields["optimizer"], fields["optimizer_options"], fields["recipe_config"]["optimizer"]
    assert TrainConfig.from_config(fields) == config


def test_the_first_lines_name_the_optimizer(madam, tmp_path):
    run = train(**{**madam, "epochs": 1}, out=tmp_path / "run").path
    log = (run / "log.txt").read_text()
    assert "Madam lr 0.0625 (onecycle pct_start 0.1), weight decay 0, augment" in log
    assert "update LNS(bits=10, gamma=32, zero='code') stochastic" in log


def test_an_update_beyond_float32_is_a_divergence(madam, tmp_path):
    madam.update(optimizer="adamw", lr=1e39, schedule="constant", settings=["model.width=4"])
    with pytest.raises(Diverged, match=r"step 0 .*update of parameter conv1\.weight: "):
        train(**madam, out=tmp_path / "run")


# The presets

def test_presets_are_what_the_notes_say():
    r = recipe.get("lns-madam")
    fmt = LNS(bits=8, gamma=8)
    assert all(getattr(r, role).format == fmt and getattr(r, role).rounding == "nearest"
               for role in ("weight", "act", "error", "wgrad"))
    assert r.update == lns_update(16) and r.update.format == LNS(16, 2048, zero="code") and r.state is None
    assert (r.first, r.last, r.attention, r.optimizer) == (None, None, "coded", "madam")
    v1 = recipe.get("lns_madam_v1")
    assert v1.error.format == v1.wgrad.format == LNS(5, 1) and v1.weight == r.weight and v1.name == "lns-madam-v1"
    assert recipe.lns_madam(8, 16, update_bits=12).update.format == LNS(12, 256, zero="code")
    assert recipe.lns_madam(path="bins").act.format == LNS(8, 8, path="bins")
    assert recipe.lns_madam_v1(path="bins").error.format == LNS(5, 1, path="bins")


@pytest.mark.parametrize("name", ["lns-madam-v1", "lns_madam"])
def test_presets_train_from_the_command_line(madam, tmp_path, name, capsys):
    code = cli.main(["train", "--data", madam["data"], "--recipe", name, "--epochs", "1", "--batch-size", "8", "--set",
                     "model.width=4", "--set", "lns.path=bins", "--optimizer", "madam", "--out", str(tmp_path / "run")])
    assert code == 0, capsys.readouterr().err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["optimizer"] == "madam" and config["recipe_config"]["act"]["format"]["path"] == "bins"
    assert config["recipe_config"]["update"]["format"]["path"] == "float"


def test_stored_roles_of_a_plain_recipe_train(madam, tmp_path):
    """What the paper compares: another optimizer, nothing coded but the stored weights (and here the momentum)."""
    madam.update(recipe="fp32", optimizer="sgd", lr=0.1, epochs=1, settings=[
        "model.width=4", "update.format=lns", "update.bits=12", "state.format=fixed", "state.rounding=stochastic"])
    result = train(**madam, out=tmp_path / "run")
    assert result.config.recipe.update.format == LNS(12, 128)
    arrays, _ = checkpoint.load(result.path / "checkpoint.safetensors")
    weight = arrays["model.conv2.weight"]
    assert weight.format == LNS(12, 128) and weight.pack().size == -(-13 * weight.size // 8), "zero has a flag"
    buffers = [array for name, array in arrays.items() if name.endswith("momentum_buffer")]
    assert all(len(np.unique(np.abs(buffer))) <= 128 for buffer in buffers) and len(buffers) == 11
    assert evaluate(result.path).acc == result.test_acc


def test_the_benchmark_steps_with_the_recipes_optimizer(monkeypatch):
    from minilp.bench import worker

    stepped = []
    monkeypatch.setattr(Madam, "step", lambda self: stepped.append(self))
    step, _ = worker.minilp_step({"model": "small_cnn", "recipe": "lns-madam", "settings": [], "batch_size": 4,
                                   "threads": minilp.backend().threads})
    before = len(stepped)  # the worker has made a step to see what runs
    assert step() > 0 and len(stepped) == before + 1
