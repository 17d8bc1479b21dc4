"""Checkpoints: arrays and plain JSON in one safetensors file, written so that a kill never leaves half of one.

Any safetensors reader can open the file. The JSON stands in the single metadata entry ``minilp``: the library keeps
metadata in a hash map, so that several entries would come out in another order each time, and equal states must give
equal bytes.
"""
from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from minilp import files
from minilp.formats import Format, QTensor

KEY, VERSION = "minilp", 1


def save(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray | QTensor], meta: Mapping[str, Any]) -> None:
    """Write a checkpoint in one step: temporary file, fsync, rename, fsync of the folder.

    A QTensor goes in as its packed codes, uint8, under its own name, and its scales under ``NAME.scale.0``, ...; which
    format reads them, shape and kept axes stand in the metadata under ``codes``.

    Parameters
    ----------
    path : path
        File to write; an old one is replaced only when the new one is complete.
    arrays : mapping of str to ndarray or QTensor
        Any numeric or boolean dtype that safetensors knows; any strides.
    meta : mapping
        Plain JSON; the names ``version`` and ``codes`` are taken.

    Raises
    ------
    TypeError
        If ``meta`` holds something that is not JSON.
    """
    from safetensors.numpy import save as to_bytes

    # safetensors writes the memory of an array as it lies, whatever its strides: C order must be made here.
    plain, codes = _split(arrays)
    ordered = {name: np.asarray(plain[name], order="C") for name in sorted(plain)}
    text = json.dumps({"version": VERSION, "codes": codes, **meta}, sort_keys=True, allow_nan=False)
    files.write_atomic(pathlib.Path(path), to_bytes(ordered, {KEY: text}))


def load(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray | QTensor], dict[str, Any]]:
    """Read a checkpoint.

    Parameters
    ----------
    path : path
        Written by :func:`save`.

    Returns
    -------
    arrays : dict of str to ndarray or QTensor
        As they were saved; arrays writable, in C order.
    meta : dict
        The JSON.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If the file is damaged, or no checkpoint of this version; the message names it.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    data = pathlib.Path(path).read_bytes()
    try:
        arrays = {name: array.copy() for name, array in from_bytes(data).items()}
        size = int.from_bytes(data[:8], "little")
        meta = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][KEY])
    except (SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: not a minilp checkpoint, or damaged ({type(error).__name__}: {error})") from error
    if meta.pop("version", None) != VERSION:
        raise ValueError(f"{path}: a checkpoint of another version of minilp; this one reads version {VERSION}")
    try:
        return _joined(arrays, meta.pop("codes", {})), meta
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: codes that do not fit their format ({type(error).__name__}: {error})") from error


def _split(arrays: Mapping[str, np.ndarray | QTensor]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Plain arrays only, and what it takes to put the coded tensors together again."""
    plain: dict[str, np.ndarray] = {}
    codes: dict[str, Any] = {}
    for name, value in arrays.items():
        if isinstance(value, QTensor):
            plain[name] = value.pack()
            plain.update({f"{name}.scale.{i}": scale for i, scale in enumerate(value.scales)})
            codes[name] = {"format": value.format.to_config(), "shape": list(value.shape), "keep": list(value.keep),
                           "scales": len(value.scales)}
        else:
            plain[name] = value
    return plain, codes


def _joined(arrays: dict[str, np.ndarray], codes: Mapping[str, Any]) -> dict[str, np.ndarray | QTensor]:
    """The inverse of :func:`_split`."""
    joined: dict[str, np.ndarray | QTensor] = dict(arrays)
    for name, entry in codes.items():
        scales = [f"{name}.scale.{i}" for i in range(entry["scales"])]
        joined[name] = QTensor.unpack(arrays[name], Format.from_config(entry["format"]),
                                      tuple(arrays[scale] for scale in scales), tuple(entry["shape"]),
                                      tuple(entry["keep"]))
        for scale in scales:
            del joined[scale]
    return joined


def pack(prefix: str, tree: Any, arrays: dict[str, Any]) -> Any:
    """Move the arrays out of a nested state, so that plain JSON is left.

    Parameters
    ----------
    prefix : str
        Name of ``tree`` among the arrays, such as ``"optimizer"``.
    tree : object
        Nested dicts, lists and tuples of numbers, strings, None and arrays.
    arrays : dict
        Filled: dotted path -> array.

    Returns
    -------
    object
        The same tree with ``{"array": path}`` in place of each array, tuples as lists and string keys.
    """
    if isinstance(tree, np.ndarray):
        arrays[prefix] = tree
        return {"array": prefix}
    if isinstance(tree, Mapping):
        return {str(key): pack(f"{prefix}.{key}", value, arrays) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [pack(f"{prefix}.{i}", value, arrays) for i, value in enumerate(tree)]
    return tree.item() if isinstance(tree, np.generic) else tree


def unpack(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The inverse of :func:`pack` (string keys and lists stay).

    Parameters
    ----------
    tree : object
        What :func:`pack` returned.
    arrays : mapping
        What it filled.

    Raises
    ------
    KeyError
        If an array is missing.
    """
    if isinstance(tree, dict):
        if set(tree) == {"array"} and isinstance(tree["array"], str):
            return arrays[tree["array"]]
        return {key: unpack(value, arrays) for key, value in tree.items()}
    if isinstance(tree, list):
        return [unpack(value, arrays) for value in tree]
    return tree
