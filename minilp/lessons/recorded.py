"""Where a notebook finds the recorded trainings."""
from __future__ import annotations

import pathlib

from minilp.results.sweeping import RESULTS


def results_folder() -> pathlib.Path:
    """The folder of recorded trainings, ``lessons/results`` of the checkout that the working directory is in.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    FileNotFoundError
        If no folder above the working directory has one: the notebook was copied away from the project.
    """
    here = pathlib.Path.cwd()
    for folder in (here, *here.parents):
        if (folder / RESULTS).is_dir():
            return folder / RESULTS
    raise FileNotFoundError(f"no {RESULTS} in {here} or above it: open the notebook inside minilp's checkout")
