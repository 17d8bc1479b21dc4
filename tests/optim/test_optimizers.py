"""SGD, Adam and AdamW against torch, parameter groups, per-parameter rules and state."""
import json

import numpy as np
import pytest

from minilp import optim
from minilp.autograd import Tensor
from minilp.autograd.parameter import Parameter

SETTINGS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.05, "momentum": 0.9}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.02}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.05}),
    ("AdamW", {"lr": 0.01}),
    ("AdamW", {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}),
]
SHAPES = [(5, 3), (7,), ()]


def starts(seed=0):
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.normal(size=shape), np.float32) for shape in SHAPES]


def gradient(values, step):
    """Of a quartic bowl that moves with the step; elementwise, so that both sides see the same function."""
    return [np.asarray(x ** 3 - np.float32(np.sin(step + i)), np.float32) for i, x in enumerate(values)]


@pytest.mark.parametrize(("name", "options"), SETTINGS)
def test_fifty_steps_equal_torch(torch, name, options):
    ours = [Parameter(x.copy()) for x in starts()]
    theirs = [torch.nn.Parameter(torch.tensor(x)) for x in starts()]
    a, b = getattr(optim, name)(ours, **options), getattr(torch.optim, name)(theirs, **options)
    for step in range(50):
        for p, q, grad in zip(ours, theirs, gradient([p.data for p in ours], step), strict=True):
            p.grad, q.grad = grad.copy(), torch.tensor(grad)
        a.step()
        b.step()
        for p, grad in zip(ours, gradient([p.data for p in ours], step), strict=True):
            assert p.data.dtype == np.float32
            assert p.grad.shape == grad.shape
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_defaults_are_torchs(torch, name):
    ours = getattr(optim, name)([Parameter([1.0])]).defaults
    theirs = getattr(torch.optim, name)([torch.zeros(1, requires_grad=True)]).defaults
    assert ours == {key: theirs[key] for key in ours}


@pytest.mark.parametrize(("name", "options"), SETTINGS)
def test_updates_in_place_and_leaves_the_gradient_alone(name, options):
    params = [Parameter(x) for x in starts()]
    arrays = [p.data for p in params]
    optimizer = getattr(optim, name)(params, **options)
    for step in range(2):
        grads = gradient([p.data for p in params], step)
        for p, grad in zip(params, grads, strict=True):
            p.grad = grad.copy()
        before = [p.data.copy() for p in params]
        optimizer.step()
        for p, array, old, grad in zip(params, arrays, before, grads, strict=True):
            assert p.data is array
            assert not np.array_equal(p.data, old)
            np.testing.assert_array_equal(p.grad, grad)


def test_groups_have_their_own_options():
    w, b = Parameter([1.0]), Parameter([1.0])
    optimizer = optim.SGD([{"params": [w]}, {"params": b, "lr": 0.0, "weight_decay": 1.0}], lr=0.5)
    w.grad, b.grad = np.ones(1, np.float32), np.ones(1, np.float32)
    optimizer.step()
    assert w.data == 0.5
    assert b.data == 1.0
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.0, 1.0]


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_weight_decay_of_a_parameter_wins(name):
    """A learned clipping threshold must not decay although its group does."""
    params = [Parameter([2.0], weight_decay=0.0), Parameter([2.0])]
    for p in params:
        p.grad = np.zeros(1, np.float32)
    getattr(optim, name)(params, lr=0.1, weight_decay=0.5).step()
    assert params[0].data == 2.0
    assert params[1].data < 2.0


def test_bounds_clamp_after_the_step():
    p, free = Parameter([0.2, 0.9], bounds=(0.125, 1.0)), Parameter([0.2, 0.9])
    for q in (p, free):
        q.grad = np.array([1.0, -1.0], np.float32)
    optim.SGD([p, free], lr=1.0).step()
    np.testing.assert_array_equal(p.data, np.array([0.125, 1.0], np.float32))
    np.testing.assert_allclose(free.data, [-0.8, 1.9], rtol=1e-6)


def test_parameters_without_gradient_are_left_alone():
    p, q = Parameter([1.0]), Parameter([1.0])
    p.grad = np.ones(1, np.float32)
    optimizer = optim.SGD([p, q], lr=0.5, momentum=0.9, weight_decay=0.1)
    optimizer.step()
    assert q.data == 1.0
    assert list(optimizer.state) == [0]


def test_zero_grad():
    p = Parameter([1.0])
    optimizer = optim.SGD([p])
    p.grad = np.ones(1, np.float32)
    array = p.grad
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is array
    assert array == 0
    optimizer.zero_grad()
    assert p.grad is None


@pytest.mark.parametrize(("name", "options"), SETTINGS)
def test_state_dict_continues_to_the_same_bits(name, options):
    def run(steps, resume_at=None):
        params = [Parameter(x) for x in starts()]
        optimizer = getattr(optim, name)(params, **options)
        for step in range(steps):
            if step == resume_at:
                saved = optimizer.state_dict()
                groups = json.loads(json.dumps(saved["param_groups"]))
                state = {str(k): v for k, v in saved["state"].items()}
                params = [Parameter(p.data.copy()) for p in params]
                optimizer = getattr(optim, name)(params, lr=123.0)
                optimizer.load_state_dict({"state": state, "param_groups": groups})
            for p, grad in zip(params, gradient([p.data for p in params], step), strict=True):
                p.grad = grad
            optimizer.step()
        return [p.data for p in params]
    for a, b in zip(run(6), run(6, resume_at=3), strict=True):
        np.testing.assert_array_equal(a, b)


def test_state_dict_is_a_snapshot_of_arrays_and_json():
    p = Parameter([1.0])
    optimizer = optim.Adam([p])
    p.grad = np.ones(1, np.float32)
    optimizer.step()
    saved = optimizer.state_dict()
    mean = saved["state"][0]["exp_avg"].copy()
    optimizer.step()
    np.testing.assert_array_equal(saved["state"][0]["exp_avg"], mean)
    json.dumps(saved["param_groups"])
    assert {type(v) for v in saved["state"][0].values()} == {int, np.ndarray}


def test_load_state_dict_refuses_what_does_not_fit():
    p = Parameter([1.0, 2.0])
    optimizer = optim.SGD([p], momentum=0.9)
    good = optimizer.state_dict()
    with pytest.raises(ValueError, match=r"momentum_buffer of parameter 0 has shape \(3,\).*\(2,\)"):
        optimizer.load_state_dict({**good, "state": {0: {"momentum_buffer": np.zeros(3, np.float32)}}})
    with pytest.raises(ValueError, match="state of parameter 4"):
        optimizer.load_state_dict({**good, "state": {4: {}}})
    with pytest.raises(ValueError, match=r"groups of \[1\].*groups of \[2\]"):
        optim.SGD([p, Parameter([1.0])]).load_state_dict(good)


@pytest.mark.parametrize(("make", "error", "text"), [
    (lambda: optim.SGD([]), ValueError, "empty list"),
    (lambda: optim.SGD(Parameter([1.0])), TypeError, "single Parameter"),
    (lambda: optim.SGD([np.zeros(3)]), TypeError, r"params\[0\].*ndarray"),
    (lambda: optim.SGD([Tensor([1.0], requires_grad=True) * 2]), ValueError, "leaves"),
    (lambda: optim.SGD([Parameter([1.0])] * 2), ValueError, "twice"),
    (lambda: optim.SGD([{"params": [Parameter([1.0])], "lt": 3}]), ValueError, "no option.*lt"),
    (lambda: optim.SGD([Parameter([1.0])], lr=-1), ValueError, "lr: expected.*-1"),
    (lambda: optim.SGD([Parameter([1.0])], nesterov=True), ValueError, "nesterov"),
    (lambda: optim.Adam([Parameter([1.0])], betas=(0.9, 1.0)), ValueError, "betas"),
])
def test_errors_name_the_argument(make, error, text):
    with pytest.raises(error, match=text):
        make()
