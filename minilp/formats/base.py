"""What a number format is: a value with two methods, and the record of codes and scales that it makes of a tensor.

A format subclasses :class:`Format` as a frozen dataclass and writes ``bits``, :meth:`Format.encode` and
:meth:`Format.decode`. It can then play any role in a recipe; everything else has a default that it may improve.
``minilp.testing.check_format`` holds it to the laws that training relies on.
"""
from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from minilp.formats.costs import Costs
from minilp.formats.qtensor import QTensor
from minilp.formats.rounding import Stream
from minilp.formats.spec import Spec
from minilp.kernels.quantise import outside

_registry: dict[str, type[Format]] = {}


@dataclass(frozen=True)
class Format(Costs, ABC):
    """A number format: hashable, printable, stored as its name and fields.

    Subclasses are frozen dataclasses whose fields are their parameters. They register under their lower-case class
    name; defining a class of the same name again replaces the first.

    Attributes
    ----------
    scale_bits : int
        Bits that one scale takes in storage.
    sums_in_runs : bool
        Whether :meth:`contract` copes with a scale that varies along a reduced axis.
    batches : bool
        Whether :meth:`contract` takes batches of matrix products too (``Spec.layout``), or NotImplemented where it
        cannot; without it the room cuts them into single products.
    blocks_along_sum : bool
        Whether scales belong to blocks along the axis that a contraction sums over. The room then keeps the float
        tensor, also for the backward pass, and calls :meth:`encode_along` once for each contraction.
    symmetric, preserves_zero, scales_by_powers_of_two, stochastic, unbiased, exact_contract : bool
        Laws of ``check_format`` that the format keeps; a format that breaks one on purpose says so by False.
    arithmetic : str
        What reports say behind the formats of a contraction that :meth:`contract` computed.
    scaling, source : str
        How scales come about, and who proposed the format: for tables and reports.
    """

    name: ClassVar[str] = "format"
    scale_bits: ClassVar[int] = 32
    sums_in_runs: ClassVar[bool] = False
    batches: ClassVar[bool] = False
    blocks_along_sum: ClassVar[bool] = False
    symmetric: ClassVar[bool] = True
    preserves_zero: ClassVar[bool] = True
    scales_by_powers_of_two: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True
    unbiased: ClassVar[bool] = True
    exact_contract: ClassVar[bool] = True
    arithmetic: ClassVar[str] = "in integers"
    scaling: ClassVar[str] = ""
    source: ClassVar[str] = ""

    if TYPE_CHECKING:  # a field or a property of the subclass; a property here would pass for the field's default
        @property
        def bits(self) -> int:
            """REQUIRED. Payload bits of one element, scales excluded."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = cls.__name__.lower()
        _registry[cls.name] = cls

    @abstractmethod
    def encode(self, x: np.ndarray, *, keep: Iterable[int] = (), stream: Stream | None = None,
               scales: tuple[np.ndarray, ...] | None = None) -> QTensor:
        """REQUIRED. Turn real numbers into integer codes and scales.

        Parameters
        ----------
        x : numpy.ndarray
            float32, any shape and strides; codes take its memory order.
        keep : iterable of int
            Axes that keep a scale of their own; ``()`` is one scale for the tensor.
        stream : Stream or None
            None rounds to nearest; a stream rounds stochastically.
        scales : tuple of numpy.ndarray or None
            Scales to use instead of those that ``x`` calls for; what is too large for them saturates.

        Returns
        -------
        QTensor
            Integer codes of ``x``'s shape and their scales.

        Raises
        ------
        NotFiniteError
            If ``x`` holds NaN or infinity.
        """

    @abstractmethod
    def decode(self, q: QTensor) -> np.ndarray:
        """REQUIRED. The float32 values of codes and scales, in the codes' memory order."""

    def encode_along(self, x: np.ndarray, axis: int = -1, *, run: int | None = None,
                     stream: Stream | None = None) -> QTensor:
        """Encode for one contraction, in blocks along the axis that it sums over (``blocks_along_sum``).

        Parameters
        ----------
        x : numpy.ndarray
            float32, any shape and strides.
        axis : int
            The axis that blocks lie along.
        run : int or None
            Blocks start anew every ``run`` elements (the channels of one group of a convolution); divides the axis.
            None is the whole axis.
        stream : Stream or None
            As for :meth:`encode`; draws follow the tensor's logical index, whatever the axis.

        Returns
        -------
        QTensor
            Each block is coded as :meth:`encode` codes it as a tensor of its own.

        Raises
        ------
        NotFiniteError
            If ``x`` holds NaN or infinity.
        """
        raise NotImplementedError(f"{self} has no blocks along a sum: use encode")

    def encode_clipped(self, x: np.ndarray, limit: float, *, keep: Iterable[int] = (), stream: Stream | None = None
                       ) -> tuple[QTensor, np.ndarray]:
        """Encode with every magnitude above a threshold saturated there: by the scale where :meth:`scales_for` can.

        Parameters
        ----------
        x, keep, stream
            As for :meth:`encode`.
        limit : float
            The threshold, not negative.

        Returns
        -------
        q : QTensor
            Codes of the clipped tensor.
        outside : numpy.ndarray
            int64, ascending: positions of what was above, as :func:`minilp.kernels.quantise.outside` lists them.

        Raises
        ------
        NotFiniteError
            If ``x`` holds NaN or infinity.
        """
        keep = tuple(keep)
        scales = NotImplemented if keep else self.scales_for(np.full((1,) * x.ndim, limit, np.float32))
        if scales is NotImplemented:
            return self.encode(np.clip(x, -limit, limit), keep=keep, stream=stream), outside(x, limit)
        return self.encode(x, stream=stream, scales=scales), outside(x, limit)

    def scales_for(self, maximum: np.ndarray) -> Any:
        """The scales that put given largest magnitudes on the largest value.

        A clipping transform hands its threshold over this way: encoding with these scales saturates what is larger.

        Parameters
        ----------
        maximum : numpy.ndarray
            float32, not negative, finite; shape of the tensor with 1 for every axis not kept.

        Returns
        -------
        tuple of numpy.ndarray or NotImplemented
            What ``encode`` takes as ``scales``; NotImplemented, the default, makes the room clip the tensor itself.
        """
        return NotImplemented

    def arithmetic_with(self, other: Format, batched: bool = False) -> str:
        """What reports say of a contraction with ``other``: :attr:`arithmetic`, unless that depends on the partner.

        Parameters
        ----------
        other : Format
            The other operand's format.
        batched : bool
            For a batch of matrix products.

        Returns
        -------
        str
            Words behind the names of both formats, for the kernels that are in force.
        """
        return self.arithmetic

    def contract(self, a: QTensor, b: QTensor, spec: Spec) -> Any:
        """Multiply two coded operands exactly in integers.

        Parameters
        ----------
        a, b : QTensor
            Operands, in the order that :class:`Spec` gives; one of them has this format.
        spec : Spec
            Kind and geometry of the contraction.

        Returns
        -------
        numpy.ndarray or NotImplemented
            float32 result; NotImplemented, the default, if this format has no kernel for the pair.
        """
        return NotImplemented

    def table(self) -> np.ndarray | None:
        """Value of each code in units of the scale, for formats whose values are small integers.

        Returns
        -------
        numpy.ndarray or None
            Of length 256, indexed by ``code & 255``: int8 with all magnitudes at most 127, or int16 where every entry
            is 0 or +- a power of two up to 2^14; None where there is none.
        """
        return None

    def unit(self, q: QTensor) -> Any:
        """What one unit of :meth:`table` is worth in a coded tensor: decode is the table entry times the unit.

        With it and a table, every contraction of the format runs exactly in integers, in C. Where the unit is no power
        of two, the product of two units is rounded to float64, beside the one rounding of the result.

        Parameters
        ----------
        q : QTensor
            A tensor of this format.

        Returns
        -------
        numpy.ndarray or NotImplemented
            float32 or float64, positive, of the tensor's shape with 1 for every axis not kept; NotImplemented, the
            default, if the format has no such unit.
        """
        return NotImplemented

    def ste(self, x: np.ndarray, grad: np.ndarray) -> np.ndarray:
        """Straight-through rule: the gradient of ``x`` from that of its encoded self. Identity by default."""
        return grad

    @property
    def ste_reads_input(self) -> bool:
        """Whether :meth:`ste` looks at ``x``, which then waits for the backward pass as floats beside its codes."""
        return type(self).ste is not Format.ste

    def scales_nbits(self, scales: tuple[np.ndarray, ...]) -> int:
        """Bits that a tensor's scales take in storage; ``scale_bits`` each by default."""
        return self.scale_bits * sum(scale.size for scale in scales)

    def explain(self, a: float, b: float) -> str:
        """One multiply-accumulate in words, each operand encoded as a tensor of its own."""
        lines, product = [f"{self}: {self.bits} bits"], 1.0
        for letter, number in (("a", a), ("b", b)):
            q = self.encode(np.array([number], np.float32))
            value = float(q.decode()[0])
            scales = ", ".join(str(scale.reshape(-1)[0]) for scale in q.scales)
            lines.append(f"{letter} = {number:g}: code {q.codes[0]}, scale {scales or 'none'}, decodes to {value:g}")
            product *= value
        return "\n".join([*lines, f"product {product:g}; exact {a * b:g}"])

    def codes(self) -> np.ndarray:
        """Every canonical code, ascending: by default all integers of magnitude at most 2^(bits - 1) - 1."""
        top = 2 ** (self.bits - 1) - 1
        return np.arange(-top, top + 1).astype(np.int8 if self.bits <= 8 else np.int16)

    @property
    def stored_bits(self) -> int:
        """Bits of one packed code: ``bits``, unless the format keeps something beside them (a flag for zero)."""
        return self.bits

    @property
    def levels(self) -> int:
        """Number of distinct values under one scale."""
        return len(self.codes())

    @property
    def range(self) -> tuple[float, float] | None:
        """Smallest and largest positive value in units of the scale; None if the format does not say."""
        return None

    def __str__(self) -> str:
        """The class name with ``bits`` and whatever field is not at its default."""
        return self._text

    @functools.cached_property
    def _text(self) -> str:
        shown = [field.name for field in dataclasses.fields(self)
                 if field.name == "bits" or getattr(self, field.name) != field.default]
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def to_config(self) -> dict[str, Any]:
        """Name and fields as plain JSON; :meth:`from_config` reads it back."""
        return {"name": self.name, **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)}}

    @staticmethod
    def from_config(config: str | dict[str, Any]) -> Format:
        """Build a format from what :meth:`to_config` returned, or from its name alone.

        Raises
        ------
        ValueError
            For an unknown name or field; the message lists the known ones.
        """
        fields = {"name": config} if isinstance(config, str) else dict(config)
        name = str(fields.pop("name", "")).lower()
        if name not in _registry:
            raise ValueError(f"unknown format {name!r}; known: {', '.join(available())}")
        known = [field.name for field in dataclasses.fields(_registry[name])]
        unknown = [field for field in fields if field not in known]
        if unknown:
            raise ValueError(f"format {name!r} has no field {unknown[0]!r}; it has {', '.join(known) or 'none'}")
        return _registry[name](**{key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()})


def available() -> tuple[str, ...]:
    """Names of all registered formats, sorted."""
    return tuple(sorted(_registry))
