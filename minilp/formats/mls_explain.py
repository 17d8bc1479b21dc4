"""One multiply-accumulate of MLS in words, down to fields, integers, shifts and scales."""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from minilp.formats.mls import MLS

_SHIFTS = {1: "P", 2: "P << 1", 3: "(P << 1) + P", 4: "P << 2", 6: "(P << 2) + (P << 1)", 9: "(P << 3) + P"}


def explain(fmt: MLS, a: float, b: float) -> str:
    """Narrate ``a * b``, each the only number of its group in a tensor whose largest magnitude is max(1, |a|, |b|).

    Parameters
    ----------
    fmt : MLS
        The format of both.
    a, b : float
        Finite factors.

    Returns
    -------
    str
        Some lines of text.
    """
    top = max(1.0, abs(a), abs(b))
    x = np.zeros((3, 1, 2, 2), np.float32)
    x[:, 0, 0, 0] = a, b, top
    grouped = fmt if fmt.group in ("n", "nc") else None
    q = fmt.encode(x)
    lines = [f"{fmt}: value = (-1)^sign * S_t * S_g * xbar, xbar in <{fmt.exp},{fmt.man}>, {fmt.bits} bits, integers 0 "
             f"to {int(fmt.integers()[-1])} times 2^-{fmt.fraction_bits}",
             f"tensor      largest magnitude S_t = {top:g}; a and b are "
             f"{'groups of their own' if grouped else 'in one group'} in it"]
    integers, significands, exponents = [], [], []
    decoded, table = q.decode(), fmt.wide_table()
    for row, (name, number) in enumerate((("a", a), ("b", b))):
        code = int(q.codes[row, 0, 0, 0])
        at = row if q.scales[1].size > 1 else 0
        e_g, m_g = int(q.scales[1].reshape(-1)[at]), int(q.scales[2].reshape(-1)[at])
        level = abs(code)
        field, mantissa = level >> fmt.man, level & (2**fmt.man - 1)
        bits = " ".join(f"{value:0{width}b}" for value, width in ((field, fmt.exp), (mantissa, fmt.man)) if width)
        integers.append(int(table[code & 255]))
        significands.append(2**fmt.group_man + m_g)
        exponents.append(e_g)
        kind = "integer" if fmt.exp == 0 else "subnormal" if field == 0 else "normal"
        words = f"sign {int(code < 0)}, fields {bits} ({kind})" if fmt.underflow == "gradual" else f"code {code}"
        lines.append(f"{name:<12}{number:g}: S_g = {significands[-1] / 2**fmt.group_man:g} * 2^-{e_g}, {words}, "
                     f"integer {integers[-1]}, decodes to {float(decoded[row, 0, 0, 0]):g}")
    product, m = integers[0] * integers[1], significands[0] * significands[1]
    exponent = sum(exponents) + 2 * fmt.group_man
    result = product * m * 2.0 ** -(exponent + 2 * fmt.fraction_bits) * top * top
    lines += [
        f"product     P = {integers[0]} * {integers[1]} = {product}   (summed inside the group as INT32)",
        f"group scale significands {significands[0]} * {significands[1]} = {m}: t = {_SHIFTS[m]} = {product * m}",
        f"exponent    float32(t) * 2^-({exponents[0]} + {exponents[1]} + {2 * fmt.group_man}) = "
        f"{product * m * 2.0**-exponent:g}, by exponent add; then one float32 add between groups",
        f"scale       * S_t * S_t * 2^-{2 * fmt.fraction_bits}, once per output",
        f"result      {result:g}   (exact product {a * b:g})",
    ]
    return "\n".join(lines)
