"""The benchmark's arithmetic and its protocol; never its absolute times."""
import json

import numpy as np
import pytest

from minilp import bench, cli
from minilp.bench import step


def test_median_interval_is_made_of_order_statistics():
    values = list(range(100, 131))  # 31 values
    median, low, high = step.median_interval(values[::-1])
    assert median == 115 and (low, high) == (110, 120)
    assert step.median_interval([3.0]) == (3.0, 3.0, 3.0)
    assert step.median_interval([2.0, 1.0, 3.0]) == (2.0, 1.0, 3.0)


@pytest.mark.parametrize("name", ["steps", "batch_size", "threads"])
def test_bad_numbers_are_named(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        bench.bench_step(**{name: 0})


def test_rows_say_what_ran(tmp_path, capsys):
    file = tmp_path / "rows.json"
    code = cli.main(["bench", "step", "--model", "small_cnn", "--recipe", "potq", "--batch-size", "4", "--steps", "2",
                     "--threads", "1", "--json", str(file), "--no-rival"])
    (row,) = json.loads(file.read_text())
    assert code == 0 and row["kernels"].startswith("PoT(bits=5) x PoT(bits=5) in integers (")
    assert row["ms_low"] <= row["ms_median"] <= row["ms_high"] and row["peak_bytes"] > 0
    assert row["ratio"] is None and row["torch_ms_median"] is None
    assert "small_cnn" in capsys.readouterr().out


def test_the_rival_is_the_same_network(torch):
    """Our resnet20's state loads into the torch twin, and both give the same loss in float64."""
    from minilp import models
    from minilp.autograd import Tensor, no_grad
    from minilp.bench.rival import build

    ours, theirs = models.build("resnet20").to(np.float64).eval(), build("resnet20").double().eval()
    theirs.load_state_dict({name: torch.from_numpy(np.asarray(value)) for name, value in ours.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32))
    with no_grad(), torch.no_grad():
        assert np.allclose(ours(Tensor(x)).data, theirs(torch.from_numpy(x)).numpy(), rtol=1e-9, atol=1e-12)
