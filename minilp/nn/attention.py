"""Multi-head attention."""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilp import random
from minilp.autograd import Tensor, ops
from minilp.autograd.attention import gather, merge_heads, split_heads, spread
from minilp.autograd.parameter import Parameter
from minilp.nn import functional, init
from minilp.nn.attention_functions import as_mask, attention_weights, causal, coded, weighted
from minilp.nn.contraction import Contraction
from minilp.nn.linear import Linear
from minilp.nn.tokens import Tokens
from minilp.recipe import Recipe
from minilp.roles import LayerRecipe


class MultiheadAttention(Contraction):
    """Attention in several heads side by side (Vaswani et al. 2017, section 3.2.2), with PyTorch's names and masks.

    Its four projections are linear layers, and a recipe codes them like others. The products of queries with keys and
    of probabilities with values are coded too if the recipe says ``attention="coded"``: query, key, value and
    probabilities in the role ``act``, their gradients in ``error``, with one scale for each head of each sentence (see
    :func:`minilp.roles.of_products`). PyTorch's ``add_bias_kv`` and ``add_zero_attn`` do not exist here.

    Parameters
    ----------
    embed_dim : int
        Features of queries and of the result.
    num_heads : int
        Divides ``embed_dim``.
    dropout : float
        Probability of zeroing an attention weight in training.
    bias : bool
        Of all four projections.
    kdim, vdim : int, optional
        Features of keys and values; None is ``embed_dim``.
    batch_first : bool
        Tensors are (N, L, E); else (L, N, E), as in PyTorch.
    q : LayerRecipe, Recipe or None
        Numbers of the input projections and of attention's products; None is plain float32. ``out_proj.q`` is that of
        the output projection. A Recipe is given to both.

    Attributes
    ----------
    in_proj_weight : Parameter or None
        float32 (3 E, E): the projections of query, key and value below one another, from Glorot's uniform distribution
        as in PyTorch. None where ``kdim`` or ``vdim`` differ from ``embed_dim``.
    q_proj_weight, k_proj_weight, v_proj_weight : Parameter or None
        float32 (E, E), (E, kdim), (E, vdim), in that case.
    in_proj_bias : Parameter or None
        float32 (3 E,), zeros.
    out_proj : Linear
        The output projection, its bias zeros at first.
    """

    in_proj_weight: Parameter | None
    in_proj_bias: Parameter | None

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, *,
                 kdim: int | None = None, vdim: int | None = None, batch_first: bool = False,
                 q: LayerRecipe | Recipe | None = None) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"MultiheadAttention: num_heads must divide embed_dim, got {num_heads} and {embed_dim}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"MultiheadAttention: dropout: expected a probability in [0, 1], got {dropout!r}")
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = embed_dim, num_heads, dropout, batch_first
        self.kdim, self.vdim = embed_dim if kdim is None else kdim, embed_dim if vdim is None else vdim
        self.head_dim, self.generator, stream = embed_dim // num_heads, random.spawn(), random.spawn()
        same = self.kdim == self.vdim == embed_dim
        sizes = {"in_proj_weight": (3 * embed_dim, embed_dim) if same else None,
                 "q_proj_weight": None if same else (embed_dim, embed_dim),
                 "k_proj_weight": None if same else (embed_dim, self.kdim),
                 "v_proj_weight": None if same else (embed_dim, self.vdim)}
        for name, size in sizes.items():
            param = None if size is None else Parameter(np.empty(size, np.float32))
            if param is not None:
                init.xavier_uniform_(param, generator=stream)
            self.register_parameter(name, param)
        self.register_parameter("in_proj_bias", Parameter(np.zeros(3 * embed_dim, np.float32)) if bias else None)
        self.out_proj = Linear(embed_dim, embed_dim, bias)
        if self.out_proj.bias is not None:
            self.out_proj.bias.data[...] = 0
        self.set_recipe(q)
        if isinstance(q, Recipe):
            self.out_proj.set_recipe(q)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Any = None,
                need_weights: bool = True, attn_mask: Any = None, average_attn_weights: bool = True,
                is_causal: bool = False) -> tuple[Tensor, Tensor | None]:
        """Attention of queries over keys, as in PyTorch.

        Parameters
        ----------
        query : Tensor
            (N, L, E) if ``batch_first``, else (L, N, E); or one sentence, (L, E).
        key, value : Tensor
            The same with S tokens of ``kdim`` and ``vdim`` features. Passing one tensor as all three saves work.
        key_padding_mask : ndarray or Tensor, optional
            (N, S) or (S,): bool, True at padding that no query may look at; or float, added to the scores. What it
            hides is left out of keys and values before anything is coded.
        need_weights : bool
            Return the attention weights too.
        attn_mask : ndarray or Tensor, optional
            (L, S) or (N heads, L, S): bool, True where a query may NOT look at a key (the opposite of
            :func:`~minilp.nn.functional.scaled_dot_product_attention`, as in PyTorch); or float, added to the scores.
        average_attn_weights : bool
            Mean over the heads.
        is_causal : bool
            Queries look at keys up to their own position only; together with ``attn_mask`` a hint without effect.

        Returns
        -------
        (Tensor, Tensor or None)
            The result, shaped as ``query``; and the weights as they were used, behind dropout: (N, L, S), or
            (N, heads, L, S).

        Raises
        ------
        TypeError, ValueError
            If shapes or masks do not fit.
        """
        same, alone = (query is key, key is value), query.ndim == 2
        query, key, value = self._batch_first(query, key, value)
        (n, rows), columns = query.shape[:2], key.shape[1]
        padding = as_mask("key_padding_mask", key_padding_mask, query.dtype)
        padding = padding[None] if padding is not None and padding.ndim == 1 else padding
        if padding is not None and padding.shape != (n, columns):
            raise ValueError(f"MultiheadAttention: key_padding_mask must be {(n, columns)}, got {padding.shape}")
        hidden = padding if padding is not None and padding.dtype == np.bool_ else None
        mask = self._mask(attn_mask, (n, rows, columns), is_causal, query.dtype)
        if padding is not None:
            mask = joined(mask, ~padding[:, None, None] if hidden is not None else padding[:, None, None])
        seen, looking = Tokens((n, columns), None if hidden is None else ~hidden), Tokens((n, rows))
        if same == (True, True) and seen.mask is None:
            query_rows = gather(query, looking)
            parts = self.project(query_rows, looking, query_rows, query_rows, seen)
        else:
            key_rows = gather(key, seen)
            parts = self.project(gather(query, looking), looking, key_rows,
                                 key_rows if same[1] else gather(value, seen), seen)
        out, weights = self.attend(*parts, mask, looking, need_weights)
        dense = spread(out, looking)
        if not self.batch_first and not alone:
            dense = ops.transpose(dense, 0, 1)
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if alone:
            return dense[0], None if weights is None else weights[0]
        return dense, weights

    def project(self, query: Tensor, looking: Tokens, key: Tensor, value: Tensor,
                seen: Tokens) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of tokens to queries, keys and values in heads.

        Parameters
        ----------
        query : Tensor
            (T, E), the rows of ``looking``.
        looking, seen : Tokens
            The sentences of the queries, and those of keys and values.
        key, value : Tensor
            (U, kdim) and (U, vdim), the rows of ``seen``; the same tensor again where it is the same.

        Returns
        -------
        (Tensor, Tensor, Tensor)
            (N, heads, L, D), (N, heads, S, D), (N, heads, S, D), zeros at the padding.
        """
        if query is key and key is value and self.in_proj_weight is not None:
            rows = functional.linear(query, self.in_proj_weight, self.in_proj_bias, self.q)
            first, second, third = split_heads(rows, 3, self.num_heads, looking)
            return first, second, third
        return self.project_query(query, looking), *self.project_memory(key, value, seen)

    def project_query(self, query: Tensor, looking: Tokens) -> Tensor:
        """Queries alone in heads, (N, heads, L, D); arguments as :meth:`project`."""
        return split_heads(self._project(query, 0, 1), 1, self.num_heads, looking)[0]

    def project_memory(self, key: Tensor, value: Tensor, seen: Tokens) -> tuple[Tensor, Tensor]:
        """Keys and values in heads, (N, heads, S, D) each: what a decoder keeps; arguments as :meth:`project`."""
        if key is value and self.in_proj_weight is not None:
            second, third = split_heads(self._project(key, 1, 3), 2, self.num_heads, seen)
        else:
            (second,) = split_heads(self._project(key, 1, 2), 1, self.num_heads, seen)
            (third,) = split_heads(self._project(value, 2, 3), 1, self.num_heads, seen)
        return second, third

    def _project(self, rows: Tensor, begin: int, end: int) -> Tensor:
        """Of the projections of query, key and value those from ``begin`` to before ``end``, side by side."""
        part = slice(begin * self.embed_dim, end * self.embed_dim)
        if self.in_proj_weight is not None:
            weight: Tensor = self.in_proj_weight[part]
        else:
            weight = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)[begin]
        return functional.linear(rows, weight, None if self.in_proj_bias is None else self.in_proj_bias[part], self.q)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: np.ndarray | None, looking: Tokens,
               need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """Heads to rows of tokens, through the attention and the output projection.

        Parameters
        ----------
        query, key, value : Tensor
            As :meth:`project` returns them.
        mask : ndarray, optional
            Broadcasts to (N, heads, L, S): bool, True where a query may look at a key; or float, added. It need not
            know of queries that are padding.
        looking : Tokens
            The sentences of the queries.
        need_weights : bool
            Return the weights too.

        Returns
        -------
        (Tensor, Tensor or None)
            Rows (T, E) of ``looking``, and the weights (N, heads, L, S).
        """
        if looking.mask is not None and coded(self.q):  # padding must not look at anything: see the class
            mask = joined(mask, looking.mask[:, None, :, None])
        weights = attention_weights(query, key, mask, None, self.q)
        used = functional.dropout(weights, self.dropout, self.training, self.generator)
        rows = merge_heads(weighted(used, value, self.q), looking)
        return self.out_proj(rows), used if need_weights else None

    def _batch_first(self, *tensors: Tensor) -> list[Tensor]:
        """All as (N, L, F)."""
        features, found = (self.embed_dim, self.kdim, self.vdim), []
        for name, tensor, width in zip(("query", "key", "value"), tensors, features, strict=True):
            if tensor.ndim not in (2, 3) or tensor.ndim != tensors[0].ndim or tensor.shape[-1] != width:
                raise ValueError(f"MultiheadAttention: {name} must have {width} features and as many axes as the "
                                 f"query, 2 or 3; got {tensor.shape}")
            one = ops.unsqueeze(tensor, 0) if tensor.ndim == 2 else tensor
            found.append(one if self.batch_first or tensor.ndim == 2 else ops.transpose(one, 0, 1))
        if len({tensor.shape[0] for tensor in found}) > 1 or found[1].shape[1] != found[2].shape[1]:
            raise ValueError(f"MultiheadAttention: query, key and value of shapes {[t.shape for t in tensors]} do not "
                             f"belong together")
        return found

    def _mask(self, attn_mask: Any, shape: tuple[int, int, int], is_causal: bool, dtype: Any) -> np.ndarray | None:
        """PyTorch's mask as one that broadcasts to (N, heads, L, S), True where a query may look."""
        (n, rows, columns), mask = shape, as_mask("attn_mask", attn_mask, dtype)
        if mask is None:
            return causal(rows, columns) if is_causal else None
        if mask.shape == (n * self.num_heads, rows, columns):
            mask = mask.reshape(n, self.num_heads, rows, columns)
        elif mask.shape != (rows, columns):
            raise ValueError(f"MultiheadAttention: attn_mask must be {(rows, columns)} or "
                             f"{(n * self.num_heads, rows, columns)}, got {mask.shape}")
        return ~mask if mask.dtype == np.bool_ else mask

    def extra_repr(self) -> str:
        """See :meth:`Module.extra_repr`."""
        return f"{self.embed_dim}, {self.num_heads}, dropout={self.dropout}" + self._q_repr()


def joined(mask: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    """Both masks in one: bool where both are, else float, minus infinity where a bool one hides."""
    if mask is None or other is None:
        return other if mask is None else mask
    if mask.dtype == other.dtype == np.bool_:
        return mask & other
    floats = [np.where(one, 0, -math.inf).astype(np.float32) if one.dtype == np.bool_ else one for one in (mask, other)]
    return floats[0] + floats[1]
