"""minilp: train networks on low-bit numbers for real. The public names, nothing else.

Names and rooms are imported when they are first used, so that ``import minilp`` costs little more than NumPy.
"""
import importlib
from typing import TYPE_CHECKING, Any

from minilp.kernels import backend, set_num_threads, use_backend, use_isa, use_kernels
from minilp.random import manual_seed

if TYPE_CHECKING:
    from minilp import (
        autograd,
        bench,
        contract,
        data,
        energy,
        formats,
        models,
        nn,
        optim,
        recipe,
        results,
        testing,
        training,
    )
    from minilp.autograd import Tensor, no_grad
    from minilp.contract import rounding_context
    from minilp.formats import LNS, Fixed, Format, PoT, QTensor
    from minilp.recipe import Recipe, Role, Roles
    from minilp.results import sweep
    from minilp.training import compare, evaluate, inspect, load, train, translate

__version__ = "0.1.0"
__all__ = ["LNS", "Fixed", "Format", "PoT", "QTensor", "Recipe", "Role", "Roles", "Tensor", "autograd", "backend",
           "bench", "compare", "contract", "data", "energy", "evaluate", "formats", "inspect", "load", "manual_seed",
           "models", "nn", "no_grad", "optim", "recipe", "results", "rounding_context", "set_num_threads", "sweep",
           "testing", "train", "training", "translate", "use_backend", "use_isa", "use_kernels"]

_ROOMS = ("autograd", "bench", "contract", "data", "energy", "formats", "models", "nn", "optim", "recipe", "results",
          "testing", "training")
_HOME = {"Tensor": "autograd", "no_grad": "autograd", "rounding_context": "contract", "Fixed": "formats",
         "Format": "formats", "LNS": "formats", "PoT": "formats", "QTensor": "formats", "Recipe": "recipe",
         "Role": "recipe", "Roles": "recipe", "compare": "training", "evaluate": "training", "inspect": "training",
         "load": "training", "sweep": "results", "train": "training", "translate": "training"}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"minilp.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(f"minilp.{_HOME[name]}"), name)
    raise AttributeError(f"module 'minilp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
