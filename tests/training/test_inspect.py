"""Inspection: its figures are those of the tensors and codes of a real step, and it leaves no trace."""
import json

import numpy as np
import pytest

import minilp
from minilp import cli, models, nn, operands, recipe, training
from minilp.autograd import Tensor
from minilp.contract import rounding_context
from minilp.formats import MLS, Fixed, PoT
from minilp.recipe import Recipe, Role
from minilp.training import inspect, inspect_model, inspect_recipe, train


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny):
    """A finished run of mls with every layer coded; shared, because inspecting leaves it as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minilp.figures.available", lambda: False)
        return train(str(tiny), recipe="mls", epochs=3, batch_size=8, lr=0.1, augment="crop_flip", quiet=True,
                     settings=["model.width=4", "first=same", "last=same"], threads=1,
                     out=tmp_path_factory.mktemp("inspected") / "run").path


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.standard_normal((6, 3, 8, 8)).astype(np.float32), np.arange(6) % 4


def small(formats="mls"):
    return recipe.apply(formats, models.build("small_cnn", num_classes=4, width=4))


def observed(model, x, y, seed=0, step=0):
    """(layer, role) -> tensor, codes, of one step in training mode."""
    seen = {}
    with operands.observe(lambda layer, role, x, q: seen.setdefault((layer.name, role), (x.copy(), q))):
        with rounding_context(seed, step):
            nn.functional.cross_entropy(model.train()(Tensor(x)), y).backward()
    return seen


def by_place(report):
    return {(row["layer"], row["role"]): row for row in report.rows}


def test_figures_are_those_of_a_training_step(batch):
    chosen = recipe.get("mls").set("first", "same").set("wgrad.format", "fixed").set("wgrad.keep", "0")
    model = small(chosen)
    found = by_place(inspect_model(model, [batch], seed=3, step=5))
    seen = observed(model, *batch, seed=3, step=5)
    assert set(found) == set(seen) and len(seen) == 12
    assert [role for layer, role in found if layer == "conv2"] == ["weight", "act", "error", "wgrad"]
    for place, (x, q) in seen.items():
        row, y = found[place], q.decode()
        wide, back = x.astype(float), y.astype(float)
        assert row["are"] == pytest.approx(np.abs(wide - back).sum() / np.abs(wide).sum(), rel=1e-5)
        assert row["elements"] == x.size
        assert row["zeros"] == np.mean(y == 0)
        assert row["lost"] == np.mean((y == 0) & (x != 0))
        assert row["top"] == np.mean(np.abs(q.codes) == q.format.codes().max())
        assert row["scale_bits"] == pytest.approx((q.nbits - q.format.bits * q.size) / q.size)
        for counts, numbers in (("counts", x), ("coded", y)):
            binades = np.floor(np.log2(np.abs(numbers[numbers != 0]).astype(float))).astype(int)
            want = [int((binades == row["log2_low"] + i).sum()) for i in range(len(row[counts]))]
            assert row[counts] == want and sum(want) == np.count_nonzero(numbers)
    x, q = seen["conv2", "error"]
    maxima = np.abs(x).max((2, 3))
    ratio = np.log2(maxima[maxima > 0] / maxima.max())
    row = found["conv2", "error"]
    assert (row["grouping"], row["groups"], row["group_elements"]) == ("nc", maxima.size, x[0, 0].size)
    assert row["group_log2_median"] == pytest.approx(np.median(ratio), rel=1e-5)
    assert row["group_log2_low"] == pytest.approx(np.quantile(ratio, 0.1), rel=1e-5)
    assert row["empty_groups"] == np.mean(maxima == 0)
    assert found["conv2", "wgrad"]["grouping"] == "n"


def test_the_model_is_left_as_it_is(batch):
    model = small()
    model.eval()
    x, y = batch
    nn.functional.cross_entropy(model(Tensor(x)), y).backward()
    before = {name: value.copy() for name, value in model.state_dict().items()}
    gradients = [None if p.grad is None else p.grad.copy() for p in model.parameters()]
    layers = [(m.q, m.q and (m.q.calls, m.q.clock)) for m in model.modules() if hasattr(m, "set_recipe")]
    seeds = minilp.random.get_state()
    inspect_model(model, [batch], recipe=recipe.get("potq"))
    assert not model.training and minilp.random.get_state() == seeds
    assert [(m.q, m.q and (m.q.calls, m.q.clock)) for m in model.modules() if hasattr(m, "set_recipe")] == layers
    for name, value in model.state_dict().items():
        assert np.array_equal(value, before[name]), name
    for p, old in zip(model.parameters(), gradients, strict=True):
        assert (p.grad is None and old is None) or np.array_equal(p.grad, old)


def test_a_run_is_inspected_on_its_own_next_batch_and_not_touched(run):
    def state():
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.iterdir()}

    before = state()
    report = inspect(run, batches=2)
    assert state() == before
    assert report.name == str(run) and report.recipe.startswith("mls: weight MLS(exp=2, man=1)")
    config = training.TrainConfig.load(run / "config.json")
    train_set, _ = minilp.data.load(config.data)
    loader = minilp.data.Loader(train_set, config.batch_size, seed=config.seed, augment=config.augment)
    assert len(loader) == 6
    batches = list(loader.epoch(3))[:2]  # three epochs are done
    want = inspect_model(minilp.load(run), batches, seed=config.seed, step=18)
    assert report.rows == want.rows
    assert by_place(report)["conv1", "act"]["elements"] == 2 * 8 * 3 * 8 * 8
    assert inspect(run, batches=7).rows[0]["elements"] == 7 * report.rows[0]["elements"] / 2  # on into the next epoch


def test_another_recipe_codes_the_same_tensors(batch):
    """The passes stay those of the model's own recipe; also for float32 models, whose tensors can be tried."""
    model = small()
    seen = observed(model, *batch)
    report = inspect_model(model, [batch], recipe=Recipe(act=PoT(4), error=Role(Fixed(4), rounding="stochastic")))
    found = by_place(report)
    assert set(found) == {(layer, role) for layer in ("conv1", "conv2", "conv3", "fc") for role in ("act", "error")}
    for layer in ("conv2", "conv3"):
        x, own = seen[layer, "act"]
        assert found[layer, "act"]["are"] == pytest.approx(error(x, PoT(4).encode(x)), rel=1e-5)
        assert found[layer, "act"]["own_are"] == pytest.approx(error(x, own), rel=1e-5)
        assert found[layer, "act"]["own_format"] == "MLS(exp=2, man=1)"
    assert found["conv1", "act"]["own_are"] is None
    assert "own ARE" in str(report) and "float32" in str(report)
    plain = small("fp32")
    assert set(by_place(inspect_model(plain, [batch], recipe=recipe.get("mls")))) == set(seen)
    with pytest.raises(ValueError, match="nothing is coded"):
        inspect_model(plain, [batch])


def test_blocks_along_the_sum(batch):
    """MX codes an operand once for each contraction, and both count; tried as another recipe, once."""
    found = by_place(inspect_model(small("mxfp4"), [batch]))
    row = found["conv2", "act"]
    assert (row["grouping"], row["elements"]) == ("block", 2 * 6 * 4 * 4 * 4)
    tried = by_place(inspect_model(small("fp32"), [batch], recipe=recipe.get("mxfp4")))["conv2", "act"]
    assert (tried["grouping"], tried["elements"], tried["groups"]) == ("block", 6 * 4 * 4 * 4, 6 * 4 * 4)


def error(x, q):
    return np.abs(x.astype(float) - q.decode()).sum() / np.abs(x.astype(float)).sum()


def test_finer_groups_err_less(run):
    """The ordering of section 7 of the notes on real tensors: nc below n below none, on weights and errors."""
    found = {group: inspect(run, settings=[f"mls.group={group}", "mls.top=keep"]) for group in ("none", "n", "nc")}
    for role in ("weight", "error"):
        errors = [report.mean_are(role) for report in found.values()]
        assert errors == sorted(errors, reverse=True) and errors[2] < errors[0]


def test_command_line(run, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("minilp.figures.available", lambda: True)
    words = ["inspect", str(run), "--layer", "conv*", "--set", "mls.group=n", "--json", str(tmp_path / "a.json"),
             "--plot", str(tmp_path / "a.png")]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    saved = json.loads((tmp_path / "a.json").read_text())
    report = inspect(run, layer="conv*", settings=["mls.group=n"])
    assert saved["rows"] == list(report.rows) and {row["layer"] for row in saved["rows"]} == {"conv1", "conv2", "conv3"}
    assert out.startswith(str(report)) and report.histograms() in out
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    lines = report.histograms().splitlines()[1:]
    assert len(lines) == 2 * len(report.rows)
    assert all(line.count("|") == 2 and line.index("|") == lines[0].index("|") for line in lines)
    row = report.rows[1]
    bars = [line.split("|")[1] for line in lines[2:4]]
    for text, key in zip(bars, ("counts", "coded"), strict=True):
        filled = [n > 0 for n in row[key]][-28:]
        assert [c != " " for c in text[-len(filled):]] == filled


def test_without_matplotlib_it_says_so(run, tmp_path, capsys):
    assert cli.main(["inspect", str(run), "--plot", str(tmp_path / "b.png")]) == 0
    assert "matplotlib is not installed" in capsys.readouterr().out and not (tmp_path / "b.png").exists()


@pytest.mark.parametrize(("words", "expected"), [
    (["--layer", "nothing*"], ["layer", "'nothing*'", "conv1"]), (["--batches", "0"], ["batches", "0", ">= 1"]),
    (["--recipe", "fp9"], ["recipe", "'fp9'", "potq"]), (["--set", "mls.group"], ["set", "key=value"]),
    (["--set", "pot.bits=4"], ["set", "'pot'", "mls"]), (["--recipe", "fp32"], ["nothing is coded"]),
])
def test_wrong_arguments(run, words, expected, capsys):
    assert cli.main(["inspect", str(run), *words]) == 2
    err = capsys.readouterr().err
    assert all(word in err for word in expected), err


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no config\.json"):
        inspect(tmp_path)


def test_formats_of_a_model_says_what_falls_back_and_what_scales_cost(capsys):
    assert cli.main(["formats", "--model", "resnet20", "--batch-size", "2"]) == 0
    lines = {tuple(line.split()[:2]): line for line in capsys.readouterr().out.splitlines()}
    kernel, shortcut = lines["layer1.0.conv1", "weight"], lines["layer2.0.shortcut.0", "weight"]
    assert " nc " in kernel and kernel.split()[-5:] == ["nc", "256", "9", f"{(9 * 256 + 32) / 2304:.3f}", "5.014"]
    assert "n for nc" in shortcut and shortcut.split()[-4:-2] == ["32", "16"]
    row = by_place(inspect_recipe("small_cnn", "mls", ["last=same", "mls.least=1"], batch_size=4))["fc", "act"]
    assert (row["grouping"], row["group_elements"]) == ("nc", 1)
    assert row["bits"] + row["scale_bits"] == pytest.approx(13 + 32 / row["elements"])
    assert MLS().scaling.endswith("(1x1 kernels, tokens) fall back to n") and "fall back" not in MLS(least=1).scaling
