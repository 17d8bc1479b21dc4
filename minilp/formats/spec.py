"""Which contraction: its kind, its geometry, and which axes of the operands it sums over."""
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# kind: (summed axes of a, summed axes of b, axis of a that becomes result axis 0, axis of b that becomes result axis 1)
_AXES = {
    "conv2d": ((1, 2, 3), (1, 2, 3), 0, 0),  # act (N, C, H, W), weight (O, C / groups, KH, KW) -> (N, O, OH, OW)
    "conv2d_input_grad": ((1, 2, 3), (0, 2, 3), 0, 1),  # error (N, O, OH, OW), weight -> (N, C, H, W)
    "conv2d_weight_grad": ((0, 2, 3), (0, 2, 3), 1, 1),  # error, act -> (O, C / groups, KH, KW)
    "linear": ((1,), (1,), 0, 0),  # act (T, F), weight (O, F) -> (T, O)
    "linear_input_grad": ((1,), (0,), 0, 1),  # error (T, O), weight -> (T, F)
    "linear_weight_grad": ((0,), (0,), 1, 1),  # error, act -> (O, F)
}
# Attention's products, a batch B of matrices in each operand. kind: (layout by BLAS's letters, the product it is)
_BATCHED = {
    "scores": ("nt", "forward"),  # query (B, L, D), key (B, S, D) -> (B, L, S)
    "scores_query_grad": ("nn", "input_grad"),  # error (B, L, S), key -> (B, L, D)
    "scores_key_grad": ("tn", "weight_grad"),  # error, query -> (B, S, D)
    "context": ("nn", "forward"),  # probability (B, L, S), value (B, S, E) -> (B, L, E)
    "context_probability_grad": ("nt", "input_grad"),  # error (B, L, E), value -> (B, L, S)
    "context_value_grad": ("tn", "weight_grad"),  # probability, error -> (B, S, E)
}
# layout: as _AXES; axis 0 of both operands and of the result is the batch
_LAYOUTS = {"nt": ((2,), (2,), 1, 1), "nn": ((2,), (1,), 1, 2), "tn": ((1,), (1,), 2, 2)}
_AXES |= {kind: _LAYOUTS[layout] for kind, (layout, _) in _BATCHED.items()}
KINDS = tuple(_AXES)


@dataclass(frozen=True)
class Spec:
    """One contraction of two operands, named as the gradient it computes.

    Parameters
    ----------
    kind : str
        ``conv2d`` (act, weight), ``conv2d_input_grad`` (error, weight), ``conv2d_weight_grad`` (error, act), or the
        same three for ``linear``. Batches of matrix products: ``scores`` (query, key), ``scores_query_grad`` (error,
        key), ``scores_key_grad`` (error, query), ``context`` (probability, value), ``context_probability_grad`` (error,
        value), ``context_value_grad`` (probability, error).
    stride, padding, dilation : tuple of int
        Vertical and horizontal; convolutions only.
    groups : int
        Channel groups.
    size : tuple of int or None
        (H, W) of the input for an input gradient, (KH, KW) for a weight gradient, else None.
    """

    kind: str
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.kind not in _AXES:
            raise ValueError(f"Spec: kind must be one of {', '.join(KINDS)}, got {self.kind!r}")

    @property
    def axes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Axes of the first and of the second operand that the contraction sums over."""
        return _AXES[self.kind][:2]

    @property
    def kept(self) -> tuple[int, int]:
        """The axis of the first operand that becomes result axis 0, and that of the second that becomes axis 1.

        Behind the batch, in a batch of matrix products: result axes 1 and 2.
        """
        return _AXES[self.kind][2:]

    @property
    def layout(self) -> str | None:
        """Of a batch of matrix products, by BLAS's letters: which operand is transposed. None for other kinds.

        ``"nt"``: (B, M, K) and (B, N, K); ``"nn"``: (B, M, K) and (B, K, N); ``"tn"``: (B, K, M) and (B, K, N); the
        result is (B, M, N).
        """
        return _BATCHED[self.kind][0] if self.kind in _BATCHED else None

    @property
    def product(self) -> str:
        """``"forward"``, or the gradient of the first (``"input_grad"``) or second (``"weight_grad"``) factor."""
        if self.kind in _BATCHED:
            return _BATCHED[self.kind][1]
        return self.kind.split("_", 1)[1] if "_" in self.kind else "forward"

    def run(self, position: int, shape: tuple[int, ...]) -> tuple[int, int]:
        """The innermost run of the sum in an operand, which formats with blocks along the sum cut into blocks.

        Channels (features) forward and for the input gradient, within one group of channels; images (tokens) for the
        weight gradient.

        Parameters
        ----------
        position : int
            0 for the first operand, 1 for the second.
        shape : tuple of int
            Its shape.

        Returns
        -------
        (int, int)
            An axis of the operand, and the length after which another sum's run begins along it.
        """
        axis = self.axes[position][0]
        whole = self.product == "weight_grad" or (self.kind == "conv2d" and position == 1)
        return axis, shape[axis] // (1 if whole else self.groups)

    def terms(self, a_shape: tuple[int, ...], b_shape: tuple[int, ...]) -> int:
        """Most products that one result element sums.

        Parameters
        ----------
        a_shape, b_shape : tuple of int
            Shapes of the operands.
        """
        if self.kind == "conv2d_input_grad":
            return b_shape[0] // self.groups * b_shape[2] * b_shape[3]
        shape, axes = (a_shape, self.axes[0]) if self.product == "weight_grad" else (b_shape, self.axes[1])
        count = 1
        for axis in axes:
            count *= shape[axis]
        return count

    def macs(self, a_shape: tuple[int, ...], b_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> int:
        """Multiply-accumulates of the contraction, dense: products with padding zeros count, as published counts do.

        Parameters
        ----------
        a_shape, b_shape, out_shape : tuple of int
            Shapes of the operands and of the result.

        Returns
        -------
        int
            The same for a layer's three contractions: elements of the output (or its error) times products in each.
        """
        if self.layout is not None:
            return math.prod(out_shape) * a_shape[self.axes[0][0]]
        if self.kind.endswith("weight_grad"):
            return math.prod(a_shape) * math.prod(out_shape[1:])
        return math.prod(a_shape if self.kind.endswith("input_grad") else out_shape) * math.prod(b_shape[1:])

    def runs(self, a_shape: tuple[int, ...], b_shape: tuple[int, ...], a_parts: tuple[int, ...],
             b_parts: tuple[int, ...]) -> int:
        """Runs of constant scale in the sum of one result element.

        Parameters
        ----------
        a_shape, b_shape : tuple of int
            Shapes of the operands.
        a_parts, b_parts : tuple of int
            How many scales lie along each of their axes; 1 where a scale is shared.
        """
        count = 1
        split = 1 if self.product == "weight_grad" else self.groups  # the sum sees one group of a's channels
        for place, (i, j) in enumerate(zip(*self.axes, strict=True)):
            share = split if place == 0 else 1
            other = share if self.kind == "conv2d_input_grad" else 1
            if place == 0:
                count *= max(1, a_parts[i] // share, b_parts[j] // other)
            elif a_parts[i] > 1 or b_parts[j] > 1:
                count *= a_shape[i] if self.product == "weight_grad" else b_shape[j]
        return count

    def on_result(self, scale: np.ndarray, position: int, shape: tuple[int, ...]) -> np.ndarray:
        """Scales along an operand's kept axis, shaped to broadcast against the result.

        Parameters
        ----------
        scale : numpy.ndarray
            One-dimensional, any dtype: one entry for each index of the kept axis. In a batch of matrix products three-
            dimensional: an operand's scales, which may vary along the batch too.
        position : int
            0 for the first operand, 1 for the second.
        shape : tuple of int
            The result's shape.

        Returns
        -------
        numpy.ndarray
            As many axes as the result, the same dtype.
        """
        if self.layout is not None:  # what is summed has length 1, so only its place may differ
            return scale.swapaxes(1, 2) if self.kept[position] != 1 + position else scale
        if position == 0:
            return scale.reshape(-1, *(1,) * (len(shape) - 1))
        if self.groups > 1 and self.kind == "conv2d_input_grad":  # channel g * I + i has the weight's input channel i
            scale = np.tile(scale, self.groups)
        if self.groups > 1 and self.kind == "conv2d_weight_grad":  # row o sees the act channels of its own group
            rows = np.repeat(scale.reshape(self.groups, -1), shape[0] // self.groups, axis=0)
            return rows.reshape(*shape[:2], *(1,) * (len(shape) - 2))
        return scale.reshape(1, -1, *(1,) * (len(shape) - 2))
