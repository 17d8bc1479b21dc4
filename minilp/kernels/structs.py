"""Calls of C functions that take one struct: what a contraction needs is too much for arguments."""
from __future__ import annotations

from typing import Any

import numpy as np

from minilp.kernels.backend import ffi, lib

POINTERS = {"int8": "int8_t *", "int16": "int16_t *", "int32": "int32_t *", "int64": "int64_t *", "float32": "float *",
            "float64": "double *"}


def run(struct: str, function: str, *more: np.ndarray, **fields: Any) -> int:
    """Fill a C struct and run the function that takes it.

    Parameters
    ----------
    struct, function : str
        Their names in C.
    *more : np.ndarray
        C-ordered; pointers that the function takes beside the struct.
    **fields
        Numbers, sequences for C arrays, and C-ordered arrays for pointers; arrays live until the function returns.

    Returns
    -------
    int
        Its status.
    """
    filled = ffi.new(f"{struct} *")
    for name, value in fields.items():
        if isinstance(value, np.ndarray):
            value = ffi.from_buffer(POINTERS[value.dtype.name], value)
        setattr(filled, name, value)
    return int(getattr(lib(), function)(filled, *(ffi.from_buffer(POINTERS[x.dtype.name], x) for x in more)))
