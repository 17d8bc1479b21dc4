"""Writing files so that a kill at any moment leaves either the old content or the new, never half of it."""
from __future__ import annotations

import json
import os
import pathlib
from typing import Any


def temporary(path: pathlib.Path) -> pathlib.Path:
    """The name under which ``path`` is written before it is complete; always the same, so none are left to pile up."""
    return path.with_name(f".{path.name}.tmp")


def write_atomic(path: pathlib.Path, data: bytes) -> None:
    """Replace the content of a file in one step.

    The bytes go to a temporary file in the same folder, reach the disk, and take the file's name; then the folder's
    own entry reaches the disk, so that files written later never become visible before this one.

    Parameters
    ----------
    path : pathlib.Path
        May exist or not.
    data : bytes
        The new content.
    """
    partial = temporary(path)
    with open(partial, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync_folder(path.parent)


def append(path: pathlib.Path, text: str) -> None:
    """Add text to the end of a file and wait until it is on the disk."""
    with open(path, "a", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def keep_lines(path: pathlib.Path, count: int) -> None:
    """Cut a text file after its first ``count`` lines, in one step.

    Raises
    ------
    ValueError
        If it has fewer complete lines; the message names the file.
    """
    data = path.read_bytes() if path.exists() else b""
    lines = data.split(b"\n")[:-1]  # what follows the last newline is a line that was never completed
    if len(lines) < count:
        raise ValueError(f"{path}: has {len(lines)} lines, but the checkpoint was written after line {count}")
    kept = b"".join(line + b"\n" for line in lines[:count])
    if kept != data:
        write_atomic(path, kept)


def to_json(value: Any) -> bytes:
    """Indented JSON with a final newline; the same value always gives the same bytes."""
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def sync_folder(folder: pathlib.Path) -> None:
    """Make the folder's list of names reach the disk, where the system allows it."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
