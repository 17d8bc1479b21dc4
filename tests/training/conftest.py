"""A training that takes a fraction of a second, and what must be equal between two runs of it."""
import json
import re

import pytest

from minilp.training import train

# commit: someone may work in the checkout meanwhile
WALL_CLOCK = ("seconds", "images_per_s", "tokens_per_s", "peak_bytes", "commit")


@pytest.fixture(autouse=True)
def no_pictures(request, monkeypatch):
    """matplotlib takes half a second a picture: only tests that ask for ``pictures`` draw any."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("minilp.figures.available", lambda: False)


@pytest.fixture
def pictures():
    pytest.importorskip("matplotlib")


@pytest.fixture
def options(tiny):
    """Arguments of ``train`` for that data: 3 epochs of 6 steps, the last one of 4 images, quick and quiet."""
    return {"data": str(tiny), "epochs": 3, "batch_size": 8, "lr": 0.1, "augment": "crop_flip",
            "settings": ["model.width=4", "error.rounding=stochastic"], "threads": 1,
            "quiet": True}


@pytest.fixture
def finished(tmp_path, options):
    """A finished run."""
    return train(**options, out=tmp_path / "finished")


def contents(run):
    """Everything in a run directory, wall-clock values masked: file name -> bytes or values."""
    found = {}
    for path in sorted(run.iterdir()):
        data = path.read_bytes()
        if path.name == "metrics.csv":
            data = [line.split(",")[:-2] for line in data.decode().splitlines()]
        elif path.name == "log.txt":
            data = re.sub(r"\d+ (images|tokens)/s, [\d.]+ s", "", data.decode())
        elif path.name == "result.json":
            data = {k: v for k, v in json.loads(data).items() if k not in WALL_CLOCK}
            data["epochs"] = [{k: v for k, v in row.items() if k not in WALL_CLOCK} for row in data["epochs"]]
        found[path.name] = data
    return found


@pytest.fixture(name="contents")
def contents_fixture():
    return contents
