"""The shape of one power-of-two contraction: what is summed over what, and how many bits the sum can need.

The three contractions of a layer are one convolution seen from three sides. :class:`Geometry` holds the convolution's
sizes once; the kernels, their NumPy twins and the checks of the wrapper all read it.
"""
from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilp.kernels.layout import Pair, check_pair, output_size

Array = np.ndarray[Any, np.dtype[Any]]
KINDS = ("conv2d", "conv2d_input_grad", "conv2d_weight_grad", "linear", "linear_input_grad", "linear_weight_grad")
BITS = (3, 4, 5, 6)


def span(bits: int) -> int:
    """Distance in octaves between the smallest and the largest power of a ``bits``-bit power-of-two format."""
    return 2 ** (bits - 1) - 2


def top_code(bits: int) -> int:
    """Largest code, ``2**(bits-1) - 1``; codes run from minus that to plus that and 0 is zero."""
    return span(bits) + 1


@functools.lru_cache(maxsize=4096)
def sum_bits(bits_a: int, bits_b: int, depth: int) -> int:
    """Bits that a sum of ``depth`` products can need: the largest sum is ``depth * 2**(span_a + span_b)``.

    Every partial sum is smaller than ``2**(sum_bits + 1)`` in size, and at most ``2**sum_bits``: with 62 it fits int64,
    with 53 float64, with 24 float32.
    """
    return span(bits_a) + span(bits_b) + max(depth - 1, 0).bit_length()


@dataclass(frozen=True)
class Geometry:
    """Sizes of one convolution and which of its three contractions is meant.

    Attributes
    ----------
    kind : str
        ``"conv2d"``, ``"conv2d_input_grad"`` or ``"conv2d_weight_grad"``.
    batch, channels, features, groups : int
        N, input channels C, output channels O, groups.
    size, out_size, kernel : (int, int)
        Input (H, W), output (OH, OW), kernel (KH, KW).
    stride, padding, dilation : (int, int)
    """

    kind: str
    batch: int
    channels: int
    features: int
    groups: int
    size: Pair
    out_size: Pair
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair

    @functools.cached_property
    def depth(self) -> int:
        """Length K of the sum behind one result (taps that fall on the padding included)."""
        taps = self.kernel[0] * self.kernel[1]
        return {"conv2d": self.channels // self.groups * taps,
                "conv2d_input_grad": self.features // self.groups * taps,
                "conv2d_weight_grad": self.batch * self.out_size[0] * self.out_size[1]}[self.kind]

    @functools.cached_property
    def sizes(self) -> tuple[int, ...]:
        """The fields of the C core's ``mlp_f32_geometry``."""
        return (self.batch, self.channels, *self.size, self.features, *self.kernel, *self.stride, *self.padding,
                *self.dilation, self.groups)

    def group(self) -> Geometry:
        """The same contraction for one of the groups alone."""
        return Geometry(self.kind, self.batch, self.channels // self.groups, self.features // self.groups, 1, self.size,
                        self.out_size, self.kernel, self.stride, self.padding, self.dilation)


def geometry(kind: str, a: Array, b: Array, stride: Pair, padding: Pair, dilation: Pair, groups: int,
             size: Pair | None) -> Geometry:
    """Check the operands of a convolution's contraction against each other.

    Parameters
    ----------
    kind : str
        One of the three ``conv2d*`` kinds.
    a, b : np.ndarray
        4-D code arrays in the operand order of :func:`minilp.kernels.pot.pot_contract`.
    stride, padding, dilation : (int, int)
    groups : int
    size : (int, int) or None
        Input size for the input gradient, kernel size for the weight gradient, None for the forward contraction.

    Returns
    -------
    Geometry

    Raises
    ------
    ValueError
        If an argument is out of range or the shapes do not belong together.
    """
    stride, padding = check_pair("stride", stride, 1), check_pair("padding", padding, 0)
    dilation = check_pair("dilation", dilation, 1)
    if not isinstance(groups, (int, np.integer)) or groups < 1:
        raise ValueError(f"groups must be an int of at least 1, got {groups!r}")
    if (size is None) != (kind == "conv2d"):
        raise ValueError(f"{kind}: size must be {'None' if kind == 'conv2d' else 'a pair of ints'}, got {size!r}")
    if size is not None:
        size = check_pair("size", size, 0 if kind == "conv2d_input_grad" else 1)
    return _geometry(kind, a.shape, b.shape, stride, padding, dilation, int(groups), size)


@functools.lru_cache(maxsize=4096)
def _geometry(kind: str, a: tuple[int, ...], b: tuple[int, ...], stride: Pair, padding: Pair, dilation: Pair,
              groups: int, size: Pair | None) -> Geometry:
    """:func:`geometry` of operands of these shapes, the same object for every step of a training."""
    for name, shape in (("a", a), ("b", b)):
        if len(shape) != 4:
            raise ValueError(f"{kind}: {name} must have 4 axes, got shape {shape}")
    if kind == "conv2d":
        (n, c, h, w), (o, per_group, kh, kw) = a, b
    elif kind == "conv2d_input_grad":
        (n, o), (_, per_group, kh, kw) = a[:2], b
        assert size is not None
        (h, w), c = size, per_group * groups
        if b[0] != o:
            raise ValueError(f"{kind}: error has {o} channels but the weight's shape is {b}")
    else:
        (n, o), (_, c, h, w) = a[:2], b
        assert size is not None
        (kh, kw), per_group = size, c // groups
        if b[0] != n:
            raise ValueError(f"{kind}: error has {n} samples but the activation {b[0]}")
    if o % groups or c != per_group * groups:
        raise ValueError(f"{kind}: {o} output and {c} input channels do not split into {groups} groups "
                         f"(shapes {a} and {b})")
    out = output_size((h, w), (kh, kw), stride, padding, dilation)
    if kind != "conv2d" and a[2:] != out:
        raise ValueError(f"{kind}: the error's shape is {a}, but an input of {(h, w)} with kernel {(kh, kw)}, "
                         f"stride {stride}, padding {padding}, dilation {dilation} gives outputs of {out}")
    return Geometry(kind, n, c, o, groups, (h, w), out, (kh, kw), stride, padding, dilation)
