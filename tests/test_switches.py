"""Every switch is reachable from the command line: it changes the recipe as told, and the training runs."""
import dataclasses
import json

import numpy as np
import pytest

from minilp import cli, recipe, report
from minilp.formats import LNS, MLS, Fixed, PoT
from minilp.recipe import Recipe, Role, Roles
from minilp.transforms import PRC, WBC

BASE = recipe.get("mls")
FIELDS = {"exp": 1, "man": 2, "group_exp": 5, "group_man": 0, "top": "keep", "group": "n", "underflow": "sudden",
          "least": 1, "clamp_grad": True}


@pytest.fixture(scope="module")
def data_file(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "toy.npz"
    np.savez(path, x_train=rng.integers(0, 255, (8, 3, 8, 8)).astype(np.uint8), y_train=np.arange(8) % 2,
             x_test=rng.integers(0, 255, (4, 3, 8, 8)).astype(np.uint8), y_test=np.arange(4) % 2)
    return str(path)


@pytest.fixture
def trained(data_file, tmp_path, monkeypatch, capsys):
    """Train two steps by the command line with some settings; the recipe of the run."""
    monkeypatch.setattr("minilp.figures.available", lambda: False)

    def run(*settings, name="mls"):
        words = ["train", "--data", data_file, "--recipe", name, "--epochs", "1", "--batch-size", "4", "--out",
                 str(tmp_path / "run"), "--set", "model.width=4"]
        code = cli.main(words + [word for line in settings for word in ("--set", line)])
        assert code == 0, capsys.readouterr().err
        assert (tmp_path / "run" / "result.json").exists()
        return Recipe.from_config(json.loads((tmp_path / "run" / "config.json").read_text())["recipe_config"])
    return run


def with_fields(role, **fields):
    return dataclasses.replace(role, format=dataclasses.replace(role.format, **fields))


def test_no_field_of_mls_is_left_out():
    assert set(FIELDS) == {field.name for field in dataclasses.fields(MLS)}
    assert all(getattr(MLS(), field) != value for field, value in FIELDS.items())


@pytest.mark.parametrize(("field", "value"), FIELDS.items())
def test_every_field_of_mls(trained, field, value):
    """For one role, and for every role at once."""
    role = ("weight", "act", "error")[len(field) % 3]
    other = ("act", "error", "weight")[len(field) % 3]
    want = dataclasses.replace(BASE, **{role: with_fields(getattr(BASE, role), **{field: value})})
    assert BASE.set(f"{role}.{field}", str(value)) == want
    everywhere = Recipe(**{**{f.name: getattr(BASE, f.name) for f in dataclasses.fields(BASE)},
                           **{name: with_fields(getattr(BASE, name), **{field: value})
                              for name in ("weight", "act", "error")}})
    assert getattr(everywhere, other) != getattr(want, other)
    assert trained(f"mls.{field}={value}") == everywhere


@pytest.mark.parametrize(("field", "value"), [("group", "none"), ("group", "c"), ("top", "saturate"), ("exp", 0)])
def test_the_other_values_of_a_field(field, value):
    """The word none is a value like the others where a field has it."""
    start = BASE.set("mls.group", "n").set("mls.top", "keep")
    for key in (f"mls.{field}", f"act.{field}"):
        assert getattr(start.set(key, str(value)).act.format, field) == value
    assert report.find_format(f"mls:{field}={value}") == MLS(**{field: value})


@pytest.mark.parametrize(("setting", "change"), [
    ("weight.rounding=stochastic", {"weight": Role(MLS(), rounding="stochastic")}),
    ("act.rounding=stochastic", {"act": Role(MLS(), rounding="stochastic")}),
    ("error.rounding=nearest", {"error": Role(MLS())}),
    ("act.keep=0", {"act": Role(MLS(), keep=(0,))}),
    ("weight.keep=(0,1)", {"weight": Role(MLS(), keep=(0, 1))}),
    ("act.before=prc", {"act": Role(MLS(), before=(PRC(),))}),
    ("weight.before=wbc+prc", {"weight": Role(MLS(), before=(WBC(), PRC()))}),
    ("weight.format=pot", {"weight": Role(PoT())}),
    ("error.format={'name': 'mls', 'man': 4}", {"error": Role(MLS(2, 4), rounding="stochastic")}),
    ("wgrad.format=mls", {"wgrad": Role(MLS())}),
    ("update.format={'name': 'lns', 'bits': 16, 'gamma': 2048, 'zero': 'code'}",
     {"update": Role(LNS(16, 2048, zero="code"))}),
    ("error=none", {"error": None}),
    ("first=same", {"first": "same"}),
    ("last=same", {"last": "same"}),
    ("first.act.man=4", {"first": Roles(BASE.weight, Role(MLS(2, 4)), BASE.error)}),
    ("last.mls.group=c", {"last": Roles(Role(MLS(group="c")), Role(MLS(group="c")),
                                        Role(MLS(group="c"), rounding="stochastic"))}),
    ("conv2:mls.exp=1", {"overrides": (("conv2", Roles(Role(MLS(1)), Role(MLS(1)),
                                                       Role(MLS(1), rounding="stochastic"))),)}),
    ("conv[23]:error=none", {"overrides": (("conv[23]", Roles(BASE.weight, BASE.act)),)}),
    ("conv2:=none", {"overrides": (("conv2", None),)}),
    ("attention=float", {"attention": "float"}),
])
def test_every_field_of_roles_and_recipes(trained, setting, change):
    want = dataclasses.replace(BASE, **change)
    assert want != BASE
    assert trained(setting) == want


def test_a_format_is_changed_in_every_place_and_no_other_format(trained):
    start = BASE.set("first", "same").set("last.act.man", 3).set("conv2:error.man", 2).set("wgrad.format", "fixed")
    changed = start.set("mls.group", "n")
    for roles in (changed.roles, changed.last, dict(changed.overrides)["conv2"]):
        for role in (roles.weight, roles.act, roles.error):
            assert role.format.group == "n"
    assert changed.wgrad == Role(Fixed())
    assert changed.last.act.format == MLS(2, 3, group="n")
    assert dict(changed.overrides)["conv2"].error == Role(MLS(2, 2, group="n"), rounding="stochastic")
    assert start.set("fixed.bits", 6).wgrad == Role(Fixed(6))
    assert trained("act.prc.init=0.9", "pot.bits=6", name="potq") == recipe.potq(6).set("act.prc.init", 0.9)


@pytest.mark.parametrize(("key", "words"), [
    ("pot.bits", "no role has the format 'pot'; there is mls"),
    ("mls.grup", "mls has no field 'grup'; it has exp, man"),
    ("mls", "mls has no field ''"), ("conv2:lns.bits", "unknown role 'lns'|no role has the format 'lns'"),
    ("potato.bits", "unknown key 'potato.bits'"), ("mls.exp", "MLS: exp must be"),
])
def test_what_is_not_there_is_named(key, words):
    with pytest.raises(ValueError, match=words):
        BASE.set(key, 99)
    with pytest.raises(ValueError, match="there is only float32"):
        recipe.fp32().set("mls.exp", 1)
