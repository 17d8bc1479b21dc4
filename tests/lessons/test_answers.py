"""The checkers of every lesson: the solution passes; the stub and planted wrong answers fail, each at its own check."""
import functools
import pathlib
import re
import runpy

import pytest

from minilp import lessons as lab

HERE = pathlib.Path(__file__).parent
# lesson -> (exercise, what stands in the solution, what a reader may write instead); one file a lesson
WRONG = {file.stem: runpy.run_path(str(file))["WRONG"] for file in sorted((HERE / "wrong").glob("*.py"))}


@pytest.fixture(scope="module")
def played(build):
    """Lesson -> (solution's cells, student's cells, names that the solution leaves behind), each run once, FAST=1."""

    @functools.cache
    def play(lesson):
        notebook, names = build.read(build.HERE / f"{lesson}.py"), {}
        solution = build.build(notebook, "solutions").cells
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FAST", "1")
            for cell in solution:
                if cell.cell_type == "code":
                    exec(compile(cell.source, lesson, "exec"), names)
        return solution, build.build(notebook, "student").cells, names

    return play


def exercises(cells):
    """Number -> (index of the exercise's cell, source of the cell that checks it)."""
    found = {}
    for index, cell in enumerate(cells):
        if "exercise" in cell.metadata:
            number = cell.metadata["exercise"]
            check = [c.source for c in cells[index + 1:] if re.search(rf"^lab\.check\({number}, ", c.source, re.M)]
            assert len(check) == 1, f"exercise {number} has {len(check)} checks"
            found[number] = index, check[0]
    return found


def run(source, check, names):
    names = dict(names)
    exec(source, names)
    exec(check, names)


def test_every_lesson_has_a_file_of_planted_wrong_answers(build):
    assert list(WRONG) == [source.stem for source in build.sources([])]


@pytest.mark.parametrize("lesson", WRONG)
def test_exercises_are_numbered_and_each_has_two_wrong_answers(played, lesson):
    numbers = list(exercises(played(lesson)[0]))
    assert numbers == list(range(1, len(numbers) + 1)) and 4 <= len(numbers) <= 6
    for number in numbers:
        assert sum(wrong[0] == number for wrong in WRONG[lesson]) >= 2, (lesson, number)


@pytest.mark.parametrize("lesson", WRONG)
def test_solutions_pass_and_stubs_say_which_exercise_is_empty(played, lesson):
    solution, student, names = played(lesson)
    for number, (index, check) in exercises(solution).items():
        run(solution[index].source, check, names)
        with pytest.raises(lab.EmptyExercise, match=f"exercise {number} is empty"):
            run(student[index].source, check, names)


@pytest.mark.parametrize(("lesson", "number", "right", "wrong"), [(lesson, *row) for lesson, rows in WRONG.items()
                                                                  for row in rows])
def test_planted_wrong_answers_fail(played, lesson, number, right, wrong):
    solution, _, names = played(lesson)
    index, check = exercises(solution)[number]
    assert right in solution[index].source
    with pytest.raises(lab.WrongAnswer, match=f"exercise {number}: "):
        run(solution[index].source.replace(right, wrong), check, names)


@pytest.mark.parametrize("lesson", WRONG)
def test_a_lesson_has_all_its_parts(played, lesson):
    cells = played(lesson)[0]
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for heading in ("## Symbols", "## One number by hand", "## The experiment", "## Break it",
                    "## Differences from the paper", "## Summary", "## Questions"):
        assert heading in text, f"no {heading!r}"
    assert text.count("*Hint") >= len(exercises(cells))
    summary = re.search(r"## Summary\n\n(.*?)\n\n", text, flags=re.S)
    assert summary and summary[1].count("\n") == 4, "the summary has five lines"
