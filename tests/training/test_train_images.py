"""``--train-images N``: a part of the training images that is the same for every seed."""
import json

import numpy as np
import pytest

from minilp import data
from minilp.training import TrainConfig, classification, evaluate, inspection, train


def test_the_part_does_not_depend_on_the_seed(tiny):
    whole, _ = data.load(str(tiny))
    configs = [TrainConfig.create(str(tiny), train_images=10, seed=seed) for seed in (0, 1)]
    parts = [config.task.load(config).train for config in configs]
    assert len(parts[0]) == 10 and np.array_equal(parts[0].images, parts[1].images)
    assert np.array_equal(parts[0].images, whole.subset(10).images)
    assert np.array_equal(parts[0].mean, whole.mean)


def test_training_sees_that_part_and_the_record_says_so(tmp_path, options):
    options = {**options, "epochs": 1, "train_images": 12}
    result = train(**options, out=tmp_path / "run")
    stored = json.loads((tmp_path / "run" / "result.json").read_text())
    assert stored["config"]["train_images"] == 12 and "--train-images 12" in result.config.command()
    assert "12 training and 20 test images" in (tmp_path / "run" / "log.txt").read_text()
    assert evaluate(tmp_path / "run").acc == result.test_acc
    other = train(**{**options, "train_images": 44}, out=tmp_path / "other")
    plain = train(**{**options, "train_images": None}, out=tmp_path / "plain")
    assert other.rows[0]["train_loss"] == plain.rows[0]["train_loss"] != result.rows[0]["train_loss"]


@pytest.mark.parametrize(("count", "words"), [(0, "train_images: expected an integer >= 1, got 0"),
                                              (45, "train_images: .* has 44 training images, got 45")])
def test_errors(options, tmp_path, count, words):
    with pytest.raises(ValueError, match=words):
        train(**options, train_images=count, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_inspect_takes_its_batches_from_that_part(tmp_path, options, monkeypatch):
    train(**{**options, "epochs": 1, "train_images": 12}, out=tmp_path / "run")
    seen = []
    original = classification.Loader

    def watched(dataset, *args, **kwargs):
        seen.append(len(dataset))
        return original(dataset, *args, **kwargs)

    monkeypatch.setattr(classification, "Loader", watched)
    inspection.inspect(tmp_path / "run")
    assert seen == [12]
