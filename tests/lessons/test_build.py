"""Notebooks from sources: what a student gets, what is compared, and what a failure says."""
import json

import pytest

LESSON = '''# %% [markdown]
# Text.

# %%
from minilp import lessons as lab

# %% exercise=1 lines=1
def twice(x):
    """Twice x."""
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION

# %%
lab.check(1, twice, [((2,), 4)])

# %%
twice(21)
'''


@pytest.fixture
def lesson(build, tmp_path, monkeypatch):
    """A small lesson in a folder of its own, and how to build it: (write source, run the command)."""
    folder = tmp_path / "lessons"
    folder.mkdir()
    monkeypatch.setattr(build, "HERE", folder)
    source = folder / "01_small.py"
    source.write_text(LESSON)
    return source, build.main


def cells(source, kind):
    """A notebook's cells as its JSON has them."""
    return json.loads((source.parent / kind / "01_small.ipynb").read_text())["cells"]


def test_the_student_gets_a_stub_and_the_solution_no_markers(lesson):
    source, main = lesson
    assert main([]) == 0
    student, solution = ("".join(cells(source, kind)[2]["source"]) for kind in ("student", "solutions"))
    assert student == ('def twice(x):\n    """Twice x."""\n'
                       '    lab.todo(1)  # your code in place of this line: 1 line does')
    assert solution == 'def twice(x):\n    """Twice x."""\n    return 2 * x'


def test_building_twice_gives_the_same_bytes_and_keeps_outputs(lesson):
    source, main = lesson
    assert main(["--execute"]) == 0
    path = source.parent / "solutions" / "01_small.ipynb"
    before = path.read_bytes()
    assert cells(source, "solutions")[-1]["outputs"][0]["data"]["text/plain"] == ["42"]
    assert main([]) == 0 and path.read_bytes() == before
    assert main(["--execute"]) == 0 and path.read_bytes() == before
    assert not any(cell.get("outputs") for cell in cells(source, "student"))


def test_check_finds_a_changed_source_and_writes_nothing(lesson, capsys):
    source, main = lesson
    assert main([]) == 0 and main(["--check"]) == 0
    path = source.parent / "student" / "01_small.ipynb"
    before = path.read_bytes()
    source.write_text(LESSON.replace("Text.", "Other text."))
    assert main(["--check"]) == 1 and path.read_bytes() == before
    assert "student/01_small.ipynb is not what 01_small.py gives" in capsys.readouterr().err


def test_a_failure_names_lesson_cell_and_reason(lesson, capsys):
    source, main = lesson
    source.write_text(LESSON.replace("return 2 * x", "return 3 * x"))
    assert main(["--execute"]) == 1
    said = capsys.readouterr()
    assert "01_small: student's notebook runs to cell 4: exercise 1 is empty" in said.out
    assert "01_small (solutions), cell 4 of 5:\nlab.check(1, twice" in said.err
    assert "WrongAnswer: exercise 1: twice(2) gave 6; expected 4" in said.err


@pytest.mark.parametrize(("old", "new", "words"), [
    ("    return 2 * x", "    x = 2 * x\n    return x", "exercise 1: the solution has 2 lines, its budget is 1"),
    ("    ### END SOLUTION", "", "exercise 1: expected lines between"),
    (" lines=1", "", "its budget is missing"),
    ("exercise=1 lines=1", "", "a marker outside an exercise"),
])
def test_what_a_source_must_not_do(lesson, capsys, old, new, words):
    source, main = lesson
    assert old in LESSON
    source.write_text(LESSON.replace(old, new, 1))
    assert main([]) == 1 and words in capsys.readouterr().err


def test_a_lesson_without_exercises_is_no_student_notebook(lesson, capsys):
    source, main = lesson
    source.write_text(LESSON.split("# %% exercise")[0])
    assert main(["--execute"]) == 1 and "no exercise is empty" in capsys.readouterr().err


def test_unknown_names_and_large_notebooks_are_refused(lesson, capsys, build, monkeypatch):
    _, main = lesson
    assert main(["07"]) == 1 and "no lesson '07'; there are 01_small" in capsys.readouterr().err
    monkeypatch.setattr(build, "LARGEST", 100)
    assert main([]) == 1 and "the limit is 100" in capsys.readouterr().err


def test_committed_notebooks_are_what_the_sources_give(build):
    assert build.main(["--check"]) == 0
    for source in build.sources([]):
        for kind in build.KINDS:
            path = build.HERE / kind / f"{source.stem}.ipynb"
            assert path.stat().st_size <= build.LARGEST
            outputs = [cell.get("outputs") for cell in json.loads(path.read_text())["cells"]]
            assert any(outputs) == (kind == "solutions")
