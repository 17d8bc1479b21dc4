"""What result.json says: how a training ended, with all it takes to run it again."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minilp.nn import Module
from minilp.training import machine
from minilp.training.config import TrainConfig
from minilp.training.diverged import Diverged
from minilp.training.run_energy import no_energy, run_energy
from minilp.training.task import Splits, Task


def outcome(config: TrainConfig, rows: Sequence[dict[str, Any]], model: Module, splits: Splits,
            final: Mapping[str, Any], diverged: Diverged | None = None) -> dict[str, Any]:
    """The content of result.json; ``lessons/result.schema.json`` says what each entry is.

    Parameters
    ----------
    config : TrainConfig
        What was trained.
    rows : sequence of dict
        The finished epochs, the columns of metrics.csv.
    model : Module
        As the training left it.
    splits : Splits
        The data.
    final : mapping
        What was measured after the last epoch, see :meth:`minilp.training.task.Task.finish`.
    diverged : Diverged or None
        What ended the training early; accuracy, loss and energy are then None.

    Returns
    -------
    dict
        Plain JSON.
    """
    task, over = config.task, bool(rows) and diverged is None
    scores = {name: rows[-1][name] if over else None for name in (f"{task.held_out}_acc", f"{task.held_out}_loss")}
    energy = (run_energy(config, model, splits.train, splits.held_out) if diverged is None else
              {**no_energy(task), "energy_note": "the training diverged"})
    return {
        "config": config.to_config(), "command": config.command(), "commit": machine.commit(), "epochs": list(rows),
        **scores, **{name: None for name in task.final}, **final,
        "diverged": None if diverged is None else {"epoch": diverged.epoch, "step": diverged.step,
                                                   "message": str(diverged)},
        "seconds": sum(row["seconds"] for row in rows), task.speed: speed(task, rows),
        "peak_bytes": machine.peak_bytes(), **energy,
        "parameters": sum(p.size for p in model.parameters()), "backend": machine.describe(config.recipe),
    }


def speed(task: Task, rows: Sequence[dict[str, Any]]) -> float | None:
    """Training images or tokens a second over all epochs; None without one. Every epoch has as many."""
    return len(rows) / sum(1 / row[task.speed] for row in rows) if rows else None
