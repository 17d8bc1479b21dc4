"""What result.json says: how a training ended, with all it takes to run it again."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minilp.data import Dataset
from minilp.nn import Module
from minilp.training import machine
from minilp.training.config import TrainConfig
from minilp.training.diverged import Diverged
from minilp.training.run_energy import NO_ENERGY, run_energy


def outcome(config: TrainConfig, rows: Sequence[dict[str, Any]], model: Module, train: Dataset, test: Dataset,
            diverged: Diverged | None = None) -> dict[str, Any]:
    """The content of result.json; ``lessons/result.schema.json`` says what each entry is.

    Parameters
    ----------
    config : TrainConfig
        What was trained.
    rows : sequence of dict
        The finished epochs, the columns of metrics.csv.
    model : Module
        As the training left it.
    train, test : Dataset
        The images.
    diverged : Diverged or None
        What ended the training early; accuracy, loss and energy are then None.

    Returns
    -------
    dict
        Plain JSON.
    """
    last: dict[str, Any] = rows[-1] if rows and diverged is None else {"test_acc": None, "test_loss": None}
    images_per_s, seconds = speed(rows, len(train))
    return {
        "config": config.to_config(), "command": config.command(), "commit": machine.commit(), "epochs": list(rows),
        "test_acc": last["test_acc"], "test_loss": last["test_loss"],
        "diverged": None if diverged is None else {"epoch": diverged.epoch, "step": diverged.step,
                                                   "message": str(diverged)},
        "seconds": seconds, "images_per_s": images_per_s, "peak_bytes": machine.peak_bytes(),
        **(run_energy(config, model, train, test) if diverged is None else
           {**NO_ENERGY, "energy_note": "the training diverged"}),
        "parameters": sum(p.size for p in model.parameters()), "backend": machine.describe(config.recipe),
    }


def speed(rows: Sequence[dict[str, Any]], images: int) -> tuple[float | None, float]:
    """Training images a second over all epochs, None without one; the seconds of all epochs."""
    per_s = images * len(rows) / sum(images / row["images_per_s"] for row in rows) if rows else None
    return per_s, sum(row["seconds"] for row in rows)
