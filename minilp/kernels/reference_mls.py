"""NumPy twins of the MLS kernels: group scales, rounding to levels, and contractions that sum integers group by group.

A contraction runs over an outer index (input channel, output channel or sample: the one that group scales may follow)
and an inner one. Group g gives an integer P; with the significands' product s and the exponents' sum e the term is
``float32(P * s) * 2^-e``, and terms are added in float32 in ascending g. Products of integers by float matrices are
exact here: every partial sum fits the mantissa.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from minilp.kernels.pot_geometry import Array, Geometry
from minilp.kernels.reference_pot import unfold, unfold_error
from minilp.kernels.reference_quantise import logical_bits

FLOOR = 2.0**-126
"""Least maximum of a group, relative to the tensor's; takes the place of the authors' absolute 1e-10."""


def scales(maxima: Array, keep: tuple[int, ...], group_exp: int,
           group_man: int) -> tuple[tuple[Array, Array, Array], Array]:
    """Tensor and group scales, and the product of both; twin of ``mlp_mls_scales``, which knows one tensor scale only.

    Parameters
    ----------
    maxima : np.ndarray
        float32 largest magnitude of every group, with 1 for the axes that share it.
    keep : tuple of int
        Axes whose slices are tensors of their own.
    group_exp, group_man : int
        Bits of a group scale.

    Returns
    -------
    tuple
        (S_t float32, e_g int16, m_g int8) and S_t * S_g, float64.
    """
    shared = tuple(axis for axis in range(maxima.ndim) if axis not in keep)
    tensor = maxima.max(axis=shared, keepdims=True, initial=0)
    tensor = np.where(tensor == 0, np.float32(1), tensor).astype(np.float32)
    # the float64 quotient of two float32 numbers falls on the same side of 1 and 1.5 times a power of two as the exact
    quotient = np.maximum(maxima.astype(np.float64) / tensor, FLOOR)
    quotient = np.where(maxima == 0, 1.0, quotient)
    # exponent and group_man mantissa bits, one integer, of the quotient's bits rounded up: a carry moves the exponent
    field = (quotient.view(np.int64) + ((1 << (52 - group_man)) - 1)) >> (52 - group_man)
    field = np.maximum(field, (1023 + 1 - 2**group_exp) << group_man)
    unit = tensor.astype(np.float64) * (field << (52 - group_man)).view(np.float64)
    return (tensor, (1023 - (field >> group_man)).astype(np.int16), (field & (2**group_man - 1)).astype(np.int8)), unit


def encode(x: Array, unit: Array, man: int, binades: int, top: int, sudden: bool, stream: Any) -> Array:
    """Signed levels of ``x / unit``; twin of ``mlp_mls_encode``.

    Parameters
    ----------
    x : np.ndarray
        float32, any strides, finite.
    unit : np.ndarray
        float64, positive, broadcasts against ``x``.
    man, binades, top : int
        Mantissa bits, normal binades below 1, largest level.
    sudden : bool
        No subnormals: below the smallest normal number there is only zero.
    stream : Stream or None
        None rounds to nearest even; a stream adds 16 random bits below the last place, after rounding to those.

    Returns
    -------
    np.ndarray
        int8 in the memory order of ``x``.
    """
    ratio = np.abs(x).astype(np.float64)
    ratio /= unit
    np.minimum(ratio, 2.0, out=ratio)
    exponent = np.maximum((ratio.view(np.int64) >> 52) - 1023, -binades)
    steps = ratio * ((man + 1023 - exponent) << 52).view(np.float64)  # in units of the last place: below 2^(man + 1)
    below = steps < 2.0**man
    if sudden:
        steps = np.where(below, steps * 2.0**-man, steps)  # in units of the smallest normal number
    if stream is None:
        whole = np.rint(steps).astype(np.int64)
    else:
        draw = (logical_bits(x.shape, stream) >> np.uint32(16)).astype(np.int64)
        whole = (np.rint(steps * 65536.0).astype(np.int64) + draw) >> 16
    binade = exponent + binades
    if sudden:
        level = np.where(below, whole, whole + ((binade - 1) << man) + 1)
    else:
        level = whole + (binade << man)
    np.minimum(level, top, out=level)
    codes = np.empty_like(x, dtype=np.int8)
    np.copyto(codes, np.where(x < 0, -level, level), casting="unsafe")
    return codes


def contract(a: Array, b: Array, g: Geometry, runs: bool, significand: tuple[Array, Array],
             exponent: tuple[Array, Array], bits: int) -> Array:
    """One contraction of one group of channels, before the tensor scales.

    Parameters
    ----------
    a, b : np.ndarray
        Integers as floats: (C, H, W, N) activations and errors, (O, C, KH, KW) weights, in the operand order of Spec;
        dtype float32 where ``bits`` <= 24, else float64.
    g : Geometry
        With ``groups == 1``.
    runs : bool
        Sum over the outer index in float32; else there is one integer sum for the whole reduction.
    significand, exponent : tuple of np.ndarray
        int64 and int32 for each operand, two axes: (N, C) of activations, (N, O) of errors, (O, C) of weights.
    bits : int
        Bound on the magnitude of P * s.

    Returns
    -------
    np.ndarray
        float32 (O, OH, OW, N), (C, H, W, N) or (O, C, KH, KW).
    """
    terms = _weight_grad_terms if g.kind == "conv2d_weight_grad" else _row_terms
    total: Array | None = None
    for sums, s, e in terms(a, b, g, runs, significand, exponent):
        if bits <= 53 and int(e.max(initial=0)) <= 120:  # exact up to the one rounding: the order does not matter
            term = (sums * (s * np.ldexp(1.0, -e)).astype(sums.dtype)).astype(np.float32, copy=False)
        else:
            term = np.ldexp((sums.astype(np.int64) * s).astype(np.float32), -e)
        total = term + np.float32(0) if total is None else np.add(total, term, out=total)
    if total is None:  # nothing to sum over
        total = np.zeros(result_shape(g), np.float32)
    return total.reshape(result_shape(g))


def result_shape(g: Geometry) -> tuple[int, ...]:
    """Stored shape of a contraction's result."""
    return {"conv2d": (g.features, *g.out_size, g.batch), "conv2d_input_grad": (g.channels, *g.size, g.batch),
            "conv2d_weight_grad": (g.features, g.channels, *g.kernel)}[g.kind]


def _row_terms(a: Array, b: Array, g: Geometry, runs: bool, significand: Any, exponent: Any) -> Any:
    """(P, s, e) of each group, forward or input gradient: P is (rows, pixels, N), s and e broadcast against it."""
    forward = g.kind == "conv2d"
    weight = b if forward else b.transpose(1, 0, 2, 3)
    (sa, sw), (ea, ew) = significand, exponent
    sw, ew = (sw, ew) if forward else (sw.T, ew.T)
    size = g.out_size if forward else g.size
    outer = weight.shape[1]
    for part in ([slice(i, i + 1) for i in range(outer)] if runs else [slice(None)]):
        one = slice(part.start or 0, (part.start or 0) + 1)  # scales do not vary within the part
        columns = (unfold if forward else unfold_error)(a[part], g, range(size[0]))
        left = np.ascontiguousarray(weight[:, part]).reshape(len(weight), -1)
        sums = np.matmul(left, columns.reshape(left.shape[1], -1)).reshape(len(weight), size[0] * size[1], g.batch)
        yield (sums, sw[:, one][:, :, None] * sa[:, one].T[None], ew[:, one][:, :, None] + ea[:, one].T[None])


def _weight_grad_terms(a: Array, b: Array, g: Geometry, runs: bool, significand: Any, exponent: Any) -> Any:
    """(P, s, e) of each sample: P is (O, C, KH * KW)."""
    (se, sa), (ee, ea) = significand, exponent
    for part in ([slice(i, i + 1) for i in range(g.batch)] if runs else [slice(None)]):
        one = (part.start or 0)
        columns = unfold(b[..., part], g, range(g.out_size[0]))
        columns = columns.reshape(g.channels * g.kernel[0] * g.kernel[1], -1)
        error = a[..., part].reshape(g.features, -1)
        sums = np.matmul(columns, np.ascontiguousarray(error.T)).T.reshape(g.features, g.channels, -1)
        yield sums, se[one][:, None, None] * sa[one][None, :, None], ee[one][:, None, None] + ea[one][None, :, None]
