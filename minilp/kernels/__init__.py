"""The only rooms that call C: each wrapper checks dtype, shape and layout, then runs the C kernel or its NumPy twin."""
from minilp.kernels.backend import (
    Backend,
    KernelError,
    available_tiers,
    backend,
    calls,
    kernel_family,
    set_num_threads,
    threads,
    use_backend,
    use_isa,
    use_kernels,
)
from minilp.kernels.conversions import conversions

__all__ = ["Backend", "KernelError", "available_tiers", "backend", "calls", "conversions", "kernel_family",
           "set_num_threads", "threads", "use_backend", "use_isa", "use_kernels"]
