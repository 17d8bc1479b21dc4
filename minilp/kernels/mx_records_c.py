"""MX contractions on records (``cext/mx_records.h``): four products of bytes an instruction, or in double precision."""
from __future__ import annotations

from typing import Any

import numpy as np

from minilp.kernels import structs
from minilp.kernels.backend import check, lib
from minilp.kernels.layout import empty
from minilp.kernels.pot_geometry import Array, Geometry
from minilp.kernels.reference_mls import result_shape

MAGIC = 0x4B400000  # the bits of 1.5 2^23


def rows(how: str, x: Array, w: Array, integers_x: Array, integers_w: Array, scale_x: Array, scale_w: Array,
         g: Geometry, block: int, scale: float, name: str, before: list[int], sizes: list[int]) -> Array:
    """Forward and input gradient.

    Parameters
    ----------
    how : {"dot", "wide"}
        As :func:`kind` said.
    x : np.ndarray
        int8 codes (C, H, W, N).
    w : np.ndarray
        int8 codes (O, C, KH, KW); for an input gradient, already turned so that C is the axis of the sum.
    integers_x, integers_w : np.ndarray
        int64 of length 256, the integer of each code.
    scale_x, scale_w : np.ndarray
        float32 powers of two, as the codes with one entry for each block.
    g : Geometry
    block : int
    scale : float
        As for :func:`minilp.kernels.mx_c.contract`.
    name : str
        What an error calls the kernel.
    before, sizes : list of int
        Rows and columns of padding in front, and of the whole padded input.

    Returns
    -------
    np.ndarray
        float32 in storage order.
    """
    forward, batch, blocks = g.kind == "conv2d", x.shape[3], scale_x.shape[0]
    length, lanes = _length(how, block, len(x)), _lanes(how)
    records = empty((*sizes, -(-batch // lanes), blocks, (length + 1) * lanes), np.int32)
    _record(how, "samples", x, integers_x, scale_x, records, block, blocks, length, sizes, before)
    out = empty(result_shape(g), np.float32)
    words = _words(how, w, integers_w, scale_w, block, length, int(integers_x.max()))
    status = structs.run("mlp_mx_rows", "mlp_mx_rows_records", input=records, weight=words, out=out, scale=scale,
                         input_grad=not forward, batch=batch, out_channels=len(w), blocks=blocks, pairs=length,
                         in_size=sizes, out_size=g.out_size if forward else g.size, kernel=g.kernel, stride=g.stride,
                         padding=g.padding, dilation=g.dilation, left=before, wide=how == "wide")
    check(status, name)
    return out


def weight_grad(how: str, error: Array, act: Array, integers_error: Array, integers_act: Array, scale_error: Array,
                scale_act: Array, g: Geometry, block: int, name: str) -> Array:
    """Weight gradient before the scale that all terms share: float32 (O, KH, KW, C and what fills the lanes).

    Parameters
    ----------
    error, act : np.ndarray
        int8 codes (O, OH, OW, N) and (C, H, W, N).
    how, integers_error, integers_act, scale_error, scale_act, g, block, name
        As for :func:`rows`.
    """
    (channels, height, width, batch), blocks = act.shape, scale_act.shape[3]
    length, lanes = _length(how, block, batch), _lanes(how)
    vectors, sizes = -(-channels // lanes), [height + 2 * g.padding[0], width + 2 * g.padding[1]]
    acts = empty((vectors, *sizes, blocks, (length + 1) * lanes), np.int32)
    _record(how, "channels", act, integers_act, scale_act, acts, block, blocks, length, sizes, g.padding)
    errors = empty((g.features, blocks, *g.out_size, _word_record(how, length)), np.int32)
    _record(how, "words", error, integers_error, scale_error, errors, block, blocks, length, g.out_size, (0, 0),
            int(integers_act.max()))
    out = np.zeros((g.features, *g.kernel, vectors * lanes), np.float32)
    check(structs.run("mlp_mx_wgrad", "mlp_mx_wgrad_records", error=errors, act=acts, out=out, features=g.features,
                      vectors=vectors, pairs=blocks, block_pairs=length, size=sizes, out_size=g.out_size,
                      kernel=g.kernel, stride=g.stride, dilation=g.dilation, wide=how == "wide"), name)
    return out


def _lanes(how: str) -> int:
    return int(lib().mlp_mx_record_lanes(how == "wide"))


def _length(how: str, block: int, summed: int) -> int:
    """Of a record: elements of the longest block, or quads of them."""
    return min(block, summed) if how == "wide" else -(-min(block, summed) // 4)


def _word_record(how: str, length: int) -> int:
    return 2 * length + 2 if how == "wide" else length + 2


def _record(how: str, what: str, codes: Array, integers: Array, scale: Array, records: Array, block: int, blocks: int,
            length: int, padded: Any, before: Any, bias: int = 0) -> None:
    """Codes (C, H, W, N) with their scales into ``records``, by ``mlp_mx_<how>_<what>``."""
    table = {"values": integers.astype(np.float32)} if how == "wide" else {"table": integers[:128].astype(np.int16)}
    status = structs.run("mlp_mx_records", f"mlp_mx_{how}_{what}", codes=codes, scale=np.ascontiguousarray(scale),
                         records=records, channels=len(codes), batch=codes.shape[3], block=block, blocks=blocks,
                         length=length, size=codes.shape[1:3], padded=padded, before=before, bias=bias, **table)
    check(status, f"mx_{how}_{what}")


def _words(how: str, codes: Array, integers: Array, scale: Array, block: int, length: int, bias: int) -> Array:
    """Weights as words: int32 (O, blocks, KH, KW, a record)."""
    features, channels, *kernel = codes.shape
    blocks, wide = -(-channels // block), how == "wide"
    dtype: Any = np.float64 if wide else np.int8
    values = np.zeros((features, blocks, *kernel, length if wide else 4 * length), dtype)
    whole = integers.astype(dtype)[codes.view(np.uint8)].transpose(0, 2, 3, 1)
    for k in range(blocks):
        part = whole[..., k * block:(k + 1) * block]
        values[:, k, ..., :part.shape[-1]] = part
    words = np.zeros((features, blocks, *kernel, _word_record(how, length)), np.int32)
    bits = np.ascontiguousarray(scale).view(np.int32)
    if wide:
        words[..., :-2], words[..., -2] = values.view(np.int32), bits
        return words
    words[..., 0] = MAGIC - bias * values.sum(axis=-1, dtype=np.int32)
    words[..., 1:-1], words[..., -1] = values.view(np.int32), bits
    return words
