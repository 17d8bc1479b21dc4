"""Speed, measured side by side: each system in a process of its own, stepped in turn while the others sleep."""
from minilp.bench.step import bench_step, table

__all__ = ["bench_step", "table"]
