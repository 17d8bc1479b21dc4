"""One multiply-accumulate of small floats in words: fields, product, accumulator."""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from minilp.formats.minifloat import Minifloat


def explain(fmt: Minifloat, a: float, b: float) -> str:
    """Narrate ``a * b``, each encoded as a tensor of its own.

    Parameters
    ----------
    fmt : Minifloat
        The format of both.
    a, b : float
        Finite factors.

    Returns
    -------
    str
        Some lines of text.
    """
    one = 2**fmt.man
    lines = [f"{fmt}: value = (-1)^sign * 1.mantissa * 2^(exponent - {1 - fmt.emin}) * 2^scale, subnormals "
             f"0.mantissa * 2^{fmt.emin}; {fmt.levels} values"]
    negative, significands, exponents, integers, scales = [], [], [], [], []
    for name, number in (("a", a), ("b", b)):
        q = fmt.encode(np.array([number], np.float32))
        code, scale = int(q.codes[0]), int(q.scales[0][0])
        field, mantissa = abs(code) >> fmt.man, abs(code) & (one - 1)
        kind = "normal" if field else "subnormal" if mantissa else "zero"
        negative.append(int(code < 0))
        significands.append(mantissa + (one if field else 0))
        exponents.append(max(field, 1) - 1 + fmt.emin)
        integers.append(int(fmt.integers()[code & 255]))
        scales.append(scale)
        lines.append(f"{name:<12}{number:g}: sign {int(code < 0)}, exponent {field:0{fmt.exp}b} ({field}, {kind}), "
                     f"mantissa {mantissa:0{fmt.man}b}, pattern 0x{int(fmt.patterns(q.codes)[0]):02X}, "
                     f"scale 2^{scale}, decodes to {float(q.decode()[0]):g}")
    product, step = integers[0] * integers[1], 2 * fmt.step
    sign = negative[0] ^ negative[1]
    significand = significands[0] * significands[1]
    value, minus = product * 2.0**step, "-" if product < 0 else "+"
    lines += [
        f"sign        {negative[0]} XOR {negative[1]} = {sign}",
        f"significand {significands[0]}/{one} * {significands[1]}/{one} = {significand}/{one * one}   "
        f"({fmt.man + 1} by {fmt.man + 1} bits, exact)",
        f"exponent    {exponents[0]} + {exponents[1]} = {sum(exponents)}",
        f"product     {value:g}, exact",
    ]
    if fmt.exp <= 4:
        width = 32 if "int32_add" in fmt.cost(fmt) else 64
        lines.append(f"accumulator 0 {minus} {abs(product)} = {product}, INT{width} in steps of 2^{step}; the sum is "
                     f"exact and rounded once")
    else:
        lines.append(f"accumulator 0 {minus} {abs(value):g} = {value:g}, float32; sums of 32 products, added in a "
                     f"fixed order")
    lines += [f"scale       * 2^({scales[0]} + {scales[1]}) = 2^{sum(scales)}, once per output",
              f"result      {value * 2.0**sum(scales):g}   (exact product {a * b:g})"]
    return "\n".join(lines)
