"""Is float32 here what float32 is elsewhere? The same training in torch, from the same weights on the same batches.

Initial weights, order, augmentation and learning rates are minilp's own; forward, backward, SGD and evaluation are
torch's, in float32. The two runs part after some steps, as any two float32 programs do, since sums are taken in another
order; what can be compared is where they end. The record has the entries of every training's result.json, under the
recipe ``torch-fp32``. Nothing else in minilp needs torch.
"""
from __future__ import annotations

import dataclasses
import os
import pathlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minilp import files
from minilp.data import Dataset, Loader
from minilp.kernels import set_num_threads
from minilp.kernels import threads as current_threads
from minilp.recipe import Recipe
from minilp.training import Diverged, TrainConfig
from minilp.training.outcome import outcome
from minilp.training.progress import Progress, interruptible
from minilp.training.rundir import RunDirectory, choose
from minilp.training.session import Session

NAME = "torch-fp32"
CHECKPOINT = "checkpoint.pt"


def train(data: str = "cifar10", model: str = "resnet20", *, settings: Iterable[str] | Mapping[str, Any] = (),
          threads: int | None = None, out: str | os.PathLike[str] | None = None, resume: bool = False,
          quiet: bool = False, **options: Any) -> dict[str, Any]:
    """Train a ResNet in torch.

    Parameters
    ----------
    data, model : str
        As for :func:`minilp.train`; models with a twin are the CIFAR ResNets.
    settings : iterable of "key=value", or mapping
        Options of the schedule.
    threads : int, optional
        Of torch and of minilp's data loading.
    out, resume, quiet
        As for :func:`minilp.train`. A resumed run goes on from the last whole epoch.
    **options
        Further arguments of :func:`minilp.train`; the optimizer is sgd.

    Returns
    -------
    dict
        The content of result.json, as of every training (``lessons/result.schema.json``).

    Raises
    ------
    ValueError
        For an argument that the twin does not take.
    ModuleNotFoundError
        If torch is not installed.
    Diverged
        If a loss is NaN or infinite; result.json says so.
    """
    import torch

    if (recipe := options.pop("recipe", None)) not in (None, "fp32"):
        raise ValueError(f"recipe: the torch twin is float32 (fp32), got {recipe!r}")
    options = {key: value for key, value in options.items() if key != "save_every"}  # its checkpoints end epochs
    config = TrainConfig.create(data, model, Recipe(name=NAME), settings=settings, threads=threads, **options)
    fixed = {"optimizer": "sgd", "model_options": {}, "accumulate": 1, "label_smoothing": 0.0, "init": None}
    for name, only in fixed.items():
        if getattr(config, name) != only:
            raise ValueError(f"{name}: the torch twin has only {only!r}, got {getattr(config, name)!r}")
    run, _ = choose(out, config.name, resume)
    before = torch.get_num_threads(), current_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
            set_num_threads(threads)
        with interruptible() as stopped:
            twin = _Twin(config, run)
            run.path.mkdir(parents=True, exist_ok=True)
            run.lock()
            return twin.run_all(stopped, quiet)
    finally:
        torch.set_num_threads(before[0])
        set_num_threads(before[1])
        run.unlock()


def command(config: TrainConfig) -> str:
    """The command line that starts the same training again."""
    own = dataclasses.replace(config, recipe=Recipe(name="fp32")).command()
    return own.replace("minilp train", "minilp experiment torch-twin", 1).replace(" --recipe fp32", "", 1)


class _Twin:
    """The torch model beside a session of minilp's, which hands out weights, batches and learning rates."""

    def __init__(self, config: TrainConfig, run: RunDirectory) -> None:
        import torch

        from minilp.bench import rival

        self.config, self.run = config, run
        self.splits = config.task.load(config)
        self.session = Session(config, self.splits.train)
        self.model: Any = rival.build(config.model)
        self.model.load_state_dict({name: torch.as_tensor(np.array(array))
                                    for name, array in self.session.model.state_dict().items()})
        torch.nn.utils.convert_conv2d_weight_memory_format(self.model, torch.channels_last)  # faster on a processor
        momentum = config.momentum or 0.0
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=config.lr, momentum=momentum,
                                         nesterov=momentum > 0, weight_decay=config.weight_decay)

    def run_all(self, stopped: Any, quiet: bool) -> dict[str, Any]:
        """Train, from the last whole epoch on."""
        import torch

        config, run, size, done = self.config, self.run, len(self.splits.train), 0
        file = run.file(CHECKPOINT)
        if file.exists():
            stored = torch.load(file, weights_only=True)
            self.model.load_state_dict(stored["model"])
            self.optimizer.load_state_dict(stored["optimizer"])
            done = stored["epoch"]
            run.rewind(done, stored["epoch"])
        else:
            run.begin(config, {})
        for _ in range(done * len(self.session.loader)):
            self.session.schedule.step()
        progress, diverged = Progress(config.epochs * size, done * size, config.task.unit, quiet), None
        try:
            for epoch in range(done, config.epochs):
                row = self._epoch(epoch, stopped, progress)
                line = f"torch {torch.__version__}, epoch {epoch + 1}/{config.epochs}: test acc {row['test_acc']:.2%}"
                run.add_row(row)
                run.log(line)
                progress.line(line)
                self._save(file, epoch + 1)
        except Diverged as error:
            diverged = error
        finally:
            progress.close()
        result = outcome(config, run.rows(), self.session.model, self.splits, {}, diverged)
        result.update(command=command(config), backend={
            "name": "torch", "reason": "", "isa": torch.backends.cpu.get_cpu_capability().lower(),
            "threads": torch.get_num_threads(), "kernels": f"torch {torch.__version__}, float32"})
        run.write_result(result)
        if diverged is not None:
            raise diverged
        return result

    def _epoch(self, epoch: int, stopped: Any, progress: Progress) -> dict[str, Any]:
        """Train on one epoch's batches and evaluate: a row of metrics.csv."""
        import torch

        loss_sum, correct, seen, start = 0.0, 0, 0, time.perf_counter()
        self.model.train()
        for images, labels in self.session.loader.epoch(epoch):
            if stopped():
                raise KeyboardInterrupt(f"stopped in epoch {epoch + 1}; the epochs before it are saved")
            for group in self.optimizer.param_groups:
                group["lr"] = self.session.optimizer.param_groups[0]["lr"]
            self.optimizer.zero_grad()
            x, y = _tensor(images), torch.from_numpy(labels)
            logits = self.model(x)
            loss = torch.nn.functional.cross_entropy(logits, y)
            if not np.isfinite(loss.item()):
                step = epoch * len(self.session.loader) + seen // self.config.batch_size
                raise Diverged(epoch, step, f"the loss is {loss.item()}", None)
            loss.backward()
            self.optimizer.step()
            self.session.schedule.step()
            loss_sum, seen = loss_sum + loss.item() * len(labels), seen + len(labels)
            correct += int((logits.argmax(1) == y).sum())
            progress.step(len(labels), f"epoch {epoch + 1}/{self.config.epochs}", loss_sum / seen, correct / seen)
        trained = time.perf_counter() - start
        test_loss, test_acc = self._evaluate(self.splits.test)
        return {"epoch": epoch + 1, "train_loss": loss_sum / seen, "train_acc": correct / seen, "test_loss": test_loss,
                "test_acc": test_acc, "images_per_s": seen / trained, "seconds": time.perf_counter() - start}

    def _evaluate(self, dataset: Dataset) -> tuple[float, float]:
        """Mean loss, and the share classified right."""
        import torch

        loss_sum, correct = 0.0, 0
        self.model.eval()
        with torch.no_grad():
            for images, labels in Loader(dataset, self.config.batch_size, shuffle=False).epoch(0):
                logits = self.model(_tensor(images))
                y = torch.from_numpy(labels)
                loss_sum += torch.nn.functional.cross_entropy(logits, y, reduction="sum").item()
                correct += int((logits.argmax(1) == y).sum())
        return loss_sum / len(dataset), correct / len(dataset)

    def _save(self, file: pathlib.Path, epoch: int) -> None:
        """The state after so many epochs, in one step."""
        import io

        import torch

        memory = io.BytesIO()
        torch.save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "epoch": epoch}, memory)
        files.write_atomic(file, memory.getvalue())


def _tensor(images: np.ndarray) -> Any:
    """Images as a torch tensor in the layout in which torch is fastest on a processor."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(images)).contiguous(memory_format=torch.channels_last)
