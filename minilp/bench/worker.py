"""One system under measurement, in a process of its own: ``python -m minilp.bench.worker '{"system": "minilp", ...}'``.

It builds the model and one batch, then waits. Each line on standard input runs one training step; each line on standard
output is one JSON record. While it waits it sleeps, so it takes nothing from the system whose turn it is.
"""
from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def resident_bytes() -> int:
    """Memory this process holds now, in bytes (Linux: VmRSS)."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmRSS line")


def batch(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images (size, 3, 32, 32) float32 and labels (size,) int64: the same for every system."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((size, 3, 32, 32), dtype=np.float32), rng.integers(0, 10, size)


def minilp_step(job: dict[str, Any]) -> tuple[Callable[[], float], dict[str, Any]]:
    """A minilp training step as a function that returns its loss, and what ran it."""
    import minilp
    from minilp import contract, models, nn
    from minilp.autograd import Tensor
    from minilp.training import TrainConfig
    from minilp.training.session import build_optimizer

    minilp.set_num_threads(job["threads"])
    minilp.manual_seed(0)
    config = TrainConfig.create(model=job["model"], recipe=job["recipe"])
    model = config.recipe.apply(models.build(job["model"]))
    optimizer = build_optimizer(config, model)  # the recipe's, at its defaults: SGD as torch's below, or Madam
    x, y = batch(job["batch_size"], 1)
    clock = [0]

    def step() -> float:
        optimizer.zero_grad()
        with contract.rounding_context(0, clock[0]):
            loss = nn.functional.cross_entropy(model(Tensor(x)), y)
            loss.backward()
            optimizer.step()
        clock[0] += 1
        return loss.item()

    with contract.executed() as how:
        model(Tensor(x[:2]))
    here = minilp.backend()
    return step, {"isa": here.isa, "kernels": "; ".join(sorted({key.split(": ")[1] for key in how})) or "float32"}


def torch_step(job: dict[str, Any]) -> tuple[Callable[[], float], dict[str, Any]]:
    """The same step in torch: eager float32, NCHW."""
    import torch
    from torch.nn import functional

    from minilp.bench.rival import build

    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    model = build(job["model"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    images, labels = batch(job["batch_size"], 1)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)

    def step() -> float:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step, {"isa": "", "kernels": f"torch {torch.__version__} eager float32"}


def main() -> None:
    """Build what the job on the command line asks for, then serve one step per input line."""
    job = json.loads(sys.argv[1])
    if job["system"] == "torch":
        import torch  # noqa: F401  (the memory baseline stands after the import)
    else:
        import minilp.nn  # noqa: F401
    x, _ = batch(job["batch_size"], 1)
    baseline = resident_bytes()
    step, info = (torch_step if job["system"] == "torch" else minilp_step)(job)
    del x
    print(json.dumps(info), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        loss = step()
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - baseline
        print(json.dumps({"ms": seconds * 1e3, "loss": loss, "peak_bytes": peak}), flush=True)


if __name__ == "__main__":
    main()
