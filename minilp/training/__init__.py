"""Training a model and what it leaves behind: the loop, run directories, checkpoints, evaluation, comparison."""
from minilp.training.comparison import Comparison, compare
from minilp.training.config import TrainConfig
from minilp.training.diverged import Diverged
from minilp.training.evaluation import Evaluation, evaluate, load
from minilp.training.loop import Interrupted, Result, train

__all__ = ["Comparison", "Diverged", "Evaluation", "Interrupted", "Result", "TrainConfig", "compare", "evaluate",
           "load", "train"]
