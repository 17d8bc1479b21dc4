"""One multiply-accumulate of MX in words, down to scale bytes, element fields and integers."""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from minilp.formats.mx import MX


def explain(fmt: MX, a: float, b: float) -> str:
    """Narrate ``a * b``, each the largest magnitude of its block.

    Parameters
    ----------
    fmt : MX
        The format of both.
    a, b : float
        Finite factors.

    Returns
    -------
    str
        Some lines of text.
    """
    element, table = fmt.level, fmt.level.integers()
    lines = [f"{fmt}: {fmt.bits} bits an element, 8 bits a scale for {fmt.block} elements along the sum",
             f"element     {fmt.element}: integers to {table[element.top]} in units of 2^{element.step}, values to "
             f"{element.largest:g}"]
    integers, exponents, decoded = [], [], []
    for name, number in (("a", a), ("b", b)):
        q = fmt.encode(np.array([number], np.float32))
        code, scale = int(q.codes[0]), int(q.scales[0][0])
        integers.append(int(table[code & 255]))
        exponents.append(scale - 127)
        decoded.append(float(q.decode()[0]))
        level = abs(code)
        fields = f"{level:0{fmt.bits - 1}b}"
        if fmt.element != "int8":
            fields = f"{fields[:-element.man]} {fields[-element.man:]}"
        saturated = " (saturated)" if level == element.top and abs(number) > abs(decoded[-1]) else ""
        lines.append(f"{name:<12}{number:g}: scale byte {scale} = 2^{exponents[-1]}, sign {int(code < 0)}, fields "
                     f"{fields}{saturated}, integer {integers[-1]}, decodes to {decoded[-1]:g}")
    product = integers[0] * integers[1]
    lines += [
        f"product     P = {integers[0]} * {integers[1]} = {product}   (summed inside the block as an integer)",
        f"exponent    float32(P) * 2^({exponents[0]} + {exponents[1]}) by exponent add, then one float32 add between "
        f"blocks",
        f"scale       * 2^{2 * element.step} for the elements' units, once per output",
        f"result      {decoded[0] * decoded[1]:g}   (exact product {a * b:g})",
    ]
    return "\n".join(lines)
