"""Records: their schema, what older ones lack, how they are found and named."""
import json
import pathlib

import jsonschema
import pytest

from minilp.results import read, record_name
from minilp.results.record import adapt, find, place
from minilp.training import Diverged, TrainConfig, train

LESSONS = pathlib.Path(__file__).resolve().parents[2] / "lessons"
RECORDED = read(LESSONS / "results")


@pytest.fixture(scope="module")
def schema():
    found = json.loads((LESSONS / "result.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def test_there_are_recorded_trainings():
    assert len(RECORDED) >= 19


@pytest.mark.parametrize("record", RECORDED, ids=lambda record: record.path.stem)
def test_every_recorded_training_is_valid_and_consistent(record, schema):
    schema.validate(record.result)
    stored, last = json.loads(record.path.read_text()), record.result["epochs"][-1:]
    assert all(record.result[key] == value for key, value in stored.items() if key != "config"), "nothing is rewritten"
    assert all(record.result["config"][key] == value for key, value in stored["config"].items()
               if key != "recipe_config")
    if not record.diverged:
        judged, held_out = (100 * last[0]["test_acc"], "test") if record.config.task.unit == "image" else (
            record.result["bleu"], "val")
        assert record.score == judged and len(record.result["epochs"]) == record.config.epochs
        assert record.result[f"{held_out}_acc"] == last[0][f"{held_out}_acc"]


def test_a_training_writes_a_valid_result(tmp_path, defaults, schema):
    settings = defaults.pop("set")
    train(**defaults, settings=settings, out=tmp_path / "run", quiet=True)
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    schema.validate(written)
    assert adapt(written) == written, "nothing is missing in what this version writes"


def test_a_diverged_training_writes_a_valid_result(tmp_path, defaults, schema):
    defaults.pop("set")
    with pytest.raises(Diverged):
        train(**defaults, recipe="fp32", lr=1e35, schedule="constant", out=tmp_path / "run", quiet=True)
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    schema.validate(written)
    assert written["diverged"]["step"] > 0 and written["test_acc"] is None


@pytest.mark.parametrize("damage", [{"test_acc": 83.1}, {"test_acc": None}, {"commit": "abc"}, {"epochs": []},
                                    {"command": ""}, {"seed": 1}, {"config": {}}])
def test_the_schema_refuses_damage(damage, schema):
    content = {**RECORDED[0].result, **damage}
    with pytest.raises(jsonschema.ValidationError):
        schema.validate(content)


def test_a_record_is_found_by_its_configuration_and_not_by_its_name(write, tmp_path):
    path = write(0.8, recipe="potq", settings=["pot.bits=4"])
    path.rename(path.with_name("whatever.json"))
    records = read(tmp_path / "results")
    spelled = {"data": "cifar10", "model": "resnet20", "recipe": "potq", "epochs": 2}
    same = TrainConfig.create(**spelled, threads=1, root=tmp_path,
                              settings=["weight.bits=4", "act.bits=4", "error.bits=4"])
    assert find(records, same) is records[0]
    for change in ({"seed": 1}, {"epochs": 3}, {"lr": 0.1}, {"train_images": 10}, {"settings": ["pot.bits=6"]},
                   {"recipe": "fp32", "settings": []}, {"model": "resnet32"}, {"init": "runs/x"}):
        other = TrainConfig.create(**{**spelled, "settings": ["pot.bits=4"], **change})
        assert find(records, other) is None, change


@pytest.mark.parametrize(("given", "name"), [
    ({"recipe": "potq", "epochs": 3, "train_images": 10000, "settings": ["pot.bits=4"]},
     "cifar10-resnet20-potq-e3-n10000-pot.bits=4-s0"),
    ({"recipe": "lns-madam", "epochs": 3, "lr": 0.03125, "seed": 2}, "cifar10-resnet20-lns-madam-e3-lr0.03125-s2"),
    ({"recipe": "lns-madam", "epochs": 3, "optimizer": "sgd"}, "cifar10-resnet20-lns-madam-e3-sgd-s0"),
    ({"recipe": "mls", "settings": ["layer1.*:act=none"], "schedule": "cosine"},
     "cifar10-resnet20-mls-e30-cosine-layer1._act=none-s0"),
    ({"recipe": "potq", "epochs": 3, "lr": 0.02, "init": "runs/float"},
     "cifar10-resnet20-potq-e3-from-float-lr0.02-s0"),
])
def test_names_say_what_departs_from_the_defaults(given, name):
    assert record_name(TrainConfig.create("cifar10", "resnet20", **given)) == name


def test_long_names_end_in_a_hash_of_the_configuration():
    settings = [f"layer{i}.*:act.bits=4" for i in range(1, 9)]
    names = {record_name(TrainConfig.create("cifar10", "resnet20", settings=[*settings, last]))
             for last in ("fc:act.bits=4", "fc:act.bits=6")}
    assert len(names) == 2 and all(len(name) <= 150 for name in names)


def test_a_taken_name_gets_a_hash(write, tmp_path):
    path = write(0.8)
    config = TrainConfig.create("cifar10", "resnet20", "fp32", epochs=2)
    assert place(tmp_path / "results", config) == path
    path.write_text(json.dumps({"config": {**config.to_config(), "lr": 0.7, "recipe_config":
                                           config.recipe.to_config()}}))
    other = place(tmp_path / "results", config)
    assert other != path and other.stem.startswith(path.stem + "-")


def test_other_json_is_passed_over_and_damage_is_named(write, tmp_path):
    path = write(0.8)
    (tmp_path / "results" / "bench.json").write_text("[]")
    assert [record.path for record in read(tmp_path / "results")] == [path]
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match=path.name):
        read(tmp_path / "results")
    assert read(tmp_path / "nowhere") == []
