"""Build of the C core: cffi in API mode, one abi3 extension ``minilp._core``.

The prototypes live once, in ``*.cdef.h``: cffi reads these files, and ``minilp_core.h`` includes them for the C
sources. Instruction sets are not chosen here. Every source is portable C; the vector versions carry function
attributes and are picked at run time (see ``dispatch.c``), so one binary serves every x86-64 machine.
"""
import concurrent.futures
import itertools
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile

from cffi import FFI
from setuptools.command.build_ext import build_ext

ROOT = pathlib.Path(__file__).resolve().parent.parent
CEXT = ROOT / "cext"

# -ffp-contract=off: a float multiply and add never fuse behind our back, so C and NumPy can agree bit for bit.
CFLAGS = ["-O3", "-std=c11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden",
          "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-psabi"]

ffibuilder = FFI()
ffibuilder.cdef("\n".join(line for path in sorted(CEXT.glob("*.cdef.h")) for line in path.read_text().splitlines()
                          if not line.startswith("#")))
ffibuilder.set_source(
    "minilp._core",
    '#include "minilp_core.h"',
    sources=sorted(str(p.relative_to(ROOT)) for p in CEXT.glob("*.c")),
    depends=sorted(str(p.relative_to(ROOT)) for p in CEXT.glob("*.h")),
    include_dirs=[str(CEXT)],
    extra_compile_args=CFLAGS,
    py_limited_api=True,
)

# Instead of -O3, in a build that watches itself. The first report ends the process, so no test can overlook it.
SANITIZER_FLAGS = ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"]

PROBES = {
    "openmp": (["-fopenmp"], "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }"),
    "avx2": ([], '__attribute__((target("avx2,fma"))) int main(void) { return 0; }'),
    "avx512": ([], '__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))) int main(void) { return 0; }'),
    "vnni": ([], '__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni"))) int main(void) { return 0; }'),
    "amx": ([], "#include <immintrin.h>\n"
                '__attribute__((target("amx-tile,amx-int8"))) int main(void) { _tile_release(); return 0; }'),
}


def compiles(compiler, flags, source):
    """Whether ``compiler`` accepts, and links, one small program. Returns (bool, the compiler's words)."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "probe.c"
        path.write_text(source + "\n")
        command = [*compiler, "-Werror", *flags, str(path), "-o", str(path.with_suffix(".out"))]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            return False, str(error)
        return done.returncode == 0, done.stderr.strip()


def side_by_side(compile_all, sources, **how):
    """Compile the sources on all processors; setuptools takes them one after another. Returns the objects in order."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return [name for names in pool.map(lambda source: compile_all([source], **how), sources) for name in names]


class BuildCore(build_ext):
    """Probe the compiler, build what it can, and leave a record in ``minilp/_build_info.json``.

    ``MINILP_NO_C=1`` leaves the C core out on purpose (the NumPy backend then does all the work).
    ``MINILP_SANITIZE=address,undefined`` builds it with GCC's sanitizers (``.ci/sanitize`` does, and runs the tests).
    """

    def run(self):
        info = {"built": False, "reason": "", "compiler": "", "features": []}
        try:
            if os.environ.get("MINILP_NO_C") == "1":
                raise RuntimeError("MINILP_NO_C=1 at build time")
            super().run()
            info.update(self.found, built=True)
        except Exception as error:  # any failure at all: the package must install without its C core
            info["reason"] = f"{type(error).__name__}: {error}"
            print(f"minilp: no C core ({info['reason']}); the NumPy backend will be used", file=sys.stderr)
        self.record(info)

    def build_extension(self, ext):
        words = list(self.compiler.compiler_so)  # CC may be two words, such as "ccache gcc"
        compiler = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
        works, words = compiles(compiler, [], "int main(void) { return 0; }")
        if not works:
            raise RuntimeError(f"no working C compiler ({' '.join(compiler)}): {words}")
        features = []
        for name, (flags, source) in PROBES.items():
            if name != "openmp" and platform.machine().lower() not in ("x86_64", "amd64"):
                continue
            if compiles(compiler, flags, source)[0]:
                features.append(name)
                ext.define_macros.append((f"MLP_HAVE_{name.upper()}", "1"))
                ext.extra_compile_args.extend(flags)
                ext.extra_link_args.extend(flags)
        sanitizers = os.environ.get("MINILP_SANITIZE", "")
        if sanitizers:
            flags = [f"-fsanitize={sanitizers}", *SANITIZER_FLAGS]
            works, words = compiles(compiler, flags, "int main(void) { return 0; }")
            if not works:
                raise RuntimeError(f"MINILP_SANITIZE={sanitizers}: {words}")
            ext.extra_compile_args.extend(flags)
            ext.extra_link_args.extend(flags)
        self.found = {"compiler": " ".join(compiler), "features": features, "sanitizers": sanitizers}
        compile_all = self.compiler.compile
        self.compiler.compile = lambda sources, **how: side_by_side(compile_all, sources, **how)
        super().build_extension(ext)

    def record(self, info):
        targets = [ROOT / "minilp"] if self.inplace else [pathlib.Path(self.build_lib) / "minilp"]
        for folder in targets:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "_build_info.json").write_text(json.dumps(info, indent=1) + "\n")


if __name__ == "__main__":
    ffibuilder.emit_c_code(sys.argv[1] if len(sys.argv) > 1 else "minilp/_core.c")
