"""Checkpoint files: exact, deterministic, atomic, and clear about damage."""
import os

import numpy as np
import pytest

from minilp import files
from minilp.training import checkpoint

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(3.5), "c": np.zeros((0, 3), np.int8),
          "flag": np.array([True, False])}
META = {"epoch": 3, "sum": 0.1, "list": [1, None, "x"]}


def test_round_trip_is_exact(tmp_path):
    checkpoint.save(tmp_path / "c", ARRAYS, META)
    arrays, meta = checkpoint.load(tmp_path / "c")
    assert meta == META
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        assert arrays[name].tobytes() == array.tobytes()


def test_strided_arrays_keep_their_logical_content(tmp_path):
    """The safetensors library writes memory as it lies: a transposed array must be brought into order first."""
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    strided = {"transposed": x.transpose(2, 0, 1), "fortran": np.asfortranarray(x), "sliced": x[:, ::2]}
    checkpoint.save(tmp_path / "c", strided, {})
    arrays, _ = checkpoint.load(tmp_path / "c")
    for name, array in strided.items():
        np.testing.assert_array_equal(arrays[name], array)


def test_equal_states_give_equal_bytes(tmp_path):
    checkpoint.save(tmp_path / "one", ARRAYS, META)
    checkpoint.save(tmp_path / "two", dict(reversed(ARRAYS.items())), dict(reversed(META.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_any_safetensors_reader_opens_it(tmp_path):
    from safetensors import safe_open

    checkpoint.save(tmp_path / "c", ARRAYS, META)
    with safe_open(tmp_path / "c", framework="numpy") as file:
        assert set(file.keys()) == set(ARRAYS)
        assert list(file.metadata()) == ["minilp"]


def test_pack_and_unpack_nested_state():
    state = {"state": {0: {"buffer": np.ones(3), "step": np.int64(4)}}, "groups": [{"betas": (0.9, 0.99)}]}
    arrays = {}
    packed = checkpoint.pack("optimizer", state, arrays)
    assert list(arrays) == ["optimizer.state.0.buffer"]
    back = checkpoint.unpack(packed, arrays)
    assert back["groups"] == [{"betas": [0.9, 0.99]}]
    assert back["state"]["0"]["step"] == 4 and back["state"]["0"]["buffer"] is arrays["optimizer.state.0.buffer"]


@pytest.mark.parametrize("cut", [0, 4, 20, -1])
def test_a_truncated_file_is_refused_by_name(tmp_path, cut):
    checkpoint.save(tmp_path / "c.safetensors", ARRAYS, META)
    data = (tmp_path / "c.safetensors").read_bytes()
    (tmp_path / "c.safetensors").write_bytes(data[:cut])
    with pytest.raises(ValueError, match=r"c\.safetensors: not a minilp checkpoint"):
        checkpoint.load(tmp_path / "c.safetensors")


def test_a_foreign_or_newer_file_is_refused(tmp_path, monkeypatch):
    from safetensors.numpy import save_file

    save_file({"a": np.ones(2)}, tmp_path / "foreign")
    with pytest.raises(ValueError, match="foreign: not a minilp checkpoint"):
        checkpoint.load(tmp_path / "foreign")
    monkeypatch.setattr(checkpoint, "VERSION", 99)
    checkpoint.save(tmp_path / "newer", ARRAYS, META)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="another version"):
        checkpoint.load(tmp_path / "newer")


@pytest.mark.parametrize("operation", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch, operation):
    checkpoint.save(tmp_path / "c", ARRAYS, {"epoch": 1})

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, operation, fail)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(tmp_path / "c", ARRAYS, {"epoch": 2})
    assert checkpoint.load(tmp_path / "c")[1] == {"epoch": 1}


def test_bytes_reach_the_disk_before_the_name_and_the_folder_after(tmp_path, monkeypatch):
    seen = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (seen.append("fsync folder" if os.path.isdir(f"/proc/self/fd/{fd}")
                                                             else "fsync file"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append("replace"), replace(a, b)))
    files.write_atomic(tmp_path / "x", b"content")
    assert seen == ["fsync file", "replace", "fsync folder"]


def test_keep_lines_drops_later_and_unfinished_lines(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"one\ntwo\nthree\nfou")
    files.keep_lines(path, 3)
    assert path.read_bytes() == b"one\ntwo\nthree\n"
    files.keep_lines(path, 1)
    assert path.read_bytes() == b"one\n"
    with pytest.raises(ValueError, match="has 1 lines"):
        files.keep_lines(path, 2)
