"""Notes of the largest magnitude: what the kernels note is what a pass finds, and a wrong note changes nothing."""
import gc

import numpy as np
import pytest

from minilp import contract, models, recipe, set_num_threads
from minilp.autograd import Tensor
from minilp.formats import LNS, MLS, MX, Fixed, Minifloat, PoT
from minilp.kernels import calls, elementwise, magnitude, norm, quantise, threads
from minilp.kernels.layout import from_chwn, to_chwn
from minilp.nn import functional as F
from minilp.roles import LayerRecipe, Role, Roles
from minilp.transforms import PRC

RNG = np.random.default_rng(11)
SHAPES = [(n, 3, 2, s) for n, s in ((1, 1), (2, 3), (5, 7), (16, 1), (17, 3), (33, 5), (128, 17))] + [(65, 5, 31, 33)]


def activation(*shape):
    return from_chwn(to_chwn(RNG.standard_normal(shape).astype(np.float32)))


def noted(x):
    """The note on x as a number; None without one."""
    bits = within(x, magnitude.noted)
    return None if bits is None else np.uint32(bits).view(np.float32)


def within(x, ask):
    """What is answered inside trusting()."""
    return magnitude.trusting(x, lambda: ask(x), lambda: int(quantise.absmax(x).view(np.uint32).max()))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_kernels_note_what_a_pass_finds(isa, shape, count):
    x, dy, before = activation(*shape), activation(*shape), threads()
    weight, bias = RNG.standard_normal((2, shape[1])).astype(np.float32)
    set_num_threads(count)
    try:
        for relu in (False, True):
            y, mean, _, invstd, _ = norm.batch_norm(x, weight, bias, 1e-5, relu)
            dx, *_ = norm.batch_norm_backward(dy, x, mean, invstd, weight, bias, relu)
            for array in (y, dx):
                assert noted(array) == np.abs(array).max()
                each = within(array, magnitude.noted_maxima)
                assert (each is None) == (shape[0] % 16 > 0)
                assert each is None or np.array_equal(each, np.abs(array).max(axis=(2, 3)).T)
        for array in (elementwise.relu(x)[0], elementwise.add_relu(x, dy)[0]):
            assert noted(array) == np.abs(array).max()
    finally:
        set_num_threads(before)


def test_every_view_of_the_memory_finds_the_note_and_parts_do_not(needs_c):
    y, _ = elementwise.relu(activation(4, 3, 2, 2))
    for view in (y, y.transpose(1, 2, 3, 0), y.reshape(y.shape), y[...], to_chwn(y).reshape(-1)):
        assert noted(view) == y.max()
    assert noted(y[:2]) is None and noted(y.copy()) is None and noted(np.ones(3, np.float32)) is None
    assert magnitude.noted(y) is None  # only inside trusting()


def test_notes_go_with_their_arrays(needs_c):
    gc.collect()
    before = len(magnitude._notes)
    kept = [elementwise.relu(activation(4, 3, 2, 2))[0] for _ in range(5)]
    assert len(magnitude._notes) == before + 5
    del kept
    assert len(magnitude._notes) == before


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_not_noted(needs_c, bad):
    x = activation(4, 3, 2, 2)
    x[1, 2, 0, 1] = bad
    y, _ = elementwise.relu(x)
    assert noted(y) is None
    with pytest.raises(ValueError, match=r"act of layer conv7: .*1 of 48 .*\(1, 2, 0, 1\)"):
        product(y, PoT(5))


def product(y, fmt, before=()):
    """A convolution of y under a format, with the gradients of all that is learned."""
    q = LayerRecipe(Roles(weight=fmt, act=Role(fmt, before=before), error=fmt), "conv7")
    w = Tensor(np.linspace(-1, 1, 2 * y.shape[1] * 9, dtype=np.float32).reshape(2, y.shape[1], 3, 3))
    x = Tensor.wrap(y)
    x.requires_grad = w.requires_grad = True
    out = contract.conv2d(x, w, None, (1, 1), (1, 1), (1, 1), 1, q)
    out.backward(np.linspace(-1, 2, out.size, dtype=np.float32).reshape(out.shape))
    return [out.data, x.grad, w.grad, *(p.grad for p in q.parameters().values())]


@pytest.mark.parametrize("before", [(), (PRC(0.5),)], ids=str)
@pytest.mark.parametrize("fmt", [PoT(4), Fixed(8), Minifloat(4, 3), LNS(8, 8), MLS(), MX("int8")], ids=str)
def test_writing_into_a_noted_array_does_not_mislead(needs_c, fmt, before):
    """Larger or smaller than noted: the codes are those of a fresh copy, which has no note."""
    for change in (lambda y: y.__imul__(3), lambda y: np.minimum(y, 0.25, out=y), lambda y: y):
        y, _ = elementwise.relu(activation(6, 3, 5, 4))
        assert noted(y) == y.max()
        change(y)
        for got, want in zip(product(y, fmt, before), product(y.copy("K"), fmt, before), strict=True):
            assert np.array_equal(got, want)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("change", [lambda y: y, lambda y: y[5, 2].__imul__(0.5), lambda y: y[5, 2].fill(0.01),
                                    lambda y: y.__imul__(2), lambda y: y.fill(0)])
def test_maxima_of_groups_are_used_and_checked(isa, count, change):
    """MLS takes its group scales from a note; one group's maximum that has moved since is found out."""
    y, *_ = norm.batch_norm(activation(48, 3, 33, 9), None, None, 1e-5)
    y[7, 1, 3, 4] = np.abs(y).max()  # the largest of all stays where it is when another group changes
    magnitude.note(y, int(quantise.absmax(y).view(np.uint32).item()), quantise.absmax(y, (0, 1))[:, :, 0, 0].T.copy())
    change(y)
    want, before = MLS().encode(y.copy("K")), threads()
    set_num_threads(count)
    try:
        with calls() as seen:
            got = magnitude.trusting(y, lambda: MLS().encode(y), lambda: 0)
    finally:
        set_num_threads(before)
    assert np.array_equal(got.codes, want.codes)
    assert all(np.array_equal(a, b) for a, b in zip(got.scales, want.scales, strict=True))
    assert seen["absmax"] == (magnitude._about(y) is None)  # a pass of its own where the note was wrong, and only there


def test_nan_written_later_is_refused(needs_c):
    y, _ = elementwise.relu(activation(4, 3, 2, 2))
    y[3, 0, 1, 1] = np.nan
    with pytest.raises(ValueError, match=r"act of layer conv7: .*NaN or infinity; 1 of 48"):
        product(y, PoT(5))


def step(name, batch=8):
    """Loss and gradients of a training step of ResNet-20, and how often a kernel looked for a maximum."""
    rng = np.random.default_rng(3)
    model = models.build("resnet20", width=4)
    for p in model.parameters():
        p.data[...] = np.random.default_rng(p.size).standard_normal(p.shape) * 0.3
    recipe.get(name).apply(model)
    x = Tensor(rng.standard_normal((batch, 3, 16, 16)).astype(np.float32))
    with calls() as seen:
        loss = F.cross_entropy(model(x), np.arange(batch) % 10)
        loss.backward()
    return [loss.data, *(p.grad for p in model.parameters())], seen["absmax"]


@pytest.mark.parametrize(("name", "batch", "least"), [("potq", 8, 38), ("lns-madam", 8, 38), ("mls", 16, 40)])
def test_a_step_is_the_same_without_notes_and_looks_less_often_with_them(needs_c, monkeypatch, name, batch, least):
    """At least 19 of 20 convolutions' activations and all of their errors; of MLS's 20, two read what another reads."""
    got, passes = step(name, batch)
    monkeypatch.setattr(norm, "note", lambda x, bits, maxima: None)
    monkeypatch.setattr(elementwise, "note", lambda x, bits: None)
    want, all_passes = step(name, batch)
    assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))
    assert all_passes - passes >= least


