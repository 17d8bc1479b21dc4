"""MLS: the value sets of the notes, scales step by step, rounding decided exactly, widths, words, and the laws."""
import itertools
from fractions import Fraction

import numpy as np
import pytest

from minilp.formats import MLS, NotFiniteError, QTensor, Stream
from minilp.formats.mls_scales import group_axes
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
    from minilp import models, recipe
    found = recipe.get("mls", man=4, top="keep")
    assert found.weight.format == found.act.format == found.error.format == MLS(2, 4, top="keep")
    assert [found.weight.rounding, found.act.rounding, found.error.rounding] == ["nearest", "nearest", "stochastic"]
    assert found.set("error.group", "n").error.format.group == "n"
    assert recipe.Recipe.from_config(found.to_config()) == found
    model = recipe.apply("mls", models.build("resnet20"))
    coded = {name: layer.q is not None for name, layer in model.named_modules() if hasattr(layer, "set_recipe")}
    assert [name for name, q in coded.items() if not q] == [next(iter(coded)), list(coded)[-1]]
    assert len(coded) == 22 and sum(coded.values()) == 20
