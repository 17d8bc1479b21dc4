"""The step of a Transformer under measurement, ours: random sentence pairs, the model's size, the loss."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

MODEL = "transformer"
VOCABULARY, LENGTH = 4000, 16
"""Tokens of the one vocabulary, and of every sentence: without padding, which would cost the other side alone."""
SIZES: dict[str, Any] = {"d_model": 192, "nhead": 4, "num_encoder_layers": 3, "num_decoder_layers": 3,
                         "dim_feedforward": 768, "dropout": 0.1}
"""3.9 million parameters, the embedding that both sides and the output share among them."""
SMOOTHING = 0.1
RATE = 1e-3


def batch(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random sentences (size, LENGTH) and (size, LENGTH + 1), int64: the same for every system."""
    rng = np.random.default_rng(seed)
    return rng.integers(4, VOCABULARY, (size, LENGTH)), rng.integers(4, VOCABULARY, (size, LENGTH + 1))


def ours(config: Any, size: int) -> tuple[Any, Any, Callable[[], Any]]:
    """Model, optimizer and a function that computes the loss of one batch.

    Parameters
    ----------
    config : TrainConfig
        Names the recipe. Its optimizer is Madam where that is the recipe's, else AdamW.
    size : int
        Sentence pairs.
    """
    from minilp import models, nn, optim

    model = models.build(MODEL, src_vocab_size=VOCABULARY, tgt_vocab_size=VOCABULARY, **SIZES)
    config.recipe.apply(model)
    optimizer = optim.Madam(model.parameters()) if config.recipe.optimizer == "madam" else optim.AdamW(
        model.parameters(), lr=RATE)
    src, tgt = batch(size, 1)

    def loss() -> Any:
        logits, tokens = model.logits(src, tgt[:, :-1])
        return nn.functional.cross_entropy(logits, tokens.gather(tgt[:, 1:]), ignore_index=0, label_smoothing=SMOOTHING)

    return model, optimizer, loss
