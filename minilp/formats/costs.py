"""What a format's arithmetic takes in operations, for :mod:`minilp.energy`: an unknown is an error, never free.

Operations are named by kind and width: ``fp32_mul``, ``fp8_mul``, ``int8_mul``, ``int32_add``, ``int32_shift``,
``xor1``. A comparison counts as an addition of the same width. They model the arithmetic units that the papers speak
of, not the instructions of the CPU that simulates them.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minilp.formats.base import Format


class Costs:
    """The part of :class:`~minilp.formats.Format` that says what things cost."""

    def cost(self, other: Format) -> dict[str, int]:
        """Operations of one multiply-accumulate with an operand of format ``other``.

        Returns
        -------
        dict
            Operation name -> count, for :mod:`minilp.energy`.

        Raises
        ------
        NotImplementedError
            If unknown, which is the default: an unknown operation is an error, never free.
        """
        raise NotImplementedError(f"{self} does not say which operations one multiply-accumulate with {other} takes: "
                                  f"define {type(self).__name__}.cost")

    def sum_cost(self, other: Format) -> dict[str, dict[str, int]]:
        """Operations of one sum of products with an operand of format ``other``, beside its multiply-accumulates.

        Returns
        -------
        dict
            ``"run"``: for every run of constant scale inside the sum (a group of MLS, a block of MX), its scaling;
            ``"tree"``: for every run, adding it to the others; ``"output"``: once a sum, scaling the result. Each is a
            dict of operation name -> count.

        Raises
        ------
        NotImplementedError
            If unknown, which is the default.
        """
        raise NotImplementedError(f"{self} does not say which operations scaling a sum of products with {other} takes: "
                                  f"define {type(self).__name__}.sum_cost")

    def encode_cost(self) -> dict[str, int]:
        """Operations of encoding one float32 element, nearest rounding, its share in finding the scale included.

        Returns
        -------
        dict
            Operation name -> count. Papers do not list these: every number here is our assumption.

        Raises
        ------
        NotImplementedError
            If unknown, which is the default.
        """
        raise NotImplementedError(f"{self} does not say which operations encoding an element takes: "
                                  f"define {type(self).__name__}.encode_cost")

    def scale_shapes(self, shape: tuple[int, ...], keep: Iterable[int] = (), axis: int | None = None,
                     run: int | None = None) -> tuple[tuple[int, ...], ...]:
        """Shapes of the scales that encoding a tensor of this shape gives, without encoding one.

        Parameters
        ----------
        shape : tuple of int
            The tensor's.
        keep : iterable of int
            As for ``encode``.
        axis, run : int or None
            As for ``encode_along``, for a format with blocks along the sum.

        Returns
        -------
        tuple of tuple of int
            One shape for each array in ``QTensor.scales``. By default a single one, with 1 for every axis not kept.
        """
        kept = {a % len(shape) for a in keep} if shape else set()
        return (tuple(n if a in kept else 1 for a, n in enumerate(shape)),)
