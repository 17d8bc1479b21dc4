"""Unpack chosen files of a tar archive safely: all of them or nothing.

A tar file can name `/etc/passwd`, `../../.bashrc` or a link to either. Here nothing is extracted by its own name: the
archive is searched for the files we expect, each is checked for its size and written by us into a fresh folder, which
gets its final name last. One suspicious member condemns the whole archive, by name.
"""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

MAX_MEMBERS = 1000
MAX_BYTES = 1 << 30


def unpack(archive: str | Path, folder: str | Path, wanted: Mapping[str, tuple[int, int]]) -> None:
    """Write the wanted members of `archive` into the new folder `folder`.

    Parameters
    ----------
    archive : path-like
        .tar, .tar.gz, .tar.xz.
    folder : path-like
        Must not exist; its parent must. Appears only when complete.
    wanted : mapping of str to (int, int)
        File name (without folders) -> smallest and largest size in bytes. Other members are left in the archive.

    Raises
    ------
    ValueError
        The archive is damaged, lacks a wanted file, holds one of another size, or holds a link, a device, an absolute
        path or a `..`.
    FileExistsError
        `folder` exists.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; move it away to unpack {archive} again")
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _unpack_into(archive, staging, wanted)
        staging.chmod(0o755)  # mkdtemp makes it private
        os.rename(staging, folder)
    except (tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        raise ValueError(f"{archive}: damaged archive: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # gone already where the rename succeeded


def _unpack_into(archive: Path, staging: Path, wanted: Mapping[str, tuple[int, int]]) -> None:
    found: set[str] = set()
    total = 0
    with tarfile.open(archive, "r:*") as tar:
        for count, member in enumerate(tar):
            total += max(member.size, 0)
            if count >= MAX_MEMBERS or total > MAX_BYTES:
                raise ValueError(f"{archive}: more than {MAX_MEMBERS} members or {MAX_BYTES} bytes; refused")
            inside = PurePosixPath(member.name)
            if inside.is_absolute() or ".." in inside.parts or "\\" in member.name:
                raise ValueError(f"{archive}: member {member.name!r} leaves the folder it is unpacked in; refused")
            if not (member.isfile() or member.isdir()):
                raise ValueError(f"{archive}: member {member.name!r} is a link or a device; refused")
            name = inside.name
            if not member.isfile() or name not in wanted:
                continue
            if name in found:
                raise ValueError(f"{archive}: member {name!r} is there twice")
            least, most = wanted[name]
            if not least <= member.size <= most:
                raise ValueError(f"{archive}: member {name!r} has {member.size} bytes; expected {least} to {most}")
            source = tar.extractfile(member)
            assert source is not None  # it is a regular file
            with source, open(staging / name, "wb") as target:
                shutil.copyfileobj(source, target)
            found.add(name)
    missing = sorted(set(wanted) - found)
    if missing:
        raise ValueError(f"{archive}: lacks {', '.join(missing)}")
