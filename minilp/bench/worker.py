"""One system under measurement, in a process of its own: ``python -m minilp.bench.worker '{"system": "minilp", ...}'``.

It builds the model and one batch, runs one step, and says what it is. Then each line on standard input runs one more
step, and each line on standard output is one JSON record. While it waits it sleeps, so it takes nothing from the system
whose turn it is.
"""
from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from minilp.bench import sentences
from minilp.bench.process import pin

PROFILED = 3
"""Steps under the profiler; of each part the smallest time is reported."""


def _status(field: str) -> int:
    """A size out of /proc/self/status (Linux), in bytes."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field} line")


def resident_bytes() -> int:
    """Memory this process holds now, in bytes."""
    return _status("VmRSS")


def batch(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images (size, 3, 32, 32) float32 and labels (size,) int64: the same for every system."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((size, 3, 32, 32), dtype=np.float32), rng.integers(0, 10, size)


def minilp_step(job: dict[str, Any]) -> tuple[Callable[[], float], dict[str, Any]]:
    """A minilp training step as a function that returns its loss, and what ran it."""
    import minilp
    from minilp import contract, kernels, nn
    from minilp.autograd import Tensor
    from minilp.training import TrainConfig
    from minilp.training.build import build_model, build_optimizer

    minilp.set_num_threads(job["threads"])
    minilp.manual_seed(0)
    clock = [0]
    if job["model"] == sentences.MODEL:
        config = TrainConfig.create(recipe=job["recipe"], settings=job["settings"])
        model, optimizer, loss_of_batch = sentences.ours(config, job["batch_size"])
    else:
        config = TrainConfig.create(model=job["model"], recipe=job["recipe"], settings=job["settings"])
        model = build_model(config, {"classes": [str(k) for k in range(10)], "in_channels": 3})
        optimizer = build_optimizer(config, model)  # the recipe's, at its defaults: SGD as torch's, or Madam
        x, y = batch(job["batch_size"], 1)

        def loss_of_batch() -> Tensor:
            return nn.functional.cross_entropy(model(Tensor(x)), y)

    def step() -> float:
        optimizer.zero_grad()
        with contract.rounding_context(0, clock[0]):
            loss = loss_of_batch()
            loss.backward()
            optimizer.step()
        clock[0] += 1
        return loss.item()

    with contract.executed() as how, kernels.calls() as calls:
        step()
    here = minilp.backend()
    return step, {"isa": here.isa, "contractions": "; ".join(sorted({key.split(": ")[1] for key in how})) or "float32",
                  "calls": dict(sorted(calls.items()))}


def torch_step(job: dict[str, Any]) -> tuple[Callable[[], float], dict[str, Any]]:
    """The same step in torch, in the mode that the job names."""
    import torch

    from minilp.bench import rival, rival_sentences

    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    if job["model"] == sentences.MODEL:
        step = rival_sentences.step(job["mode"], job["batch_size"])
    else:
        step = rival.step(job["model"], job["mode"], *batch(job["batch_size"], 1))
    step()
    return step, {"torch": torch.__version__}


def main() -> None:
    """Build what the job on the command line asks for, then serve one step per input line."""
    job = json.loads(sys.argv[1])
    pin(job["threads"])
    try:
        if job["system"] == "torch":
            import torch  # noqa: F401  (the memory baseline stands after the import)
        else:
            import minilp.nn  # noqa: F401
        x, _ = batch(job["batch_size"], 1)
        baseline = resident_bytes()
        step, info = (torch_step if job["system"] == "torch" else minilp_step)(job)
        del x
    except Exception as error:  # whatever it is, the process that measures says it, or leaves this system out
        first = (str(error).strip() or "no message").splitlines()[0]
        print(json.dumps({"error": f"{type(error).__name__}: {first}"}), flush=True)
        return
    print(json.dumps(info), flush=True)
    for command in sys.stdin:
        if command.strip() == "profile":
            from minilp.bench.account import profile

            print(json.dumps(profile(step, PROFILED)), flush=True)
            continue
        start = time.perf_counter()
        loss = step()
        seconds = time.perf_counter() - start
        peak = _status("VmHWM") - baseline  # of this program alone; ru_maxrss would count the one that started it
        print(json.dumps({"ms": seconds * 1e3, "loss": loss, "peak_bytes": peak}), flush=True)


if __name__ == "__main__":
    main()
