"""Linear and Conv2d with a recipe: q=None is plain float, learned parameters come and go with the recipe."""
import copy

import numpy as np
import pytest

from minilp import contract, models, nn, optim, recipe
from minilp.autograd import Tensor, ops
from minilp.formats import PoT
from minilp.nn import functional as F
from minilp.roles import LayerRecipe, Roles

LEARNED = "act_prc_gamma"


def step(layer, x, seed=0):
    """Output and all gradients of one pass, as bytes."""
    layer.zero_grad()
    x = Tensor(x, requires_grad=True)
    out = layer(x)
    out.backward(np.random.default_rng(seed).normal(size=out.shape).astype(np.float32))
    return [out.data.tobytes(), x.grad.tobytes(), *(p.grad.tobytes() for p in layer.parameters() if p.grad is not None)]


@pytest.mark.parametrize("bias", [True, False])
def test_q_none_is_float_bit_for_bit(bias):
    rng = np.random.default_rng(0)
    conv, x = nn.Conv2d(4, 6, 3, 2, 1, groups=2, bias=bias), rng.normal(size=(3, 4, 7, 7)).astype(np.float32)
    linear, rows = nn.Linear(4, 3, bias), rng.normal(size=(5, 4)).astype(np.float32)
    with contract.executed() as seen:
        expected = ops.conv2d(Tensor(x), conv.weight, conv.bias, 2, 1, 1, 2)
        assert conv(Tensor(x)).data.tobytes() == expected.data.tobytes()
        expected = ops.linear(Tensor(rows), linear.weight, linear.bias)
        assert linear(Tensor(rows)).data.tobytes() == expected.data.tobytes()
        for layer, data in ((conv, x), (linear, rows)):
            plain = step(layer, data)
            layer.set_recipe(recipe.get("potq"))
            layer.set_recipe(None)
            assert step(layer, data) == plain
            recipe.get("fp32").apply(layer)
            assert layer.q is None
            assert step(layer, data) == plain
    assert not seen  # the contraction room was never entered


@pytest.mark.parametrize(("layer", "shape"), [(nn.Conv2d(4, 6, 3), (2, 4, 6, 6)), (nn.Linear(4, 3), (5, 4))])
def test_a_recipe_changes_the_numbers_and_is_counted(layer, shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    plain = step(layer, x)
    layer.set_recipe(recipe.get("potq"))
    with contract.executed() as seen:
        coded = step(layer, x)
    assert coded[0] != plain[0]
    assert coded[2] != plain[2]
    kind = type(layer).__name__.lower()
    assert {key.split(":")[0] for key in seen} == {kind, f"{kind}_input_grad", f"{kind}_weight_grad"}
    assert all("in integers" in key for key in seen)
    layer.set_recipe(None)
    assert step(layer, x) == plain


def test_learned_parameters_come_and_go():
    layer = nn.Conv2d(2, 2, 1)
    plain = list(layer.state_dict())
    layer.set_recipe(recipe.get("potq"))
    assert list(layer.state_dict()) == [*plain, LEARNED]
    first = getattr(layer, LEARNED)
    assert first is layer.q.parameters()[LEARNED]
    layer.q = recipe.get("potq")
    assert list(layer.state_dict()) == [*plain, LEARNED]
    assert getattr(layer, LEARNED) is not first
    layer.set_recipe(LayerRecipe(Roles(weight=PoT(4), act=PoT(5)), "conv"))
    assert list(layer.state_dict()) == plain
    assert layer.q.name == "conv"
    layer.q = None
    assert list(layer.state_dict()) == plain


def test_constructor_takes_a_recipe():
    assert nn.Linear(2, 2, q=recipe.get("potq")).q.roles == recipe.get("potq").roles
    conv = nn.Conv2d(2, 2, 1, q=recipe.get("potq").set("act.bits", 4))
    assert conv.q.roles.act.format.bits == 4
    assert repr(conv) == "Conv2d(2, 2, kernel_size=(1, 1), stride=(1, 1), q=pot5/pot4/pot5)"
    assert repr(nn.Linear(2, 2, q=LayerRecipe(Roles(act=PoT(3))))).endswith("bias=True, q=float32/pot3/float32)")


def test_a_model_trains_its_thresholds_within_their_bounds():
    model = recipe.get("potq").apply(models.build("resnet", depth=8, width=4))
    thresholds = {name: p for name, p in model.named_parameters() if name.endswith(LEARNED)}
    weighted = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(thresholds) == len(weighted) == 10
    assert thresholds["layer2.0.shortcut.0.act_prc_gamma"].name == "layer2.0.shortcut.0.act_prc_gamma"
    start = {name: p.item() for name, p in thresholds.items()}
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 3, 8, 8)).astype(np.float32), rng.integers(0, 10, 8)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(Tensor(x)), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    moved = [name for name, p in thresholds.items() if p.item() != start[name]]
    assert len(moved) >= 9
    assert all(np.float32(0.125) <= p.item() <= 1 for p in thresholds.values())
    other = recipe.get("potq").apply(models.build("resnet", depth=8, width=4))
    other.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(other.eval()(Tensor(x)).data, model.eval()(Tensor(x)).data)


def test_deepcopy_keeps_thresholds_and_recipe_together():
    layer = copy.deepcopy(nn.Linear(2, 2, q=recipe.get("potq")))
    assert getattr(layer, LEARNED) is layer.q.parameters()[LEARNED]
