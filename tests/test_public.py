"""The public face: every name is there, and importing it is cheap."""
import subprocess
import sys

import pytest

import minilp


def test_every_public_name_is_there():
    for name in minilp.__all__:
        assert getattr(minilp, name) is not None
    assert dir(minilp) == sorted(minilp.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        minilp.trian  # noqa: B018


def test_import_pulls_in_no_room_before_it_is_used():
    rooms = ("tqdm", "minilp.nn", "minilp.training", "torch")
    code = f"import sys, minilp; print([m for m in {rooms} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
