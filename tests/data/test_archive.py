"""Unpacking: the expected files or nothing, whatever the archive says."""
import io
import tarfile

import pytest

from minilp.data.archive import unpack

WANTED = {"a.bin": (3, 3), "b.bin": (1, 5)}


def build(path, members, mode="w:gz"):
    """members: (name, bytes) or a ready TarInfo."""
    with tarfile.open(path, mode) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


GOOD = [special("top", tarfile.DIRTYPE), ("top/a.bin", b"abc"), ("top/readme", b"x"), ("top/b.bin", b"de")]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_wanted_files_only(tmp_path, mode):
    unpack(build(tmp_path / "t", GOOD, mode), tmp_path / "out", WANTED)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == {"a.bin": b"abc", "b.bin": b"de"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "t"]
    assert (tmp_path / "out").stat().st_mode & 0o055 == 0o055  # not private, as mkdtemp leaves it


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("../evil", b"x"), "'../evil' leaves the folder"),
        (("top/../../evil", b"x"), "leaves the folder"),
        (("/tmp/evil", b"x"), "'/tmp/evil' leaves the folder"),
        (("..\\evil", b"x"), "leaves the folder"),
        (special("top/link", tarfile.SYMTYPE, "/etc/passwd"), "'top/link' is a link or a device"),
        (special("top/hard", tarfile.LNKTYPE, "top/a.bin"), "'top/hard' is a link or a device"),
        (special("top/fifo", tarfile.FIFOTYPE), "'top/fifo' is a link or a device"),
        (special("top/null", tarfile.CHRTYPE), "'top/null' is a link or a device"),
        (("other/a.bin", b"xyz"), "'a.bin' is there twice"),
    ],
)
def test_one_hostile_member_condemns_all(tmp_path, extra, message):
    root = tmp_path / "root"
    root.mkdir()
    archive = build(root / "t", [*GOOD, extra])
    with pytest.raises(ValueError, match="root/t: member ") as error:
        unpack(archive, root / "out", WANTED)
    assert message in str(error.value)
    assert [p.name for p in root.iterdir()] == ["t"]  # nothing half-written, not even the staging folder
    assert [p.name for p in tmp_path.iterdir()] == ["root"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (GOOD[:3], "lacks b.bin"),
        ([("a.bin", b"ab"), GOOD[3]], "'a.bin' has 2 bytes; expected 3 to 3"),
        ([("a.bin", b"abcd"), GOOD[3]], "'a.bin' has 4 bytes; expected 3 to 3"),
        ([(f"{i}", b"") for i in range(1001)], "more than 1000 members"),
    ],
)
def test_incomplete_or_wrong_sizes(tmp_path, members, message):
    with pytest.raises(ValueError, match=message):
        unpack(build(tmp_path / "t", members), tmp_path / "out", WANTED)
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[: len(raw) // 2], lambda raw: raw[:60] + b"\0" * 20 + raw[80:], lambda raw: b""]
)
@pytest.mark.parametrize("mode", ["w:gz", "w:xz"])
def test_damaged_archives(tmp_path, damage, mode):
    archive = build(tmp_path / "t", GOOD, mode)
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(ValueError, match="t: damaged archive"):
        unpack(archive, tmp_path / "out", WANTED)
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


def test_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="out exists already"):
        unpack(build(tmp_path / "t", GOOD), tmp_path / "out", WANTED)
    assert list((tmp_path / "out").iterdir()) == []
