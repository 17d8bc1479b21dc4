"""The builder in lessons/build.py as a module."""
import importlib.util
import pathlib

import pytest

LESSONS = pathlib.Path(__file__).resolve().parents[2] / "lessons"


@pytest.fixture(scope="session")
def build(needs_lessons):
    """``lessons/build.py``; skips where the extra is missing."""
    spec = importlib.util.spec_from_file_location("lessons_build", LESSONS / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
