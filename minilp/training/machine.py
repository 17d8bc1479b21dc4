"""Facts about this process that go into a report: backend, peak memory, commit."""
from __future__ import annotations

import pathlib
import subprocess
import sys
from typing import Any

import numpy as np

import minilp
from minilp import contract
from minilp.formats import Spec
from minilp.kernels import backend
from minilp.recipe import Recipe
from minilp.table_contract import TABLE

INTEGERS = {" (shift/add)": "shift/add integer kernels", " (int8 digits)": "integer kernels on int8 digits",
            f" {TABLE}": "integer table kernel"}
"""What the first line of a training calls kernels, by what :func:`minilp.contract.executed` says of them."""


def kernels(recipe: Recipe) -> str:
    """Which kernels a training with this recipe runs, in words for its first line.

    Found out by multiplying a one by a one in each of a layer's three contractions: no format has to be known here.

    Parameters
    ----------
    recipe : Recipe
        Its plain roles count, not those of single layers.
    """
    one, how = np.ones((1, 1), np.float32), []
    for first, second in ((recipe.act, recipe.weight), (recipe.error, recipe.weight), (recipe.error, recipe.act)):
        operands = [one if role is None else role.format.encode(one) for role in (first, second)]
        with contract.executed() as seen:
            contract.multiply(operands[0], operands[1], Spec("linear"))
        kind = next(iter(seen))
        _, integers, which = kind.partition(" in integers")
        if integers:
            how.append(INTEGERS.get(which, "integer kernels") if backend().name == "c" else
                       "integer contractions by NumPy")
        elif kind.endswith(contract.EMULATED):
            how.append(f"coded contractions {contract.EMULATED}")
        elif " by " in kind:  # a format whose contractions are neither (Format.arithmetic)
            how.append(f"contractions by {kind.rpartition(' by ')[2]}")
        else:
            how.append("float32 kernels" if backend().name == "c" else "float32 contractions by NumPy")
    return ", ".join(dict.fromkeys(how))


def first_line(recipe: Recipe) -> str:
    """``minilp 0.1.0 on C core (avx2, 2 threads), shift/add integer kernels``."""
    return f"minilp {minilp.__version__} on {backend()}, {kernels(recipe)}"


def describe(recipe: Recipe) -> dict[str, Any]:
    """The backend as plain JSON: name, reason, isa, threads, kernels."""
    now = backend()
    return {"name": now.name, "reason": now.reason, "isa": now.isa, "threads": now.threads, "kernels": kernels(recipe)}


def peak_bytes() -> int | None:
    """Most memory this process ever held in RAM, in bytes; None where the system does not say."""
    try:
        # Linux: ru_maxrss would also count the process that started this one.
        for line in pathlib.Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def commit() -> str | None:
    """Git hash of the minilp checkout that runs, with ``-dirty`` where files differ from it; None outside of one."""
    root = pathlib.Path(minilp.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], cwd=root,
                                 capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("-dirty" if changed.stdout.strip() else "")
