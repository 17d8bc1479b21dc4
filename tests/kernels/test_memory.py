"""Freed memory stays with the process: arrays of one step after the other touch no fresh page."""
import os
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


def faults(**environment):
    """Page faults of ten steps that fill 72 MB each, in a process of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"}
    run = subprocess.run([sys.executable, "-c", PROGRAM], env={**kept, **environment}, capture_output=True, text=True,
                         check=True)
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizers bring a malloc of their own")
def test_freed_memory_is_kept_unless_the_user_tunes_malloc(needs_c):
    assert faults() < 20
    assert faults(MALLOC_TOP_PAD_="0") > 200  # left alone, it shrinks and grows: a page of 4 KiB or 2 MiB at a time
