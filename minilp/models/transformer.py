"""The encoder-decoder Transformer (Vaswani et al. 2017), of any size."""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilp import nn
from minilp.autograd import Tensor
from minilp.autograd.attention import by_features, spread
from minilp.nn import init
from minilp.nn.attention_functions import causal
from minilp.nn.positions import Positions
from minilp.nn.tokens import Tokens
from minilp.nn.transformer import Activation, Cache, LayerCache, is_coded


class Transformer(nn.Module):
    """Sentences of integers in one vocabulary to logits over another.

    Token embeddings times sqrt(d_model), plus positions, through encoder and decoder layers. With ``norm_first``
    (pre-norm) a layer norm stands behind each stack. Matrices of the layers start from Glorot's uniform distribution,
    embeddings from N(0, 1 / d_model), so that a tied output projection begins with logits of order one: our choice.

    Padding has no row anywhere (see :mod:`minilp.nn.tokens`): it costs nothing and reaches no scale.

    Parameters
    ----------
    src_vocab_size, tgt_vocab_size : int
        Rows of the embeddings.
    d_model, nhead, dim_feedforward : int
        Features of a token, heads, features inside the feed-forward.
    num_encoder_layers, num_decoder_layers : int
        Layers.
    dropout : float
        As in :class:`minilp.nn.TransformerEncoderLayer`, and on the embeddings.
    activation : {"relu", "gelu"}
        Of the feed-forward.
    norm_first : bool
        Pre-norm.
    shared_embeddings : bool
        One table for both languages; the vocabularies are then one.
    tied_output : bool
        The output projection is the target's embedding, without a bias.
    positions : {"sinusoidal", "learned"}
        See :class:`minilp.nn.positions.Positions`; learned ones are encoder's and decoder's own.
    max_len : int
        Longest sentence.
    padding_idx : int
        The integer that is no token.

    Raises
    ------
    ValueError
        If shared embeddings meet vocabularies of two sizes, or a layer's argument does not fit.
    """

    def __init__(self, src_vocab_size: int, tgt_vocab_size: int, d_model: int = 256, nhead: int = 4,
                 num_encoder_layers: int = 3, num_decoder_layers: int = 3, dim_feedforward: int = 1024,
                 dropout: float = 0.1, activation: Activation = "relu", norm_first: bool = True,
                 shared_embeddings: bool = True, tied_output: bool = True, positions: str = "sinusoidal",
                 max_len: int = 256, padding_idx: int = 0) -> None:
        super().__init__()
        if shared_embeddings and src_vocab_size != tgt_vocab_size:
            raise ValueError(f"shared_embeddings: needs one vocabulary, got src_vocab_size={src_vocab_size} and "
                             f"tgt_vocab_size={tgt_vocab_size}")
        self.d_model, self.padding_idx, self.max_len = d_model, padding_idx, max_len
        self.src_embedding = nn.Embedding(src_vocab_size, d_model, padding_idx)
        self.tgt_embedding = (self.src_embedding if shared_embeddings
                              else nn.Embedding(tgt_vocab_size, d_model, padding_idx))
        self.src_positions = Positions(positions, max_len, d_model)
        self.tgt_positions = Positions(positions, max_len, d_model)
        self.dropout = nn.Dropout(dropout)
        options: dict[str, Any] = {"batch_first": True, "norm_first": norm_first, "activation": activation}
        layer = (d_model, nhead, dim_feedforward, dropout)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(*layer, **options), num_encoder_layers,
                                             nn.LayerNorm(d_model) if norm_first else None)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(*layer, **options), num_decoder_layers,
                                             nn.LayerNorm(d_model) if norm_first else None)
        for stack in (self.encoder, self.decoder):
            for param in stack.parameters():
                if param.ndim > 1:
                    init.xavier_uniform_(param)
        self.output = nn.Linear(d_model, tgt_vocab_size, bias=not tied_output)
        for table in {id(e): e for e in (self.src_embedding, self.tgt_embedding)}.values():
            init.normal_(table.weight, std=d_model**-0.5)
            table.weight.data[padding_idx] = 0
        if tied_output:
            self.output.weight = self.tgt_embedding.weight

    def forward(self, src: Any, tgt: Any) -> Tensor:
        """Source sentences and target sentences so far to logits of the token after each.

        Parameters
        ----------
        src, tgt : ndarray of int
            (N, S) and (N, T), ``padding_idx`` behind the end of a sentence.

        Returns
        -------
        Tensor
            float32 (N, T, tgt_vocab_size); zeros at the padding.
        """
        logits, tokens = self.logits(src, tgt)
        return spread(logits, tokens)

    def logits(self, src: Any, tgt: Any) -> tuple[Tensor, Tokens]:
        """As :meth:`forward`, without the padding: what a training reads.

        Parameters
        ----------
        src, tgt : ndarray of int
            As for :meth:`forward`.

        Returns
        -------
        (Tensor, Tokens)
            float32 (tokens of ``tgt``, tgt_vocab_size), and which token each row is: its ``gather`` brings the
            integers that are to be predicted, (N, T), into the same order.
        """
        return self.decode(tgt, *self.encode(src))

    def decode(self, tgt: Any, memory: Tensor, seen: Tokens) -> tuple[Tensor, Tokens]:
        """As :meth:`logits`, behind :meth:`encode`, whose result ``memory`` and ``seen`` are."""
        x, tokens = self._embed(tgt, "tgt", self.tgt_embedding, self.tgt_positions)
        if tokens.shape[0] != seen.shape[0]:
            raise ValueError(f"src and tgt: expected as many sentences, got {seen.shape[0]} and {tokens.shape[0]}")
        mask = causal(tokens.shape[1], tokens.shape[1])
        if tokens.mask is not None:
            mask = mask & tokens.mask[:, None, None]
        return self.output(self.decoder.rows(x, tokens, mask, memory, seen, hidden(seen))), tokens

    def encode(self, src: Any) -> tuple[Tensor, Tokens]:
        """Source sentences to what the decoder looks at.

        Parameters
        ----------
        src : ndarray of int
            (N, S).

        Returns
        -------
        (Tensor, Tokens)
            Rows (tokens of ``src``, d_model), and which token each row is.
        """
        x, tokens = self._embed(src, "src", self.src_embedding, self.src_positions)
        return self.encoder.rows(x, tokens, hidden(tokens)), tokens

    def start(self, memory: Tensor, seen: Tokens) -> Cache:
        """What :meth:`step` needs of the source, :meth:`encode`'s result: every layer's keys and values over it."""
        layers = [LayerCache(*layer.multihead_attn.project_memory(memory, memory, seen))
                  for layer in self.decoder.layers]
        return Cache(layers, hidden(seen))

    def step(self, index: np.ndarray, cache: Cache) -> Tensor:
        """Logits of the token after one more token of every sentence.

        The same numbers as the last ones of :meth:`decode` on all tokens so far, up to the order of float32 sums, in
        evaluation and where scales belong to single tokens: see :func:`minilp.models.decoding.obstacle`.

        Parameters
        ----------
        index : ndarray of int
            (N,), the tokens; padding is one like others here.
        cache : Cache
            Of :meth:`start`; grows by one token.

        Returns
        -------
        Tensor
            float32 (N, tgt_vocab_size).
        """
        one = Tokens((len(index), 1))
        place = np.full(len(index), cache.length)
        x = self.dropout(self.tgt_embedding(index) * math.sqrt(self.d_model) + self.tgt_positions(place))
        for layer, kept in zip(self.decoder.layers, cache.layers, strict=True):
            x = layer.step(x, one, kept, cache.over)
        cache.length += 1
        return self.output(x if self.decoder.norm is None else self.decoder.norm(x))

    def _embed(self, index: Any, name: str, table: nn.Embedding, positions: Positions) -> tuple[Tensor, Tokens]:
        """Sentences (N, L) as rows of embeddings with their positions."""
        array = integers(name, index)
        tokens = Tokens(array.shape, array != self.padding_idx)
        x = table(tokens.gather(array)) * math.sqrt(self.d_model)
        x = self.dropout(x + positions(tokens.positions()))
        return (by_features(x) if is_coded(self) else x), tokens


def integers(name: str, index: Any) -> np.ndarray:
    """Sentences as an array of integers (N, L); TypeError or ValueError if they are not."""
    array = index.data if isinstance(index, Tensor) else np.asarray(index)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    if array.ndim != 2:
        raise ValueError(f"{name}: expected sentences (N, L), got shape {array.shape}")
    return array


def hidden(tokens: Tokens) -> np.ndarray | None:
    """The mask that hides the padding of keys: (N, 1, 1, S), True at tokens; None where there is none."""
    return None if tokens.mask is None else tokens.mask[:, None, None]
