"""The checkers of every lesson: the solution passes; the stub and planted wrong answers fail, each at its own check."""
import os
import re

import pytest

from minilp import lessons as lab

WRONG = {  # lesson -> (exercise, what stands in the solution, what a reader may write instead)
    "01_numbers": [
        (1, "round(x / 2.0**exponent)", "int(x / 2.0**exponent)"),
        (1, "round(x / 2.0**exponent)", "math.floor(x / 2.0**exponent + 0.5)"),
        (1, "2 ** (bits - 1) - 1", "2**bits - 1"),
        (1, "max(-top, min(top, ", "max(-top - 1, min(top, "),
        (2, "2 ** (exp - 1) - 1", "2 ** (exp - 1)"),
        (2, "** (1 - bias)", "** (0 - bias)"),
        (2, "if field == 0:", "if level == 0:"),
        (3, "math.sqrt(0.5)", "0.75"),
        (3, "power - 1 + ", "power + "),
        (3, "min(k, kmax)", "k"),
        (3, "max(0, min(k, kmax) + kmax + 1)", "max(1, min(k, kmax) + kmax + 1)"),
        (3, "    if x == 0:\n        return 0\n", ""),
        (4, "round(gamma * ", "int(gamma * "),
        (4, "max(1, ", "max(0, "),
        (4, "gamma * math.log2(maximum / abs(x))", "math.log2(maximum / abs(x))"),
        (4, "int(math.copysign(max(1, 2 ** (bits - 1) - steps), x))", "max(1, 2 ** (bits - 1) - steps)"),
        (5, "below + (draw < x - below)", "below + (draw < 0.5)"),
        (5, "draw < x - below", "draw <= x - below"),
        (5, "np.floor(x)", "np.trunc(x)"),
        (6, "(2 * gamma) >= octaves", "gamma >= octaves"),
        (6, ">= octaves", "> octaves"),
        (6, "2 ** (bits - 1) - 1", "2 ** (bits - 1)"),
    ],
}


@pytest.fixture(scope="module")
def lessons(build):
    """Lesson -> (solution's cells, student's cells, names that the solution leaves behind), each run once, FAST=1."""
    done, before = {}, os.environ.get("FAST")
    os.environ["FAST"] = "1"
    try:
        for source in build.sources([]):
            notebook, names = build.read(source), {}
            solution = build.build(notebook, "solutions").cells
            for cell in solution:
                if cell.cell_type == "code":
                    exec(compile(cell.source, source.stem, "exec"), names)
            done[source.stem] = solution, build.build(notebook, "student").cells, names
    finally:
        os.environ.pop("FAST") if before is None else os.environ.update(FAST=before)
    return done


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


def test_every_lesson_has_numbered_exercises_and_planted_wrong_answers(lessons):
    assert set(WRONG) == set(lessons)
    for lesson, (cells, _, _) in lessons.items():
        numbers = list(exercises(cells))
        assert numbers == list(range(1, len(numbers) + 1)) and 4 <= len(numbers) <= 6
        for number in numbers:
            assert sum(wrong[0] == number for wrong in WRONG[lesson]) >= 2, (lesson, number)


def test_solutions_pass_and_stubs_say_which_exercise_is_empty(lessons):
    for solution, student, names in lessons.values():
        for number, (index, check) in exercises(solution).items():
            run(solution[index].source, check, names)
            with pytest.raises(lab.EmptyExercise, match=f"exercise {number} is empty"):
                run(student[index].source, check, names)


@pytest.mark.parametrize(("lesson", "number", "right", "wrong"), [(lesson, *row) for lesson, rows in WRONG.items()
                                                                  for row in rows])
def test_planted_wrong_answers_fail(lessons, lesson, number, right, wrong):
    solution, _, names = lessons[lesson]
    index, check = exercises(solution)[number]
    assert right in solution[index].source
    with pytest.raises(lab.WrongAnswer, match=f"exercise {number}: "):
        run(solution[index].source.replace(right, wrong), check, names)


def test_a_lesson_has_all_its_parts(lessons):
    for lesson, (cells, _, _) in lessons.items():
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        for heading in ("## Symbols", "## One number by hand", "## The experiment", "## Break it",
                        "## Differences from the paper", "## Summary", "## Questions"):
            assert heading in text, f"{lesson} has no {heading!r}"
        assert text.count("*Hint") >= len(exercises(cells)), lesson
        summary = re.search(r"## Summary\n\n(.*?)\n\n", text, flags=re.S)
        assert summary and summary[1].count("\n") == 4, f"{lesson}: the summary has five lines"
