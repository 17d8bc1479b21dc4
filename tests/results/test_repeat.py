"""A repeated training against its record: the same numbers, or which ones are not."""
import json

import pytest

from minilp import cli
from minilp.results import record_name, repeated
from minilp.training import train


@pytest.fixture
def run(tiny, tmp_path):
    """A finished run and the folder of its record."""
    trained = train(str(tiny), "small_cnn", "potq", epochs=2, batch_size=8, settings=["model.width=4"],
                    out=tmp_path / "run", quiet=True)
    results = tmp_path / "results"
    results.mkdir()
    (results / f"{record_name(trained.config)}.json").write_text((tmp_path / "run" / "result.json").read_text())
    return tmp_path / "run", results


def again(run, **change):
    """The same configuration trained anew, beside the first."""
    config = json.loads((run / "config.json").read_text())
    return train(config["data"], "small_cnn", "potq", epochs=2, batch_size=8, settings=["model.width=4"],
                 out=run.with_name("again"), quiet=True, **change)


def test_a_training_repeats_itself_to_the_last_digit_with_any_number_of_threads(run, capsys):
    run, results = run
    again(run, threads=2)
    found = repeated(run.with_name("again"), results)
    assert found and found.compared >= 2 * 5 + 3
    assert cli.main(["results", "--results", str(results), "--repeated", str(run), str(run.with_name("again"))]) == 0
    assert capsys.readouterr().out.count("numbers are the same") == 2


def test_what_differs_is_named_and_what_the_clock_says_is_not(run, capsys):
    run, results = run
    path, = results.iterdir()
    content = json.loads(path.read_text())
    content["seconds"], content["epochs"][0]["images_per_s"] = 1e9, 1.0
    path.write_text(json.dumps(content))
    assert repeated(run, results)
    content["epochs"][1]["train_loss"] += 1e-12
    path.write_text(json.dumps(content))
    found = repeated(run, results)
    assert not found and len(found.differences) == 1 and found.differences[0].startswith("epoch 2, train_loss: ")
    assert cli.main(["results", "--results", str(results), "--repeated", str(run)]) == 1
    assert "1 of" in capsys.readouterr().out


def test_no_run_and_no_record_are_named(run, tmp_path):
    run, _ = run
    with pytest.raises(ValueError, match="expected the directory of a finished training"):
        repeated(tmp_path)
    with pytest.raises(ValueError, match="no record of the configuration"):
        repeated(run, tmp_path)
