"""A coded tensor: integer codes, their scales, and the format that can read them."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minilp.formats.pack import pack_bits, packed_size, unpack_bits

if TYPE_CHECKING:
    from minilp.formats.base import Format


def _read_only(array: Any) -> np.ndarray:
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, eq=False)
class QTensor:
    """Codes and scales of one tensor. Frozen, and its arrays are read-only.

    Parameters
    ----------
    format : Format
        Reads and writes the codes.
    codes : numpy.ndarray
        Integers in the logical shape, any strides.
    scales : tuple of numpy.ndarray
        What the format needs besides; each has the tensor's shape with 1 for every axis not kept.
    shape : tuple of int or None
        Logical shape; None stands for that of ``codes``.
    keep : tuple of int
        Axes that keep a scale of their own, not negative.
    """

    format: Format
    codes: np.ndarray
    scales: tuple[np.ndarray, ...] = ()
    shape: tuple[int, ...] = None  # type: ignore[assignment]
    keep: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        shape = tuple(self.codes.shape if self.shape is None else self.shape)
        keep = tuple(sorted([axis % len(shape) for axis in self.keep]))
        scales = tuple([_read_only(scale) for scale in self.scales])
        # Frozen against everybody else; a step makes hundreds of these.
        self.__dict__.update(codes=_read_only(self.codes), scales=scales, shape=shape, keep=keep)

    def decode(self) -> np.ndarray:
        """The float32 values."""
        return self.format.decode(self)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes_payload(self) -> int:
        """Bytes of the packed codes: ceil(stored_bits * size / 8)."""
        return packed_size(self.size, self.format.stored_bits)

    @property
    def nbits(self) -> int:
        """Bits of all codes and all scales."""
        return self.format.stored_bits * self.size + self.format.scales_nbits(self.scales)

    def transpose(self, *axes: int) -> QTensor:
        """The same tensor with its axes permuted (reversed without arguments); codes are a view.

        Raises
        ------
        ValueError
            If ``axes`` is no permutation.
        """
        order = axes or tuple(reversed(range(self.ndim)))
        if sorted(order) != list(range(self.ndim)):
            raise ValueError(f"transpose: expected a permutation of {tuple(range(self.ndim))}, got {axes}")
        return QTensor(self.format, self.codes.transpose(order), tuple(s.transpose(order) for s in self.scales),
                       keep=tuple(order.index(axis) for axis in self.keep))

    def reshape(self, *shape: int) -> QTensor:
        """The same elements in another shape, in logical C order.

        Parameters
        ----------
        *shape : int
            New lengths; one may be -1. Axes up to the last kept one must keep their lengths.

        Raises
        ------
        ValueError
            If the size differs, or a kept axis would be cut or merged.
        """
        codes = self.codes.reshape(shape)
        fixed = max(self.keep, default=-1) + 1
        if codes.shape[:fixed] != self.shape[:fixed]:
            raise ValueError(f"reshape: axes {self.keep} keep scales of their own, so the first {fixed} lengths of "
                             f"{self.shape} must stay; got {codes.shape}")
        tail = (1,) * (codes.ndim - fixed)
        scales = tuple(scale.reshape(scale.shape[:fixed] + tail) for scale in self.scales)
        return QTensor(self.format, codes, scales, keep=self.keep)

    def matrix(self, index: int) -> QTensor:
        """One slice along the first axis as a tensor of its own; codes and scales are views."""
        scales = tuple(scale[index if scale.shape[0] > 1 else 0] for scale in self.scales)
        return QTensor(self.format, self.codes[index], scales, keep=tuple(axis - 1 for axis in self.keep if axis))

    def pack(self) -> np.ndarray:
        """The codes in ``nbytes_payload`` bytes (uint8), logical C order; :meth:`unpack` reads them back.

        Raises
        ------
        ValueError
            If a code does not fit the format's stored bits.
        """
        return pack_bits(self.codes, self.format.stored_bits)

    @staticmethod
    def unpack(packed: np.ndarray, format: Format, scales: tuple[np.ndarray, ...], shape: tuple[int, ...],
               keep: tuple[int, ...] = ()) -> QTensor:
        """Rebuild a tensor from :meth:`pack`'s bytes and its other fields; codes come back in C order.

        Raises
        ------
        ValueError
            If the number of bytes does not fit the format and shape.
        """
        dtype = format.codes().dtype
        flat = unpack_bits(packed, format.stored_bits, int(np.prod(shape, dtype=np.int64)), signed=dtype.kind == "i")
        return QTensor(format, flat.astype(dtype).reshape(shape), scales, tuple(shape), keep)

    def __repr__(self) -> str:
        keep = f", keep={self.keep}" if self.keep else ""
        return f"QTensor({self.format}, shape={self.shape}{keep}, {self.nbytes_payload} bytes packed)"
