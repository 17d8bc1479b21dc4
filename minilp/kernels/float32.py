"""Float convolutions: float32 by the C core where it is active, otherwise (and for float64) by the NumPy twin.

Results in float32 are the same bits for any thread count, and within K 2^-24 sum |a||b| of the float64 result (K terms
in the sum); between the C core and NumPy, and between instruction sets, they may differ within that bound.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from minilp.kernels import reference_float as twin
from minilp.kernels.backend import active, check, count, ffi, lib, vector_tier
from minilp.kernels.layout import Array, Pair, check_pair, empty, from_chwn, output_size, to_chwn

FLOATS = frozenset({np.dtype(np.float32), np.dtype(np.float64)})


def check_floats(**arrays: Array) -> None:
    """Check that all arrays hold one float type.

    Raises
    ------
    TypeError
        If one is not float32 or float64, or two differ; the message names the argument.
    """
    first, kind = "", None
    for name, a in arrays.items():
        if not isinstance(a, np.ndarray):
            raise TypeError(f"{name} must be a float32 or float64 array, got {type(a).__name__}")
        if kind is None:
            first, kind = name, a.dtype
        if a.dtype not in FLOATS:
            raise TypeError(f"{name} must be a float32 or float64 array, got an array of {a.dtype}")
        if a.dtype != kind:
            raise TypeError(f"{name} is {a.dtype}, but {first} is {kind}; both must have one dtype")


def _check_4d(name: str, a: Array, axes: str) -> None:
    if a.ndim != 4:
        raise ValueError(f"{name} must have 4 axes {axes}, got shape {a.shape}")


def _geometry(stride: Pair, padding: Pair, dilation: Pair, groups: int, channels: int, outputs: int
              ) -> tuple[Pair, Pair, Pair]:
    if not isinstance(groups, (int, np.integer)) or groups < 1 or channels % groups or outputs % groups:
        raise ValueError(f"groups must be a positive int that divides the {channels} input and {outputs} output "
                         f"channels, got {groups!r}")
    return check_pair("stride", stride, 1), check_pair("padding", padding, 0), check_pair("dilation", dilation, 1)


def in_c(name: str, a: Array, can: bool = True) -> bool:
    """Whether the C core computes this call (it can, float32, C backend); counts the call under the tier's name."""
    here = can and a.dtype == np.float32 and active() == "c"
    count(f"f{8 * a.dtype.itemsize}_{name}[{vector_tier() if here else 'numpy'}]")
    return here


def pointer(a: Array, kind: str = "float") -> Any:
    """The address of a C-contiguous array for cffi, which does not check its type."""
    try:
        return ffi.from_buffer(f"{kind} *", a)  # which takes no other array
    except ValueError as error:
        raise ValueError(f"a C kernel needs a C-contiguous array, got strides {a.strides} for shape {a.shape}"
                         ) from error


def _sizes(batch: int, channels: int, size: Pair, outputs: int, kernel: Pair, stride: Pair, padding: Pair,
           dilation: Pair, groups: int) -> Any:
    """The C core's record of a convolution's sizes."""
    return ffi.new("mlp_f32_geometry *", [batch, channels, *size, outputs, *kernel, *stride, *padding, *dilation,
                                          groups])


def conv2d(x: Array, w: Array, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1),
           groups: int = 1) -> Array:
    """2-D convolution (cross-correlation) without bias.

    Parameters
    ----------
    x : np.ndarray
        Logical (N, C, H, W), float32 or float64, any strides; CHWN storage is read without a copy.
    w : np.ndarray
        (O, C / groups, KH, KW), same dtype.
    stride, padding, dilation : (int, int)
        Vertical and horizontal.
    groups : int
        Divides C and O.

    Returns
    -------
    np.ndarray
        Logical (N, O, OH, OW) in CHWN storage, dtype of ``x``.

    Raises
    ------
    TypeError
        If the dtypes are not one float type.
    ValueError
        If shapes do not fit together; the message names the argument.
    """
    check_floats(x=x, w=w)
    _check_4d("x", x, "(N, C, H, W)")
    _check_4d("w", w, "(O, C / groups, KH, KW)")
    stride, padding, dilation = _geometry(stride, padding, dilation, groups, x.shape[1], w.shape[0])
    if w.shape[1] * groups != x.shape[1]:
        raise ValueError(f"w of shape {w.shape} with groups={groups} needs {w.shape[1] * groups} input channels, "
                         f"x has {x.shape[1]} (shape {x.shape})")
    size, kernel = (x.shape[2], x.shape[3]), (w.shape[2], w.shape[3])
    out = output_size(size, kernel, stride, padding, dilation)
    if not in_c("conv2d", x):
        return from_chwn(twin.conv2d(to_chwn(x), w, stride, padding, dilation, groups))
    a, w, y = to_chwn(x), np.ascontiguousarray(w), empty((w.shape[0], *out, x.shape[0]), np.float32)
    sizes = _sizes(x.shape[0], x.shape[1], size, w.shape[0], kernel, stride, padding, dilation, groups)
    check(lib().mlp_f32_conv2d(sizes, pointer(a), pointer(w), pointer(y)), "conv2d")
    return from_chwn(y)


def conv2d_input_grad(dy: Array, w: Array, input_size: Pair, stride: Pair = (1, 1), padding: Pair = (0, 0),
                      dilation: Pair = (1, 1), groups: int = 1) -> Array:
    """Gradient of :func:`conv2d` with respect to its input.

    Parameters
    ----------
    dy : np.ndarray
        Logical (N, O, OH, OW), float32 or float64, any strides.
    w : np.ndarray
        (O, C / groups, KH, KW), same dtype.
    input_size : (int, int)
        H, W of the input.
    stride, padding, dilation, groups
        As in :func:`conv2d`.

    Returns
    -------
    np.ndarray
        Logical (N, C, H, W) in CHWN storage.

    Raises
    ------
    TypeError, ValueError
        As :func:`conv2d`; also if ``dy`` is not as large as the convolution's output.
    """
    check_floats(dy=dy, w=w)
    _check_4d("dy", dy, "(N, O, OH, OW)")
    _check_4d("w", w, "(O, C / groups, KH, KW)")
    input_size = check_pair("input_size", input_size, 0)
    stride, padding, dilation = _geometry(stride, padding, dilation, groups, w.shape[1] * groups, w.shape[0])
    out = output_size(input_size, (w.shape[2], w.shape[3]), stride, padding, dilation)
    if dy.shape[1:] != (w.shape[0], *out):
        raise ValueError(f"dy must be (N, {w.shape[0]}, {out[0]}, {out[1]}) for an input of {input_size}, "
                         f"got {dy.shape}")
    if not in_c("conv2d_input_grad", dy):
        return from_chwn(twin.conv2d_input_grad(to_chwn(dy), w, input_size, stride, padding, dilation, groups))
    channels, kernel = w.shape[1] * groups, (w.shape[2], w.shape[3])
    a, w, dx = to_chwn(dy), np.ascontiguousarray(w), empty((channels, *input_size, dy.shape[0]), np.float32)
    sizes = _sizes(dy.shape[0], channels, input_size, w.shape[0], kernel, stride, padding, dilation, groups)
    check(lib().mlp_f32_conv2d_input_grad(sizes, pointer(a), pointer(w), pointer(dx)), "conv2d_input_grad")
    return from_chwn(dx)


def conv2d_weight_grad(dy: Array, x: Array, kernel_size: Pair, stride: Pair = (1, 1), padding: Pair = (0, 0),
                       dilation: Pair = (1, 1), groups: int = 1) -> Array:
    """Gradient of :func:`conv2d` with respect to its weight.

    Parameters
    ----------
    dy : np.ndarray
        Logical (N, O, OH, OW), float32 or float64, any strides.
    x : np.ndarray
        Logical (N, C, H, W), same dtype, any strides.
    kernel_size : (int, int)
        KH, KW.
    stride, padding, dilation, groups
        As in :func:`conv2d`.

    Returns
    -------
    np.ndarray
        (O, C / groups, KH, KW), C order.

    Raises
    ------
    TypeError, ValueError
        As :func:`conv2d`; also if ``dy`` and ``x`` do not belong together.
    """
    check_floats(dy=dy, x=x)
    _check_4d("dy", dy, "(N, O, OH, OW)")
    _check_4d("x", x, "(N, C, H, W)")
    kernel_size = check_pair("kernel_size", kernel_size, 1)
    stride, padding, dilation = _geometry(stride, padding, dilation, groups, x.shape[1], dy.shape[1])
    out = output_size((x.shape[2], x.shape[3]), kernel_size, stride, padding, dilation)
    if dy.shape[0] != x.shape[0] or dy.shape[2:] != out:
        raise ValueError(f"dy must be ({x.shape[0]}, O, {out[0]}, {out[1]}) for x of shape {x.shape}, got {dy.shape}")
    if not in_c("conv2d_weight_grad", x):
        return twin.conv2d_weight_grad(to_chwn(dy), to_chwn(x), kernel_size, stride, padding, dilation, groups)
    a, b, dw = to_chwn(dy), to_chwn(x), empty((dy.shape[1], x.shape[1] // groups, *kernel_size), np.float32)
    sizes = _sizes(x.shape[0], x.shape[1], (x.shape[2], x.shape[3]), dy.shape[1], kernel_size, stride, padding,
                   dilation, groups)
    check(lib().mlp_f32_conv2d_weight_grad(sizes, pointer(a), pointer(b), pointer(dw)), "conv2d_weight_grad")
    return dw
