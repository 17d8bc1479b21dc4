"""Stacks of Transformer layers, with PyTorch's arguments and names."""
from __future__ import annotations

import copy
from typing import Any

import numpy as np

from minilp import random
from minilp.autograd import Tensor
from minilp.nn.containers import ModuleList
from minilp.nn.module import Module
from minilp.nn.tokens import Tokens
from minilp.nn.transformer import TransformerDecoderLayer, TransformerEncoderLayer


def clones(layer: Module, count: int) -> ModuleList:
    """Copies of a layer with the same parameters, as in PyTorch, each with random streams of its own for dropout."""
    copies = [copy.deepcopy(layer) for _ in range(count)]
    for one in copies:
        for module in one.modules():
            if isinstance(module.__dict__.get("generator"), np.random.Generator):
                module.generator = random.spawn()
    return ModuleList(copies)


class TransformerEncoder(Module):
    """A stack of encoder layers.

    Parameters
    ----------
    encoder_layer : TransformerEncoderLayer
        Is copied ``num_layers`` times, parameters included, as in PyTorch.
    num_layers : int
        Layers.
    norm : Module, optional
        Behind the last one.
    """

    def __init__(self, encoder_layer: TransformerEncoderLayer, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        self.layers = clones(encoder_layer, num_layers)
        self.num_layers, self.norm = num_layers, norm

    def forward(self, src: Tensor, mask: Any = None, src_key_padding_mask: Any = None,
                is_causal: bool = False) -> Tensor:
        """(N, L, E) to the same shape; masks as for :meth:`MultiheadAttention.forward`."""
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask, is_causal)
        return src if self.norm is None else self.norm(src)

    def rows(self, x: Tensor, tokens: Tokens, mask: np.ndarray | None) -> Tensor:
        """Rows of tokens (T, E) to rows; see :meth:`TransformerEncoderLayer.rows`."""
        for layer in self.layers:
            x = layer.rows(x, tokens, mask)
        return x if self.norm is None else self.norm(x)


class TransformerDecoder(Module):
    """A stack of decoder layers; parameters as :class:`TransformerEncoder`'s."""

    def __init__(self, decoder_layer: TransformerDecoderLayer, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        self.layers = clones(decoder_layer, num_layers)
        self.num_layers, self.norm = num_layers, norm

    def forward(self, tgt: Tensor, memory: Tensor, tgt_mask: Any = None, memory_mask: Any = None,
                tgt_key_padding_mask: Any = None, memory_key_padding_mask: Any = None, tgt_is_causal: bool = False,
                memory_is_causal: bool = False) -> Tensor:
        """(N, T, E) and the encoder's (N, S, E) to (N, T, E)."""
        for layer in self.layers:
            tgt = layer(tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask,
                        tgt_is_causal, memory_is_causal)
        return tgt if self.norm is None else self.norm(tgt)

    def rows(self, x: Tensor, tokens: Tokens, mask: np.ndarray | None, memory: Tensor, seen: Tokens,
             over: np.ndarray | None) -> Tensor:
        """Rows of tokens (T, E) to rows; see :meth:`TransformerDecoderLayer.rows`."""
        for layer in self.layers:
            x = layer.rows(x, tokens, mask, memory, seen, over)
        return x if self.norm is None else self.norm(x)
