"""NumPy twins of the power-of-two contraction kernels: the same integers, read as matrices.

A code ``c`` stands for the integer ``sign(c) * 2**(|c| - 1)``, so a contraction of codes is an ordinary matrix product
of integers. Floating-point matrix products compute it exactly as long as every partial sum fits the mantissa
(float32 up to 24 bits, float64 up to 53), in whatever order they add. Wider sums split each operand into the
powers below and above ``2**15`` and take four products. Nothing here multiplies faster than the C core: these twins are
the check of the C core, and the way to train where no compiler is.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from minilp.kernels.layout import from_chwn, to_chwn
from minilp.kernels.pot_geometry import Array, Geometry, sum_bits, top_code
from minilp.kernels.pot_round import limbs_to_float32, limbs_to_int64, to_float32

CHUNK_BYTES = 1 << 25
"""Upper bound for one unfolded block of rows; larger problems are unfolded piece by piece."""
SPLIT = 15
"""Powers below ``2**SPLIT`` form the low digit of an operand, those above it (divided by ``2**SPLIT``) the high one."""


def values(codes: Array, dtype: type = np.float64) -> Array:
    """The integers that codes of at most 6 bits stand for, exactly, in a float type (or int64)."""
    table: Array = np.zeros(256, dtype)
    for code in range(1, top_code(6) + 1):
        table[code], table[256 - code] = 2 ** (code - 1), -(2 ** (code - 1))
    return table[codes.view(np.uint8)]


def digits(codes: Array) -> tuple[Array, Array]:
    """Codes split in two: ``value = low + 2**SPLIT * high`` where one of both is always zero."""
    code = np.arange(256, dtype=np.uint8).view(np.int8)
    low = np.where(np.abs(code) <= SPLIT, code, 0).astype(np.int8)
    high = np.where(np.abs(code) > SPLIT, code - np.sign(code) * SPLIT, 0).astype(np.int8)
    return low[codes.view(np.uint8)], high[codes.view(np.uint8)]


def covered(tap: int, stride: int, padding: int, dilation: int, inside: range, outputs: range) -> tuple[slice, slice]:
    """Which outputs a kernel tap serves, and which inputs it reads for them, along one axis.

    Output ``y`` reads input ``y * stride - padding + tap * dilation``.

    Returns
    -------
    (slice, slice)
        Outputs (counted from ``outputs.start``) and the inputs they read (counted from ``inside.start``).
    """
    shift = tap * dilation - padding
    low = max(outputs.start, -((shift - inside.start) // stride))
    high = min(outputs.stop, (inside.stop - 1 - shift) // stride + 1)
    if high <= low:
        return slice(0, 0), slice(0, 0)
    first = low * stride + shift - inside.start
    return (slice(low - outputs.start, high - outputs.start),
            slice(first, first + (high - 1 - low) * stride + 1, stride))


def unfold(x: Array, g: Geometry, rows: range) -> Array:
    """Every input that output rows ``rows`` read: (C, H, W, N) -> (C, KH, KW, len(rows), OW, N), zeros for padding."""
    out = np.zeros((x.shape[0], *g.kernel, len(rows), g.out_size[1], x.shape[3]), x.dtype)
    for ky, kx in np.ndindex(*g.kernel):
        oy, iy = covered(ky, g.stride[0], g.padding[0], g.dilation[0], range(g.size[0]), rows)
        ox, ix = covered(kx, g.stride[1], g.padding[1], g.dilation[1], range(g.size[1]), range(g.out_size[1]))
        out[:, ky, kx, oy, ox] = x[:, iy, ix]
    return out


def unfold_error(e: Array, g: Geometry, rows: range) -> Array:
    """Every error that input rows ``rows`` reach: (O, OH, OW, N) -> (O, KH, KW, len(rows), W, N), zeros elsewhere."""
    out = np.zeros((e.shape[0], *g.kernel, len(rows), g.size[1], e.shape[3]), e.dtype)
    for ky, kx in np.ndindex(*g.kernel):
        oy, iy = covered(ky, g.stride[0], g.padding[0], g.dilation[0], rows, range(g.out_size[0]))
        ox, ix = covered(kx, g.stride[1], g.padding[1], g.dilation[1], range(g.size[1]), range(g.out_size[1]))
        out[:, ky, kx, iy, ix] = e[:, oy, ox]
    return out


def row_chunks(height: int, bytes_per_row: int) -> Iterator[range]:
    """Cut ``height`` rows into pieces whose unfolded copies stay within :data:`CHUNK_BYTES` (one row at least)."""
    step = max(1, CHUNK_BYTES // max(bytes_per_row, 1))
    for start in range(0, height, step):
        yield range(start, min(start + step, height))


Product = Callable[[Array, Array], Array]


def contract_with(product: Product, a: Array, b: Array, g: Geometry, sample_major: bool = False) -> Array:
    """Run one contraction of one group as matrix products of unfolded operands.

    Parameters
    ----------
    product : callable
        Takes (rows, K) and (K, columns), gives (rows, columns), or more axes in front of those two.
    a, b : np.ndarray
        Operands as (C, H, W, N) activations and (O, C, KH, KW) weights, in the order of ``pot_contract``; any dtype.
    g : Geometry
        With ``groups == 1``.
    sample_major : bool
        Sum the weight gradient in the order (n, y, x), in one product, instead of (y, x, n) in pieces.

    Returns
    -------
    np.ndarray
        (O, OH, OW, N), (C, H, W, N) or (O, C, KH, KW) accumulators, behind the leading axes that ``product`` adds.
    """
    taps = g.kernel[0] * g.kernel[1]
    if g.kind == "conv2d_weight_grad":
        columns = g.channels * taps
        row_bytes = 0 if sample_major else b.itemsize * columns * g.out_size[1] * g.batch
        total: Array | None = None
        for rows in row_chunks(g.out_size[0], row_bytes):
            depth = len(rows) * g.out_size[1] * g.batch
            left, right = a[:, rows.start:rows.stop], unfold(b, g, rows)
            if sample_major:
                left, right = left.transpose(0, 3, 1, 2), right.transpose(0, 1, 2, 5, 3, 4)
            # the larger matrix on the left: a threaded BLAS can be fifty times slower the other way round
            part = product(right.reshape(columns, depth), left.reshape(g.features, depth).T)
            total = part if total is None else total + part
        assert total is not None  # an output has at least one row
        total = np.ascontiguousarray(total.swapaxes(-1, -2))
        return total.reshape(*total.shape[:-2], g.features, g.channels, *g.kernel)
    forward = g.kind == "conv2d"
    height, width = g.out_size if forward else g.size
    weight = b if forward else b.transpose(1, 0, 2, 3)
    left = weight.reshape(weight.shape[0], g.depth)
    blocks = []
    for rows in row_chunks(height, a.itemsize * g.depth * width * g.batch):
        right = (unfold if forward else unfold_error)(a, g, rows)
        block = product(left, right.reshape(g.depth, len(rows) * width * g.batch))
        blocks.append(block.reshape(*block.shape[:-1], len(rows), width, g.batch))
    if not blocks:
        block = product(left, np.zeros((g.depth, 0), left.dtype))
        return block.reshape(*block.shape[:-1], height, width, g.batch)
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=-3)


def group_operands(a: Array, b: Array, g: Geometry) -> Iterator[tuple[Array, Array]]:
    """Stored operands of each group in turn: activations as (C, H, W, N), weights as (O, C, KH, KW)."""
    a = to_chwn(a)
    b = to_chwn(b) if g.kind == "conv2d_weight_grad" else np.ascontiguousarray(b)
    for i in range(g.groups):
        part = a[i * a.shape[0] // g.groups:(i + 1) * a.shape[0] // g.groups]
        yield part, b[i * b.shape[0] // g.groups:(i + 1) * b.shape[0] // g.groups]


def join_groups(parts: list[Array], g: Geometry) -> Array:
    """Put the groups' results together: logical (N, ., ., .) view of CHWN storage, or (O, C/groups, KH, KW)."""
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return whole if g.kind == "conv2d_weight_grad" else from_chwn(whole)


def contract(a: Array, b: Array, g: Geometry, bits_a: int, bits_b: int, exponent: int, out: str) -> Array:
    """The exact contraction, any bits: twin of the int64 and of the counting kernels.

    Parameters
    ----------
    a, b : np.ndarray
        int8 codes, 4-D, in the operand order of ``pot_contract``.
    g : Geometry
    bits_a, bits_b : int
    exponent : int
        The result is the integer sum times ``2**exponent`` (``out="float32"``).
    out : str
        ``"float32"`` or ``"int64"``.

    Returns
    -------
    np.ndarray
        As ``pot_contract``.

    Raises
    ------
    OverflowError
        If a result does not fit float32 (or int64).
    """
    bits = sum_bits(bits_a, bits_b, g.depth)
    parts: list[Array] = []
    for x, y in group_operands(a, b, g):
        if bits <= 53:
            dtype = np.float32 if bits <= 24 else np.float64
            acc = contract_with(np.matmul, values(x, dtype), values(y, dtype), g.group())
            safe = out == "float32" and exponent >= -126 and exponent + bits < 127
            if out == "int64":
                parts.append(acc.astype(np.int64))
            elif safe:
                single = acc.astype(np.float32, copy=False)
                parts.append(np.ldexp(single, np.int32(exponent), out=single))
            else:
                parts.append(to_float32(acc.astype(np.int64), exponent))
            continue
        high, low = contract_with(_two_limbs, x, y, g.group())
        high, low = high + (low >> (2 * SPLIT)), low & ((1 << (2 * SPLIT)) - 1)
        parts.append(limbs_to_int64(high, low, 2 * SPLIT) if out == "int64"
                     else limbs_to_float32(high, low, 2 * SPLIT, exponent))
    return join_groups(parts, g)


def _two_limbs(left: Array, right: Array) -> Array:
    """Exact product of code matrices as (high, low) int64 with ``value = high * 2**30 + low`` and ``0 <= low < 2**30``.

    Each digit product stays below ``2**(30 + ceil(log2 K))``: float64 holds it for K up to ``2**22`` a call.
    """
    (low_a, high_a), (low_b, high_b) = ((values(d) for d in digits(m)) for m in (left, right))
    low = np.matmul(low_a, low_b).astype(np.int64)
    middle = (np.matmul(low_a, high_b) + np.matmul(high_a, low_b)).astype(np.int64)
    low = low + ((middle & ((1 << SPLIT) - 1)) << SPLIT)
    high = np.matmul(high_a, high_b).astype(np.int64) + (middle >> SPLIT) + (low >> (2 * SPLIT))
    return np.stack([high, low & ((1 << (2 * SPLIT)) - 1)])


def contract_int32(a: Array, b: Array, g: Geometry, exponent: int, out: str) -> tuple[Array, int]:
    """Twin of the paper's INT32 accumulator: ascending k, two's complement, overflows counted.

    The order of k is (c, ky, kx) forward, (o, ky, kx) for the input gradient and (n, y, x) for the weight gradient.

    Returns
    -------
    (np.ndarray, int)
        The result as ``pot_contract`` and the number of additions whose sum left int32.
    """
    overflows = 0

    def walk(left: Array, right: Array) -> Array:
        nonlocal overflows
        total = np.zeros((left.shape[0], right.shape[1]), np.int64)
        for k in range(left.shape[1]):
            total += left[:, k:k + 1] * right[k]
            wrapped = total.astype(np.int32)
            overflows += int(np.count_nonzero(wrapped != total))
            total[...] = wrapped
        return total

    parts = []
    for x, y in group_operands(a, b, g):
        acc = contract_with(walk, values(x, np.int64), values(y, np.int64), g.group(), sample_major=True)
        parts.append(acc if out == "int64" else to_float32(acc, exponent))
    return join_groups(parts, g), overflows
