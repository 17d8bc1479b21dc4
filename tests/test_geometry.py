"""Every integer format under every geometry: the three contractions are those of the decoded operands.

Sixteen convolutions in which any two settings of kernel, batch, padding, step (stride and dilation) and groups meet
exactly once: an orthogonal array of strength two, the linear functions over the field of four elements.
"""
import importlib.util
import pathlib

import numpy as np
import pytest

from minilp import use_backend
from minilp.formats import LNS, MLS, MX, Fixed, Minifloat, PoT, Spec
from minilp.formats.values import float_contraction
from minilp.multiply import multiply


def user_format():
    """The table format of the tests of user formats, which the table kernel contracts."""
    path = pathlib.Path(__file__).parent / "formats" / "test_user_formats.py"
    spec = importlib.util.spec_from_file_location("user_formats_for_geometry", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.E2M1()


KERNELS, BATCHES, PADDINGS = (1, 3, 5, 7), (1, 3, 16, 130), (0, 1, 2, 3)
STEPS = ((1, 1), (2, 1), (3, 2), (1, 2))  # stride, dilation
GROUPS = ((1, 4, 3), (2, 4, 6), (4, 4, 4), (3, 3, 6))  # groups, channels, outputs; depthwise, with one output and two
TIMES = ((0, 0, 0, 0), (0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2))  # products in the field of four; sums are XOR

CASES = [(KERNELS[i], BATCHES[j], PADDINGS[i ^ j], STEPS[i ^ TIMES[2][j]], GROUPS[i ^ TIMES[3][j]])
         for i in range(4) for j in range(4)]
FORMATS = {"pot4": PoT(4), "pot5": PoT(5), "pot6": PoT(6), "fixed": Fixed(8), "minifloat": Minifloat(4, 3),
           "mls": MLS(), "mls-one-group": MLS(group="none"), "lns-float": LNS(), "lns-bins": LNS(path="bins"),
           "mx": MX("e2m1"), "mx-int8": MX("int8")}
EXACT = ("pot4", "pot5", "fixed", "user")  # sums of these sizes fit float64, so the oracle itself does not round


def test_the_cases_meet_in_pairs():
    for one in range(5):
        for other in range(one):
            assert len({(case[one], case[other]) for case in CASES}) == 16


def operands(case):
    """The three contractions of one convolution: (spec, first operand, second operand)."""
    kernel, batch, padding, (stride, dilation), (groups, channels, outputs) = case
    rng = np.random.default_rng(kernel * 1000 + batch)
    height = max(dilation * (kernel - 1) + 1 - 2 * padding, 1) + 2
    width = height + 1
    y = tuple((n + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for n in (height, width))

    def draw(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    x, w = draw(channels, height, width, batch).transpose(3, 0, 1, 2), draw(outputs, channels // groups, kernel, kernel)
    dy = draw(outputs, *y, batch).transpose(3, 0, 1, 2)
    how = (stride, stride), (padding, padding), (dilation, dilation), groups
    return [(Spec("conv2d", *how), x, w), (Spec("conv2d_input_grad", *how, size=(height, width)), dy, w),
            (Spec("conv2d_weight_grad", *how, size=(kernel, kernel)), dy, x)]


def coded(fmt, x, spec, position):
    if fmt.blocks_along_sum:
        axis, run = spec.run(position, x.shape)
        return fmt.encode_along(x, axis, run=run)
    return fmt.encode(x)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", [*FORMATS, "user"])
def test_equals_the_contraction_of_the_decoded_operands(needs_c, name, case):
    """Exact formats round the float64 sum once; the rest stay within (K + 3) 2^-24 sum |a||b|, and C is NumPy's twin.

    The three: decoding an operand of MLS or LNS rounds it, and so does the last step.
    """
    fmt = FORMATS[name] if name in FORMATS else user_format()
    for spec, left, right in operands(case):
        a, b = coded(fmt, left, spec, 0), coded(fmt, right, spec, 1)
        result = multiply(a, b, spec)
        wide = [q.decode().astype(np.float64) for q in (a, b)]
        expected = float_contraction(*wide, spec)
        assert expected.any() and np.isfinite(result).all()
        if name in EXACT:
            assert np.array_equal(result, expected.astype(np.float32)), spec
            continue
        bound = (spec.terms(a.shape, b.shape) + 3) * 2.0**-24 * float_contraction(*map(np.abs, wide), spec)
        if name == "pot6":  # exact as well, but float64 is not: half a unit of float32 and the oracle's own error
            bound = np.abs(expected) * 2.0**-24 + bound * 2.0**-28
        assert (np.abs(result - expected) <= bound + 2.0**-149).all(), spec
        if name != "lns-float":  # the float32 convolution alone is free of the twin's bits
            with use_backend("numpy"):
                assert np.array_equal(result, multiply(a, b, spec)), spec
