"""The comparison of runs."""
import pytest

from minilp.training import compare, train


@pytest.fixture
def pair(options, finished, tmp_path):
    return finished, train(**{**options, "settings": ["model.width=4"], "recipe": "fp32"}, out=tmp_path / "float")


def test_rows_hold_accuracy_gap_speed_bits_and_time(pair, tmp_path):
    found = compare([run.path for run in pair], plot=None)
    assert [row["test_acc"] for row in found.rows] == [run.test_acc for run in pair]
    assert found.rows[0]["gap"] == 0 and found.rows[1]["gap"] == pair[1].test_acc - pair[0].test_acc
    assert [row["bits"] for row in found.rows] == [(5, 5, 5), (32, 32, 32)]
    assert [row["seconds"] for row in found.rows] == [run.seconds for run in pair]
    assert [row["images_per_s"] for row in found.rows] == [run.images_per_s for run in pair]
    assert [row["energy_pj_per_image"] for row in found.rows] == [run.energy_pj_per_image for run in pair]
    assert found.rows[0]["energy_pj"] < found.rows[1]["energy_pj"]
    assert f"{found.rows[0]['energy_pj_per_image'] / 1e6:.4g}" in str(found) and "J run" in str(found)
    assert found.plot is None


def test_the_table_is_aligned(pair):
    lines = str(compare([run.path for run in pair], plot=None)).splitlines()
    assert len(lines) == 3 and len({len(line) for line in lines}) == 1
    assert "5/5/5" in lines[1] and "32/32/32" in lines[2] and f"{pair[0].test_acc:.2%}" in lines[1]


def test_the_picture(pictures, pair, tmp_path):
    found = compare([run.path for run in pair], plot=tmp_path / "compare.png")
    assert found.plot.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_there_is_no_picture(pair, tmp_path):
    assert compare([pair[0].path], plot=tmp_path / "compare.png").plot is None
    assert not (tmp_path / "compare.png").exists()


def test_unfinished_and_missing_runs_are_refused(pair, tmp_path):
    (pair[0].path / "result.json").unlink()
    for path in (pair[0].path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="no finished run"):
            compare([path], plot=None)
    with pytest.raises(ValueError, match="at least one"):
        compare([], plot=None)
