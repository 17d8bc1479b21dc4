"""What can be counted: records of shapes and formats, made by a running step or from the shapes of a network alone."""
from __future__ import annotations

from typing import Any, NamedTuple

from minilp.formats import Format
from minilp.roles import Role

FORWARD, INPUT_GRAD, WEIGHT_GRAD = "forward", "input_grad", "weight_grad"
QUANTISATION, SCALING, TREE, NORM, OPTIMIZER = "quantisation", "scaling", "tree", "norm", "optimizer"
PRODUCTS = (FORWARD, INPUT_GRAD, WEIGHT_GRAD)
ROLES = (*PRODUCTS, QUANTISATION, SCALING, TREE, NORM, OPTIMIZER)
"""What operations are for: the three products, coding operands, scales inside and behind sums, adding runs, ..."""

OPERANDS = {FORWARD: ("act", "weight"), INPUT_GRAD: ("error", "weight"), WEIGHT_GRAD: ("error", "act")}
FACTORS = {FORWARD: ("act", "act"), INPUT_GRAD: ("error", "act"), WEIGHT_GRAD: ("error", "act")}
"""The same of a product of two activations; their order does not matter to a count, and is this one in every record."""


class Operand(NamedTuple):
    """One factor of a contraction: tensor class, format (None is float32), elements, bits of its scales."""

    tensor: str
    format: Format | None
    elements: int
    scale_bits: int = 0

    @property
    def nbits(self) -> int:
        """Bits of the tensor as it is stored: codes at the format's width, and scales."""
        return self.elements * (32 if self.format is None else self.format.stored_bits) + self.scale_bits


class Product(NamedTuple):
    """One contraction: multiply-accumulates, elements of the result, runs of constant scale in each sum, factors."""

    layer: str
    role: str
    macs: int
    outputs: int
    runs: int
    first: Operand
    second: Operand


class Encoding(NamedTuple):
    """One tensor encoded; ``source`` is the format of the codes it came from, None for float32."""

    layer: str
    role: Role
    coded: Operand
    source: Format | None


class Normalised(NamedTuple):
    """Elements that went through a normalisation; ``kind`` as ``Function.counts_as``, forward or backward."""

    layer: str
    kind: str
    backward: bool


class Updated(NamedTuple):
    """Elements that an optimizer stepped: operations an element, format they live in, arrays remembered of each.

    ``operations`` is a tuple of pairs, or the sentence that says why they are not known.
    """

    layer: str
    operations: tuple[tuple[str, int], ...] | str
    format: Format | None
    states: int


Event = Product | Encoding | Normalised | Updated
Tally = dict[Any, int]
"""How often each Product and Encoding happened; how many elements each Normalised and Updated stands for."""


def parts(scale_shapes: tuple[tuple[int, ...], ...], ndim: int) -> tuple[int, ...]:
    """How many scales lie along each axis: the most of all arrays of scales.

    Parameters
    ----------
    scale_shapes : tuple of tuple of int
        Shapes of the arrays of scales of one tensor.
    ndim : int
        Axes of the tensor.
    """
    return tuple(max((shape[axis] for shape in scale_shapes), default=1) for axis in range(ndim))
