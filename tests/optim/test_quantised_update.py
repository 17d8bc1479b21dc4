"""W <- Q_U(U(W, gradient)) for any optimizer, and optimizer memory that is rounded after every step."""
import dataclasses

import numpy as np
import pytest

from minilp import nn, optim, recipe
from minilp.autograd.parameter import Parameter
from minilp.formats import LNS, Fixed, NotFiniteError, PoT
from minilp.formats.rounding import rounding_context
from minilp.recipe import Recipe, Role
from minilp.stored import lns_update
from minilp.transforms import PRC

FINE = LNS(16, 2048, zero="code")
MAKE = {"sgd": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
        "adamw": lambda p: optim.AdamW(p, lr=0.02), "madam": lambda p: optim.Madam(p, lr=0.05)}


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("fmt", [FINE, LNS(10, 32), Fixed(8), PoT(6)])
def test_each_step_is_the_float_step_of_the_decoded_values_encoded_again(name, fmt):
    rng = np.random.default_rng(0)
    start = rng.normal(size=(6, 5)).astype(np.float32)
    param = Parameter(start)
    param.live_as(fmt)
    free = Parameter(param.data.copy())
    stored, floating = MAKE[name]([param]), MAKE[name]([free])
    for _ in range(30):
        grad = rng.normal(size=(6, 5)).astype(np.float32)
        param.grad, free.grad = grad, grad.copy()
        stored.step()
        floating.step()
        want = fmt.encode(free.data)
        assert (param.code.codes == want.codes).all() and (param.code.scales[0] == want.scales[0]).all()
        free.data[...] = want.decode()
    assert abs(param.data - start).max() > 0.1


def test_the_scale_follows_the_maximum():
    param = Parameter(np.array([0.5, 1.0], np.float32))
    param.live_as(FINE)
    optimizer = optim.SGD([param], lr=1.0)
    for gradient, largest in (([0, -1], 2.0), ([0, 1.75], 0.5), ([-2.5, 0], 3.0)):
        param.grad = np.array(gradient, np.float32)
        optimizer.step()
        assert float(param.code.scales[0][0]) == pytest.approx(largest, rel=1e-3)


def test_small_additive_updates_are_lost_to_nearest_and_kept_on_average_stochastically():
    """The reason for a multiplicative optimizer: a tenth of a gap is never made, or made every tenth time."""
    def moved(rounding):
        param = Parameter(np.concatenate([[1.0], np.full(20_000, 0.5)]).astype(np.float32))
        param.live_as(LNS(10, 32, zero="code"), rounding=rounding)
        optimizer = optim.SGD([param], lr=1.0)
        gap = 0.5 * (2 ** (1 / 32) - 1)
        param.grad = np.full(20_001, -gap / 10, np.float32)
        param.grad[0] = 0
        with rounding_context(1, 1):
            optimizer.step()
        return (param.data[1:].mean() - 0.5) / gap

    assert moved("nearest") == 0
    assert moved("stochastic") == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("name", MAKE)
def test_gradient_and_options_are_left_alone_and_bounds_hold(name):
    param = Parameter(np.array([0.5, 0.9], np.float32), bounds=(0.125, 1.0))
    param.live_as(FINE)
    optimizer = MAKE[name]([param])
    for sign in (-1, 1):
        for _ in range(80):
            grad = np.full(2, sign, np.float32)
            param.grad = grad.copy()
            optimizer.step()
            assert (param.grad == grad).all()
            assert param.data.min() >= 0.125 * (1 - 1e-3) and param.data.max() <= 1 + 1e-3
    assert param.data.max() < 0.2, "80 steps must have reached the bounds"


def test_an_update_that_is_not_finite_names_the_parameter():
    model = nn.Sequential(nn.Linear(2, 1))
    Recipe(update=FINE).apply(model)
    names = dict(model.named_parameters())
    optimizer = optim.SGD(model.parameters(), lr=1e38)
    names["0.weight"].grad = np.full((1, 2), 1e30, np.float32)
    with np.errstate(over="ignore"), pytest.raises(ValueError, match=r"update of parameter 0\.weight: ") as caught:
        optimizer.step()
    assert isinstance(caught.value.__cause__, NotFiniteError)


def test_lns_update_keeps_the_octaves():
    table = {16: 2048, 15: 1024, 14: 512, 13: 256, 12: 128, 11: 64, 10: 32}
    for bits, gamma in table.items():
        assert lns_update(bits).format == LNS(bits, gamma, zero="code")
        assert recipe.Recipe(update=lns_update(16)).set("update.bits", str(bits)).update == lns_update(bits)
    assert lns_update(12, LNS(8, 16)).format.gamma == 256
    assert lns_update(rounding="stochastic").rounding == "stochastic"
    with pytest.raises(ValueError, match=r"update\.bits: 5 bits over the octaves of .* need 0\.5 levels"):
        Recipe(update=LNS(9, 8)).set("update.bits", 5)


def test_update_bits_of_other_formats_and_other_keys_are_plain():
    r = Recipe(update=Fixed(8)).set("update.bits", 6).set("update.rounding", "stochastic")
    assert r.update == Role(Fixed(6), rounding="stochastic")
    r = Recipe(update=lns_update(16)).set("update.gamma", 1024)
    assert r.update.format == LNS(16, 1024, zero="code")
    with pytest.raises(ValueError, match="bits must be"):
        Recipe(update=lns_update(16)).set("update.bits", 17)
    with pytest.raises(ValueError, match="bits must be"):
        Recipe(update=lns_update(16)).set("update.bits", "many")


def test_a_format_setting_changes_the_contractions_and_not_the_stored_weights():
    r = Recipe(weight=LNS(8, 8), act=LNS(8, 8), update=lns_update(16)).set("lns.gamma", 4)
    assert r.weight.format == LNS(8, 4) and r.act.format == LNS(8, 4) and r.update == lns_update(16)
    with pytest.raises(ValueError, match="no role has the format 'lns'"):
        Recipe(weight=PoT(5), update=lns_update(16)).set("lns.gamma", 4)


@pytest.mark.parametrize("role", ["update", "state"])
def test_stored_roles_have_one_scale_and_no_transform(role):
    with pytest.raises(ValueError, match=f"{role}: .*one scale per tensor"):
        Recipe(**{role: Role(FINE, keep=(0,))})
    with pytest.raises(ValueError, match=f"{role}: .*no transform"):
        Recipe(**{role: Role(FINE, before=(PRC(),))})


def test_a_recipe_makes_all_parameters_live_as_codes_but_learned_scalars():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    r = dataclasses.replace(recipe.potq(), update=Role(FINE, rounding="stochastic"))
    r.apply(model)
    for name, param in model.named_parameters():
        if "prc_gamma" in name:
            assert param.code is None and param.data.dtype == np.float32
        else:
            assert param.code.format == FINE and param.rounding == "stochastic", name
    assert sum("prc_gamma" in name for name, _ in model.named_parameters()) == 2
    recipe.fp32().apply(model)
    assert all(param.code is None for param in model.parameters())
    assert Recipe.from_config(r.to_config()) == r


def test_memory_is_rounded_after_every_step_and_nothing_else_is():
    rng = np.random.default_rng(2)
    state = Fixed(6)
    param, free = (Parameter(rng.normal(size=50).astype(np.float32)) for _ in range(2))
    free.data[...] = param.data
    param.state_role = Role(state)
    a, b = (optim.SGD([p], lr=0.1, momentum=0.9) for p in (param, free))
    for step in range(5):
        param.grad = rng.normal(size=50).astype(np.float32)
        free.grad = param.grad.copy()
        a.step()
        b.step()
        buffer = b.state[0]["momentum_buffer"]
        buffer[...] = state.encode(buffer).decode()
        assert (a.state[0]["momentum_buffer"] == buffer).all() and (param.data == free.data).all(), step


class TwoAlike(optim.Optimizer):
    """Remembers the gradient twice."""

    def update(self, p, grad, state, group, weight_decay):
        state.update(one=grad.copy(), two=grad.copy())


def test_the_state_role_reaches_the_parameters_and_each_array_has_draws_of_its_own():
    model = nn.Linear(40, 50)
    Recipe(state=Role(Fixed(8), rounding="stochastic")).apply(model)
    for param in model.parameters():
        assert param.state_role.format == Fixed(8) and param.code is None
    optimizer = TwoAlike(model.parameters(), {"lr": 0.1})
    model.weight.grad = np.full((50, 40), 100.5 / 128, np.float32)
    with rounding_context(0, 0):
        optimizer.step()
    ups = [optimizer.state[0][name] * 128 - 100 for name in ("one", "two")]
    for up in ups:
        assert set(np.unique(up)) == {0, 1} and 0.4 < up.mean() < 0.6
    assert 0.4 < (ups[0] == ups[1]).mean() < 0.6
