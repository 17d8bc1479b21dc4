"""The C kernels behind :func:`minilp.kernels.mx.mx_contract`: operands laid out in pairs, with their padding.

Where :mod:`minilp.kernels.mx_records_c` takes the operands, it does the work.
"""
from __future__ import annotations

import functools
import math
import sys
from typing import Any

import numpy as np

from minilp.kernels import mx_records_c, structs
from minilp.kernels.backend import check, count, ffi, lib, vector_tier
from minilp.kernels.layout import empty
from minilp.kernels.mls_c import dot_tier
from minilp.kernels.pot_geometry import Array, Geometry
from minilp.kernels.reference_mls import result_shape
from minilp.kernels.reference_quantise import INFINITY_BITS

MOST = 1024  # MLP_MX_MOST of mx_records.h: elements of the longest block of a record
FIRST = 0 if sys.byteorder == "little" else 1  # where the low half of an int32 lies


def kind(integers_a: Array, integers_b: Array, block: int, length: int) -> str | None:
    """Which kernels take these operands.

    Parameters
    ----------
    integers_a, integers_b : np.ndarray
        int64 of length 256, the integer of each code.
    block, length : int
        Of a block, and of the sum.

    Returns
    -------
    str or None
        ``"dot"`` where the tier multiplies four bytes at once, integers fit a byte and sums of a block stay below 2^22;
        ``"pairs"`` where integers fit 16 bits and sums 24; ``"wide"`` where a double holds every sum. None otherwise.
    """
    largest = [int(integers.max()) for integers in (integers_a, integers_b)]
    longest = min(block, length)
    total = longest * largest[0] * largest[1]
    if max(largest) < 1 << 7 and longest <= MOST and total < 1 << 22 and lib().mlp_mx_record_lanes(0):
        return "dot"
    if max(largest) < 1 << 15 and total < 1 << 24:
        return "pairs"
    return "wide" if longest <= MOST and total <= 1 << 53 else None


def contract(how: str, a: Array, b: Array, integers_a: Array, integers_b: Array, g: Geometry, block: int,
             exponent_a: Array, exponent_b: Array, scale: float) -> Array:
    """One contraction of one group of channels.

    Parameters
    ----------
    how : {"dot", "pairs", "wide"}
        What :func:`kind` said.
    a, b : np.ndarray
        int8 codes as stored: (C, H, W, N) activations and errors, (O, C, KH, KW) weights; not empty.
    integers_a, integers_b : np.ndarray
        int64 of length 256, the integer of each code.
    g : Geometry
        With ``groups == 1``.
    block : int
        Elements of a block.
    exponent_a, exponent_b : np.ndarray
        int32 as the operands, with one entry for each block; not positive, and the two smallest at least -126 in sum.
    scale : float
        A power of two that the sums are multiplied by at the end.

    Returns
    -------
    np.ndarray
        float32 in storage order.
    """
    name = f"mx_{g.kind}_{how}[{vector_tier() if how == 'wide' else dot_tier()}]"
    scales = [((e + 127) << 23).view(np.float32) for e in (exponent_a, exponent_b)]
    run = _weight_grad if g.kind == "conv2d_weight_grad" else _rows
    result = run(a, b, integers_a, integers_b, scales[0], scales[1], g, block, scale, name, how)
    count(name)
    return result


def encode(stored: Array, draw: Array | None, axis: int, run: int, block: int, element: Any,
           ceil: bool) -> tuple[Any, Array]:
    """Levels and scale codes in blocks along an axis.

    Parameters
    ----------
    stored : np.ndarray
        float32, C order, not empty.
    draw : np.ndarray or None
        uint32 words of the same shape, C order; None rounds to nearest even.
    axis, run, block, element, ceil
        As for :func:`minilp.kernels.mx.mx_encode`; ``axis`` of ``stored``.

    Returns
    -------
    (np.ndarray or None, np.ndarray)
        int8 codes (None where the tensor holds NaN or infinity) and uint8 scale codes, C order.
    """
    length = stored.shape[axis]
    outer, inner = math.prod(stored.shape[:axis]), math.prod(stored.shape[axis + 1:])
    codes = np.empty(stored.shape, np.int8)
    scales = np.empty((*stored.shape[:axis], length // run * -(-run // block), *stored.shape[axis + 1:]), np.uint8)
    numbers = ffi.new("mlp_mx_element *", {
        "man": element.man, "emin": element.emin, "top": element.top, "highest": element.highest, "ceil": int(ceil),
        "largest": element.largest})
    largest = ffi.new("uint32_t *")
    words = ffi.NULL if draw is None else ffi.from_buffer("uint32_t[]", draw)
    check(lib().mlp_mx_encode(numbers, ffi.from_buffer("float[]", stored), words, outer, length, inner, run, block,
                              ffi.from_buffer("int8_t[]", codes), ffi.from_buffer("uint8_t[]", scales), largest),
          "mx_encode")
    count(f"mx_encode[{vector_tier()}]")
    return (codes if largest[0] < INFINITY_BITS else None), scales


def _pairs(length: int, block: int) -> tuple[Array, Array, Array]:
    """Which neighbours form pairs: block, place in it and first element of each; a block of odd length ends alone."""
    first = np.concatenate([np.arange(start, min(start + block, length), 2) for start in range(0, length, block)])
    return first // block, first % block // 2, first


def _whole(first: Array, length: int, block: int) -> Array:
    """Pairs with a second element."""
    return (first % block + 1 < block) & (first + 1 < length)


def _paired(how: str, codes: Array, integers: Array, shape: tuple[int, ...], block: int, **more: Any) -> Array:
    """Codes (C, H, W, N) as pairs of integers with their padding, by ``mlp_mx_pair_channels`` or ``_images``."""
    out = empty(shape, np.int32)
    status = structs.run("mlp_mx_pairs", f"mlp_mx_pair_{how}", codes=codes, table=integers.astype(np.int32), out=out,
                         channels=len(codes), size=codes.shape[1:3], batch=codes.shape[3], block=block, **more)
    check(status, f"mx_pair_{how}")
    return out


def _rows(x: Array, w: Array, integers_x: Array, integers_w: Array, scale_x: Array, scale_w: Array, g: Geometry,
          block: int, scale: float, name: str, how: str) -> Array:
    """Forward and input gradient: pairs or quads of channels, lanes are images."""
    forward = g.kind == "conv2d"
    if not forward:
        w, scale_w = w.transpose(1, 0, 2, 3), scale_w.transpose(1, 0, 2, 3)
    (channels, height, width, batch), taps = x.shape, list(zip(g.kernel, g.stride, g.padding, g.dilation, strict=True))
    before, sizes = list(g.padding), [height + 2 * g.padding[0], width + 2 * g.padding[1]]
    if not forward:
        before = [max(0, -((p - (k - 1) * d) // s)) for k, s, p, d in taps]
        sizes = [max(left + (n - 1 + p) // s + 1, left + have)
                 for left, n, have, (_, s, p, _) in zip(before, g.size, (height, width), taps, strict=True)]
    if how != "pairs":
        return mx_records_c.rows(how, x, w, integers_x, integers_w, scale_x, scale_w, g, block, scale, name, before,
                                 sizes)
    lanes = int(lib().mlp_mx_lanes())
    padded = -(-batch // lanes) * lanes
    place, index, first = _pairs(channels, block)
    second = _whole(first, channels, block)
    inside = (slice(None), slice(before[0], before[0] + height), slice(before[1], before[1] + width), slice(0, batch))
    input_ = _paired("channels", x, integers_x, (len(first), *sizes, padded), block, pairs=len(first), lanes=padded,
                     padded=sizes, before=before)
    scale_input = np.zeros((scale_x.shape[0], *sizes, padded), np.float32)
    scale_input[inside] = scale_x
    weight = np.zeros((len(w), place[-1] + 1, *g.kernel, index.max() + 1, 2), np.int16)
    w = integers_w[w.view(np.uint8)]
    weight[:, place, :, :, index, FIRST] = w[:, first].transpose(1, 0, 2, 3)
    weight[:, place[second], :, :, index[second], 1 - FIRST] = w[:, first[second] + 1].transpose(1, 0, 2, 3)
    out = empty(result_shape(g), np.float32)
    check(structs.run("mlp_mx_rows", "mlp_mx_rows_contract", input=input_, weight=weight.view(np.int32),
                scale_input=scale_input, scale_weight=np.ascontiguousarray(scale_w), out=out, scale=scale,
                input_grad=not forward, batch=batch, lanes=padded, out_channels=len(w), blocks=weight.shape[1],
                pairs=weight.shape[4], all_pairs=len(first), in_size=sizes,
                out_size=g.out_size if forward else g.size, kernel=g.kernel, stride=g.stride, padding=g.padding,
                dilation=g.dilation, left=before), name)
    return out


def _weight_grad(error: Array, act: Array, integers_error: Array, integers_act: Array, scale_error: Array,
                 scale_act: Array, g: Geometry, block: int, scale: float, name: str, how: str) -> Array:
    """Weight gradient: pairs or quads of images, lanes are input channels."""
    sum_up = _weight_sums if how == "pairs" else functools.partial(mx_records_c.weight_grad, how)
    sums = sum_up(error, act, integers_error, integers_act, scale_error, scale_act, g, block, name)
    sums = sums[..., :g.channels].transpose(0, 3, 1, 2)
    with np.errstate(over="ignore", under="ignore"):
        return np.ascontiguousarray(np.multiply(sums, scale, dtype=np.float64).astype(np.float32))


def _weight_sums(error: Array, act: Array, integers_error: Array, integers_act: Array, scale_error: Array,
                 scale_act: Array, g: Geometry, block: int, name: str) -> Array:
    """By pairs: float32 (O, KH, KW, C and what fills the lanes), before the scale that all terms share."""
    (channels, height, width, batch), lanes = act.shape, int(lib().mlp_mx_lanes())
    place, index, first = _pairs(batch, block)
    sizes, vectors = (height + 2 * g.padding[0], width + 2 * g.padding[1]), -(-channels // lanes)
    errors = _paired("images", error, integers_error, (*error.shape[:3], len(first)), block, pairs=len(first), lanes=1,
                     padded=g.out_size, before=(0, 0))
    acts = _paired("images", act, integers_act, (vectors, *sizes, len(first), lanes), block, pairs=len(first),
                   lanes=lanes, padded=sizes, before=g.padding)
    scales = np.zeros((vectors, *sizes, place[-1] + 1, lanes), np.float32)
    rows, columns = (slice(p, p + n) for p, n in zip(g.padding, (height, width), strict=True))
    for v in range(vectors):
        part = scale_act[v * lanes:(v + 1) * lanes]
        scales[v, rows, columns, :, :len(part)] = part.transpose(1, 2, 3, 0)
    out = empty((g.features, *g.kernel, vectors * lanes), np.float32)
    check(structs.run("mlp_mx_wgrad", "mlp_mx_wgrad_contract", error=errors, act=acts,
                scale_error=np.ascontiguousarray(scale_error), scale_act=scales, out=out, features=g.features,
                vectors=vectors, pairs=len(first), block_pairs=index.max() + 1, size=sizes, out_size=g.out_size,
                kernel=g.kernel, stride=g.stride, dilation=g.dilation), name)
    return out
