"""One multiply-accumulate of LNS in words, down to exponents, quotient and remainder, bin and constant."""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from minilp.formats.lns import LNS


def explain(fmt: LNS, a: float, b: float) -> str:
    """Narrate ``a * b``, both in a tensor whose largest magnitude is max(1, |a|, |b|), through the datapath.

    Parameters
    ----------
    fmt : LNS
        The format of both.
    a, b : float
        Finite factors.

    Returns
    -------
    str
        Some lines of text. The names follow the paper; sums go to one bin per remainder (or per ``lut`` entry), and a
        constant is multiplied once per bin.
    """
    gamma, width = fmt.gamma, fmt.bits - 1
    q = fmt.encode(np.array([a, b, max(1.0, abs(a), abs(b))], np.float32))
    maximum, values = float(q.scales[0][0]), q.decode()
    s = float(fmt.s(maximum))
    zero = f"zero is a flag beside the {fmt.bits} bits" if fmt.zero == "flag" else f"zero is one of {2**width} patterns"
    lines = [f"{fmt}: value = (-1)^sign * s * 2^(e/{gamma}), e from 0 to {fmt.steps}, {zero}, {fmt.levels} values",
             f"tensor      largest magnitude {maximum:g}, s = {maximum:g} * 2^(-{fmt.steps}/{gamma}) = {s:g}"]
    exponents = [abs(int(code)) - 1 for code in q.codes[:2]]
    for name, number, code, e, value in zip("ab", (a, b), q.codes[:2], exponents, values[:2], strict=True):
        words = f"sign {int(code < 0)}, e = {e} ({e:0{width}b})" if code else "zero, sign 0"
        lines.append(f"{name:<12}{number:g}: {words}, decodes to {float(value):g}")
    if 0 in q.codes[:2]:
        lines.append("zero gate   an operand is zero: the product is gated off, no bin changes")
        lines.append(f"result      0   (exact product {a * b:g})")
        return "\n".join(lines)
    signs = [int(code < 0) for code in q.codes[:2]]
    total, sign = sum(exponents), signs[0] ^ signs[1]
    quotient, remainder = divmod(total, gamma)
    entries = fmt.lut or gamma
    low = remainder % (gamma // entries)  # what the hybrid conversion puts on a straight line
    kept = remainder - low
    operator = "-" if sign else "+"
    one = "1" if low == 0 else f"(1 + {low}/{gamma})"
    bin_value = (1 + low / gamma) * 2.0**quotient
    constant = 2.0 ** (kept / gamma)
    result = (-1) ** sign * bin_value * constant * s * s
    lines += [
        f"sign        {signs[0]} XOR {signs[1]} = {sign}",
        f"exponent    {exponents[0]} + {exponents[1]} = {total}   (INT{width} addition, {width + 1}-bit result)",
        f"split       {total} = {quotient} * {gamma} + {remainder}: quotient {quotient}, remainder {remainder}",
    ]
    if fmt.convert == "hybrid":
        lines.append(f"hybrid      {remainder} = {kept} + {low}: {entries} of {gamma} constants kept, "
                     f"2^({low}/{gamma}) taken as 1 + {low}/{gamma}")
    lines += [
        f"bin         bin {kept}: 0 {operator} {one} << {quotient} = {'-' if sign else ''}{bin_value:.15g}",
        f"constant    * 2^({kept}/{gamma}) = {constant:g}, once per bin and output",
        f"scale       * s * s = {s * s:g}, once per output",
        f"result      {result:g}   (exact product {a * b:g})",
    ]
    if fmt.path == "float":
        lines.append("this is the datapath of path=bins; path=float multiplies the decoded values in float32")
    return "\n".join(lines)
