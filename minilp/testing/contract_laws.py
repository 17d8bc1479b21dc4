"""The law of exact contraction, against integers without limit."""
from __future__ import annotations

import numpy as np

from minilp.formats import Format, Spec
from minilp.testing import exact
from minilp.testing.runner import law, numbers, same


@law("the contraction of codes is exact, or refused (declare exact_contract = False where it rounds)")
def _contraction(fmt: Format, rng: np.random.Generator) -> None:
    for spec, a_shape, b_shape in contractions() + (products() if fmt.batches else []):
        for keep_a, keep_b in (((), ()), ((spec.kept[0],), ()), ((), (spec.kept[1],)), ((spec.axes[0][0],), ())):
            a, b = fmt.encode(numbers(rng, *a_shape), keep=keep_a), fmt.encode(numbers(rng, *b_shape), keep=keep_b)
            try:
                got = fmt.contract(a, b, spec)
            except ValueError:
                if keep_a == (spec.axes[0][0],) and not fmt.sums_in_runs:
                    continue
                raise
            if got is NotImplemented:
                continue
            assert keep_a != (spec.axes[0][0],) or fmt.sums_in_runs, f"{spec}: a scale along a summed axis was accepted"
            assert got.dtype == np.float32, f"{spec}: the result is {got.dtype}"
            if fmt.exact_contract:
                same(got, exact.contraction(a.decode(), b.decode(), spec), f"{spec}, keep={keep_a} and {keep_b}")


def products() -> list[tuple[Spec, tuple[int, ...], tuple[int, ...]]]:
    """Small batches of matrix products of every layout, with the shapes of their operands."""
    return [(Spec("scores"), (2, 3, 7), (2, 5, 7)), (Spec("context"), (2, 3, 5), (2, 5, 7)),
            (Spec("scores_key_grad"), (2, 3, 5), (2, 3, 7))]


def contractions() -> list[tuple[Spec, tuple[int, ...], tuple[int, ...]]]:
    """Small contractions of every kind, with the shapes of their operands: what kernels of new formats are tried on."""
    found: list[tuple[Spec, tuple[int, ...], tuple[int, ...]]] = [
        (Spec("linear"), (3, 7), (5, 7)), (Spec("linear_input_grad"), (3, 5), (5, 7)),
        (Spec("linear_weight_grad"), (3, 5), (3, 7))]
    for stride, padding, dilation, groups, kernel in (((1, 1), (1, 1), (1, 1), 1, (3, 3)),
                                                      ((2, 1), (0, 2), (1, 2), 2, (2, 3)),
                                                      ((2, 2), (0, 0), (1, 1), 1, (1, 1))):
        x, w = (2, 4, 5, 6), (4, 4 // groups, *kernel)
        size = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1
                     for n, p, d, k, s in zip(x[2:], padding, dilation, kernel, stride, strict=True))
        y = (2, 4, *size)
        geometry = (stride, padding, dilation, groups)
        found += [(Spec("conv2d", *geometry), x, w), (Spec("conv2d_input_grad", *geometry, size=(5, 6)), y, w),
                  (Spec("conv2d_weight_grad", *geometry, size=kernel), y, x)]
    return found
