"""Records made up from configurations, and plans on the tiny data set."""
import json

import pytest

from minilp.results import record_name
from minilp.training import TrainConfig


@pytest.fixture
def defaults(tiny):
    """Defaults of a plan: quick trainings."""
    return {"data": str(tiny), "model": "small_cnn", "epochs": 1, "batch_size": 8, "set": ["model.width=4"]}


@pytest.fixture
def write(tmp_path):
    """Write a record: ``write(accuracy, recipe=..., seed=..., ...)``; an accuracy of None is a diverged training."""
    folder = tmp_path / "results"
    folder.mkdir(exist_ok=True)

    def write_record(accuracy, energy=2e6, **given):
        config = TrainConfig.create(**{"data": "cifar10", "model": "resnet20", "recipe": "fp32", "epochs": 2, **given})
        row = {"epoch": 1, "train_loss": 1.0, "train_acc": 0.5, "test_loss": 1.0, "test_acc": accuracy or 0.0,
               "images_per_s": 100.0, "seconds": 120.0}
        gone = accuracy is None
        content = {"config": config.to_config(), "command": config.command(), "commit": "0" * 40,
                   "epochs": [row, {**row, "epoch": 2}], "test_acc": accuracy, "test_loss": None if gone else 1.0,
                   "diverged": {"epoch": 1, "step": 9, "message": "the loss is nan"} if gone else None,
                   "seconds": 240.0, "images_per_s": 100.0, "peak_bytes": 1, "energy_pj_per_image": None if gone
                   else energy, "energy_pj": None if gone else 1.0, "energy_prices": None, "energy_note": None,
                   "parameters": 10, "backend": {"name": "c", "reason": "", "isa": "avx2", "threads": 1,
                                                 "kernels": "float32 kernels"}}
        path = folder / f"{record_name(config)}.json"
        path.write_text(json.dumps(content))
        return path

    return write_record
