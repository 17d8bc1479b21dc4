"""Fine-tuning with quantised updates: one float32 checkpoint, weights of 16 to 10 bits from there, Madam against AdamW.

After the fine-tuning half of LNS-Madam's figure of update widths (Zhao et al., arXiv 2106.13914; there BERT on SQuAD
and GLUE), at the size of this machine: a Transformer that was trained in float32 by ``minilp train --recipe fp32`` goes
on for one epoch over some of its own training pairs (or, by ``--set data.source=de --set data.target=en``, those of the
other direction, which its joint vocabulary has as well). What is shared with :mod:`~minilp.experiments.update_bits`,
and assumed there, is assumed here: contractions of ``lns-madam``; every parameter lives as codes; updates are rounded
on the exponent; moments are float32; the learning rate of each optimizer is the best of a search at 16 bits, and the
same for all widths. Madam starts from smaller steps than from scratch.

AdamW's steps are here what the paper's point is about: far below the gap of narrow weights, which is 2^(1/32), or
2.2 %, at 10 bits.
"""
from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from minilp.data import ParallelText
from minilp.experiments.widths import Trial, update_settings
from minilp.training import TrainConfig, checkpoint, rundir
from minilp.training.rundir import RunDirectory
from minilp.training.scores import evaluate_model
from minilp.training.session import Session
from minilp.training.task import BatchLoader, Splits


@dataclass(frozen=True)
class Task(Trial):
    """What is fine-tuned.

    Attributes
    ----------
    run : str
        A run directory of a translation in float32, with a checkpoint.
    pairs : int
        The first so many of its training pairs make the epoch.
    batch_size : int
        Token places a step.
    recipe : str
        A preset with an ``update`` of LNS: its contractions are used with every optimizer.
    settings : tuple of str
        Further ``key=value`` changes to the run's configuration.
    """

    run: str
    pairs: int = 6000
    batch_size: int = 2048
    recipe: str = "lns-madam"
    settings: tuple[str, ...] = ()
    start: ClassVar[Mapping[str, float]] = {"madam": 2.0**-9, "adamw": 2.0**-13}

    def config(self, optimizer: str, lr: float, bits: int | None, rounding: str | None, seed: int) -> TrainConfig:
        """See :meth:`Trial.config`."""
        base = self._base()
        own = [f"{owner}.{key}={value}" for owner, options in (("model", base.model_options),
                                                               ("data", base.data_options))
               for key, value in options.items()]
        return TrainConfig.create(base.data, base.model, self.recipe, optimizer=optimizer, lr=lr, seed=seed, epochs=1,
                                  batch_size=self.batch_size, schedule="onecycle", root=base.root,
                                  label_smoothing=base.label_smoothing,
                                  settings=[*own, "schedule.pct_start=0.1", *self.settings,
                                            *update_settings(optimizer, bits, rounding)])

    def begin(self, config: TrainConfig) -> tuple[Session, BatchLoader]:
        """See :meth:`Trial.begin`: the checkpoint's parameters, encoded where they live as codes."""
        splits = self._splits(config)
        arrays, _ = checkpoint.load(self._directory().file(rundir.CHECKPOINT))
        return (Session(config, self._part(splits.train), start=arrays),
                config.task.loader(config, splits.held_out, training=False))

    def before(self) -> dict[str, float]:
        """See :meth:`Trial.before`: the checkpoint under the recipe's contractions, its weights float32."""
        session, held_out = self.begin(self.config("adamw", 0.0, None, None, 0))
        scores = evaluate_model(session.task, session.model, held_out, 0)
        assert scores is not None
        return {"val_loss": scores[0], "val_acc": scores[1]}

    def _directory(self) -> RunDirectory:
        directory = RunDirectory(self.run)
        if not directory.started or not directory.file(rundir.CHECKPOINT).exists():
            raise ValueError(f"run: {self.run} is no run directory with a checkpoint")
        return directory

    def _base(self) -> TrainConfig:
        config = TrainConfig.load(self._directory().file(rundir.CONFIG))
        if config.task.unit != "token":
            raise ValueError(f"run: expected a translation, {self.run} is {config.task.name}")
        if config.recipe.weight is not None or config.recipe.update is not None:
            raise ValueError(f"run: expected a float32 training (--recipe fp32), {self.run} was made with "
                             f"{config.recipe.name}")
        return config

    def _part(self, train: ParallelText) -> ParallelText:
        if not 1 <= self.pairs <= len(train):
            raise ValueError(f"pairs: expected 1 to {len(train)}, the training pairs of {self.run}, got {self.pairs}")
        cut: dict[str, Any] = {name: getattr(train, name)[:self.pairs] for name in ("sources", "targets", "texts")}
        return dataclasses.replace(train, **cut)

    @staticmethod
    def _splits(config: TrainConfig) -> Splits:
        return _loaded(config.data, config.root, tuple(sorted(config.data_options.items())))


@functools.lru_cache(maxsize=1)
def _loaded(data: str, root: str | None, options: tuple[tuple[str, Any], ...]) -> Splits:
    """The data of a configuration; a sweep reads them once."""
    settings = [f"data.{key}={value}" for key, value in options]
    config = TrainConfig.create(data, recipe="fp32", root=root, settings=settings)
    return config.task.load(config)
