"""minilp: train networks on low-bit numbers for real. The public names, nothing else."""
from minilp.kernels import backend, set_num_threads, use_backend, use_isa
from minilp.random import manual_seed

__version__ = "0.1.0"
__all__ = ["backend", "manual_seed", "set_num_threads", "use_backend", "use_isa"]
