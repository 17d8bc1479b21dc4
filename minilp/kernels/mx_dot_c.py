"""MX contractions on bytes, four products an instruction: operands as the records of ``cext/mx_dot.h``."""
from __future__ import annotations

from typing import Any

import numpy as np

from minilp.kernels import structs
from minilp.kernels.backend import check, lib
from minilp.kernels.layout import empty
from minilp.kernels.pot_geometry import Array, Geometry
from minilp.kernels.reference_mls import result_shape

LANES = 16
MOST = 1024  # MLP_MX_MOST: elements of the longest block
MAGIC = 0x4B400000  # the bits of 1.5 2^23


def fits(integers_a: Array, integers_b: Array, block: int, length: int) -> bool:
    """Whether this tier has the instruction, integers fit a byte, and a block of a sum of ``length`` fits a record."""
    largest = [int(integers.max()) for integers in (integers_a, integers_b)]
    longest = min(block, length)
    return bool(lib().mlp_mx_dot()) and max(largest) <= 127 and longest <= MOST \
        and longest * largest[0] * largest[1] < 1 << 22


def rows(x: Array, w: Array, integers_x: Array, integers_w: Array, scale_x: Array, scale_w: Array, g: Geometry,
         block: int, scale: float, name: str, before: list[int], sizes: list[int]) -> Array:
    """Forward and input gradient.

    Parameters
    ----------
    x : np.ndarray
        int8 codes (C, H, W, N).
    w : np.ndarray
        int8 codes (O, C, KH, KW); for an input gradient, already turned so that C is the axis of the sum.
    integers_x, integers_w : np.ndarray
        int64 of length 256, the integer of each code; :func:`fits` holds.
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
    forward, batch = g.kind == "conv2d", x.shape[3]
    blocks, quads = scale_x.shape[0], -(-min(block, len(x)) // 4)
    records = empty((*sizes, -(-batch // LANES), blocks, (quads + 1) * LANES), np.int32)
    _record("samples", x, integers_x, scale_x, records, block, blocks, quads, sizes, before)
    out = empty(result_shape(g), np.float32)
    words = _words(w, integers_w, scale_w, block, quads, int(integers_x.max()))
    status = structs.run("mlp_mx_rows", "mlp_mx_rows_dot", input=records, weight=words, out=out, scale=scale,
                  input_grad=not forward, batch=batch, out_channels=len(w), blocks=blocks, pairs=quads, in_size=sizes,
                  out_size=g.out_size if forward else g.size, kernel=g.kernel, stride=g.stride, padding=g.padding,
                  dilation=g.dilation, left=before)
    check(status, name)
    return out


def weight_grad(error: Array, act: Array, integers_error: Array, integers_act: Array, scale_error: Array,
                scale_act: Array, g: Geometry, block: int, name: str) -> Array:
    """Weight gradient before the scale that all terms share: float32 (O, KH, KW, vectors * 16), C and what fills lanes.

    Parameters
    ----------
    error, act : np.ndarray
        int8 codes (O, OH, OW, N) and (C, H, W, N).
    integers_error, integers_act, scale_error, scale_act, g, block, name
        As for :func:`rows`.
    """
    (channels, height, width, batch), blocks = act.shape, scale_act.shape[3]
    quads, vectors = -(-min(block, batch) // 4), -(-channels // LANES)
    sizes = [height + 2 * g.padding[0], width + 2 * g.padding[1]]
    acts = empty((vectors, *sizes, blocks, (quads + 1) * LANES), np.int32)
    _record("channels", act, integers_act, scale_act, acts, block, blocks, quads, sizes, g.padding)
    errors = empty((g.features, blocks, *g.out_size, quads + 2), np.int32)
    _record("words", error, integers_error, scale_error, errors, block, blocks, quads, g.out_size, (0, 0),
            int(integers_act.max()))
    out = np.zeros((g.features, *g.kernel, vectors * LANES), np.float32)
    check(structs.run("mlp_mx_wgrad", "mlp_mx_wgrad_dot", error=errors, act=acts, out=out, features=g.features,
               vectors=vectors, pairs=blocks, block_pairs=quads, size=sizes, out_size=g.out_size, kernel=g.kernel,
               stride=g.stride, dilation=g.dilation), name)
    return out


def _record(how: str, codes: Array, integers: Array, scale: Array, records: Array, block: int, blocks: int, quads: int,
            padded: Any, before: Any, bias: int = 0) -> None:
    """Codes (C, H, W, N) with their scales into ``records``, by ``mlp_mx_record_<how>``."""
    status = structs.run("mlp_mx_records", f"mlp_mx_record_{how}", codes=codes, table=integers[:128].astype(np.int16),
                  scale=np.ascontiguousarray(scale), records=records, channels=len(codes), batch=codes.shape[3],
                  block=block, blocks=blocks, quads=quads, size=codes.shape[1:3], padded=padded, before=before,
                  bias=bias)
    check(status, f"mx_record_{how}")


def _words(codes: Array, integers: Array, scale: Array, block: int, quads: int, bias: int) -> Array:
    """Weights as words: int32 (O, blocks, KH, KW, quads + 2)."""
    features, channels, *kernel = codes.shape
    blocks = -(-channels // block)
    values = np.zeros((features, blocks, *kernel, 4 * quads), np.int8)
    whole = integers.astype(np.int8)[codes.view(np.uint8)].transpose(0, 2, 3, 1)
    for k in range(blocks):
        part = whole[..., k * block:(k + 1) * block]
        values[:, k, ..., :part.shape[-1]] = part
    words = np.empty((features, blocks, *kernel, quads + 2), np.int32)
    words[..., 0] = MAGIC - bias * values.sum(axis=-1, dtype=np.int32)
    words[..., 1:-1] = values.view(np.int32)
    words[..., -1] = np.ascontiguousarray(scale).view(np.int32)
    return words
