"""Recipes are values: they compare, print, serialise, and change by key into new values."""
import dataclasses
import json

import pytest

from minilp import recipe
from minilp.formats import Fixed, PoT
from minilp.recipe import Recipe, Role, Roles
from minilp.transforms import PRC, WBC


def test_configs_are_immutable():
    r = recipe.potq()
    with pytest.raises(dataclasses.FrozenInstanceError):
        r.weight = None
    with pytest.raises(dataclasses.FrozenInstanceError):
        r.weight.keep = (0,)
    before = repr(r)
    r.set("act.bits", 4)
    assert repr(r) == before


@pytest.mark.parametrize("r", [
    recipe.fp32(), recipe.potq(), recipe.potq(bits=4), recipe.fp8(), recipe.int8(bits=6),
    recipe.potq().set("last.error.bits", 6).set("first", None).set("conv*:act.rounding", "stochastic"),
    Recipe(weight=Fixed(8), act=Role(PoT(4), keep=(0,), before=(PRC(init=0.5),)), overrides={"fc": None}),
])
def test_round_trip_through_json(r):
    assert Recipe.from_config(json.loads(json.dumps(r.to_config()))) == r
    assert hash(Recipe.from_config(r.to_config())) == hash(r)


def test_a_bare_format_is_short_for_a_role():
    assert Recipe(weight=PoT(5)) == Recipe(weight=Role(PoT(5)))


@pytest.mark.parametrize(("key", "value", "check"), [
    ("act.bits", "4", lambda r: r.act.format == PoT(4) and r.weight.format == PoT(5)),
    ("error.rounding", "stochastic", lambda r: r.error.rounding == "stochastic"),
    ("act.keep", "0", lambda r: r.act.keep == (0,)),
    ("act.before", "none", lambda r: r.act.before == ()),
    ("act.prc.init", "0.5", lambda r: r.act.before == (PRC(init=0.5),)),
    ("weight.before", "wbc", lambda r: r.weight.before == (WBC(),)),
    ("wgrad.format", "pot", lambda r: r.wgrad == Role(PoT())),
    ("error", "none", lambda r: r.error is None),
    ("first", "none", lambda r: r.first is None),
    ("last.error.bits", "6", lambda r: r.last == Roles(r.weight, r.act, Role(PoT(6)))),
    ("fc:error", "none", lambda r: dict(r.overrides)["fc"] == Roles(r.weight, r.act, None)),
    ("attention", "coded", lambda r: r.attention == "coded"),
])
def test_every_field_is_reachable_by_key(key, value, check):
    assert check(recipe.potq().set(key, value))


@pytest.mark.parametrize(("key", "value", "words"), [
    ("actt.bits", 4, "unknown key"), ("act.bit", 4, "no field 'bit'"), ("act.bits", 99, "bits"),
    ("act.rounding", "up", "rounding"), ("wgrad.bits", 4, "float32"), ("act.wbc.axis", "layer", "no transform"),
    ("act.prc.init", 2.0, "init"), ("act.before", "prcc", "unknown transform"), ("first", 7, "first"),
    ("fc:errr", None, "unknown role"), ("act.format", "potato", "potato"),
])
def test_a_wrong_key_or_value_is_named(key, value, words):
    with pytest.raises(ValueError, match=words):
        recipe.potq().set(key, value)


def test_unknown_preset_lists_the_presets():
    with pytest.raises(ValueError, match="fp32, potq"):
        recipe.get("pot")


def test_first_last_and_overrides_pick_layers():
    r = recipe.potq().set("first", None).set("*.fc:error.bits", 6)
    assert r.for_layer("stem", 0, 3) is None
    assert r.for_layer("block", 1, 3) == r.roles
    assert r.for_layer("head.fc", 2, 3).error.format == PoT(6)
    assert recipe.potq().for_layer("stem", 0, 1) == recipe.potq().roles
    assert recipe.fp32().for_layer("stem", 0, 1) is None


def test_apply_names_layers_and_refuses_a_pattern_that_matches_none():
    from minilp import models

    model = recipe.apply("potq", models.build("small_cnn"))
    coded = [m for _, m in model.named_modules() if hasattr(m, "set_recipe")]
    assert [m.q.index for m in coded] == list(range(len(coded)))
    assert all(m.q.name for m in coded)
    gammas = [n for n, _ in model.named_parameters() if n.endswith("act_prc_gamma")]
    assert len(gammas) == len(coded)
    with pytest.raises(ValueError, match=r"'nothing\*' matches no layer"):
        recipe.potq().set("nothing*:act.bits", 4).apply(models.build("small_cnn"))


def test_taking_a_recipe_off_takes_its_parameters_off():
    from minilp import models

    model = models.build("small_cnn")
    plain = [n for n, _ in model.named_parameters()]
    recipe.apply("potq", model)
    recipe.apply("fp32", model)
    assert [n for n, _ in model.named_parameters()] == plain


def test_eight_bit_presets():
    fp8, int8 = recipe.get("fp8"), recipe.get("int8")
    assert [str(role.format) for role in (fp8.weight, fp8.act, fp8.error)] == ["E4M3", "E4M3", "E5M2"]
    assert {fp8.weight.rounding, fp8.act.rounding, fp8.error.rounding} == {"nearest"}
    assert [role.format for role in (int8.weight, int8.act, int8.error)] == [Fixed(8)] * 3
    assert int8.error.rounding == "stochastic" and recipe.get("int8", bits=6).weight.format == Fixed(6)
