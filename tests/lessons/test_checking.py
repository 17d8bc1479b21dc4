"""Checks of exercises: what passes, what fails and in which words."""
import numpy as np
import pytest

from minilp import lessons as lab


def test_right_answers_pass_and_are_counted(capsys):
    lab.check(3, lambda x: (x, x[:1]), [((np.arange(3),), (np.arange(3), np.array([0]))), ((np.zeros(1),), (0, 0))][:1])
    lab.check(4, abs, [((-1,), 1), ((2.5,), 2.5)])
    assert capsys.readouterr().out == "exercise 3: right, 1 case\nexercise 4: right, 2 cases\n"


@pytest.mark.parametrize(("got", "words"), [
    (None, r"f\(1\) returned nothing; expected \[1, 2, 3\]"),
    (np.array([1, 2, 4]), r"First difference at \(2,\): 4, expected 3"),
    (np.array([[1, 2, 3]]), r"gave \[\[1, 2, 3\]\]; expected"),
    (np.array([1.0, 2.0, np.nan]), "First difference"),
    ([1, 2], r"gave \[1, 2\]"),
])
def test_wrong_answers_fail_and_say_what_was_expected(got, words):
    def f(x):
        return got
    with pytest.raises(lab.WrongAnswer, match=words):
        lab.check(1, f, [((1,), np.array([1, 2, 3]))])


def test_an_error_inside_is_a_wrong_answer_and_an_empty_exercise_is_not():
    def f(x):
        return 1 / x

    def empty(x):
        lab.todo(2)
    with pytest.raises(lab.WrongAnswer, match=r"f\(0\) raised ZeroDivisionError: division by zero; expected 7"):
        lab.check(1, f, [((0,), 7)])
    with pytest.raises(lab.EmptyExercise, match="exercise 2 is empty"):
        lab.check(2, empty, [((0,), 7)])


def test_a_function_among_the_arguments_is_called_by_its_name():
    def f(function, x):
        return 2 * function(x)
    with pytest.raises(lab.WrongAnswer, match=r"f\(abs, -1\) gave 2; expected 1"):
        lab.check(1, f, [((abs, -1), 1)])


def test_a_check_without_cases_is_an_error_and_arguments_are_copies():
    def spoils(x):
        x[:] = 0
        return 1
    x = np.ones(2)
    lab.check(1, spoils, [((x,), 1)])
    assert x.all()
    with pytest.raises(ValueError, match="exercise 1 has no cases"):
        lab.check(1, spoils, [])


def test_comparisons_in_words(capsys):
    assert lab.same("these", [1, 2], np.array([1.0, 2.0]))
    assert not lab.same("those", [1, 2], [1, 2.5])
    assert not lab.same("nan", [np.nan], [np.nan])
    lab.guess(None, 3)
    lab.guess(2, 3, "%")
    lab.guess(3, 3)
    assert capsys.readouterr().out.splitlines() == [
        "these: exact, all 2 equal", "those: 1 of 2 differ, by 0.5 at most", "nan: 1 of 1 differ, by nan at most",
        "no guess written; it is 3", "you said 2 %; it is 3 %", "you said 3; it is 3, as you said"]
    with pytest.raises(ValueError, match=r"same: these: expected arrays of one shape, got \(1,\) and \(2,\)"):
        lab.same("these", [1], [1, 2])


def test_fast_reads_the_environment(monkeypatch):
    monkeypatch.setenv("FAST", "1")
    assert lab.fast()
    monkeypatch.setenv("FAST", "0")
    assert not lab.fast()
