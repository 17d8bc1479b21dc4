"""The benchmark of steps: its arithmetic and its protocol; never its absolute times."""
import json
import time

import numpy as np
import pytest

from minilp import bench, cli
from minilp.bench import account, case, process, stats, step

ISSUE_KEYS = {"model", "recipe", "isa", "kernels", "batch_size", "ms_median", "ms_low", "ms_high", "torch_ms_median",
              "ratio", "peak_bytes", "torch_peak_bytes"}


def test_median_interval_is_made_of_order_statistics():
    values = list(range(100, 131))  # 31 values
    median, low, high = stats.median_interval(values[::-1])
    assert median == 115 and (low, high) == (110, 120)
    assert stats.median_interval([3.0]) == (3.0, 3.0, 3.0)
    assert stats.median_interval([2.0, 1.0, 3.0]) == (2.0, 1.0, 3.0)


def test_straight_line():
    slope, intercept, misses = stats.straight_line([1, 2, 3], [5.0, 7.0, 9.0])
    assert slope == pytest.approx(2) and intercept == pytest.approx(3) and misses == pytest.approx([0, 0, 0])
    assert max(stats.straight_line([0, 1, 2], [10.0, 10.0, 13.0])[2]) > 0.03
    with pytest.raises(ValueError, match="two different values"):
        stats.straight_line([2, 2], [1, 1])


def test_interleaved_takes_turns_and_measures():
    seen = []
    short, long = stats.interleaved([lambda: seen.append("a"), lambda: (seen.append("b"), time.sleep(0.01))], 3)
    assert "".join(seen) == "abababab" and len(short) == len(long) == 3 and min(long) >= 0.01


def test_one_thread_is_timed_by_what_it_computes():
    clock, name = stats.clock_for(1)
    ((idle,),) = stats.interleaved([lambda: time.sleep(0.05)], 1, clock)
    assert name == "processor" and idle < 0.04 and stats.clock_for(2) == (time.perf_counter, "wall")


def test_a_case_is_a_recipe_with_settings_of_its_own():
    found = case.Case.parse("potq:pot.bits=4,act.before=none")
    assert found == case.Case("potq", ("pot.bits=4", "act.before=none")) and str(found).startswith("potq:pot.bits=4,")
    assert case.Case.parse("mls", ("mls.group=n",)) == case.Case("mls", ("mls.group=n",))


@pytest.mark.parametrize(("given", "words"), [
    ({"steps": 0}, "steps must be at least 1, got 0"), ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ({"threads": 0}, "threads must be at least 1, got 0"), ({"models": ("vgg",)}, "model: .*'vgg'"),
    ({"recipes": ("fp9",)}, "recipe: .*'fp9'"), ({"recipes": ("potq:pot.bits",)}, "set: expected key=value"),
    ({"recipes": ("potq",), "settings": ("pot.bots=4",)}, "bots"), ({"isas": ("mmx",)}, "isa: .*portable.*'mmx'"),
    ({"kernels": ("fast",)}, "kernels: .*shift.*'fast'"), ({"rivals": ("jax",)}, "rival: .*eager.*'jax'"),
])
def test_bad_arguments_are_named(given, words, needs_c):
    with pytest.raises(ValueError, match=words):
        bench.bench_step(**given)


def test_what_a_worker_cannot_build_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"potq:model\.colour=3 on small_cnn: .*colour"):
        bench.bench_step(("small_cnn",), ("potq:model.colour=3",), rivals=(), batch_size=2, steps=1, threads=1)


def test_rows_say_what_ran(tmp_path, capsys, needs_c):
    """Two recipes, one with a setting of its own, two tiers, and a profile, from the command line."""
    file, picture = tmp_path / "deep" / "rows.json", tmp_path / "rows.png"
    code = cli.main(["bench", "step", "--model", "small_cnn", "--recipe", "potq:pot.bits=4", "--isa", "portable",
                     "--isa", "auto", "--kernels", "shift", "--batch-size", "4", "--steps", "2", "--threads", "1",
                     "--json", str(file), "--plot", str(picture), "--no-rival", "--profile"])
    first, second = json.loads(file.read_text())
    assert code == 0 and set(first) >= ISSUE_KEYS
    assert first["contractions"].startswith("PoT(bits=4) x PoT(bits=4) in integers")
    assert first["settings"] == ["pot.bits=4"]
    assert (first["isa"], first["kernels"]) == ("portable", "shift")
    assert any("portable" in key for key in first["calls"]) and not any("portable" in key for key in second["calls"])
    for row in (first, second):
        assert 0 < row["ms_low"] <= row["ms_median"] <= row["ms_high"] and row["peak_bytes"] > 0
        assert row["ratio"] is None and row["torch_ms_median"] is None and row["rivals"] == {}
        assert {"forward", "weight grad", "encode", "norm", "optimizer"} <= {entry["part"] for entry in row["profile"]}
        assert sum(entry["share"] for entry in row["profile"]) == pytest.approx(1)
    assert first["ms_median"] != second["ms_median"]
    out = capsys.readouterr().out
    assert "potq:pot.bits=4" in out and "mlp_pot" in out and "optimizer" in out
    assert picture.exists() == ("no plot" not in out)


def test_a_rival_that_cannot_run_is_left_out_with_its_reason(torch, monkeypatch):
    """The compiled one asks for a C++ compiler; here building it fails."""
    class System(process.System):
        def __init__(self, job):
            if job.get("mode") == "compiled":
                raise process.Unavailable("InvalidCxxCompiler: no working C++ compiler")
            super().__init__(job)

    monkeypatch.setattr(step, "System", System)
    (row,) = bench.bench_step(("resnet20",), ("fp32",), rivals=("eager", "compiled"), batch_size=2, steps=2, threads=1)
    assert row["skipped"] == {"compiled": "InvalidCxxCompiler: no working C++ compiler"}
    assert list(row["rivals"]) == ["eager"]
    assert row["ratio"] == row["rivals"]["eager"]["ratio"] > 0 and row["torch_peak_bytes"] > 0
    assert "compiled not measured on resnet20: InvalidCxxCompiler" in step.table([row])
    assert f"eager {row['ratio']:.2f}" in step.table([row])


def test_a_profile_finds_parts_and_kernels(needs_c):
    """Time is given to the innermost part, and to the C kernel inside it."""
    from minilp.formats import PoT, Spec
    from minilp.multiply import multiply

    x = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)

    def work():
        q = PoT(bits=5).encode(x)
        time.sleep(0.02)
        multiply(q, q, Spec("linear"))
        multiply(q, q, Spec("linear_weight_grad"))

    found = account.profile(work, times=2)
    by_part = {(row["part"], row["kernel"]): row for row in found["rows"]}
    assert by_part["rest", account.PYTHON]["ms"] >= 20
    assert by_part["encode", "mlp_pot_encode"]["calls"] == 1
    for part in ("forward", "weight grad"):
        assert any(row["part"] == part and row["kernel"].startswith("mlp_") for row in found["rows"])
    assert found["ms"] == pytest.approx(sum(row["ms"] for row in found["rows"]))


@pytest.mark.parametrize("mode", ["eager", "channels_last", "bf16"])
def test_rivals_train(torch, mode):
    """Each mode steps the same network: its loss falls, and starts where the eager one's does."""
    from minilp.bench import rival
    from minilp.bench.worker import batch

    def losses(name, steps):
        torch.manual_seed(0)
        run = rival.step("resnet20", name, *batch(4, 1))
        return [run() for _ in range(steps)]

    found = losses(mode, 4)
    assert found[-1] < found[0] == pytest.approx(losses("eager", 1)[0], rel=0.02)


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
