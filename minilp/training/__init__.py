"""Training a model and what it leaves behind: the loop, run directories, checkpoints, evaluation, inspection."""
from minilp.training.comparison import Comparison, compare
from minilp.training.config import TrainConfig
from minilp.training.diverged import Diverged
from minilp.training.evaluation import Evaluation, evaluate, load
from minilp.training.inspection import inspect, inspect_model, inspect_recipe
from minilp.training.inspection_report import Inspection
from minilp.training.loop import Interrupted, Result, train
from minilp.training.translating import translate

__all__ = ["Comparison", "Diverged", "Evaluation", "Inspection", "Interrupted", "Result", "TrainConfig", "compare",
           "evaluate", "inspect", "inspect_model", "inspect_recipe", "load", "train", "translate"]
