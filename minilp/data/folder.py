"""A user's own images: a folder of picture files, or one .npz file.

Folder: `train/CLASS/*.png` and `test/CLASS/*.png` (also .jpg, .jpeg). Needs pillow, the optional extra `images`. All
pictures are read as RGB and must have one size.

.npz: arrays `x_train`, `y_train`, `x_test`, `y_test`, as Keras names them, and optionally `classes` (names). Images
are uint8, shape (N, H, W, C), (N, C, H, W) or (N, H, W) with 1 or 3 channels; labels are integers counting from 0,
shape (N,) or (N, 1).
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from minilp.data.dataset import Dataset, make_splits

SUFFIXES = (".png", ".jpg", ".jpeg")
"""Picture files that are read; upper case too. Others are ignored."""


def load(path: str | Path) -> tuple[Dataset, Dataset]:
    """Read a folder or an .npz file.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    train, test : Dataset
        Named after the path. In a folder the classes are the sorted names of train's subfolders.

    Raises
    ------
    FileNotFoundError
        Nothing there, or a split or its pictures are missing.
    ImportError
        A folder, and pillow is not installed.
    TypeError, ValueError
        Contents that do not fit the description above; names the file.
    """
    path = Path(path)
    if path.is_dir():
        return _load_folder(path)
    if not path.exists():
        raise FileNotFoundError(f"data: {path} does not exist; expected a folder with train/ and test/ or an .npz")
    if path.suffix.lower() != ".npz":
        raise ValueError(f"data: {path} is a {path.suffix or 'suffixless'} file; expected a folder or an .npz file")
    return _load_npz(path)


def _load_folder(path: Path) -> tuple[Dataset, Dataset]:
    for split in ("train", "test"):
        if not (path / split).is_dir():
            raise FileNotFoundError(f"data: {path} has no folder {split}/; expected {split}/CLASS/*.png")
    classes = tuple(sorted(p.name for p in (path / "train").iterdir() if p.is_dir() and not p.name.startswith(".")))
    if not classes:
        raise FileNotFoundError(f"data: {path / 'train'} has no subfolders; expected one for each class")
    for folder in (path / "test").iterdir():
        if folder.is_dir() and not folder.name.startswith(".") and folder.name not in classes:
            raise ValueError(f"data: {folder} is a class that train/ does not have; train has {', '.join(classes)}")
    train, test = (_read_pictures(path / split, classes) for split in ("train", "test"))
    return make_splits(str(path), classes, train, test, source=f"image folder {path}")


def _read_pictures(split: Path, classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """All pictures of one split, sorted by class and name."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("reading image files needs pillow: pip install 'minilp[images]'") from error
    images: list[np.ndarray] = []
    labels: list[int] = []
    first: Path | None = None
    for label, name in enumerate(classes):
        folder = split / name
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        for file in files:
            if file.suffix.lower() not in SUFFIXES or file.name.startswith("."):
                continue
            try:
                with Image.open(file) as picture:
                    pixels = np.asarray(picture.convert("RGB"))
            # pillow's ways to say that a file is damaged or absurd
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
                raise ValueError(f"data: {file} cannot be read as a picture: {error}") from error
            first = first or file
            if images and pixels.shape != images[0].shape:
                (height, width, _), (first_height, first_width, _) = pixels.shape, images[0].shape
                raise ValueError(
                    f"data: {file} is {height} x {width} pixels, but {first} is {first_height} x {first_width};"
                    " expected one size for all"
                )
            images.append(pixels)
            labels.append(label)
    if not images:
        raise FileNotFoundError(f"data: no pictures under {split}; expected CLASS/*.png (or {', '.join(SUFFIXES[1:])})")
    return _channels_first(np.stack(images)), np.array(labels, np.int64)


def _load_npz(path: Path) -> tuple[Dataset, Dataset]:
    keys = ("x_train", "y_train", "x_test", "y_test")
    try:
        # No pickles: an object array could run code. Opened here, since np.load leaks the handle of a damaged file.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            missing = [key for key in keys if key not in archive.files]
            if missing:
                raise ValueError(f"has no array {', '.join(missing)} (it has {', '.join(archive.files)}); "
                                 f"expected {', '.join(keys)}")
            found = {key: archive[key] for key in archive.files if key in (*keys, "classes")}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"data: {path}: {error}") from error
    splits = []
    for split in ("train", "test"):
        x = _npz_images(path, f"x_{split}", found[f"x_{split}"])
        y = _npz_labels(path, f"y_{split}", found[f"y_{split}"])
        splits.append((x, y))
    if "classes" in found:
        classes = tuple(str(name) for name in found["classes"].ravel())
    else:
        count = 1 + max(int(y.max(initial=0)) for _, y in splits)
        if count > 100_000:  # labels are indices; a stray large value would otherwise build that many class names
            raise ValueError(f"data: {path}: the largest label is {count - 1}; expected labels counting from 0")
        classes = tuple(map(str, range(count)))
    return make_splits(str(path), classes, splits[0], splits[1], source=f"file {path}")


def _npz_images(path: Path, key: str, x: np.ndarray) -> np.ndarray:
    where = f"data: {path}: {key}"
    if x.dtype != np.uint8:
        raise TypeError(f"{where} has dtype {x.dtype}; expected uint8 pixels, 0 to 255")
    if x.ndim == 3:
        return np.ascontiguousarray(x[:, None])
    if x.ndim != 4:
        raise ValueError(f"{where} has shape {x.shape}; expected (N, H, W, C), (N, C, H, W) or (N, H, W)")
    last, first = x.shape[3] in (1, 3), x.shape[1] in (1, 3)
    if last == first:
        reason = "could be either channel order" if last else "has no axis of 1 or 3 channels"
        raise ValueError(f"{where} has shape {x.shape}, which {reason}; expected (N, H, W, C) or (N, C, H, W)")
    return _channels_first(x) if last else np.ascontiguousarray(x)


def _npz_labels(path: Path, key: str, y: np.ndarray) -> np.ndarray:
    if y.dtype.kind not in "iu":
        raise TypeError(f"data: {path}: {key} has dtype {y.dtype}; expected integers")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise ValueError(f"data: {path}: {key} has shape {y.shape}; expected (N,) or (N, 1)")
    return y.astype(np.int64)


def _channels_first(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
