"""What a training is: every switch that decides its numbers, in one frozen record that goes to config.json and back."""
from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from minilp import models
from minilp import recipe as recipes
from minilp.recipe import OPTIMIZERS, Recipe
from minilp.settings import change
from minilp.training.task import Task
from minilp.training.tasks import KNOWN, task_of

SCHEDULES = ("onecycle", "cosine", "step", "inverse_sqrt", "constant")
AUGMENTATIONS = ("none", "crop_flip")

# What an optimizer asks for when the user does not say; sgd's learning rate is the data set's. AdamW's are PyTorch's.
# Madam has no weight decay. Its released rate, 1/128 without a schedule, is for budgets far above ours: we take 1/16
# with an early peak, a tenth of the way along one cycle. An optimizer has the options named here. A data set may have
# other wishes, see classification.py and translation.py.
OPTIMIZER_DEFAULTS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9, "weight_decay": 5e-4},
    "adamw": {"lr": 1e-3, "weight_decay": 1e-2},
    "madam": {"lr": 1 / 16, "weight_decay": 0.0},
}

MADAM_ONECYCLE = {"pct_start": 0.1}
"""Options of a one-cycle schedule under Madam, where the user names none."""

OPTION_OWNERS = ("model", "optimizer", "schedule", "data", "decode")
"""Who takes keyword arguments by ``--set OWNER.OPTION=VALUE``; every other key changes the recipe."""

MAY_CHANGE = ("root", "threads", "save_every")
"""Where and how a training runs, not what it computes: a resumed run may name these anew."""


@dataclass(frozen=True)
class TrainConfig:
    """Every switch of a training.

    Build it with :meth:`create`, which fills in the data set's defaults.

    Attributes
    ----------
    data : str
        Images: ``"shapes10"``, ``"cifar10"``, or the path of a folder or .npz file (kept absolute). Sentence pairs:
        ``"multi30k"``, ``"numbers"``. It decides what the task is.
    model : str
        A name that :func:`minilp.models.build` knows.
    recipe : Recipe
        Which format plays which role, ``settings`` included.
    epochs, batch_size : int
        Passes over the training data; images a batch, in evaluation too. Of sentences: token places a batch on either
        side, padding included (:class:`minilp.data.TokenLoader`).
    lr : float
        Learning rate: the peak of a one-cycle schedule, the start of the others.
    momentum : float or None
        Of SGD, Nesterov's; None for the other optimizers, which have none.
    weight_decay : float
        Of the optimizer: an L2 penalty in SGD, decoupled in AdamW; Madam has its own rule.
    schedule : {"onecycle", "cosine", "step", "inverse_sqrt", "constant"}
        Step divides the rate by 10 after a half and after three quarters of the training; inverse_sqrt warms up over a
        tenth of it (``--set schedule.warmup_steps=400``).
    augment : {"none", "crop_flip"}
        Random crop with padding 4 and random flip, or nothing; of images only.
    seed : int
        Of initialisation, data order, augmentation and rounding.
    model_options : dict
        Keyword arguments of the model (``--set model.shortcut=A``).
    settings : tuple of str
        The ``key=value`` changes as given, for the record; the recipe and the model options contain them.
    optimizer : {"sgd", "adamw", "madam"}
        Steps the parameters; the recipe's where nobody says otherwise.
    optimizer_options : dict
        Further keyword arguments of the optimizer (``--set optimizer.p_scale=2``).
    schedule_options : dict
        Further keyword arguments of the schedule (``--set schedule.pct_start=0.1``).
    train_images : int or None
        Train on so many of the training images, drawn by :meth:`minilp.data.Dataset.subset` with its seed 0 whatever
        the training's own; None for all.
    accumulate : int
        Batches whose gradients make one step; each weighs as many images or tokens as it has. The last step of an
        epoch may have fewer.
    label_smoothing : float
        Share of the target spread over all classes in training, [0, 1); evaluation has none.
    data_options : dict
        Keyword arguments of sentence pairs (``--set data.vocab_size=8000``).
    decode_options : dict
        How translations are made for BLEU (``--set decode.beam_size=4``, ``decode.length_penalty=1``); greedily by
        default.
    init : str or None
        A run directory whose last weights this training begins with, as given; None for fresh ones. Its recipe may have
        been another (:func:`minilp.training.initial.load_weights`).
    root : str or None
        Folder of downloaded data sets.
    threads : int or None
        Threads of the C kernels; None leaves them as they are. Never changes a number.
    save_every : int
        A checkpoint every so many steps besides those at the ends of epochs; 0 for none. Never changes a number.
    """

    data: str
    model: str
    recipe: Recipe
    epochs: int
    batch_size: int
    lr: float
    momentum: float | None
    weight_decay: float
    schedule: str
    augment: str
    seed: int
    model_options: dict[str, Any]
    settings: tuple[str, ...]
    optimizer: str = "sgd"
    optimizer_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    schedule_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    train_images: int | None = None
    accumulate: int = 1
    label_smoothing: float = 0.0
    data_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    decode_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    init: str | None = None
    root: str | None = None
    threads: int | None = None
    save_every: int = 0

    @staticmethod
    def create(data: str = "shapes10", model: str | None = None, recipe: str | Recipe = "potq", *,
               settings: Iterable[str] | Mapping[str, Any] = (), **given: Any) -> TrainConfig:
        """A checked configuration.

        Parameters
        ----------
        data : str
            See the class.
        model : str or None
            See the class; None is the data set's.
        recipe : str or Recipe
            A preset's name, or a recipe of your own.
        settings : iterable of "key=value", or mapping
            Changes to the recipe (``act.bits=4``, see :meth:`minilp.recipe.Recipe.set`), to the model's options
            (``model.width=32``), to the optimizer's (``optimizer.p_scale=2``), to the schedule's
            (``schedule.pct_start=0.1``), to the data's (``data.vocab_size=8000``) and to the decoding's
            (``decode.beam_size=4``), applied in order.
        **given
            Any other attribute of the class; None means the default of the data set, the optimizer or the recipe.

        Returns
        -------
        TrainConfig

        Raises
        ------
        ValueError
            Naming the argument, what came and what was expected.
        """
        if not isinstance(recipe, Recipe):
            recipe = recipes.get(recipe)
        lines = [f"{k}={v}" for k, v in settings.items()] if isinstance(settings, Mapping) else list(settings)
        recipe, options = change(recipe, lines, OPTION_OWNERS)
        wishes = task_of(data).defaults(data)
        if wishes is None:
            raise ValueError(f"data: expected {', '.join(KNOWN)} or the path of a folder or .npz file that exists, got "
                             f"{data!r}")
        if data not in KNOWN:
            data = str(pathlib.Path(data).expanduser().resolve())
        # A recipe that asks for SGD, the default, leaves the choice to the data set.
        optimizer = given.get("optimizer") or (recipe.optimizer if recipe.optimizer != "sgd" else
                                               wishes.get("optimizer", "sgd"))
        own = wishes.pop("optimizers", {}).get(optimizer, {})
        defaults = {"momentum": None, "weight_decay": 0.0, "schedule": "onecycle", "seed": 0, "augment": "none",
                    **wishes, **OPTIMIZER_DEFAULTS.get(optimizer, {}), **own, "optimizer": optimizer}
        chosen = {**defaults, **{k: v for k, v in given.items() if v is not None},
                  "model": model or defaults["model"]}
        known = {field.name for field in dataclasses.fields(TrainConfig)}
        if unknown := set(chosen) - known:
            raise ValueError(f"{sorted(unknown)[0]}: not an argument of a training; there are "
                             f"{', '.join(sorted(known))}")
        if chosen.get("init") is not None:
            chosen["init"] = os.fspath(chosen["init"])
        if chosen.get("root") is not None:
            chosen["root"] = str(pathlib.Path(chosen["root"]).expanduser().resolve())
        if (chosen["optimizer"], chosen["schedule"]) == ("madam", "onecycle"):
            options["schedule"] = {**MADAM_ONECYCLE, **options["schedule"]}
        for owner, found in options.items():
            chosen[f"{owner}_options"] = {**chosen.get(f"{owner}_options", {}), **found}
        return TrainConfig(data=data, recipe=recipe, settings=tuple(lines), **chosen)

    def __post_init__(self) -> None:
        if self.model not in models.available():
            raise ValueError(f"model: expected one of {', '.join(models.available())}, got {self.model!r}")
        if not self.task.fits(self.model):
            fitting = ", ".join(filter(self.task.fits, models.available()))
            raise ValueError(f"model: {self.data_name} is {self.task.name}, for which there are {fitting}; got "
                             f"{self.model!r}")
        for name, least in (("epochs", 1), ("batch_size", 1), ("accumulate", 1), ("seed", 0), ("save_every", 0),
                            ("threads", 1), ("train_images", 1)):
            value = getattr(self, name)
            if name in ("threads", "train_images") and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name}: expected an integer >= {least}, got {value!r}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer: expected one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}")
        if self.momentum is not None and "momentum" not in OPTIMIZER_DEFAULTS[self.optimizer]:
            raise ValueError(f"momentum: {self.optimizer} has none, got {self.momentum!r}")
        for name, bound in (("lr", math.inf), ("weight_decay", math.inf), ("momentum", 1.0),
                            ("label_smoothing", 1.0)):
            value = getattr(self, name)
            if value is None and name not in OPTIMIZER_DEFAULTS[self.optimizer]:
                continue
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < bound:
                below = "" if bound == math.inf else f" and < {bound:g}"
                raise ValueError(f"{name}: expected a finite number >= 0{below}, got {value!r}")
            object.__setattr__(self, name, float(value))
        for name, names in (("schedule", SCHEDULES), ("augment", AUGMENTATIONS)):
            if getattr(self, name) not in names:
                raise ValueError(f"{name}: expected one of {', '.join(names)}, got {getattr(self, name)!r}")
        self.task.check(self)

    @property
    def task(self) -> Task:
        """Task: what the data set is for."""
        return task_of(self.data)

    @property
    def data_name(self) -> str:
        """The data set's name for titles and folders: a path's last part without its ending."""
        return self.data if self.data in KNOWN else pathlib.Path(self.data).stem

    @property
    def name(self) -> str:
        """``<data>-<model>-<recipe>-s<seed>``, the default name of the run directory."""
        return f"{self.data_name}-{self.model}-{self.recipe.name}-s{self.seed}"

    def describe_batches(self) -> str:
        """Batch size, accumulation and label smoothing, in words."""
        words = f"batch {self.batch_size}" + (" tokens" if self.task.unit == "token" else "")
        words += f" x {self.accumulate}" if self.accumulate > 1 else ""
        return words + (f", label smoothing {self.label_smoothing:g}" if self.label_smoothing else "")

    def describe_optimizer(self) -> str:
        """Optimizer, learning rate and what else it has, in words."""
        names = {"sgd": "SGD", "adamw": "AdamW", "madam": "Madam"}
        curve = " ".join([self.schedule, *(f"{k} {v}" for k, v in self.schedule_options.items())])
        words = [f"{names[self.optimizer]} lr {self.lr:g} ({curve})"]
        words += [] if self.momentum is None else [f"momentum {self.momentum:g}"]
        words += [f"weight decay {self.weight_decay:g}", *(f"{k} {v}" for k, v in self.optimizer_options.items())]
        return ", ".join(words)

    def command(self) -> str:
        """The command line that starts the same training again, or what to do where none can."""
        if recipes.PRESETS.get(self.recipe.name) is None or self._rebuilt_recipe() != self.recipe:
            return "from Python, with this recipe: minilp.train(recipe=...)"
        words = ["minilp", "train"]
        for name in ("data", "model", "epochs", "batch_size", "accumulate", "optimizer", "lr", "momentum",
                     "weight_decay", "schedule", "label_smoothing", "augment", "train_images", "seed", "init", "root"):
            if (value := getattr(self, name)) is not None:
                words += [f"--{name.replace('_', '-')}", str(value)]
        words += ["--recipe", self.recipe.name]
        for line in self.settings:
            words += ["--set", line]
        return shlex.join(words)

    def _rebuilt_recipe(self) -> Recipe:
        """What ``--recipe`` and ``--set`` would give."""
        return change(recipes.get(self.recipe.name), self.settings, OPTION_OWNERS)[0]

    def to_config(self) -> dict[str, Any]:
        """Plain JSON. ``recipe`` is the name, ``recipe_config`` the whole recipe."""
        config = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        config["recipe"], config["settings"] = self.recipe.name, list(self.settings)
        config["recipe_config"] = self.recipe.to_config()
        return config

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> TrainConfig:
        """The inverse of :meth:`to_config`.

        Raises
        ------
        ValueError
            If a field is missing, unknown or out of range.
        """
        fields = dict(config)
        known = {field.name for field in dataclasses.fields(TrainConfig)} | {"recipe_config"}
        optional = {field.name for field in dataclasses.fields(TrainConfig)
                    if field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING}
        if not known - optional <= set(fields) <= known:
            raise ValueError(f"config: missing {sorted(known - optional - set(fields))}, unknown "
                             f"{sorted(set(fields) - known)}; was it written by another version of minilp?")
        fields["recipe"] = Recipe.from_config(fields.pop("recipe_config"))
        fields["settings"] = tuple(fields["settings"])
        return TrainConfig(**fields)

    @staticmethod
    def load(path: str | pathlib.Path) -> TrainConfig:
        """Read a config.json.

        Raises
        ------
        ValueError
            If the file is not one; the message names it.
        """
        try:
            return TrainConfig.from_config(json.loads(pathlib.Path(path).read_text()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: not the configuration of a training ({error})") from error
