"""MX in the contraction room: each contraction has codes of its own, in blocks along its sum, from the float tensor."""
import numpy as np
import pytest

from minilp import contract, data, models, nn, operands, optim, recipe, report
from minilp.autograd import Tensor
from minilp.formats import MX, Spec
from minilp.kernels import use_backend
from minilp.recipe import Role
from minilp.roles import LayerRecipe, Roles
from minilp.training import machine
from minilp.transforms import PRC, WBC

RNG = np.random.default_rng(17)
MX4 = MX("e2m1")


def step(roles, x, w, grad, groups=1, stride=(1, 1)):
    """One convolution under ``roles``, forward and backward, and what observers see: (y, dx, dw, seen)."""
    seen = []
    x, w = Tensor(x, requires_grad=True), Tensor(w, requires_grad=True)
    with operands.observe(lambda layer, role, values, q: seen.append((role, values.copy(), q))):
        y = contract.conv2d(x, w, None, stride, (1, 1), (1, 1), groups, LayerRecipe(roles, "conv"))
        y.backward(grad)
    return y.data, x.grad, w.grad, seen


@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (2, 2)])
def test_operands_are_encoded_once_per_contraction_along_its_sum(groups, stride):
    x = RNG.standard_normal((35, 40 * groups, 4, 4)).astype(np.float32)
    w = RNG.standard_normal((36 * groups, 40, 3, 3)).astype(np.float32)
    size = 4 // stride
    grad = RNG.standard_normal((35, 36 * groups, size, size)).astype(np.float32)
    y, dx, dw, seen = step(Roles(MX4, MX4, MX4), x, w, grad, groups, (stride, stride))
    want = [("act", x, 1, 40), ("weight", w, 1, 40), ("error", grad, 1, 36), ("weight", w, 0, 36),
            ("error", grad, 0, 35), ("act", x, 0, 35)]
    assert [role for role, _, _ in seen] == [role for role, *_ in want]
    for (_, values, q), (_, tensor, axis, run) in zip(seen, want, strict=True):
        assert np.array_equal(values, tensor)
        direct = MX4.encode_along(tensor, axis, run=run)
        assert np.array_equal(q.codes, direct.codes) and np.array_equal(q.scales[0], direct.scales[0])
        assert q.scales[0].shape[axis] == tensor.shape[axis] // run * 2
    geometry = ((stride, stride), (1, 1), (1, 1), groups)
    for got, (first, second), spec in ((y, (0, 1), Spec("conv2d", *geometry)),
                                       (dx, (2, 3), Spec("conv2d_input_grad", *geometry, size=(4, 4))),
                                       (dw, (4, 5), Spec("conv2d_weight_grad", *geometry, size=(3, 3)))):
        a, b = seen[first][2], seen[second][2]
        assert np.array_equal(got, MX4.contract(a, b, spec))
        wide = contract.float_contraction(a.decode().astype(np.float64), b.decode().astype(np.float64), spec)
        assert np.abs(got - wide).max() <= 1e-5 * np.abs(wide).max()


def test_linear_blocks_lie_along_features_outputs_and_tokens():
    seen = []
    x, w = (Tensor(RNG.standard_normal(s).astype(np.float32), requires_grad=True) for s in ((33, 70), (40, 70)))
    with operands.observe(lambda layer, role, values, q: seen.append((role, q.scales[0].shape))):
        contract.linear(x, w, None, LayerRecipe(Roles(MX4, MX4, MX4), "fc")).backward(np.ones((33, 40), np.float32))
    assert seen == [("act", (33, 3)), ("weight", (40, 3)), ("error", (33, 2)), ("weight", (2, 70)), ("error", (2, 40)),
                    ("act", (2, 70))]


def test_stochastic_errors_draw_the_same_for_both_contractions_and_transforms_work():
    x, w = RNG.standard_normal((6, 5, 4, 4)).astype(np.float32), RNG.standard_normal((7, 5, 3, 3)).astype(np.float32)
    grad = RNG.standard_normal((6, 7, 4, 4)).astype(np.float32)
    roles = Roles(Role(MX4, before=(WBC(),)), Role(MX4), Role(MX("int8"), rounding="stochastic"), wgrad=MX("int8"))
    one, two = step(roles, x, w, grad), step(roles, x, w, grad)
    for first, second in zip(one[:3], two[:3], strict=True):
        assert np.array_equal(first, second)
    nearest = step(Roles(roles.weight, roles.act, MX("int8"), MX("int8")), x, w, grad)
    assert not np.array_equal(one[1], nearest[1]) and np.array_equal(one[0], nearest[0])
    assert np.array_equal(one[3][0][1], x) and np.array_equal(one[3][1][1], WBC().forward(w, {})[0])
    role, _, q = one[3][-1]
    assert role == "wgrad" and np.array_equal(q.decode(), one[2])
    assert q.scales[0].shape == (7, 1, 3, 3)


def test_clipping_saturates_before_the_blocks_are_scaled():
    x = RNG.standard_normal((4, 6)).astype(np.float32)
    roles = Roles(MX("int8"), Role(MX("int8"), before=(PRC(0.5),)), MX("int8"))
    layer, seen = LayerRecipe(roles, "fc"), []
    with operands.observe(lambda layer, role, values, q: seen.append(q)):
        contract.linear(Tensor(x), Tensor(np.ones((2, 6), np.float32)), None, layer)
    limit = np.float32(0.5) * np.abs(x).max()
    assert np.array_equal(seen[0].codes, MX("int8").encode_along(np.clip(x, -limit, limit), 1).codes)


def test_refusals_name_role_and_layer():
    x, w = np.ones((2, 3, 4, 4), np.float32), np.ones((2, 3, 3, 3), np.float32)
    bad = x.copy()
    bad[1, 2, 3, 3] = np.nan
    with pytest.raises(ValueError, match=r"act of layer conv: .*nan"):
        step(Roles(MX4, MX4, MX4), bad, w, np.ones((2, 2, 4, 4), np.float32))
    with pytest.raises(ValueError, match=r"weight of layer conv: keep: .* has a scale for each block"):
        step(Roles(Role(MX4, keep=(0,)), MX4, MX4), x, w, np.ones((2, 2, 4, 4), np.float32))


@pytest.mark.parametrize("name", ["mxfp4", "mxfp6", "mxfp8", "mxint8"])
def test_presets_train_in_integers(name):
    plan = recipe.get(name)
    model = plan.apply(models.build("small_cnn"))
    train, _ = data.shapes10.load(train=24, test=1)
    images, labels = train.images.astype(np.float32) / 127.5 - 1, train.labels
    trainer, losses = optim.SGD(model.parameters(), lr=0.05, momentum=0.9), []
    with contract.executed() as how:
        for _ in range(6):
            loss = nn.functional.cross_entropy(model(Tensor(images)), labels)
            trainer.zero_grad()
            loss.backward()
            trainer.step()
            losses.append(float(loss.data))
    assert losses[-1] < losses[0], losses
    words = f"{plan.act.format} x {plan.weight.format} by integer sums inside blocks"
    assert len(how) == 6 and all(key.endswith(words) for key in how), how
    assert machine.kernels(plan) == "contractions by integer sums inside blocks"
    assert report.find_format(name) == plan.weight.format


def test_presets_take_the_fields_of_the_format():
    assert recipe.mxfp4(scale_rule="ceil").act.format == MX("e2m1", scale_rule="ceil")
    assert recipe.get("mxfp8").set("error.element", "e5m2").error.format == MX("e5m2")
    assert recipe.get("mxfp4").set("mx.block", 16) == recipe.mxfp4(block=16)
    assert recipe.mxfp4().error.rounding == "stochastic" and recipe.mxfp8().error.rounding == "nearest"


def test_other_formats_take_the_default_path_beside_mx():
    x, w = RNG.standard_normal((4, 6)).astype(np.float32), RNG.standard_normal((3, 6)).astype(np.float32)
    with contract.executed() as how:
        contract.linear(Tensor(x), Tensor(w), None, LayerRecipe(Roles(recipe.potq().weight, MX4), "fc"))
    assert list(how) == ["linear: emulated in float64"]


def test_both_backends_train_alike(needs_c):
    x, w = RNG.standard_normal((33, 9, 5, 4)).astype(np.float32), RNG.standard_normal((7, 9, 3, 3)).astype(np.float32)
    grad = RNG.standard_normal((33, 7, 5, 4)).astype(np.float32)
    for plan in (recipe.mxfp4(), recipe.mxfp6(), recipe.mxfp8(), recipe.mxint8()):
        results = []
        for name in ("c", "numpy"):
            with use_backend(name):
                results.append(step(plan.roles, x, w, grad)[:3])
        for c, twin in zip(*results, strict=True):
            assert np.array_equal(c, twin)
