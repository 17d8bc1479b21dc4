"""Products of two activations in the contraction room: attention's scores and context.

Both are batches of matrix products. The room codes their operands in the role ``act`` and the gradient of the result in
the role ``error``, each once; forward and both backward products run on those codes:

====================  ==============================  ==============================  ========================
forward               operands                        gradient of the first           gradient of the second
====================  ==============================  ==============================  ========================
``scores``            query (B, L, D), key (B, S, D)  ``scores_query_grad``           ``scores_key_grad``
``context``           probability (B, L, S), value    ``context_probability_grad``    ``context_value_grad``
                      (B, S, E)
====================  ==============================  ==============================  ========================
"""
from __future__ import annotations

from typing import Any

import numpy as np

from minilp.autograd import Function, Tensor
from minilp.formats import Spec
from minilp.formats.rounding import clock, rounding_context
from minilp.multiply import multiply
from minilp.operands import encode
from minilp.roles import LayerRecipe

# kind: (gradient of the first operand, gradient of the second, whether the error comes first in that one)
_BACKWARD = {"scores": ("scores_query_grad", "scores_key_grad", True),
             "context": ("context_probability_grad", "context_value_grad", False)}


class Product(Function):
    """A batch of matrix products on codes; backward encodes the error once and multiplies it twice."""

    counts_as = "room"

    @staticmethod
    def forward(ctx: Any, a: np.ndarray, b: np.ndarray, layer: LayerRecipe, kind: str) -> np.ndarray:
        """Encode ``a`` and ``b``, two activations, and multiply them."""
        spec = Spec(kind)
        first = encode(a, "act", layer, layer.next_call(clock()), {}, layer.products)
        ctx.call = layer.next_call(clock())  # another one: two operands, two rounding streams
        second = encode(b, "act", layer, ctx.call, {}, layer.products)
        ctx.save_for_backward(first, second)
        ctx.layer, ctx.kind, ctx.clock = layer, kind, clock()
        return multiply(first.for_contraction(spec, 0), second.for_contraction(spec, 1), spec)

    @staticmethod
    def backward(ctx: Any, grad: np.ndarray) -> tuple[Any, ...]:
        """Gradients of both operands, each skipped where nobody needs it."""
        first, second = ctx.saved
        of_first, of_second, error_first = _BACKWARD[ctx.kind]
        da = db = None
        with rounding_context(*ctx.clock):
            error = encode(grad, "error", ctx.layer, ctx.call, {}, ctx.layer.products)
            if ctx.needs_input_grad[0]:
                spec = Spec(of_first)
                da = multiply(error.for_contraction(spec, 0), second.for_contraction(spec, 1), spec)
                da, _ = first.backward(da, "act")
            if ctx.needs_input_grad[1]:
                spec = Spec(of_second)
                left, right = (error, first) if error_first else (first, error)
                db = multiply(left.for_contraction(spec, 0), right.for_contraction(spec, 1), spec)
                db, _ = second.backward(db, "act")
        return da, db, None, None


def scores(query: Tensor, key: Tensor, q: LayerRecipe) -> Tensor:
    """Every query times every key, on codes.

    Parameters
    ----------
    query : Tensor
        (B, L, D), float32: B matrices, one for each head of each sentence.
    key : Tensor
        (B, S, D), float32.
    q : LayerRecipe
        Whose ``products`` say what plays which role.

    Returns
    -------
    Tensor
        (B, L, S), float32.

    Raises
    ------
    TypeError, ValueError
        If an operand is not float32 or the shapes do not fit, or a tensor with NaN or Inf is to be encoded.
    """
    return _apply("scores", query, key, q, ("query", "key"), 2)


def context(probability: Tensor, value: Tensor, q: LayerRecipe) -> Tensor:
    """The values, weighted by the probabilities, on codes.

    Parameters
    ----------
    probability : Tensor
        (B, L, S), float32.
    value : Tensor
        (B, S, E), float32.
    q : LayerRecipe
        As for :func:`scores`.

    Returns
    -------
    Tensor
        (B, L, E), float32.

    Raises
    ------
    TypeError, ValueError
        As for :func:`scores`.
    """
    return _apply("context", probability, value, q, ("probability", "value"), 1)


def _apply(kind: str, a: Tensor, b: Tensor, q: LayerRecipe, names: tuple[str, str], axis: int) -> Tensor:
    for name, tensor in zip(names, (a, b), strict=True):
        if tensor.dtype != np.float32:
            raise TypeError(f"{kind}: coded contractions take float32, but {name} is {tensor.dtype}")
    if a.ndim != 3 or b.ndim != 3 or a.shape[0] != b.shape[0] or a.shape[2] != b.shape[axis]:
        raise ValueError(f"{kind}: expected {names[0]} (B, L, K) and {names[1]} (B, "
                         f"{'S, K' if axis == 2 else 'K, E'}), got {a.shape} and {b.shape}")
    return Product.apply(a, b, q, kind)
