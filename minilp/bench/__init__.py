"""Speed, measured side by side: each system in a process of its own, stepped in turn while the others sleep."""
from minilp.bench.account import profile
from minilp.bench.imports import bench_import
from minilp.bench.kernels import SHAPES, bench_kernels
from minilp.bench.quantise import bench_quantise
from minilp.bench.scale import bench_scale
from minilp.bench.step import RIVALS, bench_step

__all__ = ["RIVALS", "SHAPES", "bench_import", "bench_kernels", "bench_quantise", "bench_scale", "bench_step",
           "profile"]
