"""Which task a data set belongs to."""
from __future__ import annotations

from minilp.training.classification import DEFAULTS as IMAGES
from minilp.training.classification import Classification
from minilp.training.task import Task
from minilp.training.translation import DEFAULTS as SENTENCES
from minilp.training.translation import Translation

CLASSIFICATION, TRANSLATION = Classification(), Translation()
KNOWN = (*IMAGES, *SENTENCES)
"""Names of all data sets."""


def task_of(data: str) -> Task:
    """The task of a data set.

    Parameters
    ----------
    data : str
        A name, or the path of images.
    """
    return TRANSLATION if data in SENTENCES else CLASSIFICATION
