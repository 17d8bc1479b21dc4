"""The Transformer of the benchmark written in torch. Only imported by a benchmark worker, where torch is installed."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from minilp.bench import sentences
from minilp.nn.positions import sinusoids


class Transformer(nn.Module):
    """torch.nn.Transformer between one shared embedding and its transpose."""

    def __init__(self) -> None:
        super().__init__()
        s = sentences.SIZES
        self.embedding = nn.Embedding(sentences.VOCABULARY, s["d_model"], 0)
        self.positions = torch.from_numpy(sinusoids(sentences.LENGTH + 1, s["d_model"]))
        layer = nn.TransformerEncoderLayer(s["d_model"], s["nhead"], s["dim_feedforward"], s["dropout"],
                                           batch_first=True, norm_first=True)
        encoder = nn.TransformerEncoder(layer, s["num_encoder_layers"], nn.LayerNorm(s["d_model"]),
                                        enable_nested_tensor=False)  # says that it cannot have them with norm_first
        self.inner = nn.Transformer(s["d_model"], s["nhead"], s["num_encoder_layers"], s["num_decoder_layers"],
                                    s["dim_feedforward"], s["dropout"], batch_first=True, norm_first=True,
                                    custom_encoder=encoder)
        self.dropout = nn.Dropout(s["dropout"])
        self.scale = s["d_model"] ** 0.5
        nn.init.normal_(self.embedding.weight, std=1 / self.scale)

    def embed(self, index: Any) -> Any:
        """(N, L) -> (N, L, d_model)."""
        return self.dropout(self.embedding(index) * self.scale + self.positions[:index.shape[1]])

    def forward(self, src: Any, tgt: Any) -> Any:
        """(N, S) and (N, T) -> logits (N, T, V)."""
        causal = torch.ones(tgt.shape[1], tgt.shape[1], dtype=torch.bool).triu(1)
        return self.inner(self.embed(src), self.embed(tgt), tgt_mask=causal) @ self.embedding.weight.T


def step(mode: str, size: int) -> Callable[[], float]:
    """One training step: AdamW and label smoothing, as ours.

    Parameters
    ----------
    mode : str
        ``eager``, ``compiled``, ``bf16`` or ``bf16_compiled``.
    size : int
        Sentence pairs.

    Raises
    ------
    ValueError
        For ``channels_last``, which sentences do not have.
    """
    if mode == "channels_last":
        raise ValueError("bench: sentences have no channels_last")
    model: Any = Transformer()
    src, tgt = (torch.from_numpy(array) for array in sentences.batch(size, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=sentences.RATE)
    network = torch.compile(model) if mode.endswith("compiled") else model
    narrow = mode.startswith("bf16")

    def run() -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=narrow):
            logits = network(src, tgt[:, :-1])
            loss = functional.cross_entropy(logits.reshape(-1, sentences.VOCABULARY), tgt[:, 1:].reshape(-1),
                                            ignore_index=0, label_smoothing=sentences.SMOOTHING)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return run
