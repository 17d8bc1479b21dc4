"""One recorded training: a result.json in the folder of results, found by its configuration and never by its name."""
from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from minilp.training import TrainConfig
from minilp.training.run_energy import no_energy

LONGEST_NAME = 150
MEASURES = {"test_acc": (100.0, "test accuracy, %"), "bleu": (1.0, "test BLEU"), "val_loss": (1.0, "validation loss")}
"""What a training can be judged by: an entry of its result -> a factor, and words for tables. Less loss is better."""

SCORES = {"image": "test_acc", "token": "bleu"}
"""What it is judged by where nobody says, after its task's unit."""


@dataclass(frozen=True)
class Record:
    """A recorded training.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    config : TrainConfig
        What was trained.
    result : dict
        The file's content, entries that older versions did not write filled in.
    """

    path: pathlib.Path
    config: TrainConfig
    result: dict[str, Any]

    @property
    def diverged(self) -> bool:
        """Whether the training met a NaN or an infinity."""
        return self.result["diverged"] is not None

    @property
    def score(self) -> float | None:
        """Test accuracy in per cent, or BLEU, after the last epoch; None for a diverged training."""
        return self.measured(SCORES[self.config.task.unit])

    def measured(self, measure: str) -> float | None:
        """One of :data:`MEASURES` after the last epoch; None for a diverged training."""
        value = self.result[measure]
        return None if value is None else value * MEASURES[measure][0]


def is_training(content: Any) -> bool:
    """Whether the content of a JSON file is a training's result, and not a benchmark or another experiment."""
    config = content.get("config") if isinstance(content, dict) else None
    return isinstance(config, dict) and "recipe_config" in config


def adapt(content: dict[str, Any]) -> dict[str, Any]:
    """A result as this version writes it: what older ones left out is filled in, nothing recorded is changed.

    Parameters
    ----------
    content : dict
        Of a result.json.

    Returns
    -------
    dict
        With ``command``, ``diverged`` and the entries on energy; ``config`` has every field.

    Raises
    ------
    ValueError
        If the configuration is none of a training.
    """
    config = TrainConfig.from_config(content["config"])
    missing = {**no_energy(config.task), "command": config.command(), "diverged": None}
    return {**missing, **content, "config": config.to_config()}


def read(folder: str | os.PathLike[str]) -> list[Record]:
    """All trainings recorded in a folder.

    Parameters
    ----------
    folder : path
        Other JSON files in it are passed over. A folder that is not there holds none.

    Returns
    -------
    list of Record
        By file name.

    Raises
    ------
    ValueError
        If a file is no JSON, or a damaged record; the message names it.
    """
    records = []
    for path in sorted(pathlib.Path(folder).glob("*.json")):
        try:
            content = json.loads(path.read_text())
            if is_training(content):
                content = adapt(content)
                records.append(Record(path, TrainConfig.from_config(content["config"]), content))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: not a recorded training ({error})") from error
    return records


def identity(config: TrainConfig) -> str:
    """What decides a training's numbers, as text: equal for two configurations of the same training.

    Left out are where and how it runs (root, threads, checkpoints), and how its settings were spelled: the recipe and
    the options contain them.
    """
    same = dataclasses.replace(config, settings=(), root=None, threads=None, save_every=0)
    return json.dumps(same.to_config(), sort_keys=True)


def but_seed(config: TrainConfig) -> str:
    """The identity of a training whatever its seed."""
    return identity(dataclasses.replace(config, seed=0))


def find(records: list[Record], config: TrainConfig) -> Record | None:
    """The record of a configuration, or None."""
    wanted = identity(config)
    return next((record for record in records if identity(record.config) == wanted), None)


def record_name(config: TrainConfig) -> str:
    """The file name of a record, without its ending: readable, and the same whenever the same words were given.

    Parameters
    ----------
    config : TrainConfig
        Of a preset recipe.

    Returns
    -------
    str
        Such as ``cifar10-resnet20-potq-e3-n10000-pot.bits=4-s0``: data, model, recipe, epochs, images if not all, what
        departs from the defaults, seed. A name beyond 150 characters ends in a hash instead.
    """
    words = [config.data_name, config.model, config.recipe.name, f"e{config.epochs}"]
    words += [] if config.train_images is None else [f"n{config.train_images}"]
    words += [*departures(config), *config.settings]
    name = re.sub(r"[^A-Za-z0-9._=+-]+", "_", "-".join(words))
    seed = f"-s{config.seed}"
    if len(name + seed) > LONGEST_NAME:
        name = f"{name[:LONGEST_NAME - 16]}-{_hash(but_seed(config))}"
    return name + seed


def departures(config: TrainConfig, but: Collection[str] = ()) -> list[str]:
    """What a configuration has other than the defaults of its data set and optimizer, settings apart: ``lr0.03125``.

    Parameters
    ----------
    config : TrainConfig
        A training's.
    but : collection of str, optional
        Fields that are said elsewhere, such as ``"schedule"``.

    Returns
    -------
    list of str
        A word each.
    """
    usual = TrainConfig.create(config.data, config.model, config.recipe, optimizer=config.optimizer)
    chosen = TrainConfig.create(config.data, config.model, config.recipe).optimizer
    words = [] if config.optimizer == chosen else [config.optimizer]
    words += [] if config.init is None or "init" in but else [f"from-{pathlib.Path(config.init).name}"]
    for name, short in (("batch_size", "b"), ("accumulate", "x"), ("lr", "lr"), ("momentum", "momentum"),
                        ("weight_decay", "wd"), ("schedule", ""), ("label_smoothing", "smoothing"), ("augment", "")):
        value = getattr(config, name)
        if name not in but and value != getattr(usual, name):
            words.append(f"{short}{value:g}" if isinstance(value, float) else f"{short}{value}")
    return words


def place(folder: str | os.PathLike[str], config: TrainConfig) -> pathlib.Path:
    """Where to record a training: under its name, with a hash behind it if another training has taken that."""
    path = pathlib.Path(folder) / f"{record_name(config)}.json"
    if path.exists():
        taken = json.loads(path.read_text())
        if not is_training(taken) or identity(TrainConfig.from_config(taken["config"])) != identity(config):
            path = path.with_name(f"{path.stem}-{_hash(identity(config))}.json")
    return path


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
