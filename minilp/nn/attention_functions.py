"""Scaled dot-product attention: the public function, and its core for operands whose padding is already zero."""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilp import products, random
from minilp.autograd import Tensor, ops
from minilp.autograd.attention import masked_softmax
from minilp.roles import LayerRecipe


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None,
                                 dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, *,
                                 q: LayerRecipe | None = None,
                                 generator: np.random.Generator | None = None) -> Tensor:
    """softmax(scale query key^T + mask) value (Vaswani et al. 2017, section 3.2.1), as PyTorch's function of this name.

    Parameters
    ----------
    query : Tensor
        (..., L, D), float.
    key : Tensor
        (..., S, D).
    value : Tensor
        (..., S, E). The leading axes of all three are the same.
    attn_mask : ndarray or Tensor, optional
        Broadcasts to (..., L, S): bool, True where a query may look at a key; or float, added to the scores.
    dropout_p : float
        Probability of zeroing an attention weight, the others scaled up. Applied whenever it is not 0, as in PyTorch.
    is_causal : bool
        A query looks at keys up to its own position only; not together with ``attn_mask``.
    scale : float, optional
        Factor of the scores; None is 1 / sqrt(D).
    q : LayerRecipe or None
        Numbers of both products; None is plain float. Keys and values that a bool mask hides from every query, and
        queries that see no key, are zeroed before they are coded: padding reaches no scale.
    generator : numpy.random.Generator, optional
        Where dropout draws from; None is a fresh stream of ``minilp.manual_seed``'s seed.

    Returns
    -------
    Tensor
        (..., L, E). A query that sees no key gets zeros.

    Raises
    ------
    TypeError, ValueError
        If the shapes do not fit, a mask is neither bool nor float, or two masks are given.
    """
    check_shapes(query, key, value)
    lead, (rows, columns) = query.shape[:-2], (query.shape[-2], key.shape[-2])
    if attn_mask is not None and is_causal:
        raise ValueError("scaled_dot_product_attention: give attn_mask or is_causal, not both")
    mask = causal(rows, columns) if is_causal else as_mask("attn_mask", attn_mask, query.dtype)
    if mask is not None and np.broadcast_shapes(mask.shape, (*lead, rows, columns)) != (*lead, rows, columns):
        raise ValueError(f"scaled_dot_product_attention: attn_mask has shape {mask.shape}, which does not broadcast to "
                         f"{(*lead, rows, columns)}")
    if coded(q) and mask is not None and mask.dtype == np.bool_ and not is_causal:
        query = _zeroed(query, np.asarray(mask.any(-1, keepdims=True)))
        seen = np.asarray(mask.any(-2, keepdims=True)).swapaxes(-1, -2)
        key, value = _zeroed(key, seen), _zeroed(value, seen)
    weights = attention_weights(query, key, mask, scale, q)
    if dropout_p:
        weights = ops.dropout(weights, dropout_p, random.spawn() if generator is None else generator)
    return weighted(weights, value, q)


def attention_weights(query: Tensor, key: Tensor, mask: np.ndarray | None, scale: float | None,
                      q: LayerRecipe | None) -> Tensor:
    """softmax(scale query key^T + mask), (..., L, S); operands as for :func:`scaled_dot_product_attention`.

    Parameters
    ----------
    query, key : Tensor
        Where they are coded, zero at the padding.
    mask : ndarray, optional
        bool, True where a query may look at a key, or float.
    scale : float, optional
        None is 1 / sqrt(D).
    q : LayerRecipe or None
        Numbers of the product.
    """
    if coded(q):
        assert q is not None
        scores = products.scores(_batched(query), _batched(key), q).reshape(*query.shape[:-1], key.shape[-2])
    else:
        scores = ops.matmul(query, ops.transpose(key, -1, -2))
    return masked_softmax(scores, mask, 1 / math.sqrt(query.shape[-1]) if scale is None else scale)


def weighted(weights: Tensor, value: Tensor, q: LayerRecipe | None) -> Tensor:
    """weights value, (..., L, E).

    Parameters
    ----------
    weights : Tensor
        (..., L, S).
    value : Tensor
        (..., S, E).
    q : LayerRecipe or None
        Numbers of the product.
    """
    if not coded(q):
        return ops.matmul(weights, value)
    assert q is not None
    return products.context(_batched(weights), _batched(value), q).reshape(*weights.shape[:-1], value.shape[-1])


def coded(q: LayerRecipe | None) -> bool:
    """Whether attention's products run in the contraction room."""
    return q is not None and q.products is not None


def causal(rows: int, columns: int) -> np.ndarray:
    """True where query i may look at key j, j <= i: bool (rows, columns)."""
    return np.tri(rows, columns, dtype=np.bool_)


def as_mask(name: str, mask: Any, dtype: Any) -> np.ndarray | None:
    """A mask as an array of bool or of the operands' dtype; None stays None. TypeError for other dtypes."""
    if mask is None:
        return None
    array = mask.data if isinstance(mask, Tensor) else np.asarray(mask)
    if array.dtype == np.bool_:
        return array
    if array.dtype.kind != "f":
        raise TypeError(f"{name}: expected a bool or float mask, got {array.dtype}")
    return array.astype(dtype, copy=False)


def check_shapes(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Raise ValueError unless query (..., L, D), key (..., S, D) and value (..., S, E) belong together."""
    shapes = query.shape, key.shape, value.shape
    if min(map(len, shapes)) < 2 or len({shape[:-2] for shape in shapes}) > 1 or shapes[0][-1] != shapes[1][-1] \
            or shapes[1][-2] != shapes[2][-2]:
        raise ValueError(f"scaled_dot_product_attention: expected query (..., L, D), key (..., S, D) and value "
                         f"(..., S, E), got {shapes[0]}, {shapes[1]} and {shapes[2]}")


def _batched(x: Tensor) -> Tensor:
    """All leading axes as one."""
    return x if x.ndim == 3 else x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])


def _zeroed(x: Tensor, where: np.ndarray) -> Tensor:
    """``x`` with zeros where ``where`` (which broadcasts to it) is False."""
    return x if where.all() else ops.where(where, x, np.zeros((), x.dtype))
