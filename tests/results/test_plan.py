"""Plans: how words become trainings, what is refused, and every entry of the plans in lessons/plans trains."""
import json
import pathlib

import numpy as np
import pytest

from minilp.results.plan import load_plan, make_plan
from minilp.results.record import identity
from minilp.training import Diverged, TrainConfig, train

PLANS = {path.stem: load_plan(path) for path in
         (pathlib.Path(__file__).resolve().parents[2] / "lessons" / "plans").glob("*.json")}
ROWS = [(plan.name, number, row) for plan in PLANS.values() for number, row in enumerate(plan.rows, 1)]


def test_defaults_seeds_and_settings():
    plan = make_plan({"defaults": {"data": "cifar10", "model": "resnet20", "epochs": 2, "set": ["model.width=8"]},
                      "runs": [{"recipe": "fp32", "seeds": [0, 3]},
                               {"recipe": "potq", "epochs": 1, "set": ["pot.bits=4"], "label": "narrow"},
                               {"recipe": "potq", "epochs": 1, "set": ["pot.bits=4"], "seed": 0}]})
    assert [run.config.seed for run in plan.rows[0].runs] == [0, 3]
    assert plan.rows[1].label == "narrow" and len(plan.rows) == 3
    assert len(plan.runs) == 3, "the same training twice is one"
    assert plan.runs[2].config == TrainConfig.create("cifar10", "resnet20", "potq", epochs=1, seed=0,
                                                     settings=["model.width=8", "pot.bits=4"])


@pytest.mark.parametrize(("content", "words"), [
    ({}, "plan: runs: expected a list"), ({"runs": []}, "runs: expected a list"),
    ({"runs": [{}], "rows": []}, "plan: unknown word 'rows'; there are title"),
    ({"runs": [{"recipe": "fp32"}, {"learning_rate": 1}]}, "plan: entry 2: unknown word 'learning_rate'; there are"),
    ({"runs": [{"recipe": "int9"}]}, "plan: entry 1: recipe: unknown name 'int9'"),
    ({"runs": [{"set": "pot.bits=4"}]}, "entry 1: set: expected a list"),
    ({"runs": [{"set": ["pot.bits=99"]}]}, "entry 1: .*bits"),
    ({"runs": [{"seed": 1, "seeds": [1]}]}, "entry 1: seed and seeds"),
    ({"runs": [{"seeds": [1, 1]}]}, "entry 1: seeds: expected a list of different"),
    ({"runs": [{"seeds": [-1]}]}, "entry 1: seed: expected an integer"),
    ({"runs": [{}], "defaults": {"lr": -1}}, "entry 1: lr"),
    ({"runs": [{}], "plot": "pie"}, "plot: expected one of energy, bars"),
    ({"runs": [3]}, "entry 1: expected an object"),
])
def test_mistakes_name_entry_and_word(content, words):
    with pytest.raises(ValueError, match=words):
        make_plan(content)


def test_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_plan(tmp_path / "none.json")
    for text, words in (("{", "not JSON"), ("[]", "expected an object"), ('{"runs": 1}', "bad: runs")):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=words):
            load_plan(tmp_path / "bad.json")


def test_the_plans_hold_what_the_results_need():
    headline = {row.runs[0].config.recipe.name: row for row in reversed(PLANS["headline"].rows)}  # first wins
    assert set(headline) == {"fp32", "potq", "mls", "lns-madam", "lns-madam-v1", "fp8", "int8", "mxfp4", "torch-fp32"}
    assert all(len(headline[name].runs) == 2 for name in ("fp32", "potq", "mls", "lns-madam", "torch-fp32"))
    assert {(r.config.data, r.config.model, r.config.epochs, r.config.schedule) for r in PLANS["headline"].runs} == {
        ("cifar10", "resnet20", 15, "onecycle")}
    second = {(run.config.model, run.config.recipe.name) for run in PLANS["second_network"].runs}
    assert second == {(m, r) for m in ("vgg11", "small_cnn") for r in ("fp32", "potq", "mls", "lns-madam")}
    assert {(run.config.epochs, run.config.train_images) for run in PLANS["ablations"].runs} == {(3, 10000)}
    formats = [run.config.recipe.weight.format for run in PLANS["ablations"].runs if run.config.recipe.weight]
    assert {f.gamma for f in formats if f.name == "lns"} == {1, 2, 4, 8, 16, 32}
    assert {f.group for f in formats if f.name == "mls"} == {"none", "n", "c", "nc"}
    assert {(f.exp, f.man) for f in formats if f.name == "mls"} == {(2, 1), (2, 4), (0, 4), (0, 2)}
    stored = {(run.config.optimizer, run.config.recipe.update.format.bits) for run in PLANS["ablations"].runs
              if run.config.recipe.update and run.config.recipe.update.rounding == "stochastic"}
    assert stored == {(name, bits) for name in ("madam", "sgd", "adamw") for bits in range(10, 17)}
    for run in PLANS["ablations"].runs:  # stored weights span the octaves of the forward format
        if run.config.recipe.update:
            forward, kept = run.config.recipe.weight.format, run.config.recipe.update.format
            assert kept.gamma == forward.gamma * 2 ** (kept.bits - forward.bits), run.config.settings


@pytest.mark.parametrize("name", PLANS)
def test_rows_of_a_table_differ(name):
    plan = PLANS[name]
    for title in {row.table for row in plan.rows}:
        known = [identity(run.config) for row in plan.rows if row.table == title for run in row.runs]
        assert len(set(known)) == len(known), title


@pytest.mark.parametrize(("plan", "number", "row"), ROWS, ids=[f"{plan}-{number}" for plan, number, _ in ROWS])
def test_every_entry_trains(plan, number, row, tiny, tmp_path):
    """One epoch of the tiny data set on a small network: each switch is in reach and its kernels run."""
    run = row.runs[0]
    if run.config.recipe.name == "torch-fp32":
        pytest.skip("has a test of its own, in tests/experiments")
    settings = [line for line in run.arguments["settings"] if not line.startswith("model.")]
    network = {"model": "resnet", "settings": [*settings, "model.depth=8", "model.width=4"]}
    if run.config.model != "resnet20":
        network = {"model": "small_cnn", "settings": [*settings, "model.width=4"]}
    words = {key: value for key, value in run.arguments.items()
             if key in ("recipe", "optimizer", "lr", "momentum", "weight_decay", "schedule")}
    try:
        result = train(**words, **network, data=str(tiny), epochs=1, batch_size=8, out=tmp_path / "run", quiet=True)
    except Diverged:
        pytest.fail("diverged")
    assert np.isfinite(result.rows[0]["train_loss"])
    stored = json.loads((tmp_path / "run" / "result.json").read_text())["config"]["recipe_config"]
    assert stored == run.config.recipe.to_config(), "what ran is what the plan asks for"
