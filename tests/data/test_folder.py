"""A user's own images: folders of pictures and .npz files."""
import sys

import numpy as np
import pytest

from minilp import data

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 5, 4, 3)).astype(np.uint8)  # N, H, W, C


@pytest.fixture
def pictures(tmp_path):
    """train/{cat,dog} and test/{cat,dog}, three pictures a class in train, one in test."""
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed (extra 'images')")
    for i, pixels in enumerate(PIXELS):
        for split, keep in (("train", True), ("test", i % 3 == 0)):
            folder = tmp_path / split / ("cat", "dog")[i // 3]
            folder.mkdir(parents=True, exist_ok=True)
            if keep:
                image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path


def test_folder(pictures):
    (pictures / "train" / "cat" / "notes.txt").write_text("not a picture")
    (pictures / "train" / ".hidden").mkdir()
    train, test = data.load(pictures)
    assert train.classes == test.classes == ("cat", "dog")
    assert (train.images == PIXELS.transpose(0, 3, 1, 2)).all() and train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert (test.images == PIXELS[[0, 3]].transpose(0, 3, 1, 2)).all() and test.labels.tolist() == [0, 1]
    assert train.images.flags.c_contiguous and train.name == str(pictures)


def test_grey_and_jpeg_become_rgb(pictures):
    from PIL import Image

    Image.fromarray(PIXELS[0, :, :, 0]).save(pictures / "train" / "cat" / "0.png")
    Image.fromarray(np.full((5, 4, 3), 90, np.uint8)).save(pictures / "train" / "dog" / "a.JPG", format="jpeg")
    train, _ = data.load(pictures)
    assert (train.images[0] == PIXELS[0, :, :, 0]).all()
    assert np.abs(train.images[-1].astype(int) - 90).max() < 4 and train.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_folder_problems_name_the_file(pictures):
    from PIL import Image

    odd = pictures / "train" / "dog" / "9.png"
    Image.fromarray(np.zeros((7, 4, 3), np.uint8)).save(odd)
    with pytest.raises(ValueError, match=r"9\.png is 7 x 4 pixels, but .*0\.png is 5 x 4; expected one size"):
        data.load(pictures)
    odd.write_bytes((pictures / "train" / "dog" / "3.png").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"9\.png cannot be read as a picture"):
        data.load(pictures)
    odd.unlink()
    (pictures / "test" / "bird").mkdir()
    with pytest.raises(ValueError, match=r"test/bird is a class that train/ does not have; train has cat, dog"):
        data.load(pictures)


def test_missing_parts_of_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no folder train/"):
        data.load(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(FileNotFoundError, match="has no folder test/"):
        data.load(tmp_path)
    (tmp_path / "test").mkdir()
    with pytest.raises(FileNotFoundError, match="train has no subfolders"):
        data.load(tmp_path)
    (tmp_path / "train" / "cat").mkdir()
    pytest.importorskip("PIL", reason="pillow is not installed (extra 'images')")
    with pytest.raises(FileNotFoundError, match=r"no pictures under .*train"):
        data.load(tmp_path)


def test_without_pillow_the_message_says_what_to_install(pictures, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install 'minilp\[images\]'"):
        data.load(pictures)


def test_paths_that_are_not_there(tmp_path):
    for name in ("nothing.npz", "some/folder", str(tmp_path / "x")):
        with pytest.raises(FileNotFoundError, match="does not exist; expected a folder"):
            data.load(name)
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(ValueError, match=r"x\.csv is a \.csv file; expected a folder or an \.npz"):
        data.load(tmp_path / "x.csv")


def arrays(**change):
    base = dict(x_train=PIXELS, y_train=np.arange(6) % 2, x_test=PIXELS[:2], y_test=np.array([0, 1]))
    return {k: v for k, v in {**base, **change}.items() if v is not None}


@pytest.mark.parametrize(
    ("x", "shape"),
    [(PIXELS, (6, 3, 5, 4)), (PIXELS.transpose(0, 3, 1, 2), (6, 3, 5, 4)), (PIXELS[..., 0], (6, 1, 5, 4))],
)
def test_npz_layouts(tmp_path, x, shape):
    column = (np.arange(6) % 2)[:, None].astype(np.uint8)
    np.savez(tmp_path / "a.npz", **arrays(x_train=x, x_test=x[:2], y_train=column))
    train, test = data.load(tmp_path / "a.npz")
    assert train.images.shape == shape and train.images.flags.c_contiguous
    assert (train.images == PIXELS.transpose(0, 3, 1, 2)[:, : shape[1]]).all()
    assert train.labels.tolist() == [0, 1, 0, 1, 0, 1] and train.labels.dtype == np.int64
    assert train.classes == ("0", "1") and len(test) == 2


def test_npz_class_names(tmp_path):
    np.savez(tmp_path / "a.npz", **arrays(classes=np.array(["cat", "dog", "eel"])))
    assert data.load(tmp_path / "a.npz")[0].classes == ("cat", "dog", "eel")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"y_test": None}, ValueError, r"has no array y_test \(it has x_train, y_train, x_test\)"),
        ({"x_train": PIXELS / 255.0}, TypeError, "x_train has dtype float64; expected uint8"),
        ({"x_train": PIXELS[0, 0]}, ValueError, r"x_train has shape \(4, 3\)"),
        ({"x_train": np.zeros((6, 5, 4, 2), np.uint8)}, ValueError, "has no axis of 1 or 3 channels"),
        ({"x_train": np.zeros((6, 3, 4, 3), np.uint8)}, ValueError, "could be either channel order"),
        ({"y_train": np.zeros(6)}, TypeError, "y_train has dtype float64; expected integers"),
        ({"y_train": np.zeros((6, 2), int)}, ValueError, r"y_train has shape \(6, 2\)"),
        ({"y_train": np.zeros(5, int)}, ValueError, "labels: 5 labels for 6 images"),
        ({"y_train": np.full(6, -1)}, ValueError, "labels: values from -1"),
        ({"y_test": np.array([0, 2**40])}, ValueError, "the largest label is 1099511627776"),
        ({"y_train": np.array([None] * 6)}, ValueError, "a.npz: .*allow_pickle"),
        ({"classes": np.array(["one"])}, ValueError, "labels: values from 0 to 1; expected 0 to 0"),
    ],
)
def test_npz_problems_are_named(tmp_path, change, error, message):
    np.savez(tmp_path / "a.npz", **arrays(**change))
    with pytest.raises(error, match=message):
        data.load(tmp_path / "a.npz")


def test_damaged_npz(tmp_path):
    np.savez(tmp_path / "a.npz", **arrays())
    raw = (tmp_path / "a.npz").read_bytes()
    for damaged in (raw[: len(raw) // 2], b"", b"hello", raw[:200] + b"\0" * 50 + raw[250:]):
        (tmp_path / "a.npz").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"data: .*a\.npz"):
            data.load(tmp_path / "a.npz")
