"""Oracles for the power-of-two contractions: an index loop over Python integers, and float64 tap by tap."""
from fractions import Fraction

import numpy as np


def decode(codes):
    """Codes as exact Python integers (object array)."""
    return np.array([0 if c == 0 else (1 if c > 0 else -1) << (abs(int(c)) - 1) for c in codes.ravel()],
                    object).reshape(codes.shape)


def decode_float64(codes):
    """Codes as exact float64."""
    return np.where(codes == 0, 0.0, np.ldexp(np.sign(codes, dtype=np.float64), np.abs(codes).astype(np.int32) - 1))


def pairs(g, size, kernel, out):
    """Every (output y, x, tap ky, kx, input y, x) of a convolution that does not fall on the padding."""
    (sy, sx), (py, px), (dy, dx) = g["stride"], g["padding"], g["dilation"]
    for oy, ox, ky, kx in np.ndindex(*out, *kernel):
        iy, ix = oy * sy - py + ky * dy, ox * sx - px + kx * dx
        if 0 <= iy < size[0] and 0 <= ix < size[1]:
            yield oy, ox, ky, kx, iy, ix


def index_loop(kind, a, b, g, groups=1, size=None):
    """One contraction over Python integers, straight from the definition; object array."""
    a, b = decode(a), decode(b)
    if kind == "conv2d":
        kernel, inside = b.shape[2:], a.shape[2:]
        out = tuple((i + 2 * p - d * (k - 1) - 1) // s + 1 for i, p, d, k, s in
                    zip(inside, g["padding"], g["dilation"], kernel, g["stride"], strict=True))
        result = np.zeros((len(a), len(b), *out), object)
    elif kind == "conv2d_input_grad":
        kernel, inside, out = b.shape[2:], size, a.shape[2:]
        result = np.zeros((len(a), b.shape[1] * groups, *size), object)
    else:
        kernel, inside, out = size, b.shape[2:], a.shape[2:]
        result = np.zeros((a.shape[1], b.shape[1] // groups, *size), object)
    features = {"conv2d": len(b)}.get(kind, a.shape[1])
    for oy, ox, ky, kx, iy, ix in pairs(g, inside, kernel, out):
        for o in range(features):
            per_out = features // groups
            channels = {"conv2d": b.shape[1], "conv2d_input_grad": b.shape[1]}.get(kind, b.shape[1] // groups)
            for c in range(channels):
                full = o // per_out * channels + c
                if kind == "conv2d":
                    result[:, o, oy, ox] += a[:, full, iy, ix] * b[o, c, ky, kx]
                elif kind == "conv2d_input_grad":
                    result[:, full, iy, ix] += a[:, o, oy, ox] * b[o, c, ky, kx]
                else:
                    result[o, c, ky, kx] += (a[:, o, oy, ox] * b[:, full, iy, ix]).sum()
    return result


def float64(kind, a, b, g, size=None):
    """One contraction of one group as a sum of float64 einsums over the taps (exact while sums stay below 2**53)."""
    a, b = decode_float64(a), decode_float64(b)
    act, weight = {"conv2d": (a, b), "conv2d_input_grad": (None, b), "conv2d_weight_grad": (b, None)}[kind]
    inside = size if act is None else act.shape[2:]
    kernel = size if weight is None else weight.shape[2:]
    (sy, sx), (py, px), (dy, dx) = g["stride"], g["padding"], g["dilation"]
    channels = weight.shape[1] if act is None else act.shape[1]
    padded = np.zeros((len(a), channels, inside[0] + 2 * py, inside[1] + 2 * px))
    if act is not None:
        padded[:, :, py:py + inside[0], px:px + inside[1]] = act
    oh = (padded.shape[2] - dy * (kernel[0] - 1) - 1) // sy + 1
    ow = (padded.shape[3] - dx * (kernel[1] - 1) - 1) // sx + 1
    if kind == "conv2d":
        result = np.zeros((len(a), len(b), oh, ow))
    elif kind == "conv2d_weight_grad":
        result = np.zeros((a.shape[1], channels, *kernel))
    for ky, kx in np.ndindex(*kernel):
        window = padded[:, :, ky * dy:ky * dy + (oh - 1) * sy + 1:sy, kx * dx:kx * dx + (ow - 1) * sx + 1:sx]
        if kind == "conv2d":
            result += np.einsum("nchw,oc->nohw", window, b[:, :, ky, kx], optimize=True)
        elif kind == "conv2d_input_grad":
            window += np.einsum("nohw,oc->nchw", a, b[:, :, ky, kx], optimize=True)
        else:
            result[:, :, ky, kx] = np.einsum("nohw,nchw->oc", a, window, optimize=True)
    return padded[:, :, py:py + inside[0], px:px + inside[1]] if kind == "conv2d_input_grad" else result


def codes(rng, shape, bits, zeros=0.3):
    """Random codes of the whole range, a share of them zero."""
    top = 2 ** (bits - 1) - 1
    size = np.where(rng.random(shape) < zeros, 0, rng.integers(1, top + 1, shape))
    return np.where(rng.random(shape) < 0.5, -size, size).astype(np.int8)


def layouts(x):
    """The same 4-D codes in four memory layouts."""
    chwn = np.ascontiguousarray(x.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2)
    negative = np.ascontiguousarray(x[::-1, :, ::-1])[::-1, :, ::-1]
    gaps = np.zeros(tuple(2 * n for n in x.shape), np.int8)
    gaps[::2, ::2, 1::2, ::2] = x
    return {"nchw": np.ascontiguousarray(x), "chwn": chwn, "negative": negative, "gaps": gaps[::2, ::2, 1::2, ::2]}


def rounded(exact, exponent):
    """Python integers times ``2**exponent`` as float32, rounded to nearest even once by way of exact fractions."""
    out = np.zeros(exact.shape, np.float32)
    for index, value in np.ndenumerate(exact):
        number = abs(Fraction(int(value)) * Fraction(2) ** exponent)
        if number == 0:
            continue
        top = number.numerator.bit_length() - number.denominator.bit_length()
        top -= Fraction(2) ** top > number
        unit = Fraction(2) ** max(top - 23, -149)
        out[index] = np.copysign(np.float32(float(round(number / unit) * unit)), int(value))  # round() is half to even
    return out
