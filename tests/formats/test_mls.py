"""MLS: the value sets of the notes, scales step by step, rounding decided exactly, widths, words, and the laws."""
import itertools
from fractions import Fraction

import numpy as np
import pytest

from minilp import nn, operands, recipe
from minilp.autograd import Tensor
from minilp.formats import MLS, NotFiniteError, QTensor, Spec, Stream
from minilp.formats.mls_scales import group_axes
from minilp.multiply import float_contraction
from minilp.roles import LayerRecipe, Roles
from minilp.testing import check_format

ELEMENTS = [(2, 1), (2, 4), (0, 4), (1, 2)]


def f32(*numbers):
    return np.array(numbers, np.float32)


def values(fmt):
    """Non-negative xbar of every code, exactly."""
    return [Fraction(int(k), 2**fmt.fraction_bits) for k in fmt.integers()]


def with_unit_scales(fmt, x, stream=None):
    shape = (1,) * x.ndim
    scales = np.ones(shape, np.float32), np.zeros(shape, np.int16), np.zeros(shape, np.int8)
    return fmt.encode(x, scales=scales, stream=stream)


@pytest.mark.parametrize("top", ["saturate", "keep"])
@pytest.mark.parametrize("group_man", [0, 1])
@pytest.mark.parametrize(("exp", "man"), ELEMENTS)
def test_laws(exp, man, group_man, top):
    for group in ("nc", "n", "c", "none"):
        check_format(MLS(exp, man, group_man=group_man, top=top, group=group), seed=group_man)


def test_laws_of_the_rest():
    for fmt in (MLS(underflow="sudden"), MLS(least=1), MLS(group_exp=2), MLS(3, 4), MLS(2, 0), MLS(0, 7)):
        check_format(fmt)


def test_value_sets_of_the_notes():
    assert values(MLS(2, 1)) == [Fraction(n, 16) for n in (0, 1, 2, 3, 4, 6, 8, 12)]
    assert values(MLS(2, 0)) == [0, Fraction(1, 8), Fraction(1, 4), Fraction(1, 2)]
    assert values(MLS(0, 4)) == [Fraction(k, 16) for k in range(16)]
    for man in range(1, 5):
        assert values(MLS(1, man)) == [Fraction(k, 2 ** (man + 1)) for k in range(2 ** (man + 1))]
    wide = values(MLS(2, 4))
    assert len(wide) == 64
    assert wide[:32] == [Fraction(k, 128) for k in range(32)]
    assert wide[-1] == Fraction(31, 32)
    for exp, man in ELEMENTS:
        assert values(MLS(exp, man, top="keep")) == [*values(MLS(exp, man)), 1]
    assert values(MLS(2, 1, underflow="sudden")) == [0, *(Fraction(n, 32) for n in (2, 3, 4, 6, 8, 12, 16, 24))]


def test_widths():
    """Element, product and accumulator bits of section 4 of the notes."""
    assert [MLS(*e).bits for e in ELEMENTS] == [4, 7, 5, 4]
    assert MLS(top="keep").bits == MLS(underflow="sudden").bits == 5
    assert [MLS(*e).product_bits(MLS(*e)) for e in ELEMENTS] == [8, 14, 8, 6]
    assert MLS(top="keep").product_bits(MLS(top="keep")) == 9
    assert [MLS(2, 4).accumulator_bits(MLS(2, 4), n) for n in (9, 56 * 56, 112 * 112)] == [19, 27, 29]
    assert [MLS(2, 1).accumulator_bits(MLS(2, 1), n) for n in (9, 32 * 32)] == [13, 19]
    for e in ELEMENTS:
        fmt = MLS(*e)
        for terms in (1, 9, 1024):
            largest = terms * int(fmt.integers()[-1]) ** 2
            assert largest < 2 ** (fmt.accumulator_bits(fmt, terms) - 1)


@pytest.mark.parametrize("underflow", ["gradual", "sudden"])
@pytest.mark.parametrize(("exp", "man"), [(2, 1), (2, 4), (1, 2), (3, 2)])
def test_nearest_is_decided_exactly(exp, man, underflow):
    """At every tie, one float32 number above and below it, and under scales whose product needs 26 bits."""
    for top in ("saturate", "keep"):
        fmt = MLS(exp, man, top=top, underflow=underflow)
        levels = values(fmt)
        ties = [(low + high) / 2 for low, high in itertools.pairwise(levels)]
        tensor = np.float32(1.2345678)
        unit = Fraction(float(tensor)) * Fraction(3, 4)
        scales = f32(tensor), np.array([1], np.int16), np.array([1], np.int8)
        for scale, given in ((Fraction(1), None), (unit, scales)):
            near = np.array([float(tie * scale) for tie in ties], np.float32)
            x = np.concatenate([near, np.nextafter(near, f32(0)), np.nextafter(near, f32(9))])
            q = with_unit_scales(fmt, x) if given is None else fmt.encode(x, scales=given)
            for number, code in zip(x, q.codes, strict=True):
                target = Fraction(float(number)) / scale
                best = min(range(len(levels)), key=lambda i, t=target: (abs(levels[i] - t), rank(fmt, i)))
                assert int(code) == best, (fmt, number)
            assert fmt.encode(-x, scales=q.scales).codes.tolist() == (-q.codes).tolist()


def rank(fmt, level):
    """Ties go to the level of lower rank: an even mantissa, and zero before anything."""
    if fmt.underflow == "gradual":
        return level % 2
    return 0 if level == 0 else 2 - level % 2


def test_group_scales_step_by_step():
    """Rounded up to 1 or 1.5 times a power of two, exactly at the boundaries too; zero groups; the exponent's range."""
    maxima = [1, 0.75, np.nextafter(f32(0.75), f32(1))[0], 0.5, 0.51, 0.25, 0.3, 0, 1e-30, 2.0**-130]
    x = np.zeros((1, len(maxima), 2, 2), np.float32)
    x[0, :, 1, 0] = maxima
    for group_man, want in ((1, [1, .75, 1, .5, .75, .25, .375, 1]), (0, [1, 1, 1, .5, 1, .25, .5, 1])):
        q = MLS(group_man=group_man).encode(x)
        tensor, e, m = q.scales
        assert (tensor.shape, e.shape, tensor.dtype) == ((1, 1, 1, 1), (1, len(maxima), 1, 1), np.float32)
        found = (1 + m.reshape(-1) / 2**group_man) * 2.0 ** -e.reshape(-1).astype(float)
        assert found[:8].tolist() == want
        assert found[8] >= np.float32(1e-30) and found[8] < 2 * np.float32(1e-30)
        assert found[9] == 2.0**-126
        assert (q.codes[0, 7] == 0).all()
    short = MLS(group_exp=2).encode(x)
    assert short.scales[1].max() == 3
    assert short.scales[2].reshape(-1)[-1] == 0
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((5, 7, 3, 3)) * np.exp2(rng.integers(-20, 3, (5, 7, 1, 1)))).astype(np.float32)
    for group_man, bound in ((0, 2), (1, 1.5)):
        q = MLS(group_man=group_man).encode(x)
        r = np.abs(x).max((2, 3)).astype(float) / np.abs(x).max()
        s = ((1 + q.scales[2] / 2**group_man) * np.exp2(-q.scales[1].astype(float)))[:, :, 0, 0]
        assert (s >= r).all() and (s < bound * r).all() and (s <= 1).all()


@pytest.mark.parametrize("group", ["nc", "n", "c", "none"])
def test_mls_group_scale_matches_index_loop(group):
    """Groups, maxima and scales by loops over indices."""
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((3, 4, 2, 3)) * np.exp2(rng.integers(-9, 2, (3, 4, 1, 1)))).astype(np.float32)
    fmt = MLS(group=group)
    q = fmt.encode(x)
    largest = max(Fraction(float(abs(v))) for v in x.reshape(-1))
    assert Fraction(float(q.scales[0].reshape(()))) == largest
    for n in range(3):
        for c in range(4):
            same = [(i, j) for i in range(3) for j in range(4)
                    if (i == n or "n" not in group.replace("none", "")) and (j == c or "c" not in group)]
            r = max(Fraction(float(abs(v))) for i, j in same for v in x[i, j].reshape(-1)) / largest
            candidates = [Fraction(f, 2) / 2**k for k in range(20) for f in (2, 3) if Fraction(f, 2) / 2**k <= 1]
            want = min(s for s in candidates if s >= r) if group != "none" else Fraction(1)
            e = int(np.broadcast_to(q.scales[1], x.shape)[n, c, 0, 0])
            m = int(np.broadcast_to(q.scales[2], x.shape)[n, c, 0, 0])
            assert Fraction(2 + m, 2) / 2**e == want


def test_small_groups_fall_back_to_rows():
    assert group_axes((8, 3, 1, 1), "nc", 4) == (0,)
    assert group_axes((8, 3, 2, 2), "nc", 4) == (0, 1)
    assert group_axes((8, 3), "nc", 4) == (0,)
    assert group_axes((8, 3, 1, 1), "nc", 1) == (0, 1)
    assert group_axes((5,), "nc", 4) == ()
    x = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)
    assert MLS().encode(x).scales[1].shape == (6, 1)
    assert MLS(least=1).encode(x).scales[1].shape == (6, 5)


def test_zeros_and_what_is_not_finite():
    q = MLS().encode(np.zeros((2, 3, 4, 4), np.float32))
    assert not q.decode().any() and not q.codes.any()
    assert MLS().encode(np.zeros((0, 3, 4, 4), np.float32)).codes.shape == (0, 3, 4, 4)
    x = np.ones((2, 3, 2, 2), np.float32)
    x[1, 2, 0, 1] = np.nan
    with pytest.raises(NotFiniteError, match=r"nan at index \(1, 2, 0, 1\)"):
        MLS().encode(x)
    with pytest.raises(NotFiniteError, match=r"nan at index \(1, 2, 0, 1\)"):
        MLS().encode(np.ascontiguousarray(x.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2))


def test_stochastic_rounding_is_unbiased_where_one_is_kept():
    x = np.random.default_rng(1).standard_normal((16, 16, 16, 16)).astype(np.float32)
    for top, bias in (("keep", 2e-3), ("saturate", 1)):
        error = 0.0
        for seed in range(4):
            y = MLS(top=top).encode(x, stream=Stream(seed=seed)).decode()
            error += float((np.abs(y) - np.abs(x)).sum(dtype=float) / np.abs(x).sum(dtype=float)) / 4
        assert abs(error) < bias
        if top == "saturate":
            assert error < -1e-3  # what is above the top code loses


def test_size_in_bits_counts_each_kind_of_scale():
    q = MLS(2, 1).encode(np.ones((4, 3, 8, 8), np.float32))
    assert q.nbits == 4 * 768 + 32 + 9 * 12


def test_keep_gives_slices_a_tensor_scale_of_their_own():
    x = np.random.default_rng(2).standard_normal((3, 4, 5, 5)).astype(np.float32) * f32(1, 10, 100)[:, None, None, None]
    q = MLS().encode(x, keep=(0,))
    assert q.scales[0].reshape(-1).tolist() == np.abs(x).max((1, 2, 3)).tolist()
    for i in range(3):
        assert (q.decode()[i] == MLS().encode(x[i:i + 1]).decode()[0]).all()


def test_arguments_are_checked():
    for bad in ({"exp": 4}, {"exp": 0, "man": 0}, {"man": 6}, {"group_man": 2}, {"group_exp": 0}, {"top": "wrap"},
                {"group": "cn"}, {"underflow": "late"}, {"least": 0}, {"exp": 0, "man": 3, "underflow": "sudden"},
                {"exp": 3, "man": 4, "top": "keep"}, {"exp": True}):
        with pytest.raises(ValueError, match="MLS: "):
            MLS(**bad)
    q = MLS().encode(f32(1, 2))
    with pytest.raises(ValueError, match="scales must be"):
        MLS().encode(f32(1, 2), scales=q.scales[:2])


def test_words():
    """explain takes one MAC down to fields, shifts and scales, and ends with the value of the decoded product."""
    text = MLS(2, 1).explain(0.3, -0.7)
    assert "S_g = 1.5 * 2^-2" in text and "S_g = 1.5 * 2^-1" in text
    assert "(P << 3) + P" in text
    x = np.zeros((3, 1, 2, 2), np.float32)
    x[:, 0, 0, 0] = 0.3, -0.7, 1
    y = MLS(2, 1).encode(x).decode()[:, 0, 0, 0]
    assert f"result      {y[0] * y[1]:g} " in text
    assert str(MLS(2, 4, top="keep")) == "MLS(exp=2, man=4, top='keep')"
    for fmt in (MLS(0, 4), MLS(group_man=0, group="none"), MLS(underflow="sudden"), MLS(3, 0, top="keep")):
        assert "result" in fmt.explain(0.0, 2.5)


def test_table_holds_the_integers():
    assert MLS(2, 1).table()[np.array([7, -7, 3, 0])].tolist() == [12, -12, 3, 0]
    assert MLS(2, 4).table().max() == 124
    assert MLS(2, 4, top="keep").table() is None
    fmt = MLS(2, 4, top="keep")
    ones = np.ones(1, np.float32), np.zeros(1, np.int16), np.zeros(1, np.int8)
    assert QTensor(fmt, np.array([64, -64], np.int8), ones).decode().tolist() == [1, -1]


def test_recipe():
    from minilp import models
    found = recipe.get("mls", man=4, top="keep")
    assert found.weight.format == found.act.format == found.error.format == MLS(2, 4, top="keep")
    assert [found.weight.rounding, found.act.rounding, found.error.rounding] == ["nearest", "nearest", "stochastic"]
    assert found.set("error.group", "n").error.format.group == "n"
    assert recipe.Recipe.from_config(found.to_config()) == found
    model = recipe.apply("mls", models.build("resnet20"))
    coded = {name: layer.q is not None for name, layer in model.named_modules() if hasattr(layer, "set_recipe")}
    assert [name for name, q in coded.items() if not q] == [next(iter(coded)), list(coded)[-1]]
    assert len(coded) == 22 and sum(coded.values()) == 20


def test_two_group_scales_multiply_to_one_of_three_significands():
    x = np.exp2(np.random.default_rng(3).uniform(-12, 0, (8, 9, 2, 2))).astype(np.float32)
    _, _, m = MLS().encode(x).scales
    s = 1 + m.reshape(-1) / 2
    assert set((s[:, None] * s).reshape(-1)) == {1, 1.5, 2.25}
    assert not MLS(group_man=0).encode(x).scales[2].any()


def test_integer_contractions_are_those_of_the_decoded_values():
    """Forward and both backwards of a layer, to the roundings between groups: the fake-quantised convolution."""
    rng = np.random.default_rng(4)
    act, weight, error = (heavy_tailed(rng, *shape) for shape in ((5, 6, 7, 7), (8, 6, 3, 3), (5, 8, 7, 7)))
    for fmt in (MLS(), MLS(2, 4, top="keep")):
        x, w, e = fmt.encode(act), fmt.encode(weight), fmt.encode(error, stream=Stream(seed=2))
        for kind, a, b, size, groups in (("conv2d", x, w, None, 6), ("conv2d_input_grad", e, w, (7, 7), 8),
                                         ("conv2d_weight_grad", e, x, (3, 3), 5)):
            spec = Spec(kind, padding=(1, 1), size=size)
            got = fmt.contract(a, b, spec)
            left, right = a.decode().astype(float), b.decode().astype(float)
            want, span = (float_contraction(f(left), f(right), spec) for f in (np.asarray, np.abs))
            assert (np.abs(got - want) <= (groups + 3) * 2.0**-24 * span).all()
            assert np.abs(want).max() > 0


def heavy_tailed(rng, *shape):
    """Maps of very different size with a few large numbers in each, as errors have."""
    x = rng.standard_normal(shape) * np.exp2(rng.normal(0, 1.5, shape) + rng.normal(0, 3, (*shape[:2], 1, 1)))
    return x.astype(np.float32)


def are(fmt, x):
    return np.abs(x - fmt.encode(x).decode()).sum(dtype=float) / np.abs(x).sum(dtype=float)


def test_errors_are_ordered_as_in_the_notes():
    """Section 7: nc < n, c < none; more exponent bits err less on wide numbers; sudden underflow is much worse."""
    x = heavy_tailed(np.random.default_rng(5), 16, 16, 8, 8)
    by_group = {group: are(MLS(2, 4, group=group), x) for group in ("nc", "n", "c", "none")}
    assert by_group["nc"] < min(by_group["n"], by_group["c"])
    assert max(by_group["n"], by_group["c"]) < by_group["none"]
    by_exponent = [are(MLS(exp, 4), x) for exp in (2, 1, 0)]
    assert by_exponent == sorted(by_exponent) and by_exponent[0] < 0.5 * by_exponent[2]
    assert are(MLS(2, 4, underflow="sudden"), x) > 1.5 * by_exponent[0]


def test_a_scale_for_every_element_is_no_better_than_one_for_all():
    """Why 1x1 kernels fall back: at <2,1> all magnitudes are one code, for 13 bits an element instead of 4."""
    x = np.random.default_rng(6).standard_normal((64, 64, 1, 1)).astype(np.float32)
    q = MLS(least=1).encode(x)
    assert set(np.abs(q.codes).reshape(-1)) == {MLS().top_code}
    assert q.nbits == 13 * x.size + 32
    assert are(MLS(least=1), x) > are(MLS(group="none"), x) > are(MLS(), x)
    assert MLS().encode(x).nbits == 4 * x.size + 9 * 64 + 32


def test_tiny_numbers_keep_their_codes():
    """Far below the authors' absolute floor of 1e-10 the tensor's own maximum decides; groups have a relative floor."""
    x = heavy_tailed(np.random.default_rng(7), 4, 5, 3, 3)
    tiny = x * f32(2.0**-80)
    for stream in (None, Stream(seed=3)):
        q, small = MLS().encode(x, stream=stream), MLS().encode(tiny, stream=stream)
        assert (q.codes == small.codes).all() and (small.decode() == q.decode() * f32(2.0**-80)).all()
    x[1, 2], x[0, 0] = 0, 1e-44
    q = MLS().encode(x)
    assert not q.codes[1, 2].any() and q.scales[1][0, 0, 0, 0] == 126
    y = q.decode()
    assert np.isfinite(y).all() and not y[1, 2].any() and np.abs(y[0, 0]).max() <= 2.0**-126 * np.abs(x).max()


def test_zeros_contract_to_zeros():
    """A tensor of zeros, and a group of zeros among others, in all three contractions."""
    rng = np.random.default_rng(8)
    x, w, e = (heavy_tailed(rng, *shape) for shape in ((2, 3, 5, 5), (4, 3, 3, 3), (2, 4, 5, 5)))
    nothing = MLS().encode(np.zeros_like(x))
    x[:, 1], w[:, 1] = 0, 0
    x, w, e = MLS().encode(x), MLS().encode(w), MLS().encode(e)
    assert not MLS().contract(nothing, w, Spec("conv2d")).any()
    assert not MLS().contract(e, nothing, Spec("conv2d_weight_grad", padding=(1, 1), size=(3, 3))).any()
    for a, b, spec, zero in ((e, x, Spec("conv2d_weight_grad", padding=(1, 1), size=(3, 3)), True),
                             (e, w, Spec("conv2d_input_grad", padding=(1, 1), size=(5, 5)), True),
                             (x, w, Spec("conv2d"), False)):
        y = MLS().contract(a, b, spec)
        assert np.isfinite(y).all() and y.any()
        assert not zero or not y[:, 1].any()


def test_one_as_a_code_of_its_own_contracts_under_a_scale_per_sample():
    """top="keep": the largest code is 1.0; with keep=(0,) each sample is contracted as if alone, bit for bit."""
    rng = np.random.default_rng(9)
    x, w = heavy_tailed(rng, 3, 4, 5, 5), MLS(top="keep").encode(heavy_tailed(rng, 6, 4, 3, 3))
    fmt = MLS(top="keep")
    both = fmt.contract(fmt.encode(x, keep=(0,)), w, Spec("conv2d"))
    for i in range(3):
        assert (both[i] == fmt.contract(fmt.encode(x[i:i + 1]), w, Spec("conv2d"))[0]).all()
    assert fmt.encode(x).codes.max() == fmt.top_code == MLS().top_code + 1


def test_the_gradient_clamp():
    """clamp_grad bounds the gradient of the activations by S_t, as the authors' code does; off, nothing is kept."""
    rng = np.random.default_rng(10)
    x = (rng.standard_normal((2, 3, 5, 5)) / 50).astype(np.float32)
    grad = rng.standard_normal((2, 4, 3, 3)).astype(np.float32)
    found = {}
    for clamp in (False, True):
        layer = nn.Conv2d(3, 4, 3, bias=False)
        layer.weight.data[...] = np.linspace(-1, 1, layer.weight.size).reshape(layer.weight.shape)
        chosen = recipe.get("mls").set("first", "same").set("last", "same").set("act.clamp_grad", str(clamp).lower())
        chosen.apply(nn.Sequential(layer))
        inputs = Tensor(x, requires_grad=True)
        out = layer(inputs)
        out.backward(grad)
        found[clamp] = inputs.grad, layer.weight.grad
    limit = np.abs(x).max()
    assert np.abs(found[False][0]).max() > 5 * limit
    assert (found[True][0] == np.clip(found[False][0], -limit, limit)).all()
    assert (found[True][1] == found[False][1]).all()
    for clamp in (False, True):
        q = LayerRecipe(Roles(act=MLS(clamp_grad=clamp)))
        assert (operands.encode(x, "act", q, 0, {}).raw is not None) == clamp
    assert MLS(clamp_grad=True).ste(np.zeros_like(x), f32(5, -5, 0.5)).tolist() == [1, -1, 0.5]
    with pytest.raises(ValueError, match="clamp_grad must be True or False, got 1"):
        MLS(clamp_grad=1)
