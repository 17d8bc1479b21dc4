"""The shape of one layer, and the arithmetic that follows from it: no weights, no data."""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

Pair = tuple[int, int]

CONTRACTIONS = ("conv2d", "linear", "matmul")
POOLS = ("max_pool", "avg_pool")
ELEMENTWISE = ("batch_norm", "layer_norm", "relu", "gelu", "tanh", "sigmoid", "softmax", "add", "mul", "embedding")
KINDS = CONTRACTIONS + POOLS + ELEMENTWISE


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerShape:
    """What one layer does to one picture or one sequence. A batch of N is N times as much of everything but ``params``.

    Which fields count depends on ``kind``; the others keep their defaults.

    Parameters
    ----------
    name : str
        Where the layer stands, as in ``layer1.0.conv2``.
    kind : str
        A contraction: "conv2d", "linear", "matmul" (both factors are activations: attention).
        A pooling: "max_pool", "avg_pool". Else one of ``ELEMENTWISE``; "add" is a residual or positional sum of two
        tensors, "mul" a product of a tensor with a number (the 1 / sqrt(d) of attention) or another tensor.
        What does no arithmetic (concatenation, reshapes, dropout at evaluation) has no record.
    in_channels, out_channels : int
        conv2d and poolings.
    kernel, stride, padding, dilation : (int, int)
        conv2d and poolings, height before width. Padding is zeros on each side.
    groups : int
        conv2d.
    in_size, out_size : (int, int)
        conv2d and poolings: height and width of the picture that comes and goes.
    in_features, out_features, tokens : int
        linear: each of ``tokens`` rows of ``in_features`` gives ``out_features``.
    m, k, n, heads : int
        matmul: ``heads`` products of (m, k) with (k, n).
    keys : bool
        matmul: the second factor is there as (n, k), one row for each column of the result, as keys are for scores.
    elements : int
        Elementwise kinds: elements of the result.
    features : int
        batch_norm: channels. layer_norm, softmax: length of the axis that is normalised. embedding: length of a row.
    rows : int
        embedding: rows of the table.
    bias : bool
        conv2d, linear: one learned number is added per output channel or feature.
        batch_norm, layer_norm: they learn a scale and a shift.
    shared : bool
        What the layer learns is another layer's too and is counted there: ``params`` is 0.
    input_grad : bool
        False for a layer that sees the data: training computes no gradient of its input.

    Raises
    ------
    ValueError
        If the kind is unknown, a size is not positive, the groups do not divide the channels, or a convolution's
        ``out_size`` does not follow from its ``in_size``.
    """

    name: str
    kind: str
    in_channels: int = 0
    out_channels: int = 0
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    in_size: Pair = (1, 1)
    out_size: Pair = (1, 1)
    in_features: int = 0
    out_features: int = 0
    tokens: int = 1
    m: int = 0
    k: int = 0
    n: int = 0
    heads: int = 1
    keys: bool = False
    elements: int = 0
    features: int = 0
    rows: int = 0
    bias: bool = False
    shared: bool = False
    input_grad: bool = True

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.name}: kind: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        needed: dict[str, tuple[str, ...]] = {"linear": ("in_features", "out_features", "tokens"),
                                              "matmul": ("m", "k", "n", "heads"),
                                              "embedding": ("rows", "features", "elements")}
        spatial = self.kind == "conv2d" or self.kind in POOLS
        names = ("in_channels", "out_channels", "groups") if spatial else needed.get(self.kind, ("elements",))
        for field in names:
            if getattr(self, field) < 1:
                raise ValueError(f"{self.name}: a {self.kind} needs {field} >= 1, got {getattr(self, field)}")
        if spatial and min(*self.kernel, *self.stride, *self.in_size, *self.out_size) < 1:
            raise ValueError(f"{self.name}: kernel, stride, in_size and out_size must be positive, got {self.kernel}, "
                             f"{self.stride}, {self.in_size}, {self.out_size}")
        if self.kind == "conv2d":
            self._check_conv()

    def _check_conv(self) -> None:
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(f"{self.name}: groups={self.groups} does not divide in_channels={self.in_channels} and "
                             f"out_channels={self.out_channels}")
        expected = tuple(conv_size(n, k, s, p, d) for n, k, s, p, d in
                         zip(self.in_size, self.kernel, self.stride, self.padding, self.dilation, strict=True))
        if self.out_size != expected:
            raise ValueError(f"{self.name}: out_size: {self.in_size} becomes {expected}, got {self.out_size}")

    @property
    def is_contraction(self) -> bool:
        """bool: conv2d, linear or matmul."""
        return self.kind in CONTRACTIONS

    @property
    def summed(self) -> int:
        """int: products that are summed into one output element of a contraction; 0 for other layers."""
        if self.kind == "conv2d":
            return self.in_channels // self.groups * math.prod(self.kernel)
        return {"linear": self.in_features, "matmul": self.k}.get(self.kind, 0)

    @property
    def macs(self) -> int:
        """int: multiply-accumulates of the forward pass, dense: products with padding zeros count, biases do not."""
        return self.activations_out * self.summed

    @property
    def weights(self) -> int:
        """int: elements of the weight that a contraction multiplies with; 0 for a matmul and for other layers."""
        if self.kind == "conv2d":
            return self.out_channels * self.summed
        return self.in_features * self.out_features if self.kind == "linear" else 0

    @property
    def params(self) -> int:
        """int: learned numbers, biases included."""
        if self.shared:
            return 0
        if self.kind == "embedding":
            return self.rows * self.features
        if self.kind in ("batch_norm", "layer_norm"):
            return 2 * self.features * self.bias
        outputs = self.out_channels if self.kind == "conv2d" else self.out_features
        return self.weights + outputs * self.bias

    @property
    def activations_in(self) -> int:
        """int: elements of all tensors that come in, weights excluded. An embedding reads integers: 0."""
        if self.kind == "conv2d" or self.kind in POOLS:
            return self.in_channels * math.prod(self.in_size)
        return {"linear": self.tokens * self.in_features, "matmul": self.heads * (self.m * self.k + self.k * self.n),
                "add": 2 * self.elements, "embedding": 0}.get(self.kind, self.elements)

    @property
    def activations_out(self) -> int:
        """int: elements of the result."""
        if self.kind == "conv2d" or self.kind in POOLS:
            return self.out_channels * math.prod(self.out_size)
        return {"linear": self.tokens * self.out_features,
                "matmul": self.heads * self.m * self.n}.get(self.kind, self.elements)

    @property
    def training_macs(self) -> int:
        """int: multiply-accumulates of one training step: forward, and the gradients of both factors.

        Each of the three products of a layer has as many; a layer with ``input_grad=False`` has two products.
        """
        return self.macs * (3 if self.input_grad else 2)


def conv_size(size: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> int:
    """Length of one axis behind a convolution or pooling (rounded down), as PyTorch.

    Parameters
    ----------
    size : int
        Pixels that come.
    kernel, stride, padding, dilation : int
        Of the convolution along this axis.

    Returns
    -------
    int
        Pixels that go.
    """
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def total(layers: Iterable[LayerShape], what: str = "macs", kinds: Iterable[str] = KINDS) -> int:
    """Sum one count over layers.

    Parameters
    ----------
    layers : iterable of LayerShape
        Such as :func:`minilp.energy.network` returns.
    what : str
        A count of :class:`LayerShape`: "macs", "training_macs", "params", "weights", "activations_in",
        "activations_out".
    kinds : iterable of str
        Only layers of these kinds.

    Returns
    -------
    int
        The sum.

    Raises
    ------
    ValueError
        If there is no such count.
    """
    counts = ("macs", "training_macs", "params", "weights", "activations_in", "activations_out")
    if what not in counts:
        raise ValueError(f"what: expected one of {', '.join(counts)}, got {what!r}")
    kinds = tuple(kinds)
    return sum(getattr(layer, what) for layer in layers if layer.kind in kinds)
