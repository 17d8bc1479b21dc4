"""A fresh model by its name with random data that fit it, for counting, measuring and looking at formats."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilp import models
from minilp.autograd import Tensor
from minilp.nn import Module, functional

SEQUENCE_MODELS = ("transformer", "encoder")
"""Models that read token numbers; all others read images."""
CLASSES, VOCABULARY, LENGTH = 10, 4000, 16


@dataclass(frozen=True)
class Specimen:
    """A model and a batch.

    Attributes
    ----------
    model : Module
        Fresh from :func:`minilp.models.build`.
    x, y : ndarray
        Images (N, C, H, W) float32 and labels (N,); or sentences of 16 tokens, (N, 16), and for a translation the
        target and a token before it (N, 17), for a classifier labels (N,). Sentences are no shorter: there is no
        padding.
    """

    model: Module
    x: np.ndarray
    y: np.ndarray

    @staticmethod
    def outputs(model: Module, x: np.ndarray, y: np.ndarray) -> Tensor:
        """Logits (rows, classes) of a batch."""
        if x.dtype.kind == "f":
            return model(Tensor(x))
        logits = model(x) if y.ndim == 1 else model(x, y[:, :-1])
        return logits.reshape(-1, logits.shape[-1])

    @staticmethod
    def loss(model: Module, x: np.ndarray, y: np.ndarray) -> Tensor:
        """Mean cross-entropy of a batch."""
        return functional.cross_entropy(Specimen.outputs(model, x, y), (y if y.ndim == 1 else y[:, 1:]).reshape(-1))


def specimen(name: str, batch_size: int, options: Mapping[str, Any] | None = None,
             image: tuple[int, int, int] = (3, 32, 32)) -> Specimen:
    """Build a model and draw a batch for it.

    Parameters
    ----------
    name : str
        One of :func:`minilp.models.available`.
    batch_size : int
        Images or sentences.
    options : mapping, optional
        Of the model. Vocabularies have 4000 tokens unless it says otherwise.
    image : (int, int, int)
        Channels, height and width, of models that see images.

    Returns
    -------
    Specimen
        The batch is the same every time.

    Raises
    ------
    ValueError
        If the name or an option is unknown.
    """
    rng, given = np.random.default_rng(0), dict(options or {})
    if name not in SEQUENCE_MODELS:
        model = models.build(name, num_classes=CLASSES, in_channels=image[0], **given)
        x = rng.standard_normal((batch_size, *image)).astype(np.float32)
        return Specimen(model, x, rng.integers(0, CLASSES, batch_size))
    sizes = ("src_vocab_size", "tgt_vocab_size") if name == "transformer" else ("vocab_size",)
    for size in sizes:
        given.setdefault(size, VOCABULARY)
    model, reads = models.build(name, **given), given[sizes[0]]
    ids = rng.integers(4, reads, (batch_size, LENGTH))  # 0 to 3 are padding, begin, end, unknown
    if name == "encoder":
        labels = batch_size * (LENGTH if given.get("per_token") else 1)
        return Specimen(model, ids, rng.integers(0, given.get("num_classes", CLASSES), labels))
    return Specimen(model, ids, rng.integers(4, given["tgt_vocab_size"], (batch_size, LENGTH + 1)))
