"""What leaves this folder installs elsewhere: sdist, wheel, and a machine without a compiler."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

PROJECT = pathlib.Path(__file__).resolve().parent.parent
LEFT_OUT = shutil.ignore_patterns(".git", "build", "dist", "runs", "*.so", "*.egg-info", "__pycache__", ".*_cache",
                                  ".hypothesis", "_build_info.json", "venv", ".venv")


def run(*command, cwd, **env):
    """Run a command; on failure show all it said."""
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=300,
                          env={**os.environ, **env})
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(source, into, kind, **env):
    """Build an sdist or a wheel of ``source`` without the network; the path of the file."""
    run(sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", into, source, cwd=into, **env)
    return next(into.glob("*.tar.gz" if kind == "sdist" else "*.whl"))


def imported_backend(wheel, into):
    """Unpack a wheel and import it from another folder: what ``minilp.backend()`` says."""
    site = into / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = ("import json, sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f)]; "  # ours only
            "import minilp; b = minilp.backend(); print(json.dumps([minilp.__file__, b.name, b.reason]))")
    file, name, reason = json.loads(run(sys.executable, "-c", code, cwd=into, PYTHONPATH=str(site),
                                        MINILP_BACKEND="auto"))
    assert pathlib.Path(file).is_relative_to(site)
    return name, reason


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """A source distribution, unpacked: (archive names, folder)."""
    if not (PROJECT / "setup.py").exists():
        pytest.skip("not in a source tree")
    here = tmp_path_factory.mktemp("sdist")
    shutil.copytree(PROJECT, here / "tree", ignore=LEFT_OUT)
    archive = build(here / "tree", here, "sdist")
    with tarfile.open(archive) as tar:
        names = [name.split("/", 1)[1] for name in tar.getnames() if "/" in name]
        tar.extractall(here, filter="data")
    return names, here / archive.name.removesuffix(".tar.gz")


def test_sdist_holds_what_a_build_needs(sdist):
    names, _ = sdist
    for needed in ("cext/build.py", "cext/minilp_core.h", "cext/minilp_core.cdef.h", "cext/minilp_mx.cdef.h",
                   "setup.py", "LICENSE", "README.md", "minilp/py.typed", "minilp/energy/prices/horowitz-45nm.json"):
        assert needed in names


def test_sdist_installs_and_wheel_tag_is_abi3(sdist, tmp_path, needs_c):
    wheel = build(sdist[1], tmp_path, "wheel")
    assert re.search(r"-cp310-abi3-\w+\.whl$", wheel.name), wheel.name
    assert imported_backend(wheel, tmp_path) == ("c", "")


def test_without_a_compiler_it_installs_and_says_why(sdist, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(sdist[1], source, ignore=LEFT_OUT)
    wheel = build(source, tmp_path, "wheel", CC="/no/such/compiler")
    name, reason = imported_backend(wheel, tmp_path)
    assert name == "numpy" and "/no/such/compiler" in reason


def test_files_under_300_lines():
    """One idea a file: 300 lines is the aim, 330 the limit."""
    files = [path for folder in ("minilp", "cext") for path in (PROJECT / folder).rglob("*.*")]
    lines = {str(path): len(path.read_text().splitlines()) for path in files if path.suffix in (".py", ".c", ".h")}
    assert {path: n for path, n in lines.items() if n > 330} == {}
