"""Training a model and what it leaves behind: the loop, run directories, checkpoints, evaluation, comparison."""
from minilp.training.compare import Comparison, compare
from minilp.training.config import TrainConfig
from minilp.training.diverged import Diverged
from minilp.training.evaluate import Evaluation, evaluate, load
from minilp.training.train import Interrupted, Result, train

__all__ = ["Comparison", "Diverged", "Evaluation", "Interrupted", "Result", "TrainConfig", "compare", "evaluate",
           "load", "train"]
