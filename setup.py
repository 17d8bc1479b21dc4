"""Build minilp and, where a C compiler is found, its C core.

The extension is optional: without a compiler the package still installs and computes with NumPy, and
``minilp.backend()`` says so and why.
"""
import pathlib
import sys

from setuptools import setup

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "cext"))
from build import BuildCore  # cext/build.py, found through the line above

setup(cffi_modules=["cext/build.py:ffibuilder"], cmdclass={"build_ext": BuildCore})
