"""Compare a function's gradients with finite differences: element by element, or along one random direction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minilp.autograd.arrays import Array
from minilp.autograd.grad_mode import enable_grad, no_grad
from minilp.autograd.tensor import Tensor


class GradcheckError(AssertionError):
    """A gradient disagrees with the finite difference; the message says where and by how much."""


def _prepare(fn: Callable[..., Any], inputs: Any) -> tuple[str, list[Any], list[int]]:
    """Name of fn, inputs with fresh leaves over the same memory, and which of them are checked."""
    inputs = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
    prepared: list[Any] = []
    for i, x in enumerate(inputs):
        array = x.data if isinstance(x, Tensor) else x
        if not isinstance(array, np.ndarray) or array.dtype.kind in "iub":
            prepared.append(x)  # an option, an index, a mask: passed on as it is
            continue
        if array.dtype != np.float64:
            raise TypeError(
                f"input {i} is {array.dtype}; gradient checks need float64, because the difference of two nearby "
                "float32 results is mostly rounding error. Pass x.astype(np.float64)"
            )
        if not array.flags.writeable:
            array = array.copy(order="K")
        prepared.append(Tensor(array, requires_grad=not isinstance(x, Tensor) or x.requires_grad))
    checked = [i for i, x in enumerate(prepared) if isinstance(x, Tensor) and x.requires_grad]
    if not checked:
        raise ValueError("nothing to check: no input is a float64 array or a float64 tensor that requires grad")
    return getattr(fn, "__name__", repr(fn)), prepared, checked


def _analytic(fn: Callable[..., Any], name: str, prepared: list[Any], checked: list[int], rng: Any) -> Array:
    """Run fn and its backward along a random output direction, which is returned; gradients are left in `.grad`."""
    with enable_grad():
        out = fn(*prepared)
    if not isinstance(out, Tensor):
        raise TypeError(f"{name} returned a {type(out).__name__}, expected a Tensor")
    if out.dtype != np.float64:
        raise TypeError(f"{name} returned a {out.dtype} tensor for float64 inputs; a gradient check needs float64")
    # Weights between 1 and 2 in size: no output element can hide, and none cancels another by accident. A single
    # output keeps weight 1, so that messages show its own derivative.
    direction = np.asarray(rng.uniform(1, 2, out.shape) * rng.choice([-1.0, 1.0], out.shape))
    if out.size == 1:
        direction = np.ones(out.shape)
    if out.requires_grad:
        out.backward(direction)
    for i in checked:
        if prepared[i].grad is None:
            prepared[i].grad = np.zeros_like(prepared[i].data)
    return direction


def gradcheck(
    fn: Callable[..., Any], inputs: Any, eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3
) -> bool:
    """Check every element of every gradient of `fn` against a central difference.

    The outputs are combined with fixed random weights to one number, whose derivative with respect to each input
    element is compared; two evaluations of `fn` per element.

    Parameters
    ----------
    fn : callable
        Takes the inputs as Tensors, returns one Tensor. Must be deterministic.
    inputs : sequence
        float64 Tensors or arrays, any strides (they are changed by eps and restored); tensors that do not require
        grad, integer or bool arrays and other objects are passed on unchecked.
    eps : float
        Step of the difference.
    atol, rtol : float
        Accepted: |received - expected| <= atol + rtol |expected|.

    Returns
    -------
    bool
        True.

    Raises
    ------
    GradcheckError
        At the first element that disagrees.
    TypeError
        If a floating input or the output is not float64, or fn does not return a Tensor.
    ValueError
        If there is nothing to check.
    """
    name, prepared, checked = _prepare(fn, inputs)
    direction = _analytic(fn, name, prepared, checked, np.random.default_rng(0))

    def objective() -> float:
        with no_grad():
            return float(np.vdot(direction, fn(*prepared).data))

    for i in checked:
        data, grad = prepared[i].data, prepared[i].grad
        for index in np.ndindex(data.shape):
            before = data[index]
            try:
                data[index] = before + eps
                above = objective()
                data[index] = before - eps
                below = objective()
            finally:
                data[index] = before
            expected, received = (above - below) / (2 * eps), float(grad[index])
            if not abs(received - expected) <= atol + rtol * abs(expected):
                raise GradcheckError(
                    f"{name}: wrong gradient for input {i} (shape {data.shape}) at index {index}, value {before:.6g}: "
                    f"expected derivative {expected:.8g} (central difference, eps={eps:g}), received {received:.8g}"
                )
    return True


def directional_check(
    fn: Callable[..., Any], inputs: Sequence[Any], eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3,
    seed: int = 0,
) -> bool:  # fmt: skip
    """Check the gradients of a large function along one random direction: two evaluations whatever the size.

    Draws u in the space of all inputs and v in that of the output, and compares <v, J u> from a central difference
    with <J^T v, u> from backward.

    Parameters
    ----------
    fn, inputs, eps, atol, rtol
        As for `gradcheck`.
    seed : int
        Of the directions; other seeds look along other directions.

    Returns
    -------
    bool
        True.

    Raises
    ------
    GradcheckError
        If the two disagree.
    TypeError, ValueError
        As for `gradcheck`.
    """
    name, prepared, checked = _prepare(fn, inputs)
    rng = np.random.default_rng(seed)
    v = _analytic(fn, name, prepared, checked, rng)
    arrays = [prepared[i].data for i in checked]
    directions = [rng.standard_normal(a.shape) for a in arrays]
    received = sum(float(np.vdot(prepared[i].grad, u)) for i, u in zip(checked, directions, strict=True))
    originals = [a.copy() for a in arrays]
    values = []
    try:
        for step in (eps, -eps):
            for array, original, u in zip(arrays, originals, directions, strict=True):
                array[...] = original + step * u
            with no_grad():
                values.append(float(np.vdot(v, fn(*prepared).data)))
    finally:
        for array, original in zip(arrays, originals, strict=True):
            array[...] = original
    expected = (values[0] - values[1]) / (2 * eps)
    if not abs(received - expected) <= atol + rtol * abs(expected):
        raise GradcheckError(
            f"{name}: wrong gradient along a random direction of inputs {checked} (seed {seed}): expected "
            f"{expected:.8g} (central difference, eps={eps:g}), received {received:.8g}; run gradcheck on a small "
            "case to find the element"
        )
    return True
