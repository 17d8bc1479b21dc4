"""The command line: every command speaks and works; a wrong argument is one line that names it, exit code 2."""
import subprocess
import sys

import numpy as np
import pytest

import minilp
from minilp import cli, data, report
from minilp.bench import step
from minilp.data.download import DownloadError


@pytest.fixture
def data_file(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "toy.npz"
    np.savez(path, x_train=rng.integers(0, 255, (16, 3, 8, 8)).astype(np.uint8), y_train=np.arange(16) % 2,
             x_test=rng.integers(0, 255, (8, 3, 8, 8)).astype(np.uint8), y_test=np.arange(8) % 2)
    return str(path)


@pytest.fixture
def run(tmp_path, data_file, capsys):
    out = tmp_path / "run"
    words = ["train", "--data", data_file, "--epochs", "1", "--batch-size", "8", "--set", "model.width=4"]
    assert cli.main([*words, "--out", str(out)]) == 0
    capsys.readouterr()
    return out


def test_train_eval_compare(run, tmp_path, capsys):
    assert cli.main(["eval", str(run)]) == 0
    assert "metrics.csv recorded the same" in capsys.readouterr().out
    assert cli.main(["compare", str(run), str(run), "--plot", str(tmp_path / "plot.png")]) == 0
    out = capsys.readouterr().out
    assert out.count("5/5/5") == 2 and "plot" in out


@pytest.mark.parametrize(("words", "expected"), [
    (["train", "--data", "cifar11"], ["data", "'cifar11'", "shapes10"]),
    (["train", "--model", "vgg"], ["model", "'vgg'", "small_cnn"]),
    (["train", "--recipe", "fp9"], ["recipe", "'fp9'", "potq"]),
    (["train", "--epochs", "two"], ["--epochs", "'two'", "integer"]),
    (["train", "--lr", "fast"], ["--lr", "'fast'", "number"]),
    (["train", "--batch-size", "0"], ["batch_size", "0", ">= 1"]),
    (["train", "--set", "act.bits"], ["set", "'act.bits'", "key=value"]),
    (["train", "--set", "act.bits=77"], ["bits", "77"]),
    (["train", "--set", "model.colour=3"], ["colour", "width"]),
    (["train", "--schedule", "spiral"], ["schedule", "'spiral'", "onecycle"]),
    (["train", "--resume", "--out", "nowhere"], ["resume", "nowhere", "config.json"]),
    (["eval", "nowhere"], ["nowhere", "config.json"]),
    (["compare", "nowhere"], ["nowhere", "result.json"]),
    (["explain", "posit", "1", "2"], ["format", "'posit'", "pot"]),
    (["explain", "pot:bots=4", "1", "2"], ["bots", "bits"]),
    (["explain", "potq", "nan", "2"], ["a: expected a finite number", "nan"]),
    (["data", "nowhere.npz"], ["nowhere.npz"]),
    (["bench", "step", "--recipe", "fp9"], ["recipe", "'fp9'", "potq"]),
    (["bench", "step", "--steps", "0"], ["steps", "0", "at least 1"]),
    (["dance"], ["dance", "train"]),
    ([], ["COMMAND"]),
])
def test_wrong_arguments_end_with_code_2_and_a_sentence(words, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.main(words)
    except SystemExit as stop:  # argparse's own errors
        code = stop.code
    err = capsys.readouterr().err
    assert code == 2
    assert all(word in err for word in expected), err
    assert "Traceback" not in err and not list(tmp_path.iterdir())


def test_missing_cifar10_says_how_to_get_it(tmp_path, capsys):
    assert cli.main(["train", "--data", "cifar10", "--root", str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    assert "minilp data cifar10" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_diverged_training_ends_with_code_1(data_file, tmp_path, capsys):
    words = ["train", "--data", data_file, "--epochs", "2", "--batch-size", "4", "--lr", "1e35", "--recipe", "fp32",
             "--schedule", "constant", "--out", str(tmp_path / "run")]
    assert cli.main(words) == 1
    err = capsys.readouterr().err
    assert "diverged at step" in err and "role" in err and "Traceback" not in err


def test_explain_shows_one_multiply_accumulate(capsys):
    assert cli.main(["explain", "potq", "0.3", "-0.7"]) == 0
    assert capsys.readouterr().out == report.explain("pot", 0.3, -0.7) + "\n"
    assert cli.main(["explain", "pot:bits=4", "0.3", "-0.7"]) == 0
    assert "0.3" in capsys.readouterr().out


def test_formats_lists_every_registered_format(capsys):
    from dataclasses import dataclass

    from minilp.formats import Fixed, available

    @dataclass(frozen=True)
    class Unsaid(Fixed):
        more: int = 1

    assert cli.main(["formats"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(word in lines[0] for word in ("bits", "levels", "range", "scale", "source"))
    assert len(lines) == len(available()) + 1
    pot = next(line for line in lines if line.startswith("PoT"))
    assert " 5 " in pot and " 31 " in pot


def test_data_describes(capsys, data_file):
    assert cli.main(["data", data_file]) == 0
    out = capsys.readouterr().out
    assert "16 images of 8 x 8 x 3" in out


def test_data_downloads_cifar10_only_where_it_is_missing(tmp_path, monkeypatch, capsys):
    asked = []

    def download(root, layout):
        asked.append((root, layout))
        raise DownloadError("the host is down")

    monkeypatch.setattr(data.cifar10, "download", download)
    assert cli.main(["data", "cifar10", "--root", str(tmp_path), "--layout", "python"]) == 1
    assert asked == [(str(tmp_path), "python")]
    assert "the host is down" in capsys.readouterr().err
    monkeypatch.setattr(data, "describe", lambda name, root: "all there")
    assert cli.main(["data", "cifar10", "--root", str(tmp_path)]) == 0
    assert len(asked) == 1 and capsys.readouterr().out == "all there\n"


def test_bench_step_passes_its_arguments_on(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(step, "bench_step", lambda **given: asked.append(given) or [])
    assert cli.main(["bench", "step", "--recipe", "potq:pot.bits=4", "--recipe", "mls", "--set", "act.bits=4", "--isa",
                     "avx2", "--kernels", "shift", "--rival", "bf16", "--steps", "3", "--threads", "1"]) == 0
    assert asked == [{"recipes": ("potq:pot.bits=4", "mls"), "isas": ("avx2",), "kernels": ("shift",),
                      "rivals": ("bf16",), "settings": ("act.bits=4",), "batch_size": 128, "steps": 3, "threads": 1,
                      "profile": False}]
    assert capsys.readouterr().out == step.table([]) + "\n"


def test_help_and_version(capsys):
    for words in (["--help"], ["train", "--help"], ["--version"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(words)
        assert stop.value.code == 0
    assert f"minilp {minilp.__version__}" in capsys.readouterr().out


def test_python_dash_m_runs_the_command_line():
    words = [sys.executable, "-m", "minilp", "explain", "nothing", "1", "2"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("minilp: error: format:")


def test_a_reader_that_leaves_early_hears_no_complaint():
    command = [sys.executable, "-c", "import minilp.cli, sys; sys.exit(minilp.cli.main(['formats']))"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 1
