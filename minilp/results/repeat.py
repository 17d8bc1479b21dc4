"""Whether a training came out as the recorded one of its configuration: every number, to the last digit."""
from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from minilp.results import record
from minilp.results.sweeping import RESULTS
from minilp.training import TrainConfig
from minilp.training.rundir import RESULT

NUMBERS = ("test_acc", "test_loss", "val_acc", "val_loss", "bleu", "exact_match", "diverged", "parameters")
"""Entries of a result that a configuration decides. The others tell of time, machine, version, or prices."""
EPOCH = ("epoch", "train_loss", "train_acc", "test_loss", "test_acc", "val_loss", "val_acc")


@dataclass(frozen=True)
class Repeat:
    """A training held against the record of its configuration; true if every number is the same.

    Attributes
    ----------
    run, record : pathlib.Path
        The two files.
    compared : int
        How many numbers there are.
    differences : tuple of str
        Such as ``"epoch 2, test_acc: 0.71, recorded 0.72"``.
    """

    run: pathlib.Path
    record: pathlib.Path
    compared: int
    differences: tuple[str, ...]

    def __bool__(self) -> bool:
        return not self.differences

    def __str__(self) -> str:
        head = f"{self.run.parent} against {self.record}"
        if self:
            return f"{head}: all {self.compared} numbers are the same"
        return "\n  ".join([f"{head}: {len(self.differences)} of {self.compared} numbers differ", *self.differences])


def repeated(run: str | os.PathLike[str], results: str | os.PathLike[str] = RESULTS) -> Repeat:
    """Hold a finished run against the record of the same configuration.

    Parameters
    ----------
    run : path
        A run directory.
    results : path
        Folder of the records.

    Returns
    -------
    Repeat

    Raises
    ------
    ValueError
        If the run is not finished, or nobody recorded its configuration.
    """
    path = pathlib.Path(run) / RESULT
    if not path.is_file():
        raise ValueError(f"run: expected the directory of a finished training, found no {path}")
    result = record.adapt(json.loads(path.read_text()))
    found = record.find(record.read(results), TrainConfig.from_config(result["config"]))
    if found is None:
        raise ValueError(f"run: {results} has no record of the configuration of {run}")
    here, there = dict(_numbers(result)), dict(_numbers(found.result))
    differences = tuple(f"{name}: {here.get(name)}, recorded {there.get(name)}" for name in {**there, **here}
                        if here.get(name) != there.get(name))
    return Repeat(path, found.path, len({**there, **here}), differences)


def _numbers(result: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for row in result["epochs"]:
        yield from ((f"epoch {row['epoch']}, {name}", row[name]) for name in EPOCH if name in row)
    yield from ((name, result[name]) for name in NUMBERS if name in result)
