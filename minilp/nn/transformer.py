"""The two layers of Transformers (Vaswani et al. 2017, section 3.1), with PyTorch's arguments and names."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilp.autograd import Tensor, ops
from minilp.autograd.attention import gather, spread
from minilp.nn import functional
from minilp.nn.attention import MultiheadAttention, joined
from minilp.nn.attention_functions import as_mask, causal
from minilp.nn.contraction import Contraction
from minilp.nn.dropout import Dropout
from minilp.nn.linear import Linear
from minilp.nn.module import Module
from minilp.nn.norm import LayerNorm
from minilp.nn.tokens import Tokens

Activation = str | Callable[[Tensor], Tensor]


def activation_function(activation: Activation) -> Callable[[Tensor], Tensor]:
    """A function by PyTorch's names, "relu" or "gelu"; a callable stays itself. ValueError for other names."""
    if callable(activation):
        return activation
    named: dict[str, Callable[[Tensor], Tensor]] = {"relu": functional.relu, "gelu": functional.gelu}
    if activation not in named:
        raise ValueError(f"activation: expected 'relu', 'gelu' or a function, got {activation!r}")
    return named[activation]


class Block(Module):
    """What encoder and decoder layers share: feed-forward, residual sums with their norms, tokens and masks.

    Inside, a batch is rows of tokens (T, E), and a :class:`~minilp.nn.tokens.Tokens` says which row is whose. Where a
    layer is coded, padding has no row: it reaches no scale, and the result is zero there. Where all is float32, padding
    is computed like everything else, as PyTorch does in training.
    """

    batch_first: bool
    norm_first: bool

    def _feed_forward_parts(self, d_model: int, dim_feedforward: int, dropout: float, activation: Activation,
                            bias: bool) -> None:
        self.linear1 = Linear(d_model, dim_feedforward, bias)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias)
        self.activation = activation_function(activation)

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))

    def _residual(self, x: Tensor, part: Callable[[Tensor], Tensor], norm: Module, dropout: Module) -> Tensor:
        """x + part(norm(x)) or norm(x + part(x))."""
        return x + dropout(part(norm(x))) if self.norm_first else norm(x + dropout(part(x)))


def is_coded(module: Module) -> bool:
    """Whether any weighted layer of a tree has a recipe."""
    return any(isinstance(part, Contraction) and part.q is not None for part in module.modules())


def tokens_of(x: Tensor, padding: np.ndarray | None, coded: bool) -> Tokens:
    """The rows of a batch (N, L, E): without the padding where layers are coded, else all of them."""
    hidden = padding if padding is not None and padding.dtype == np.bool_ and coded else None
    return Tokens((x.shape[0], x.shape[1]), None if hidden is None else ~hidden)


def view(mask: Any, padding: np.ndarray | None, rows: int, columns: int, is_causal: bool, dtype: Any,
         heads: int) -> np.ndarray | None:
    """PyTorch's two masks of one attention as one for :meth:`MultiheadAttention.attend`.

    Parameters
    ----------
    mask : ndarray or Tensor, optional
        (rows, columns) or (N heads, rows, columns): bool, True where a query may NOT look, or float.
    padding : ndarray, optional
        (N, columns): bool, True at padding, or float.
    rows, columns : int
        Queries and keys.
    is_causal : bool
        Hide later keys where ``mask`` is None.
    dtype : dtype
        Of float masks.
    heads : int
        Of the attention.
    """
    given = as_mask("mask", mask, dtype)
    if given is None:
        seen = causal(rows, columns) if is_causal else None
    else:
        given = given.reshape(-1, heads, *given.shape[1:]) if given.ndim == 3 else given
        seen = ~given if given.dtype == np.bool_ else given
    if padding is None:
        return seen
    return joined(seen, ~padding[:, None, None] if padding.dtype == np.bool_ else padding[:, None, None])


def batched(name: str, x: Tensor, width: int, batch_first: bool) -> Tensor:
    """(N, L, E), (L, N, E) or one sentence (L, E) as (N, L, E); ValueError for other shapes."""
    if x.ndim not in (2, 3) or x.shape[-1] != width:
        raise ValueError(f"{name}: expected 2 or 3 axes, the last of {width} features, got {x.shape}")
    return ops.unsqueeze(x, 0) if x.ndim == 2 else x if batch_first else ops.transpose(x, 0, 1)


def unbatched(x: Tensor, like: Tensor, batch_first: bool) -> Tensor:
    """The reverse of :func:`batched` for the shape of ``like``."""
    return x[0] if like.ndim == 2 else x if batch_first else ops.transpose(x, 0, 1)


def padding_mask(name: str, mask: Any, shape: tuple[int, ...], dtype: Any) -> np.ndarray | None:
    """A padding mask as an array (N, L), bool or float; None stays None. ValueError for other shapes."""
    array = as_mask(name, mask, dtype)
    if array is None:
        return None
    array = array[None] if array.ndim == 1 else array
    if array.shape != shape:
        raise ValueError(f"{name}: expected {shape}, got {array.shape}")
    return array


@dataclass
class LayerCache:
    """Keys and values of one decoder layer, (N, heads, length, D) each: of the encoder's result, of tokens so far."""

    memory_key: Tensor
    memory_value: Tensor
    key: Tensor | None = None
    value: Tensor | None = None

    def grown(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put the next token's behind what is there; returns all."""
        self.key = key if self.key is None else ops.concat([self.key, key], 2)
        self.value = value if self.value is None else ops.concat([self.value, value], 2)
        return self.key, self.value

    def picked(self, rows: np.ndarray) -> LayerCache:
        """The cache of chosen sentences, which may repeat."""
        parts = (self.memory_key, self.memory_value, self.key, self.value)
        return LayerCache(*(None if part is None else part[rows] for part in parts))  # type: ignore[arg-type]


@dataclass
class Cache:
    """What a decoder keeps from token to token: its layers' keys and values, the source's mask, tokens so far."""

    layers: list[LayerCache]
    over: np.ndarray | None
    length: int = 0

    def picked(self, rows: np.ndarray) -> Cache:
        """The cache of chosen sentences, which may repeat."""
        return Cache([layer.picked(rows) for layer in self.layers], None if self.over is None else self.over[rows],
                     self.length)


class TransformerEncoderLayer(Block):
    """Self-attention and feed-forward, each with a residual sum and a layer norm.

    Parameters
    ----------
    d_model, nhead, dim_feedforward : int
        Features of a token, heads, features inside the feed-forward.
    dropout : float
        Probability, on attention weights, behind the activation and in front of both residual sums.
    activation : {"relu", "gelu"} or callable
        Of the feed-forward.
    layer_norm_eps : float
        Added to the variance.
    batch_first : bool
        Tensors are (N, L, E); else (L, N, E).
    norm_first : bool
        Norms in front of attention and feed-forward (pre-norm), else behind the residual sums.
    bias : bool
        Of linear layers and norms.
    """

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
                 activation: Activation = "relu", layer_norm_eps: float = 1e-5, batch_first: bool = False,
                 norm_first: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.batch_first, self.norm_first, self.d_model = batch_first, norm_first, d_model
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first)
        self._feed_forward_parts(d_model, dim_feedforward, dropout, activation, bias)
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias)
        self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout)

    def forward(self, src: Tensor, src_mask: Any = None, src_key_padding_mask: Any = None,
                is_causal: bool = False) -> Tensor:
        """(N, L, E) to the same shape; masks as for :meth:`MultiheadAttention.forward`."""
        x = batched("src", src, self.d_model, self.batch_first)
        padding = padding_mask("src_key_padding_mask", src_key_padding_mask, x.shape[:2], x.dtype)
        tokens = tokens_of(x, padding, is_coded(self))
        mask = view(src_mask, padding, x.shape[1], x.shape[1], is_causal, x.dtype, self.self_attn.num_heads)
        return unbatched(spread(self.rows(gather(x, tokens), tokens, mask), tokens), src, self.batch_first)

    def rows(self, x: Tensor, tokens: Tokens, mask: np.ndarray | None) -> Tensor:
        """Rows of tokens (T, E) to rows; ``mask`` as for :meth:`MultiheadAttention.attend`."""
        def attention(y: Tensor) -> Tensor:
            return self.self_attn.attend(*self.self_attn.project(y, tokens, y, y, tokens), mask, tokens)[0]

        x = self._residual(x, attention, self.norm1, self.dropout1)
        return self._residual(x, self._feed_forward, self.norm2, self.dropout2)


class TransformerDecoderLayer(Block):
    """Self-attention, attention over an encoder's result, and feed-forward; parameters as the encoder layer's."""

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
                 activation: Activation = "relu", layer_norm_eps: float = 1e-5, batch_first: bool = False,
                 norm_first: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.batch_first, self.norm_first, self.d_model = batch_first, norm_first, d_model
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first)
        self.multihead_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first)
        self._feed_forward_parts(d_model, dim_feedforward, dropout, activation, bias)
        for number in (1, 2, 3):
            setattr(self, f"norm{number}", LayerNorm(d_model, layer_norm_eps, bias=bias))
        self.dropout1, self.dropout2, self.dropout3 = Dropout(dropout), Dropout(dropout), Dropout(dropout)

    def forward(self, tgt: Tensor, memory: Tensor, tgt_mask: Any = None, memory_mask: Any = None,
                tgt_key_padding_mask: Any = None, memory_key_padding_mask: Any = None, tgt_is_causal: bool = False,
                memory_is_causal: bool = False) -> Tensor:
        """(N, T, E) and the encoder's (N, S, E) to (N, T, E); masks as for :meth:`MultiheadAttention.forward`."""
        x = batched("tgt", tgt, self.d_model, self.batch_first)
        y = batched("memory", memory, self.d_model, self.batch_first)
        rows, columns, heads = x.shape[1], y.shape[1], self.self_attn.num_heads
        padding = padding_mask("tgt_key_padding_mask", tgt_key_padding_mask, x.shape[:2], x.dtype)
        there = padding_mask("memory_key_padding_mask", memory_key_padding_mask, y.shape[:2], x.dtype)
        coded = is_coded(self)
        tokens, seen = tokens_of(x, padding, coded), tokens_of(y, there, coded)
        mask = view(tgt_mask, padding, rows, rows, tgt_is_causal, x.dtype, heads)
        over = view(memory_mask, there, rows, columns, memory_is_causal, x.dtype, heads)
        out = self.rows(gather(x, tokens), tokens, mask, gather(y, seen), seen, over)
        return unbatched(spread(out, tokens), tgt, self.batch_first)

    def rows(self, x: Tensor, tokens: Tokens, mask: np.ndarray | None, memory: Tensor, seen: Tokens,
             over: np.ndarray | None) -> Tensor:
        """Rows of tokens (T, E) and of the encoder (U, E) to rows; masks as for :meth:`MultiheadAttention.attend`."""
        def attention(y: Tensor) -> Tensor:
            return self.self_attn.attend(*self.self_attn.project(y, tokens, y, y, tokens), mask, tokens)[0]

        def cross(y: Tensor) -> Tensor:
            parts = self.multihead_attn.project(y, tokens, memory, memory, seen)
            return self.multihead_attn.attend(*parts, over, tokens)[0]

        x = self._residual(x, attention, self.norm1, self.dropout1)
        x = self._residual(x, cross, self.norm2, self.dropout2)
        return self._residual(x, self._feed_forward, self.norm3, self.dropout3)


    def step(self, x: Tensor, one: Tokens, kept: LayerCache, over: np.ndarray | None) -> Tensor:
        """Rows (N, E) of one more token of every sentence to rows; ``kept`` grows by their keys and values."""
        def attention(y: Tensor) -> Tensor:
            query, key, value = self.self_attn.project(y, one, y, y, one)
            return self.self_attn.attend(query, *kept.grown(key, value), None, one)[0]

        def cross(y: Tensor) -> Tensor:
            query = self.multihead_attn.project_query(y, one)
            return self.multihead_attn.attend(query, kept.memory_key, kept.memory_value, over, one)[0]

        x = self._residual(x, attention, self.norm1, self.dropout1)
        x = self._residual(x, cross, self.norm2, self.dropout2)
        return self._residual(x, self._feed_forward, self.norm3, self.dropout3)
