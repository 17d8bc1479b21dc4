"""Notebooks find the recorded trainings from wherever in the checkout they run."""
import pytest

from minilp import lessons as lab


def test_the_results_are_found_from_below_and_missed_with_a_reason(tmp_path, monkeypatch):
    (tmp_path / "lessons" / "results").mkdir(parents=True)
    (tmp_path / "lessons" / "student").mkdir()
    for below in (".", "lessons", "lessons/student"):
        monkeypatch.chdir(tmp_path / below)
        assert lab.results_folder() == tmp_path / "lessons" / "results"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert lab.results_folder() == tmp_path / "lessons" / "results"
    (tmp_path / "lessons" / "results").rmdir()
    with pytest.raises(FileNotFoundError, match=r"no lessons/results in .*elsewhere or above it"):
        lab.results_folder()
