"""What a training is about, as far as its loop has to know: where batches come from and what is scored on them.

Everything else (steps, schedules, checkpoints, run directories) is the same for pictures and for sentences.
"""
from __future__ import annotations

import pathlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from minilp.autograd import Tensor
from minilp.nn import Module, functional

if TYPE_CHECKING:
    from minilp.training.config import TrainConfig

Batch = tuple[np.ndarray, np.ndarray]


class BatchLoader(Protocol):
    """What a loader of batches has, see :class:`minilp.data.Loader`."""

    seed: int

    def __len__(self) -> int: ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class Splits:
    """The data of a task.

    Attributes
    ----------
    train : Dataset or ParallelText
        To train on.
    held_out : Dataset or ParallelText
        Evaluated after each epoch.
    test : Dataset or ParallelText
        Evaluated after the last epoch; the same as ``held_out`` where there is no other.
    """

    train: Any
    held_out: Any
    test: Any


class Task(ABC):
    """One kind of training.

    Attributes
    ----------
    name : str
        In words.
    unit : str
        What is counted, in the singular: ``"image"`` or ``"token"``.
    held_out : str
        Name of the split that is evaluated after each epoch.
    ignore_index : int
        Label that does not count.
    final : tuple of str
        What :meth:`finish` measures, by its names in result.json.
    """

    name: str
    unit: str
    held_out: str
    ignore_index: int = -100
    final: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of metrics.csv. Accuracies are in [0, 1]; the speed counts the training loop with its data loading,
        not the evaluation; seconds is the whole epoch. The last two are wall-clock: they differ from run to run.
        """
        return ("epoch", "train_loss", "train_acc", f"{self.held_out}_loss", f"{self.held_out}_acc", self.speed,
                "seconds")

    @property
    def speed(self) -> str:
        """str: name of the speed in tables, such as ``images_per_s``."""
        return f"{self.unit}s_per_s"

    @abstractmethod
    def defaults(self, data: str) -> dict[str, Any] | None:
        """What a data set asks for when the user does not say; None if it is not one of this task."""

    @abstractmethod
    def fits(self, model: str) -> bool:
        """Whether a model of that name can do the task."""

    @abstractmethod
    def check(self, config: TrainConfig) -> None:
        """Refuse a configuration that the task cannot have. Raises ValueError that names the argument."""

    @abstractmethod
    def load(self, config: TrainConfig, root: Any = None) -> Splits:
        """Read the data; ``root`` instead of the configuration's."""

    @abstractmethod
    def loader(self, config: TrainConfig, split: Any, training: bool) -> BatchLoader:
        """Batches of a split: shuffled and augmented for training, else always the same."""

    @abstractmethod
    def size(self, split: Any) -> int:
        """How many images, or tokens to predict, an epoch over a split has."""

    @abstractmethod
    def describe(self, train: Any) -> dict[str, Any]:
        """What a checkpoint must know of the data to build the model again; plain JSON."""

    @abstractmethod
    def model_arguments(self, described: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of the model that follow from the data, from what :meth:`describe` gave."""

    @abstractmethod
    def says(self, splits: Splits) -> list[str]:
        """Lines about the data for the log."""

    @abstractmethod
    def labels(self, y: np.ndarray) -> np.ndarray:
        """The labels of a batch, 1-D."""

    @abstractmethod
    def outputs(self, model: Module, x: np.ndarray, y: np.ndarray) -> Tensor:
        """The logits of a batch, a row for each of :meth:`labels`."""

    def files(self, train: Any) -> dict[str, bytes]:
        """Further files of a run directory, name to content."""
        return {}

    def equip(self, model: Module, described: Mapping[str, Any], file: Callable[[str], pathlib.Path]) -> None:
        """Give a restored model what belongs to it besides its parameters; ``file`` finds the run's files by name."""
        return None

    def finish(self, config: TrainConfig, model: Module, splits: Splits, stopped: Callable[[], bool] = lambda: False
               ) -> dict[str, Any] | None:
        """What is measured once, after the last epoch, for result.json; None if it was stopped."""
        return {}

    def loss(self, model: Module, x: np.ndarray, y: np.ndarray, label_smoothing: float = 0.0) -> Tensor:
        """Mean cross-entropy over the labels that count, a scalar."""
        return functional.cross_entropy(self.outputs(model, x, y), self.labels(y), self.ignore_index,
                                        label_smoothing=label_smoothing)

    def count(self, y: np.ndarray) -> int:
        """How many labels of a batch count."""
        return int((self.labels(y) != self.ignore_index).sum())

    def correct(self, logits: np.ndarray, y: np.ndarray) -> int:
        """How many of those that count have the largest logit."""
        labels = self.labels(y)
        return int(((logits.argmax(axis=1) == labels) & (labels != self.ignore_index)).sum())
