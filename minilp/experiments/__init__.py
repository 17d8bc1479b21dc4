"""Small experiments behind claims of the papers: each is one function, one command and one table."""
from minilp.experiments.lns_theory import update_error, update_errors
from minilp.experiments.update_bits import Task
from minilp.experiments.widths import run_one, sweep

__all__ = ["Task", "run_one", "sweep", "update_error", "update_errors"]
