"""Normalisation layers."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minilp.autograd import Tensor
from minilp.autograd.parameter import Parameter
from minilp.nn import functional
from minilp.nn.module import Module


class BatchNorm2d(Module):
    """Normalise each channel over batch, height and width (Ioffe & Szegedy 2015).

    In training the statistics are the batch's (biased variance), and running ones are kept for evaluation (unbiased
    variance), as in PyTorch.

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float
        Added to the variance.
    momentum : float or None
        Share of the new statistics in the running ones; None averages over all batches.
    affine : bool
        Learn a scale and a shift per channel.
    track_running_stats : bool
        Keep running statistics; without them evaluation uses the batch's too.
    bias : bool
        False leaves the shift out.
    relu : bool
        Follow it with a ReLU, in the same pass over memory: the same numbers as a ReLU behind it.

    Attributes
    ----------
    weight, bias : Parameter or None
        float32 (num_features,), ones and zeros at first.
    running_mean, running_var : ndarray or None
        float32 buffers (num_features,), zeros and ones at first.
    num_batches_tracked : ndarray or None
        int64 buffer of shape ().
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, *, bias: bool = True, relu: bool = False) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats, self.relu = affine, track_running_stats, relu
        self.register_parameter("weight", Parameter(np.ones(num_features, np.float32)) if affine else None)
        self.register_parameter("bias", Parameter(np.zeros(num_features, np.float32)) if affine and bias else None)
        track = track_running_stats
        self.register_buffer("running_mean", np.zeros(num_features, np.float32) if track else None)
        self.register_buffer("running_var", np.ones(num_features, np.float32) if track else None)
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64) if track else None)

    def reset_running_stats(self) -> None:
        """Forget the running statistics."""
        if self.track_running_stats:
            self.running_mean[...] = 0
            self.running_var[...] = 1
            self.num_batches_tracked[...] = 0

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """(N, num_features, H, W) to the same shape; ``residual``, of that shape, is added in front of the ReLU."""
        if x.ndim != 4 or x.shape[1] != self.num_features:
            raise ValueError(f"BatchNorm2d: expected (N, {self.num_features}, H, W), got {x.shape}")
        momentum = self.momentum
        if self.training and self.track_running_stats:
            self.num_batches_tracked += 1
            if momentum is None:
                momentum = 1 / int(self.num_batches_tracked)
        return functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias,
                                     self.training or not self.track_running_stats,
                                     0.0 if momentum is None else momentum, self.eps, self.relu, residual)

    def extra_repr(self) -> str:
        """See :meth:`Module.extra_repr`."""
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
                f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
                + ", relu=True" * self.relu)


class LayerNorm(Module):
    """Normalise over the last axes (Ba et al. 2016).

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Lengths of the axes to normalise over.
    eps : float
        Added to the variance.
    elementwise_affine : bool
        Learn a scale per element.
    bias : bool
        And a shift.

    Attributes
    ----------
    weight, bias : Parameter or None
        float32 of ``normalized_shape``, ones and zeros at first.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(self, normalized_shape: int | Sequence[int], eps: float = 1e-5, elementwise_affine: bool = True,
                 bias: bool = True) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape, self.eps, self.elementwise_affine = shape, eps, elementwise_affine
        self.register_parameter("weight", Parameter(np.ones(shape, np.float32)) if elementwise_affine else None)
        self.register_parameter("bias", Parameter(np.zeros(shape, np.float32)) if elementwise_affine and bias else None)

    def forward(self, x: Tensor) -> Tensor:
        """(..., *normalized_shape) to the same shape."""
        return functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """See :meth:`Module.extra_repr`."""
        return (f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
                f"bias={self.bias is not None}")
