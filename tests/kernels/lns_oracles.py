"""Oracles for the contractions of logarithmic codes: Python integers, one per remainder, summed by an index loop.

The bins of a number travel packed in one big integer, bin r in digit r of ``WIDTH`` bits:
``sign * 2**(q + r * WIDTH)``. A product of two has digits up to 2 gamma - 2; digit gamma + r is worth twice digit r.
"""
import numpy as np
from pot_oracles import pairs

WIDTH = 640


def pack(codes, gamma, own):
    """Codes with ``own`` steps per octave on a lattice of gamma, as packed bins (object array)."""
    out = np.zeros(codes.shape, object)
    for index, c in np.ndenumerate(codes):
        if c:
            q, r = divmod((abs(int(c)) - 1) * (gamma // own), gamma)
            out[index] = (1 if c > 0 else -1) << (q + r * WIDTH)
    return out


def unpack(total, gamma):
    """One packed sum of products -> the integers of the gamma bins."""
    digits = []
    for _ in range(2 * gamma - 1):
        low = total & ((1 << WIDTH) - 1)
        low -= (low >> (WIDTH - 1)) << WIDTH
        digits.append(low)
        total = (total - low) >> WIDTH
    assert total == 0
    digits.append(0)
    return [digits[r] + 2 * digits[r + gamma] for r in range(gamma)]


def closed(packed, gamma, scale, lut=None):
    """Packed sums to float32: bins times constants in ascending order in float64, times the scale, rounded once."""
    lut, out = lut or gamma, np.zeros(packed.shape, np.float32)
    low = gamma // lut
    for index, total in np.ndenumerate(packed):
        bins, value = unpack(total, gamma), 0.0
        for top in range(lut):
            part = bins[top * low:(top + 1) * low]
            whole = part[0] if low == 1 else sum((gamma + s) * n for s, n in enumerate(part))
            value += 2.0 ** (top / lut) * float(whole) / (1 if low == 1 else gamma)
        out[index] = np.float32(value * scale)
    return out


def index_loop(kind, a, b, g, groups=1, size=None):
    """One convolution's contraction of packed operands, straight from the definition; object array."""
    if kind == "conv2d":
        kernel, inside = b.shape[2:], a.shape[2:]
        out = tuple((i + 2 * p - d * (k - 1) - 1) // s + 1 for i, p, d, k, s in
                    zip(inside, g["padding"], g["dilation"], kernel, g["stride"], strict=True))
        result, per_group = np.zeros((len(a), len(b), *out), object), b.shape[1]
    elif kind == "conv2d_input_grad":
        kernel, inside, out, per_group = b.shape[2:], size, a.shape[2:], b.shape[1]
        result = np.zeros((len(a), per_group * groups, *size), object)
    else:
        kernel, inside, out, per_group = size, b.shape[2:], a.shape[2:], b.shape[1] // groups
        result = np.zeros((a.shape[1], per_group, *size), object)
    features = len(b) if kind == "conv2d" else a.shape[1]
    for oy, ox, ky, kx, iy, ix in pairs(g, inside, kernel, out):
        for o, c in np.ndindex(features, per_group):
            full = o // (features // groups) * per_group + c
            if kind == "conv2d":
                result[:, o, oy, ox] += a[:, full, iy, ix] * b[o, c, ky, kx]
            elif kind == "conv2d_input_grad":
                result[:, full, iy, ix] += a[:, o, oy, ox] * b[o, c, ky, kx]
            else:
                result[o, c, ky, kx] += (a[:, o, oy, ox] * b[:, full, iy, ix]).sum()
    return result


def codes(rng, shape, top, zeros=0.3, dtype=np.int16):
    """Random signed levels up to ``top``, a share of them zero, both ends present."""
    size = np.where(rng.random(shape) < zeros, 0, rng.integers(1, top + 1, shape))
    if size.size > 1:
        size.flat[0], size.flat[-1] = top, 1
    return np.where(rng.random(shape) < 0.5, -size, size).astype(dtype)


def problem(rng, n, c, o, hw, kernel=(3, 3), tops=(128, 128, 128), stride=(1, 1), padding=(1, 1), dilation=(1, 1),
            groups=1):
    """Random act, weight and error of one layer, and the keyword arguments of its three contractions."""
    out = [(hw[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2)]
    act, weight = codes(rng, (n, c, *hw), tops[0]), codes(rng, (o, c // groups, *kernel), tops[1])
    error = codes(rng, (n, o, *out), tops[2])
    common = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return {"conv2d": (act, weight, common), "conv2d_input_grad": (error, weight, {"size": hw, **common}),
            "conv2d_weight_grad": (error, act, {"size": kernel, **common})}
