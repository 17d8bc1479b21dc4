"""Read a batch file of CIFAR-10's pickled layout without running anything from it.

A pickle is a program; loading one calls whatever it names. The batch files, written by Python 2 or 3, name five
globals only. Those five are accepted, everything else is refused by name, and even the five never reach NumPy's own
machinery: small stand-ins below take their place, which know how to hold one uint8 matrix and nothing else. So a file
cannot reach code, and reads the same under NumPy 1 and 2, which disagree on where `_reconstruct` lives.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

ALLOWED = (
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
)
"""(module, name) of every global that a batch file may name."""


def read_batch(raw: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Take images and labels out of one pickled batch.

    Parameters
    ----------
    raw : bytes
        The whole file.
    name : str
        For messages.

    Returns
    -------
    images : ndarray of uint8, shape (N, D)
    labels : ndarray of int64, shape (N,)

    Raises
    ------
    ValueError
        Damaged, hostile, or not a batch; names the file and the reason.
    """
    try:
        batch = _Reader(io.BytesIO(raw), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise nearly anything; all of it means the same here
        raise ValueError(f"{name}: not a readable CIFAR-10 batch: {error or type(error).__name__}") from error
    if not isinstance(batch, dict) or b"data" not in batch or b"labels" not in batch:
        raise ValueError(f"{name}: not a CIFAR-10 batch; expected a dict with b'data' and b'labels'")
    images, labels = getattr(batch[b"data"], "matrix", None), batch[b"labels"]
    if not isinstance(images, np.ndarray):
        raise ValueError(f"{name}: b'data' is no array; expected a uint8 matrix")
    # Range-checked as Python integers, since one of 2^70 would not fit the array.
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ValueError(f"{name}: b'labels' is not a list of integers")
    for index, label in enumerate(labels):
        if not 0 <= label <= 9:
            raise ValueError(f"{name}: record {index} has label {label}; expected 0 to 9")
    return images, np.array(labels, np.int64)


class _Reader(pickle.Unpickler):
    """Unpickler that knows five names. Its stand-ins are made afresh for each file: a pickle can set attributes on what
    it is given, and nothing of that may outlive the file."""

    def __init__(self, file: io.BytesIO, encoding: str) -> None:
        super().__init__(file, encoding=encoding)
        self._known = _stand_ins()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names the global {module}.{name}, which no CIFAR-10 file needs; refused")
        return self._known[name]


def _stand_ins() -> dict[str, Any]:
    class Dtype:
        """In place of numpy.dtype: only the byte exists."""

        def __init__(self, code: object, align: object = False, copy: object = True) -> None:
            if code not in ("u1", b"u1"):
                raise pickle.UnpicklingError(f"it holds an array of dtype {code!r}; expected bytes (u1)")

        def __setstate__(self, state: object) -> None:
            """Byte order, fields and flags: a byte has none."""

    class Array:
        """In place of numpy.ndarray: a matrix of bytes, filled by the state that follows in the file."""

        matrix: np.ndarray | None = None

        def __setstate__(self, state: tuple[object, ...]) -> None:
            _, shape, dtype, fortran, raw = state
            if not isinstance(dtype, Dtype) or not isinstance(raw, bytes):
                raise pickle.UnpicklingError("it holds an array that is not made of bytes")
            if not isinstance(shape, tuple) or len(shape) != 2 or not all(type(n) is int and n > 0 for n in shape):
                raise pickle.UnpicklingError(f"it holds an array of shape {shape!r}; expected a matrix")
            if shape[0] * shape[1] != len(raw):
                raise pickle.UnpicklingError(f"it holds {len(raw)} bytes for an array of shape {shape!r}")
            self.matrix = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")

    def reconstruct(kind: object, shape: object, code: object) -> Array:
        """In place of numpy's _reconstruct: an empty array, whatever shape is asked for."""
        if kind is not Array:
            raise pickle.UnpicklingError("it reconstructs something else than a plain array")
        return Array()

    def encode(text: object, codec: object = "latin1") -> bytes:
        """In place of _codecs.encode: Python 3 writes bytes for Python 2 as Latin-1 text."""
        if not isinstance(text, str) or codec not in ("latin1", b"latin1"):
            raise pickle.UnpicklingError(f"it encodes {type(text).__name__} as {codec!r}; expected text as latin1")
        return text.encode("latin1")

    return {"_reconstruct": reconstruct, "ndarray": Array, "dtype": Dtype, "encode": encode}
