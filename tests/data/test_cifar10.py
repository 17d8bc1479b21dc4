"""CIFAR-10: both layouts, archives and downloads; damaged and hostile files are refused by name."""
import dataclasses
import hashlib
import http.server
import pickle
import struct
import tarfile
import threading

import numpy as np
import pytest

from minilp import data
from minilp.data import cifar10
from minilp.data.download import DownloadError

RECORDS = 20
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, RECORDS, 3072)).astype(np.uint8)
LABELS = RNG.integers(0, 10, (6, RECORDS)).astype(np.uint8)


def binary(i):
    return np.concatenate([LABELS[i][:, None], PIXELS[i]], axis=1).tobytes()


def python3_pickle(i):
    """As Python 3 writes for Python 2: bytes go through _codecs.encode."""
    return pickle.dumps({b"batch_label": b"x", b"labels": LABELS[i].tolist(), b"data": PIXELS[i]}, protocol=2)


def python2_pickle(i, module=b"numpy.core.multiarray"):
    """Opcode by opcode what Python 2 and its NumPy wrote: 8-bit strings, and the old module name."""
    raw = PIXELS[i].tobytes()
    return b"".join([
        b"\x80\x02}(U\x04data", b"c", module, b"\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R",
        b"(K\x01M", struct.pack("<H", RECORDS), b"M\x00\x0c\x86",
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
        b"\x89T", struct.pack("<i", len(raw)), raw, b"tb",
        b"U\x06labels](", b"".join(b"K" + bytes([k]) for k in LABELS[i].tolist()), b"eu.",
    ])  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Batches of 20 records, so that no test writes 180 MB; and no data of the user's own."""
    monkeypatch.setattr(cifar10, "RECORDS", RECORDS)
    monkeypatch.delenv("MINILP_DATA", raising=False)


def write(root, layout="binary", content=None):
    content = content or {"binary": binary, "python": python3_pickle}[layout]
    folder = root / cifar10.LAYOUTS[layout].folder
    folder.mkdir(parents=True)
    for i, name in enumerate(cifar10.LAYOUTS[layout].files):
        (folder / name).write_bytes(content(i))
    return folder


def check(root):
    train, test = data.load("cifar10", root)
    assert (train.images == PIXELS[:5].reshape(-1, 3, 32, 32)).all() and (train.labels == LABELS[:5].ravel()).all()
    assert (test.images == PIXELS[5].reshape(-1, 3, 32, 32)).all() and (test.labels == LABELS[5]).all()
    assert train.classes == cifar10.CLASSES and "not the official files" in train.source
    return train


@pytest.mark.parametrize(
    ("layout", "content"),
    [
        ("binary", binary),
        ("python", python3_pickle),
        ("python", python2_pickle),
        ("python", lambda i: python2_pickle(i, b"numpy._core.multiarray")),
    ],
)
def test_layouts(tmp_path, layout, content):
    write(tmp_path, layout, content)
    assert f"{layout} layout" in check(tmp_path).source


def test_python2_fixture_is_what_plain_pickle_reads():
    """The hand-made file above is genuine: the ordinary unpickler finds the same arrays in it."""
    module = b"numpy._core.multiarray" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else b"numpy.core.multiarray"
    batch = pickle.loads(python2_pickle(0, module), encoding="bytes")
    assert (batch[b"data"] == PIXELS[0]).all() and batch[b"labels"] == LABELS[0].tolist()


def test_binary_goes_first(tmp_path):
    write(tmp_path, "binary")
    write(tmp_path, "python", lambda i: b"junk")
    assert "binary layout" in check(tmp_path).source


def test_complete_pickles_beat_an_incomplete_binary_folder(tmp_path):
    (write(tmp_path, "binary") / "test_batch.bin").unlink()
    write(tmp_path, "python")
    assert "python layout" in check(tmp_path).source


def test_root_from_argument_then_environment_then_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cifar10.data_root() == tmp_path / ".cache" / "minilp"
    monkeypatch.setenv("MINILP_DATA", str(tmp_path / "env"))
    assert cifar10.data_root() == tmp_path / "env"
    assert cifar10.data_root("~/x") == tmp_path / "x"
    write(tmp_path / "env")
    check(None)


def test_official_files_are_recognised(tmp_path, monkeypatch):
    folder = write(tmp_path)
    sums = {p.name: hashlib.sha1(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}
    files = {name: sums[name] for name in cifar10.LAYOUTS["binary"].files}
    monkeypatch.setitem(cifar10.LAYOUTS, "binary", dataclasses.replace(cifar10.LAYOUTS["binary"], files=files))
    assert data.load("cifar10", tmp_path)[0].source.endswith("the official files")
    files["test_batch.bin"] = "0" * 40
    assert "not the official files" in data.load("cifar10", tmp_path)[0].source


def test_nothing_there_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        data.load("cifar10", tmp_path)
    for part in (str(tmp_path), "minilp data cifar10", "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530",
                 "c58f30108f718f92721af3b95e74349a", "MINILP_DATA", cifar10.MIRRORS["python"]):
        assert part in str(error.value)


def test_missing_file_is_named(tmp_path):
    folder = write(tmp_path)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"cifar-10-batches-bin lacks data_batch_3\.bin"):
        data.load("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:-1], "truncated: 61459 bytes; expected 61460"),
        (lambda raw: raw + b"x", "too long: 61461 bytes"),
        (lambda raw: b"", "truncated: 0 bytes"),
        (lambda raw: raw[: 3073 * 4] + b"\x0a" + raw[3073 * 4 + 1 :], "record 4 has label 10; expected 0 to 9"),
    ],
)
def test_damaged_binary_is_named(tmp_path, damage, message):
    path = write(tmp_path) / "data_batch_2.bin"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"data_batch_2\.bin: {message}"):
        data.load("cifar10", tmp_path)


def test_hostile_pickle_is_named(tmp_path, capsys):
    raw = python3_pickle(0).replace(b"c_codecs\nencode", b"cbuiltins\nprint")
    (write(tmp_path, "python") / "data_batch_4").write_bytes(raw)
    with pytest.raises(ValueError, match=r"data_batch_4: .*names the global builtins\.print"):
        data.load("cifar10", tmp_path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((RECORDS, 3073), np.uint8), LABELS[0], r"images \(20, 3073\) and labels \(20,\)"),
        (np.zeros((RECORDS + 1, 3072), np.uint8), LABELS[0], r"images \(21, 3072\)"),
        (PIXELS[0], LABELS[0][:-1], r"labels \(19,\)"),
        (PIXELS[0], np.full(RECORDS, 10), "record 0 has label 10; expected 0 to 9"),
    ],
)
def test_pickles_of_another_shape_are_named(tmp_path, images, labels, message):
    raw = pickle.dumps({b"data": images, b"labels": labels.tolist()}, protocol=2)
    (write(tmp_path, "python") / "test_batch").write_bytes(raw)
    with pytest.raises(ValueError, match=f"test_batch: .*{message}"):
        data.load("cifar10", tmp_path)


@pytest.mark.parametrize("size", [0, 5, RECORDS * 3072, RECORDS * 7000])
def test_pickles_of_impossible_size_are_not_even_read(tmp_path, size):
    (write(tmp_path, "python") / "test_batch").write_bytes(bytes(size))
    with pytest.raises(ValueError, match=f"test_batch: {size} bytes; expected between"):
        data.load("cifar10", tmp_path)


@pytest.fixture(params=["binary", "python"])
def archive(request, tmp_path, monkeypatch):
    """An archive in the authors' form, its checksum put in place of the real one's: (layout, bytes)."""
    layout = cifar10.LAYOUTS[request.param]
    made = tmp_path / "made"
    write(made, request.param)
    (made / layout.folder / "readme.html").write_text("hello")
    with tarfile.open(made / "t.tar.gz", "w:gz") as tar:
        tar.add(made / layout.folder, layout.folder)
    raw = (made / "t.tar.gz").read_bytes()
    put = dataclasses.replace(layout, md5=hashlib.md5(raw).hexdigest(), size=len(raw))
    monkeypatch.setitem(cifar10.LAYOUTS, request.param, put)
    return request.param, put, raw


def test_archive_in_the_root_is_unpacked_on_load(tmp_path, archive):
    name, layout, raw = archive
    root = tmp_path / "root"
    root.mkdir()
    (root / layout.archive).write_bytes(raw)
    assert f"{name} layout" in check(root).source
    assert sorted(p.name for p in root.iterdir()) == sorted([layout.archive, layout.folder])
    assert sorted(p.name for p in (root / layout.folder).iterdir()) == sorted(layout.files)


def test_archive_with_another_checksum_is_refused(tmp_path, archive):
    _, layout, raw = archive
    root = tmp_path / "root"
    root.mkdir()
    (root / layout.archive).write_bytes(raw[:-1])
    with pytest.raises(ValueError, match=rf"{layout.archive}: MD5 is [0-9a-f]{{32}}; expected {layout.md5}"):
        data.load("cifar10", root)
    assert [p.name for p in root.iterdir()] == [layout.archive]


@pytest.fixture
def server(archive, monkeypatch):
    """Serves the archive at any address; `server.status` makes it fail."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.requests.append(self.path)
            if self.server.status != 200:
                return self.send_error(self.server.status)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(archive[2])

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.requests, httpd.status = [], 200
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setattr(cifar10, "HOME", f"http://127.0.0.1:{httpd.server_port}/~kriz/")
        yield httpd
        httpd.shutdown()
        thread.join()


def test_download(tmp_path, archive, server):
    name, layout, _ = archive
    root = tmp_path / "new" / "root"
    assert cifar10.download(root, layout=name, progress=False) == root / layout.folder
    check(root)
    assert server.requests == [f"/~kriz/{layout.archive}"]
    cifar10.download(root, layout=name, progress=False)  # complete: nothing is asked for
    assert len(server.requests) == 1


def test_download_from_a_mirror(tmp_path, archive, server):
    cifar10.download(tmp_path / "root", url=cifar10.HOME + "mirror.tgz", layout=archive[0], progress=False)
    assert server.requests == ["/~kriz/mirror.tgz"]
    check(tmp_path / "root")


def test_failed_download_says_what_to_do_by_hand(tmp_path, archive, server):
    server.status = 404
    with pytest.raises(DownloadError, match=r"could not download .*the server answered 404") as error:
        cifar10.download(tmp_path / "root", layout=archive[0], progress=False)
    for part in (cifar10.MIRRORS["python"], archive[1].md5, str(tmp_path / "root"), "shapes10"):
        assert part in str(error.value)
    assert list((tmp_path / "root").iterdir()) == []


def test_loading_never_downloads(tmp_path, server):
    with pytest.raises(FileNotFoundError):
        data.load("cifar10", tmp_path / "root")
    assert server.requests == [] and not (tmp_path / "root").exists()


def test_unknown_layout(tmp_path):
    with pytest.raises(ValueError, match="layout: got 'matlab'; expected one of binary, python"):
        cifar10.download(tmp_path, layout="matlab")


def test_real_files(cifar10_root, monkeypatch):
    monkeypatch.setattr(cifar10, "RECORDS", 10_000)
    train, test = data.load("cifar10", cifar10_root)
    assert train.images.shape == (50_000, 3, 32, 32) and test.images.shape == (10_000, 3, 32, 32)
    assert (np.bincount(train.labels) == 5_000).all() and (np.bincount(test.labels) == 1_000).all()
    # The well-known figures; a re-encoded copy differs a little.
    np.testing.assert_allclose(train.mean, [0.4914, 0.4822, 0.4465], atol=5e-4)
    np.testing.assert_allclose(train.std, [0.2470, 0.2435, 0.2616], atol=3e-3)
    if not cifar10._missing(cifar10_root, cifar10.LAYOUTS["python"]):
        images, labels, _ = cifar10.read_pickled(cifar10_root / "cifar-10-batches-py" / "data_batch_2", 10_000)
        assert (images.reshape(-1, 3, 32, 32) == train.images[10_000:20_000]).all()
        assert (labels == train.labels[10_000:20_000]).all()
