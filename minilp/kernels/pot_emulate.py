"""Power-of-two contractions on the CPU's integer multipliers: the same integers as the shift/add kernels, sooner.

A code of up to 4 bits stands for at most 64 and is one int8 number. A 5-bit code stands for ``+-2**e``, e up to 14, and
is two int8 digits to the base 130 (our own derivation: ``2**7 = 130 - 2``, so both digits are small, and so is their
difference). The int8 engine (:mod:`minilp.kernels.dot8`) adds their products up exactly, joins and rounds them once.
"""
from __future__ import annotations

import math

import numpy as np

from minilp.kernels import dot8
from minilp.kernels.backend import active, count, kernel_family, tier
from minilp.kernels.pot_geometry import Array, Geometry, sum_bits, top_code

WORDS = {"shift": "shift/add", "emulate": "int8 digits", "numpy": "NumPy"}
"""What reports call the families."""


def family(bits_a: int, bits_b: int, accumulate: str = "int64") -> str:
    """Which family of kernels runs a contraction of power-of-two codes.

    Parameters
    ----------
    bits_a, bits_b : int
    accumulate : str
        As ``pot_contract``: the INT32 model exists in the shift/add family alone.

    Returns
    -------
    str
        ``"numpy"`` without the C core; ``"emulate"`` where the emulation is asked for, or is the faster one, and both
        operands have at most 5 bits; else ``"shift"``.
    """
    if active() != "c":
        return "numpy"
    wanted = kernel_family()
    if accumulate == "int32" or max(bits_a, bits_b) > 5 or wanted == "shift":
        return "shift"
    return "emulate" if wanted == "emulate" or tier() in ("vnni", "amx") else "shift"


def contract(a: Array, b: Array, g: Geometry, bits_a: int, bits_b: int, exponent: int, out: str) -> Array | None:
    """Contract codes of at most 5 bits; arguments as :func:`minilp.kernels.pot_c.contract`.

    Returns
    -------
    np.ndarray or None
        float32 or int64 as ``out`` says; int64 sums, not yet scaled, for the weight gradient and where K exceeds
        :data:`minilp.kernels.dot8.TERMS`. None where the engine does not apply.

    Raises
    ------
    OverflowError
        If a result does not fit float32.
    minilp.kernels.dot8.BadCode
        If a code that the sums take in is beyond its format.
    """
    scales = None
    if out == "float32":  # beyond these exponents every result but 0 is beyond float32, or rounds to 0
        scales = math.ldexp(1.0, min(max(exponent, -1000), 900)), 1.0
    result = dot8.contract(a, b, g, dot8.power_digits(bits_a), dot8.power_digits(bits_b), scales,
                           (top_code(bits_a), top_code(bits_b)))
    if result is None:
        return None
    count(f"pot_emulate_{g.kind}[{tier()}]")
    if result.dtype == np.float32 and exponent + sum_bits(bits_a, bits_b, g.depth) >= 127 \
            and not np.isfinite(result).all():
        raise OverflowError(f"pot_emulate_{g.kind}: a result is beyond the largest float32")
    return result
