"""The extension point, by example: number formats that a user writes, held to the laws and trained with.

``E2M1`` has a table, so the table kernel contracts it in C. ``NF4`` is asymmetric and has none: it runs on defaults.
"""
import inspect
from dataclasses import dataclass

import numpy as np
import pytest

from minilp import contract, models, nn, optim, use_backend
from minilp.autograd import Tensor
from minilp.formats import Fixed, Format, QTensor, Spec, absmax
from minilp.kernels import calls
from minilp.kernels.backend import tier
from minilp.random import manual_seed
from minilp.recipe import Recipe, Role
from minilp.table_contract import TABLE
from minilp.testing import check_format, contractions, exact


@dataclass(frozen=True)
class E2M1(Format):
    """FP4: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives, as doubled integers times half a power-of-two scale."""

    bits = 4
    doubled = np.array([0, 1, 2, 3, 4, 6, 8, 12, -12, -8, -6, -4, -3, -2, -1], np.int8)  # code -1 counts from the end

    def encode(self, x, *, keep=(), stream=None, scales=None):
        fraction, power = np.frexp(absmax(x, keep) / np.float32(12))
        unit = np.ldexp(np.float32(1), np.clip(power - (fraction == 0.5), -120, 120)) if scales is None else scales[0]
        size = np.minimum(np.abs(x) / unit, np.float32(12))
        low = sum((size >= level).astype(int) for level in self.doubled[1:7])
        rest = (size - self.doubled[low]) / (self.doubled[low + 1] - self.doubled[low])
        up = (rest > 0.5) | (rest == 0.5) & (low % 2 == 1)
        if stream is not None:
            up = stream.uint32(x.shape) < rest * 2.0**32
        codes = np.empty_like(x, np.int8)
        codes[...] = np.copysign(low + up, x)
        return QTensor(self, codes, (unit,), keep=keep)

    def decode(self, q):
        return self.doubled[q.codes] * q.scales[0]

    def table(self):
        return np.concatenate([self.doubled[:8], np.zeros(241, np.int8), self.doubled[8:]])  # indexed by code & 255

    def unit(self, q):
        return q.scales[0]


@dataclass(frozen=True)
class NF4(Format):
    """Quantiles of the normal distribution (Dettmers et al. 2023, QLoRA) times the largest magnitude."""

    bits = 4
    symmetric = False
    stochastic = False
    values = np.array([-1, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0, 0.0795803,
                       0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1], np.float32)

    def encode(self, x, *, keep=(), stream=None, scales=None):
        if stream is not None:
            raise ValueError("NF4 rounds to nearest only")
        largest = absmax(x, keep)
        scale = np.where(largest > 0, largest, np.float32(1)) if scales is None else scales[0]
        middles = (self.values[1:] + self.values[:-1]) / 2
        codes = sum((x / scale > middle).astype(np.uint8) for middle in middles)
        return QTensor(self, codes, (scale,), keep=keep)

    def decode(self, q):
        return self.values[q.codes] * q.scales[0]

    def codes(self):
        return np.arange(16, dtype=np.uint8)


def test_e2m1_is_shorter_than_thirty_lines():
    assert len(inspect.getsource(E2M1).splitlines()) < 30


@pytest.mark.parametrize("fmt", [E2M1(), NF4()], ids=str)
@pytest.mark.parametrize("name", ["c", "numpy"])
def test_the_laws_hold(fmt, name, request):
    if name == "c":
        request.getfixturevalue("needs_c")
    with use_backend(name):
        check_format(fmt)


def test_e2m1_rounds_to_the_eight_magnitudes_of_fp4():
    x = np.array([0, 0.2, 0.25, 0.3, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 5.1, 6, -0.26, -2.4], np.float32)
    want = [0, 0, 0, 0.5, 1, 1, 2, 2, 4, 4, 6, 6, -0.5, -2]  # ties to the even code
    assert E2M1().encode(x).decode().tolist() == want


def test_e2m1_contractions_are_exact(needs_c):
    rng = np.random.default_rng(3)
    for spec, a_shape, b_shape in contractions():
        for keep in ((), (spec.kept[0],)):
            a = E2M1().encode(rng.standard_normal(a_shape).astype(np.float32), keep=keep)
            b = E2M1().encode(rng.standard_normal(b_shape).astype(np.float32))
            with contract.executed() as how:
                got = contract.multiply(a, b, spec)
            assert np.array_equal(got, exact.contraction(a.decode(), b.decode(), spec)), spec
            assert list(how) == [f"{spec.kind}: E2M1() x E2M1() in integers (table kernel)"]


def train(fmt, rounding, steps):
    """Losses of a few SGD steps of small_cnn on one batch, what was executed, and the kernels that ran."""
    manual_seed(0)
    rng = np.random.default_rng(5)
    model = models.build("small_cnn")
    Recipe(weight=fmt, act=fmt, error=Role(fmt, rounding=rounding)).apply(model)
    x, y = rng.standard_normal((16, 3, 16, 16)).astype(np.float32), rng.integers(0, 10, 16)
    optimizer, losses = optim.SGD(model.parameters(), lr=0.05, momentum=0.9), []
    with contract.executed() as how, calls() as ran:
        for step in range(steps):
            with contract.rounding_context(0, step):
                loss = nn.functional.cross_entropy(model(Tensor(x)), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            losses.append(loss.item())
    return losses, how, ran


def test_e2m1_trains_through_the_table_kernel_in_c(needs_c):
    losses, how, ran = train(E2M1(), "stochastic", 20)
    assert losses[-1] < 0.6 * losses[0], losses
    assert all(key.endswith(f"in integers {TABLE}") for key in how) and len(how) == 6
    tables = {name: n for name, n in ran.items() if name.startswith("table_")}
    assert set(tables) == {f"table_{kind}[{tier()}]" for kind in (
        "conv2d", "conv2d_input_grad", "conv2d_weight_grad")}
    assert sum(tables.values()) == sum(how.values())


def test_nf4_trains_emulated(needs_c):
    losses, how, _ = train(NF4(), "nearest", 12)
    assert losses[-1] < 0.8 * losses[0], losses
    assert all(key.endswith(contract.EMULATED) for key in how) and how


def test_e2m1_multiplies_with_other_formats_that_have_tables(needs_c):
    rng = np.random.default_rng(4)
    a = E2M1().encode(rng.standard_normal((5, 7)).astype(np.float32))
    b = Fixed(8).encode(rng.standard_normal((3, 7)).astype(np.float32), keep=(0,))
    with contract.executed() as how:
        got = contract.multiply(a, b, Spec("linear"))
    assert list(how) == ["linear: E2M1() x Fixed(bits=8) in integers (table kernel)"]
    assert np.array_equal(got, exact.contraction(a.decode(), b.decode(), Spec("linear")))
