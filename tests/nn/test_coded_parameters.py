"""Parameters that live as codes: no float copy anywhere, one way in, and a forward pass on integers only."""
import copy
import gc
import pickle
import weakref

import numpy as np
import pytest

from minilp import Tensor, models, nn, optim, recipe
from minilp.autograd.parameter import Parameter
from minilp.formats import LNS, Fixed, Minifloat, NotFiniteError, PoT, QTensor
from minilp.operands import narrowed, observe
from minilp.recipe import Recipe, Role
from minilp.stored import lns_update
from minilp.transforms import WBC

FINE = LNS(16, 2048, zero="code")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def stored(values, fmt=FINE, **options):
    param = Parameter(values)
    param.live_as(fmt, **options)
    return param


@pytest.mark.parametrize("fmt", [FINE, LNS(8, 8), Fixed(8), PoT(5), Minifloat(4, 3)])
def test_live_as_is_encode_and_data_is_decode(fmt):
    values = normal(4, 3)
    param, want = stored(values, fmt), fmt.encode(values)
    assert isinstance(param.code, QTensor) and (param.code.codes == want.codes).all()
    assert (param.data == want.decode()).all() and param.data.dtype == np.float32
    assert (param.shape, param.ndim, param.size, param.dtype) == ((4, 3), 2, 12, np.float32)
    assert param.requires_grad and param.is_leaf
    param.live_as(None)
    assert param.code is None and (param.data == want.decode()).all()
    param.data[...] = 1


def test_no_float_array_is_held():
    values = normal(300, 200)
    param, gone = Parameter(values), weakref.ref(values)
    param.live_as(FINE)
    del values
    gc.collect()
    assert gone() is None
    floats = [slot for slot in (param._data, *vars(param).values()) if isinstance(slot, np.ndarray)]
    assert [array.strides for array in floats] == [(0, 0)], "shape and type only: four bytes for all elements"
    assert param.data is not param.data, "decoded anew each time: no cache that could be stale or written to"


@pytest.mark.parametrize("again", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_and_pickles_hold_codes_too(again):
    param = stored(normal(30, 20), rounding="stochastic")
    twin = again(param)
    assert twin.code is not param.code and (twin.data == param.data).all() and twin.rounding == "stochastic"
    assert twin._data.strides == (0, 0) and twin.requires_grad and twin.grad is None
    twin.write(np.zeros((30, 20), np.float32))
    assert param.data.any() and not twin.data.any()


def test_data_is_read_only_and_assignment_says_what_to_do():
    param = stored(normal(3))
    with pytest.raises(ValueError, match="read-only"):
        param.data[...] = 0
    with pytest.raises(ValueError, match="read-only"):
        nn.init.zeros_(param)
    with pytest.raises(TypeError, match=r"lives as codes of LNS.*write\(values\)"):
        param.data = normal(3)
    with pytest.raises(TypeError, match="live_as"):
        nn.Sequential(nn.Linear(2, 2)).apply(lambda m: [p.live_as(FINE) for p in m._parameters.values()]).to(np.float64)


def test_everything_that_reads_values_reads_the_codes():
    param = stored(np.array([0.75], np.float32))
    assert param.item() == 0.75 and float(param) == 0.75 and bool(param) and len(param) == 1
    assert "0.75" in repr(param) and (param.detach().data == [0.75]).all()
    y = param * 2
    y.backward()
    assert y.data[0] == 1.5 and param.grad[0] == 2
    with pytest.raises(ValueError, match=r"shape \(1,\)"):
        param.grad = np.zeros(2, np.float32)


def test_write_is_the_way_in_and_fixed_scales_clamp_and_count():
    param = stored(np.array([1.0, -0.5], np.float32))
    assert param.write(np.array([4, 2], np.float32)) == 0
    assert param.code.scales[0][0] == 4 and (param.data == [4, 2]).all()
    param = stored(np.array([1.0, -0.5], np.float32), scales=(np.ones(1, np.float32),))
    assert param.write(np.array([4, -2], np.float32)) == 2 and (param.data == [1, -1]).all()
    assert param.write(np.array([1, 0.25], np.float32)) == 0
    assert Parameter(np.zeros(2, np.float32)).live_as(FINE, scales=(np.ones(1, np.float32),)) == 0
    assert Parameter(np.array([2, 1, 3], np.float32)).live_as(Fixed(8), scales=(np.array([-6], np.int32),)) == 2
    free = Parameter(np.zeros(2, np.float32))
    assert free.write(np.ones(2, np.float32)) == 0 and (free.data == 1).all()
    with pytest.raises(ValueError, match=r"write: .*float32 of shape \(2,\), got float64 of shape \(2,\)"):
        param.write(np.ones(2))
    with pytest.raises(NotFiniteError):
        param.write(np.array([np.nan, 0], np.float32))
    assert (param.data == [1, 0.25]).all(), "a refused write changes nothing"


def test_codes_can_be_put_in_and_must_fit():
    param = stored(np.array([1.0, -0.5], np.float32))
    other = FINE.encode(np.array([8.0, 1.0], np.float32))
    param.code = other
    assert param.code is other and (param.data == [8, 1]).all()
    for wrong in (LNS(8, 8).encode(normal(2)), FINE.encode(normal(3)), FINE.encode(normal(2), keep=(0,))):
        with pytest.raises(ValueError, match=r"expected LNS.*of shape \(2,\)"):
            param.code = wrong
    with pytest.raises(TypeError, match="float array"):
        Parameter(normal(2)).code = other


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda: Parameter(normal(2)).live_as(FINE, rounding="up"), ValueError, "rounding: .*'up'"),
    (lambda: Parameter(np.zeros(2)).live_as(FINE), TypeError, "float64"),
    (lambda: Parameter(np.array([np.inf], np.float32)).live_as(FINE), ValueError, "inf|finite"),
])
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()


# The forward pass

LNS8 = Recipe(weight=LNS(8, 8), act=LNS(8, 8), error=LNS(8, 8), wgrad=LNS(8, 8), update=FINE)


def seen_weights(model, x):
    """What the room encoded for the role weight, layer by layer."""
    found = []
    with observe(lambda layer, role, values, code: found.append(code) if role == "weight" else None):
        model(Tensor(x))
    return found


def test_forward_rounds_exponents_and_reads_no_float(monkeypatch):
    model = LNS8.apply(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 3, bias=False)))
    params = [model[0].weight, model[2].weight]
    want = [LNS.narrow(p.code, LNS(8, 8)) for p in params]
    x = normal(2, 3, 4, 4)
    for code, ours in zip(seen_weights(model, x), want, strict=True):
        assert code.format == LNS(8, 8) and (code.codes == ours.codes).all()
        assert (code.scales[0] == ours.scales[0]).all()
    for p, ours in zip(params, want, strict=True):
        rounded = LNS(8, 8).encode(p.data, scales=p.code.scales)
        same = rounded.codes == ours.codes
        assert same.mean() > 0.98 and np.abs(rounded.codes.astype(int) - ours.codes)[~same].max(initial=0) <= 1
    # With every decode of the stored format forbidden, the coded layers still compute the same.
    model[0].bias.live_as(None)
    before = model(Tensor(x)).data
    decode = LNS.decode

    def only_narrow(self, q):
        assert self != FINE, "a stored weight was decoded"
        return decode(self, q)

    monkeypatch.setattr(LNS, "decode", only_narrow)
    assert (model(Tensor(x)).data == before).all()


def test_gradients_are_those_of_the_float_weights_with_the_same_codes():
    """Straight through: the same backward as a layer whose float weights encode to the same codes."""
    x, results = normal(5, 6), []
    for update in (FINE, None):
        layer = nn.Linear(6, 4, bias=False)
        layer.weight.data[...] = LNS(8, 8).encode(normal(4, 6, seed=1)).decode()
        Recipe(weight=LNS(8, 8), act=LNS(8, 8), error=LNS(8, 8), update=update).apply(layer)
        a = Tensor(x, requires_grad=True)
        y = layer(a)
        (y * y).sum().backward()
        results.append((y.data, a.grad, layer.weight.grad))
    for one, two in zip(*results, strict=True):
        assert (one == two).all() and one.any()


def test_which_roles_take_the_codes_as_they_are():
    code = FINE.encode(normal(4, 3))
    assert narrowed(code, Role(FINE)) is code
    assert narrowed(code, Role(LNS(8, 8))).format == LNS(8, 8)
    per_row = narrowed(code, Role(LNS(8, 8), keep=(0,)))
    assert per_row.keep == (0,) and per_row.scales[0].shape == (4, 1)
    for role in (None, Role(PoT(5)), Role(LNS(8, 8), before=(WBC(),)), Role(LNS(8, 8), rounding="stochastic"),
                 Role(LNS(16, 4096))):
        assert narrowed(code, role) is None


@pytest.mark.parametrize("role", [Role(PoT(5), before=(WBC(),)), Role(LNS(8, 8), rounding="stochastic"), None])
def test_other_roles_encode_the_decoded_values(role):
    x, outs = normal(5, 6), []
    for update in (FINE, None):
        layer = nn.Linear(6, 4, bias=False)
        layer.weight.data[...] = FINE.encode(normal(4, 6, seed=1)).decode()
        Recipe(weight=role, act=LNS(8, 8), update=update).apply(layer)
        assert (layer.weight.code is None) == (update is None)
        outs.append(layer(Tensor(x)).data)
    assert (outs[0] == outs[1]).all()


def test_overwriting_v_gradients_and_decoded_arrays_leaves_the_next_forward_alone():
    model = recipe.get("lns-madam").apply(models.build("small_cnn", width=4))
    optimizer = optim.Madam(model.parameters())
    x, y = normal(8, 3, 8, 8), np.arange(8) % 10
    decoded = []
    for _ in range(3):
        optimizer.zero_grad()
        decoded += [p.data for p in model.parameters()]
        nn.functional.cross_entropy(model(Tensor(x)), y).backward()
        optimizer.step()
        decoded += [p.data for p in model.parameters()]
    model.eval()
    before = model(Tensor(x)).data.copy()
    for entry in optimizer.state.values():
        assert set(entry) == {"step", "v"}
        entry["v"][...] = 7
    for param in model.parameters():
        param.grad[...] = 7
    for array in decoded:
        array.flags.writeable = True
        array[...] = 7
    assert (model(Tensor(x)).data == before).all()
    # The control: other codes do change it.
    model.conv2.weight.write(-model.conv2.weight.data)
    assert (model(Tensor(x)).data != before).any()


# Saving and loading

def coded_model(seed=0):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    rng = np.random.default_rng(seed)
    for param in model.parameters():
        param.data[...] = rng.normal(size=param.shape)
    Recipe(weight=LNS(8, 8), act=LNS(8, 8), update=lns_update(12)).apply(model)
    return model


def test_a_state_holds_codes_and_goes_back_bit_for_bit():
    model = coded_model()
    optim.Madam(model.parameters())
    state = model.state_dict()
    assert list(state) == list(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(),
                                             nn.Linear(12, 2)).state_dict())
    assert isinstance(state["0.weight"], QTensor) and isinstance(state["1.running_mean"], np.ndarray)
    fresh = coded_model(1)
    assert fresh.load_state_dict(state) == ([], [])
    for name, value in fresh.state_dict().items():
        if isinstance(value, QTensor):
            assert (value.codes == state[name].codes).all() and value.scales[0] == state[name].scales[0]
        else:
            assert (value == state[name]).all()
    before = state["0.weight"].codes.copy()
    model[0].weight.write(normal(3, 2, 3, 3, seed=9))
    assert (state["0.weight"].codes == before).all(), "a snapshot stays"


def test_a_decoded_state_is_torchs(torch):
    model = coded_model()
    state = model.state_dict(decoded=True)
    assert all(isinstance(value, np.ndarray) for value in state.values())
    t = torch.nn
    theirs = t.Sequential(t.Conv2d(2, 3, 3), t.BatchNorm2d(3), t.Flatten(), t.Linear(12, 2))
    theirs.load_state_dict({name: torch.as_tensor(array) for name, array in state.items()})
    free = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    assert free.load_state_dict(model.state_dict()) == ([], [])
    for name, value in theirs.state_dict().items():
        assert (free.state_dict()[name] == value.numpy()).all()


def test_loading_floats_encodes_them_and_says_how_many_were_clamped():
    model = coded_model()
    floats = coded_model(2).state_dict(decoded=True)
    model.load_state_dict(floats)
    for name, param in model.named_parameters():
        assert (param.code.codes == lns_update(12).format.encode(floats[name]).codes).all()
    optim.Madam(model.parameters())  # fixes the scales
    bound = float(model[0].weight.code.scales[0].item())
    floats["0.weight"][0, 0, 0] = [2 * bound, -3 * bound, bound]
    with pytest.warns(UserWarning, match=r"clamped \(0\.weight: 2 of 54\)"):
        model.load_state_dict(floats)
    assert (model[0].weight.data[0, 0, 0] == np.float32([bound, -bound, bound])).all()


def test_loading_checks_codes_before_anything_is_changed():
    model = coded_model()
    before = model.state_dict()
    state = dict(before)
    state["0.weight"] = FINE.encode(normal(1, 2, 3, 3))
    state["0.bias"] = np.array([np.nan, 0, 0], np.float32)
    with pytest.raises(RuntimeError) as caught:
        model.load_state_dict(state)
    assert "0.weight: shape (1, 2, 3, 3) came" in str(caught.value) and "0.bias: NaN" in str(caught.value)
    assert all(model.state_dict()[name] is value for name, value in before.items() if isinstance(value, QTensor))


def test_codes_of_another_format_are_decoded_and_encoded():
    model, other = coded_model(), coded_model(3)
    Recipe(update=Fixed(8)).apply(other)
    model.load_state_dict(other.state_dict())
    want = lns_update(12).format.encode(other[0].weight.data)
    assert (model[0].weight.code.codes == want.codes).all()
