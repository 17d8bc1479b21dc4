"""A Transformer encoder in BERT's shape (Devlin et al. 2019), of any size."""
from __future__ import annotations

from typing import Any

import numpy as np

from minilp import nn
from minilp.autograd import Tensor
from minilp.autograd.attention import by_features, spread
from minilp.models.transformer import hidden, integers
from minilp.nn import functional as F
from minilp.nn import init
from minilp.nn.positions import Positions
from minilp.nn.tokens import Tokens
from minilp.nn.transformer import Activation, is_coded


class Encoder(nn.Module):
    """Sentences of integers to one vector of logits each, or to one for every token.

    Embeddings of words, positions and sentence types, normalised; post-norm layers with GELU; a linear head on the
    pooled first token, or on every token. Weights start from N(0, 0.02^2), biases from zero, as BERT's.

    Parameters
    ----------
    vocab_size : int
        Rows of the word embedding.
    num_classes : int
        Logits.
    d_model, nhead, dim_feedforward, num_layers : int
        Features of a token, heads, features inside the feed-forward, layers. BERT-base is 768, 12, 3072, 12.
    dropout : float
        On embeddings, attention weights, behind the activation, in front of residual sums, and on the pooled vector.
    activation : {"gelu", "relu"}
        Of the feed-forward.
    norm_first : bool
        Pre-norm, with a norm behind the stack; BERT is post-norm.
    positions : {"learned", "sinusoidal"}
        See :class:`minilp.nn.positions.Positions`.
    max_len : int
        Longest sentence.
    padding_idx : int
        The integer that is no token.
    types : int
        Sentence types.
    per_token : bool
        Logits for every token, without pooling.
    """

    def __init__(self, vocab_size: int, num_classes: int = 10, d_model: int = 128, nhead: int = 4,
                 dim_feedforward: int = 512, num_layers: int = 2, dropout: float = 0.1, activation: Activation = "gelu",
                 norm_first: bool = False, positions: str = "learned", max_len: int = 512, padding_idx: int = 0,
                 types: int = 2, per_token: bool = False) -> None:
        super().__init__()
        self.padding_idx, self.max_len, self.per_token = padding_idx, max_len, per_token
        self.embedding = nn.Embedding(vocab_size, d_model, padding_idx)
        self.positions = Positions(positions, max_len, d_model)
        self.types = nn.Embedding(types, d_model)
        self.norm, self.dropout = nn.LayerNorm(d_model, 1e-12), nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(d_model, nhead, dim_feedforward, dropout, activation, batch_first=True,
                                           norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, num_layers, nn.LayerNorm(d_model) if norm_first else None)
        self.pooler = None if per_token else nn.Linear(d_model, d_model)
        self.output = nn.Linear(d_model, num_classes)
        for name, param in self.named_parameters():
            if param.ndim > 1:
                init.normal_(param, std=0.02)
            elif name.endswith("bias"):
                init.zeros_(param)
        self.embedding.weight.data[padding_idx] = 0

    def forward(self, ids: Any, types: Any = None) -> Tensor:
        """Sentences to logits.

        Parameters
        ----------
        ids : ndarray of int
            (N, L), ``padding_idx`` behind the end of a sentence.
        types : ndarray of int, optional
            (N, L), the sentence type of each token; None is 0.

        Returns
        -------
        Tensor
            float32 (N, num_classes); with ``per_token`` (N, L, num_classes), zeros at the padding.

        Raises
        ------
        TypeError, ValueError
            If the integers do not fit, or a sentence to be pooled is empty.
        """
        rows, tokens = self.encode(ids, types)
        if self.pooler is None:
            return spread(self.output(rows), tokens)
        first = np.flatnonzero(tokens.positions() == 0)
        if len(first) != tokens.shape[0]:
            raise ValueError(f"ids: expected a token at the start of all {tokens.shape[0]} sentences, "
                             f"{len(first)} have one")
        return self.output(self.dropout(F.tanh(self.pooler(rows[first]))))

    def encode(self, ids: Any, types: Any = None) -> tuple[Tensor, Tokens]:
        """Rows (tokens, d_model) behind the last layer, and which token each is; arguments as :meth:`forward`."""
        array = integers("ids", ids)
        tokens = Tokens(array.shape, array != self.padding_idx)
        kinds = np.zeros_like(array) if types is None else integers("types", types)
        if kinds.shape != array.shape:
            raise ValueError(f"types: expected {array.shape}, got {kinds.shape}")
        x = self.embedding(tokens.gather(array)) + self.positions(tokens.positions()) + self.types(tokens.gather(kinds))
        x = self.dropout(self.norm(x))
        return self.encoder.rows(by_features(x) if is_coded(self) else x, tokens, hidden(tokens)), tokens
