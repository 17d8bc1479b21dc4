"""A plan's table inside of another text."""
import json
import os

import pytest

from minilp import cli
from minilp.results import load_plan, read
from minilp.results.summary import refresh, replaced, summary

TEXT = "# Mine\n\n<!-- minilp results: small -->\nold\n<!-- end -->\n\nand more <!-- end -->\n"
PLAN = {"defaults": {"data": "cifar10", "model": "resnet20", "epochs": 2}, "runs": [
    {"recipe": "fp32", "seeds": [0, 1]}, {"recipe": "potq", "seeds": [0, 1]}, {"recipe": "mls"}, {"recipe": "int8"}]}


@pytest.fixture
def folders(write, tmp_path):
    """Records and a plan, as keyword arguments."""
    for recipe, seed, accuracy in (("fp32", 0, 0.8), ("fp32", 1, 0.82), ("potq", 0, 0.75), ("potq", 1, 0.76),
                                   ("int8", 0, None)):
        write(accuracy, recipe=recipe, seed=seed)
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "small.json").write_text(json.dumps(PLAN))
    return {"results": tmp_path / "results", "plans": tmp_path / "plans"}


def test_rows_have_means_ranges_and_what_is_missing(folders):
    rows = summary(load_plan(folders["plans"] / "small.json"), read(folders["results"]))
    assert rows[0] == "| recipe | seeds | test accuracy, % | gap to `fp32`, points | uJ/image |"
    assert rows[2:] == ["| fp32 | 2 | 81.00 (80.00 .. 82.00) | +0.00 (-1.00 .. +1.00) | 2.0 |",
                        "| potq | 2 | 75.50 (75.00 .. 76.00) | -5.50 (-6.00 .. -5.00) | 2.0 |",
                        "| mls | 0 | not run yet |  |  |", "| int8 | 1 | diverged |  |  |"]


def test_a_plan_of_several_tables_is_refused(folders):
    runs = [{"table": name, "recipe": "fp32"} for name in ("b", "a")]
    (folders["plans"] / "two.json").write_text(json.dumps({**PLAN, "runs": runs}))
    with pytest.raises(ValueError, match="plan: expected one table, got 'two' with 2: a, b"):
        summary(load_plan(folders["plans"] / "two.json"), [])


def test_without_the_first_row_there_are_no_gaps(folders):
    for path in folders["results"].glob("*fp32*"):
        path.unlink()
    rows = summary(load_plan(folders["plans"] / "small.json"), read(folders["results"]))
    assert rows[2:4] == ["| fp32 | 0 | not run yet |  |  |", "| potq | 2 | 75.50 (75.00 .. 76.00) | - | 2.0 |"]


def test_only_what_is_marked_is_written_and_the_same_the_second_time(folders, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(TEXT)
    assert refresh(path, **folders) == path
    text = path.read_text()
    head, table, tail = text.split("<!-- ", 2)[0], text.split("-->\n")[1], text.split("<!-- end -->", 1)[1]
    assert head == "# Mine\n\n" and tail == "\n\nand more <!-- end -->\n"
    assert "| potq | 2 |" in table and "old" not in text
    refresh(path, **folders)
    assert path.read_text() == text


@pytest.mark.parametrize(("text", "words"), [("no mark", "readme: expected a line .*minilp results: PLAN.*found none"),
                                             (TEXT.replace("small", "big"), "no plan is called 'big'; there are sm")])
def test_a_text_without_a_place_is_refused_and_left_alone(folders, tmp_path, text, words):
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        refresh(path, **folders)
    assert path.read_text() == text
    with pytest.raises(FileNotFoundError):
        refresh(tmp_path / "none.md", **folders)


def test_the_command_line(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("minilp.figures.available", lambda: False)
    monkeypatch.setattr("minilp.results.pictures.draw", lambda *args: None)
    path = tmp_path / "README.md"
    path.write_text(TEXT)
    words = [f"--{name}={os.fspath(folder)}" for name, folder in folders.items()]
    assert cli.main(["results", *words, "--readme", str(path)]) == 0
    assert f"wrote {path}" in capsys.readouterr().out
    assert path.read_text() == replaced(TEXT, [load_plan(folders["plans"] / "small.json")], read(folders["results"]))
