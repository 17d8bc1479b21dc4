"""How much of an update a logarithmic lattice loses: three update rules, measured and under their bounds.

The set-up is that of the theory section of LNS-Madam (Zhao et al., arXiv 2106.13914). Set-up and the form of the three
statements are recalled, so our assumption; the proofs below are our own.

A weight is stored as the exponent ``k / gamma`` of its magnitude, k an integer: no scale, no clamp. An update rule
turns W into U, a real number, and stochastic rounding SR brings it back to the lattice: ``|W'| = 2^(SR(x) / gamma)``
with ``x = gamma * log2|U|``. The error of the step is ``r = || log2|W'| - log2|U| ||^2 = ||SR(x) - x||^2 / gamma^2``.

**One element.** Let f be the fraction of x. SR rounds up, by 1 - f, with probability f, and down, by f, with
probability 1 - f. So ``E (SR(x) - x)^2 = f (1 - f)^2 + (1 - f) f^2 = f (1 - f)``: zero on the lattice, 1/4 at most,
hence ``E r <= d / (4 gamma^2)`` for d elements whatever the rule. And ``f (1 - f) <= min(f, 1 - f)``, the distance from
x to the nearest integer. No integer is nearer than that, neither 0 nor the k where the element came from::

    E (SR(x) - x)^2 <= |x|        and        E (SR(x) - x)^2 <= |x - k|

**Sums.** With Cauchy's ``||x||_1 <= sqrt(d) ||x||_2``, and divided by gamma^2:

* GD, ``U = W - eta g``. The first bound, since x has no relation to k:
  ``E r <= sqrt(d) / gamma * || log2|W - eta g| ||``. It is a matter of the weights; eta hardly enters.
* MUL, ``U = sign(W) 2^(log2|W| - eta g sign(W))``. The second, with ``|x - k| = gamma eta |g|``:
  ``E r <= sqrt(d) * eta / gamma * ||g||``. Smaller steps lose less.
* signMUL, MUL with ``sign(g)`` for g, whose norm is sqrt(d): ``E r <= d * eta / gamma``. If ``gamma * eta`` is an
  integer, x is one too, and nothing is lost.

Madam's normalised gradients have a magnitude near 1, which puts it near signMUL. A bound above ``d / (4 gamma^2)`` says
nothing about the size of an error; GD's nearly always is.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

SETTINGS = ((1024, 2.0**-4), (1024, 2.0**-6), (1024, 2.0**-8), (1024, 2.0**-11), (256, 2.0**-6), (64, 2.0**-6))
"""(gamma, eta): eta falls at gamma = 2^10, then gamma falls at eta = 2^-6, as in the paper's figure (recalled)."""
WEIGHT_STD, GRAD_STD = 0.05, 0.01  # our assumption


def update_error(gamma: float, eta: float, d: int = 4096, draws: int = 200, seed: int = 0) -> list[dict[str, Any]]:
    """Measure the quantisation error of one step of GD, MUL and signMUL, and evaluate its bound.

    Weights are drawn from N(0, 0.05^2) and rounded to the lattice, gradients from N(0, 0.01^2) (our assumption), once;
    the rounding is drawn ``draws`` times.

    Parameters
    ----------
    gamma : float
        Levels an octave, above 0.
    eta : float
        Learning rate of all three rules, above 0.
    d : int
        Number of weights, at least 1.
    draws : int
        How often the step is rounded, at least 2.
    seed : int
        Of weights, gradients and rounding.

    Returns
    -------
    list of dict
        One a rule: ``rule`` ("gd", "mul", "signmul"), ``gamma``, ``eta``, ``d``, ``draws``, ``seed``; ``error``, the
        mean of r (octaves squared, summed over the weights), and ``stderr``, its standard error; ``expected``, what the
        mean tends to, from f (1 - f) (our own derivation, in the module's text); ``bound``; ``cap``, d / (4 gamma^2).

    Raises
    ------
    ValueError
        If an argument is out of range.
    """
    for name, value, least in (("d", d, 1), ("draws", draws, 2), ("seed", seed, 0)):
        if not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
    for name, number in (("gamma", gamma), ("eta", eta)):
        if not 0 < number < math.inf:
            raise ValueError(f"{name}: expected a finite number above 0, got {number!r}")
    rng = np.random.Generator(np.random.PCG64(seed))
    w, grad = rng.normal(0, WEIGHT_STD, d), rng.normal(0, GRAD_STD, d)
    sign, k = np.sign(w), np.rint(gamma * np.log2(np.abs(w)))
    gd = gamma * np.log2(np.abs(sign * 2.0 ** (k / gamma) - eta * grad))
    exponents = {"gd": gd, "mul": k - gamma * eta * grad * sign, "signmul": k - gamma * eta * np.sign(grad) * sign}
    bounds = {"gd": math.sqrt(d) / gamma * float(np.linalg.norm(gd / gamma)),
              "mul": math.sqrt(d) * eta / gamma * float(np.linalg.norm(grad)), "signmul": d * eta / gamma}
    rows = []
    for rule, x in exponents.items():
        fraction = x - np.floor(x)
        errors = [float(np.sum(((rng.random(d) < fraction) - fraction) ** 2)) / gamma**2 for _ in range(draws)]
        rows.append({"rule": rule, "gamma": gamma, "eta": eta, "d": d, "draws": draws, "seed": seed,
                     "error": float(np.mean(errors)), "stderr": float(np.std(errors, ddof=1)) / math.sqrt(draws),
                     "expected": float(np.sum(fraction * (1 - fraction))) / gamma**2, "bound": bounds[rule],
                     "cap": d / (4 * gamma**2)})
    return rows


def update_errors(settings: Iterable[tuple[float, float]] = SETTINGS, d: int = 4096, draws: int = 200,
                  seed: int = 0) -> list[dict[str, Any]]:
    """The experiment behind ``minilp experiment lns-theory``: :func:`update_error` at several settings.

    Parameters
    ----------
    settings : iterable of (float, float)
        Pairs of gamma and eta.
    d, draws, seed : int
        See :func:`update_error`.

    Returns
    -------
    list of dict
        The rows of every setting, in order.
    """
    return [row for gamma, eta in settings for row in update_error(gamma, eta, d, draws, seed)]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as text: one line a setting, error and bound of each rule.

    Parameters
    ----------
    rows : sequence of dict
        As :func:`update_errors` returns them: the three rules of a setting follow each other.

    Returns
    -------
    str
    """
    lines = [("gamma", "eta", "cap", *(f"{row['rule']} error <= bound" for row in rows[:3]))]
    for start in range(0, len(rows), 3):
        group = rows[start:start + 3]
        first = group[0]
        lines.append((f"{first['gamma']:g}", f"2^{math.log2(first['eta']):g}", f"{first['cap']:.3g}",
                      *(f"{row['error']:.3g} {'<=' if row['error'] <= row['bound'] else '>'} {row['bound']:.3g}"
                        for row in group)))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    if not rows:
        return ""
    first = rows[0]
    return "\n".join([*text, f"mean of {first['draws']} roundings of {first['d']} weights, octaves squared; cap: "
                             f"d / (4 gamma^2), what no rule can exceed"])
