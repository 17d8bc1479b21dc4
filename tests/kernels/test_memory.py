"""Freed memory stays with the process: arrays of one step after the other touch no fresh page, and lie in big ones."""
import os
import pathlib
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
from minilp.kernels import layout

def step():
    arrays = [layout.empty((3 << 20,), "f4") for _ in range(6)]
    for array in arrays:
        array.fill(1)

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

FLAGS = """
from minilp.kernels import layout

array = layout.empty((1 << 20,), "u1")  # NumPy itself asks for big pages from 4 MiB on
address, inside = array.ctypes.data, False
for line in open("/proc/self/smaps"):
    first = line.split()[0]
    if not first.endswith(":"):
        start, end = (int(bound, 16) for bound in first.split("-"))
        inside = start <= address < end
    elif inside and first == "VmFlags:":
        print(line)
"""

of_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
not_sanitized = pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""),
                                   reason="the sanitizers bring a malloc of their own")


def output(program, **environment):
    """What a program prints, in a process of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"}
    return subprocess.run([sys.executable, "-c", program], env={**kept, **environment}, capture_output=True, text=True,
                          check=True).stdout


def faults(**environment):
    """Page faults of ten steps that fill 72 MB each."""
    return int(output(PROGRAM, **environment))


@of_glibc
@not_sanitized
@pytest.mark.skipif(not pathlib.Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="the system has none")
def test_arrays_lie_in_memory_that_may_have_big_pages(needs_c):
    assert "hg" in output(FLAGS).split()
    assert "hg" not in output(FLAGS, MALLOC_TOP_PAD_="0").split()


@of_glibc
@not_sanitized
def test_freed_memory_is_kept_unless_the_user_tunes_malloc(needs_c):
    assert faults() < 20
    assert faults(MALLOC_TOP_PAD_="0") > 200  # left alone, it shrinks and grows: a page of 4 KiB or 2 MiB at a time
