"""The C kernels behind :func:`minilp.kernels.pot.pot_contract`, for operands that it has checked.

:func:`minilp.kernels.pot_emulate.family` chooses between the emulation on int8 digits and the shift/add kernels. There,
exponent-binned adds (``cext/pot_bins.h``) do the work; 6-bit operands take two of them, one per digit. The literal
loops (``cext/pot_shift_mac.c``) model the paper's INT32 accumulator and do what the fast kernels do not.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minilp.kernels import dot8, pot_emulate, reference_pot, structs
from minilp.kernels.backend import BAD_CODE, OVERFLOW, UNSUPPORTED, check, count, ffi, lib, vector_tier
from minilp.kernels.layout import empty, from_chwn, to_chwn
from minilp.kernels.pot_geometry import Array, Geometry, sum_bits, top_code


def contract(a: Array, b: Array, g: Geometry, bits_a: int, bits_b: int, exponent: int, accumulate: str,
             out: str, check_codes: Callable[[], None]) -> tuple[Array, int]:
    """Run the kernel in force that gives the exact sums, or the modelled INT32 ones.

    Parameters
    ----------
    a, b : np.ndarray
        int8 codes, 4-D, in the operand order of ``pot_contract``.
    g : Geometry
    bits_a, bits_b : int
    exponent : int
    accumulate, out : str
        As ``pot_contract``.
    check_codes : callable
        Raises where a code is out of range. The fast kernels look for themselves; this says which code it was.

    Returns
    -------
    (np.ndarray, int)
        The result, and the overflows counted by the INT32 model (0 otherwise).

    Raises
    ------
    OverflowError
        If a result does not fit float32 (or int64).
    """
    result = None
    try:
        if a.size and b.size and pot_emulate.family(bits_a, bits_b, accumulate) == "emulate":
            result = pot_emulate.contract(a, b, g, bits_a, bits_b, exponent, out)
            if result is not None and result.dtype == np.int64 and out == "float32":
                result = _scaled(result, g, exponent, f"pot_emulate_{g.kind}")
        if result is None and accumulate != "int32" and a.size and b.size:
            if bits_a <= 5 and sum_bits(bits_a, bits_b, g.depth) <= 62:
                result = _bins(a, b, g, top_code(bits_a), top_code(bits_b), exponent, out)
            elif sum_bits(5, bits_b, g.depth) < 62 and out == "float32":  # a digit has one level more than 5 bits
                check_codes()
                result = _digits(a, b, g, top_code(bits_b), exponent)
    except dot8.BadCode:
        check_codes()
        raise
    if result is not None:
        return result, 0
    check_codes()
    return literal(a, b, g, exponent, accumulate, out)


def _bins(a: Array, b: Array, g: Geometry, levels_a: int, levels_b: int, exponent: int, out: str,
          name: str = "") -> Array | None:
    """Exponent-binned adds, group by group: ``a`` fills the lanes, ``b`` is sorted. None where they do not apply."""
    name = f"pot_shift_{g.kind}{name}[{vector_tier()}]"
    one, dtype = g.group(), np.float32 if out == "float32" else np.int64
    taps = g.kernel[0] * g.kernel[1]
    shared = {"batch": g.batch, "kernel": g.kernel, "stride": g.stride, "padding": g.padding, "dilation": g.dilation}
    parts = []
    for x, y in reference_pot.group_operands(a, b, g):
        if g.kind == "conv2d_weight_grad":
            result = np.empty((one.features, one.channels, *g.kernel), np.int64)
            status = structs.run("mlp_pot_wgrad", "mlp_pot_wgrad_contract", error=x, act=y, out=result,
                                 levels_error=levels_a, levels_act=levels_b, channels=one.channels,
                                 features=one.features, size=g.size, out_size=g.out_size, **shared)
        else:
            forward = g.kind == "conv2d"
            channels, into = (one.channels, one.features) if forward else (one.features, one.channels)
            sizes = (g.size, g.out_size) if forward else (g.out_size, g.size)
            steps = (one.channels * taps, taps) if forward else (taps, one.channels * taps)
            result = empty((into, *sizes[1], g.batch), dtype)
            target = {"out_float" if out == "float32" else "out_int": result}
            status = structs.run("mlp_pot_rows", "mlp_pot_rows_contract", input=x, weight=y, levels_input=levels_a,
                                 levels_weight=levels_b, **target, **shared, input_grad=not forward,
                                 exponent=exponent, in_channels=channels, out_channels=into, in_size=sizes[0],
                                 out_size=sizes[1], weight_out_step=steps[0], weight_in_step=steps[1])
        if status == UNSUPPORTED:
            return None
        if status == BAD_CODE:
            raise dot8.BadCode(f"{name}: a code is beyond +-{levels_a} in the lanes, or +-{levels_b} in the list")
        _check(status, name, out)
        parts.append(result if result.dtype == dtype else _scale(result, exponent, name))
    count(name)
    return reference_pot.join_groups(parts, g)


def _digits(a: Array, b: Array, g: Geometry, levels_b: int, exponent: int) -> Array | None:
    """6-bit ``a`` as ``low + 2**15 * high``, two contractions whose sums are joined in 128 bits and rounded once."""
    low, high = (_bins(from_chwn(digit), b, g, 16, levels_b, 0, "int64", "_digits")
                 for digit in reference_pot.digits(to_chwn(a)))
    if low is None or high is None:
        return None
    if g.kind != "conv2d_weight_grad":
        low, high = to_chwn(low), to_chwn(high)
    joined = np.empty(low.shape, np.float32)
    status = lib().mlp_pot_join(ffi.from_buffer("int64_t *", low), ffi.from_buffer("int64_t *", high),
                                reference_pot.SPLIT, low.size, exponent, ffi.from_buffer("float *", joined))
    _check(status, f"pot_shift_{g.kind}_digits", "float32")
    return joined if g.kind == "conv2d_weight_grad" else from_chwn(joined)


def _scaled(sums: Array, g: Geometry, exponent: int, name: str) -> Array:
    """:func:`_scale` on a result in its layout."""
    return _scale(sums, exponent, name) if g.kind == "conv2d_weight_grad" else \
        from_chwn(_scale(to_chwn(sums), exponent, name))


def _scale(sums: Array, exponent: int, name: str) -> Array:
    """int64 sums times a power of two as float32, rounded once, in C."""
    sums, scaled = np.ascontiguousarray(sums), np.empty(sums.shape, np.float32)
    _check(lib().mlp_pot_scale(ffi.from_buffer("int64_t *", sums), sums.size, exponent,
                               ffi.from_buffer("float *", scaled)), name, "float32")
    return scaled


def literal(a: Array, b: Array, g: Geometry, exponent: int, accumulate: str, out: str) -> tuple[Array, int]:
    """The scalar shift/add loops of pot_shift_mac.c, on unfolded rows; arguments and result as :func:`contract`."""
    name = f"pot_shift_{g.kind}_{accumulate}[scalar]"
    count(name)
    core = lib()
    overflows = np.zeros(1, np.int64)

    def product(left: Array, right: Array) -> Array:
        rows, columns = np.ascontiguousarray(left), np.ascontiguousarray(right.T)
        shape = (len(rows), len(columns))
        result = np.empty(shape, np.float32 if accumulate == "counts" and out == "float32" else np.int64)
        pointers = [ffi.from_buffer("int8_t *", rows), ffi.from_buffer("int8_t *", columns)]
        arguments = (*pointers, *shape, rows.shape[1])
        longs = ffi.from_buffer("int64_t *", result) if result.dtype == np.int64 else ffi.NULL
        if accumulate == "int64":
            status = core.mlp_pot_rows_int64(*arguments, longs)
        elif accumulate == "int32":
            status = core.mlp_pot_rows_int32(*arguments, longs, ffi.from_buffer("int64_t *", overflows))
        else:
            floats = ffi.from_buffer("float *", result) if result.dtype == np.float32 else ffi.NULL
            status = core.mlp_pot_rows_counts(*arguments, exponent, floats, longs)
        _check(status, name, out)
        return result

    parts = []
    for x, y in reference_pot.group_operands(a, b, g):
        # counts are rounded inside the kernel, so the whole sum has to be one row; int32 needs ascending k
        acc = reference_pot.contract_with(product, x, y, g.group(), sample_major=accumulate != "int64")
        parts.append(_scale(acc, exponent, name) if acc.dtype == np.int64 and out == "float32" else acc)
    return reference_pot.join_groups(parts, g), int(overflows[0])


def _check(status: int, name: str, out: str) -> None:
    """Status code to exception; a result that the output type cannot hold is an OverflowError, as in the twins."""
    if status == OVERFLOW:
        raise OverflowError(f"{name}: a result is beyond the largest float32" if out == "float32" else
                            f"{name}: a sum does not fit int64; ask for out='float32'")
    check(status, name)
