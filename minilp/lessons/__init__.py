"""What the notebooks in ``lessons/`` share: checks of exercises, comparisons, pictures. Nothing else imports it."""
from minilp.lessons.checking import EmptyExercise, WrongAnswer, check, fast, guess, same, todo
from minilp.lessons.drawing import Picture, lines, number_lines
from minilp.lessons.recorded import results_folder

__all__ = ["EmptyExercise", "Picture", "WrongAnswer", "check", "fast", "guess", "lines", "number_lines",
           "results_folder", "same", "todo"]
