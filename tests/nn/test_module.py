"""Module: registering, walking, switching, hooks, printing, and the errors that teach."""
import copy

import numpy as np
import pytest

from minilp import nn
from minilp.autograd import Tensor
from minilp.autograd.parameter import Parameter


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.second = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
        self.scale = Parameter([1.0])
        self.register_buffer("seen", np.zeros((), np.int64))

    def forward(self, x):
        return self.second(self.first(x)) * self.scale


def names(pairs):
    return [name for name, _ in pairs]


def test_walks():
    m = Block()
    assert names(m.named_parameters()) == ["scale", "first.weight", "first.bias", "second.0.weight", "second.0.bias"]
    assert names(m.named_parameters(recurse=False)) == ["scale"]
    assert names(m.named_parameters("net")) == [f"net.{n}" for n in names(m.named_parameters())]
    assert names(m.named_modules()) == ["", "first", "second", "second.0", "second.1"]
    assert names(m.named_children()) == ["first", "second"]
    assert list(m.children()) == [m.first, m.second]
    assert list(m.modules())[3] is m.second[0]
    assert names(m.named_buffers()) == ["seen"]
    assert next(iter(m.buffers())) is m.seen
    assert list(m.state_dict()) == ["scale", "seen", "first.weight", "first.bias", "second.0.weight", "second.0.bias"]


def test_same_order_as_torch(torch):
    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(2, 3)
            self.second = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU())
            self.scale = torch.nn.Parameter(torch.ones(1))
            self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
    ours, theirs = Block(), Theirs()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert names(ours.named_parameters()) == names(theirs.named_parameters())
    assert names(ours.named_modules()) == names(theirs.named_modules())


def test_shared_parts_are_walked_once_and_saved_under_each_name():
    m = nn.Module()
    m.a = nn.Linear(2, 2, bias=False)
    m.b = nn.Linear(2, 2, bias=False)
    m.b.weight = m.a.weight
    m.c = m.a
    assert names(m.named_parameters()) == ["a.weight"]
    assert names(m.named_parameters(remove_duplicate=False)) == ["a.weight", "b.weight", "c.weight"]
    assert names(m.named_modules()) == ["", "a", "b"]
    assert list(m.state_dict()) == ["a.weight", "b.weight", "c.weight"]
    assert len(list(m.children())) == 2


def test_walking_names_the_parameters():
    m = Block()
    list(m.parameters())
    assert m.second[0].weight.name == "second.0.weight"
    outer = nn.Sequential(m)
    list(m.second.parameters())
    assert m.second[0].weight.name == "second.0.weight"
    list(outer.parameters())
    assert m.second[0].weight.name == "0.second.0.weight"


def test_module_unknown_attribute_raises():
    m = Block()
    with pytest.raises(AttributeError, match=r"Block has no attribute 'frist'; did you mean first\?"):
        m.frist  # noqa: B018
    with pytest.raises(AttributeError, match=r"has no attribute 'zzz'$"):
        m.zzz  # noqa: B018
    assert not hasattr(m, "weight")


@pytest.mark.parametrize("part", [Parameter([1.0]), nn.ReLU()])
def test_assigning_before_init_says_what_to_do(part):
    class Hasty(nn.Module):
        def __init__(self):
            self.part = part
    with pytest.raises(AttributeError, match=r"'part'.*super\(\).__init__\(\).*Hasty"):
        Hasty()


def test_reading_before_init_says_what_to_do():
    class Hasty(nn.Module):
        def __init__(self):
            self.width = 3
            self.weight  # noqa: B018
    with pytest.raises(AttributeError, match=r"super\(\).__init__\(\)"):
        Hasty()


def test_reassigning_moves_between_kinds():
    m = nn.Module()
    m.x = 3
    m.x = Parameter([1.0])
    assert names(m.named_parameters()) == ["x"]
    assert "x" not in m.__dict__
    m.x = nn.ReLU()
    assert names(m.named_parameters()) == []
    assert names(m.named_children()) == ["x"]
    del m.x
    assert not hasattr(m, "x")
    m.register_parameter("bias", None)
    assert m.bias is None
    m.bias = Parameter([1.0])
    assert names(m.named_parameters()) == ["bias"]
    with pytest.raises(TypeError, match=r"bias is registered and takes a Parameter or None, got ndarray"):
        m.bias = np.zeros(1)
    with pytest.raises(TypeError, match=r"takes a Parameter or None, got Tensor"):
        m.bias = Tensor([1.0])


@pytest.mark.parametrize(("register", "text"), [
    (lambda m: m.register_parameter("forward", Parameter([1.0])), "already has"),
    (lambda m: m.register_buffer("scale", np.zeros(1)), "already has"),
    (lambda m: m.add_module("a.b", nn.ReLU()), "without dots"),
    (lambda m: m.register_buffer("", np.zeros(1)), "without dots"),
])
def test_bad_names(register, text):
    with pytest.raises(KeyError, match=text):
        register(Block())


@pytest.mark.parametrize("register", [
    lambda m: m.register_parameter("p", np.zeros(1)),
    lambda m: m.register_buffer("p", [1.0]),
    lambda m: m.add_module("p", "relu"),
    lambda m: nn.Sequential(nn.ReLU(), "relu"),
    lambda m: nn.ModuleList([3]),
])
def test_bad_kinds(register):
    with pytest.raises(TypeError, match=r"must be a|expected a Module"):
        register(Block())


def test_train_and_eval_reach_every_module():
    m = Block()
    assert m.eval() is m
    assert [x.training for x in m.modules()] == [False] * 5
    assert m.train() is m
    assert all(x.training for x in m.modules())


def test_requires_grad_and_zero_grad():
    m = Block()
    m.requires_grad_(False)
    assert not any(p.requires_grad for p in m.parameters())
    m.requires_grad_()
    m(Tensor(np.ones((1, 2), np.float32))).sum().backward()
    grads = [p.grad for p in m.parameters()]
    assert all(g is not None for g in grads)
    m.zero_grad(set_to_none=False)
    assert all(p.grad is g for p, g in zip(m.parameters(), grads, strict=True))
    assert not any(g.any() for g in grads)
    m.zero_grad()
    assert all(p.grad is None for p in m.parameters())


def test_apply_visits_children_first():
    m, seen = Block(), []
    assert m.apply(lambda x: seen.append(type(x).__name__)) is m
    assert seen == ["Linear", "Linear", "ReLU", "Sequential", "Block"]


def test_hooks():
    m, calls = nn.Linear(2, 2), []
    x = Tensor(np.ones((1, 2), np.float32))
    plain = m(x).data
    watch = m.register_forward_hook(lambda module, args, out: calls.append((module, args[0].shape, out.shape)))
    double = m.register_forward_pre_hook(lambda module, args: args[0] * 0)
    negate = m.register_forward_hook(lambda module, args, out: -out)
    np.testing.assert_array_equal(m(x).data, -m.bias.data[None])
    assert calls == [(m, (1, 2), (1, 2))]
    for handle in (watch, double, negate, negate):
        handle.remove()
    np.testing.assert_array_equal(m(x).data, plain)
    with m.register_forward_hook(lambda module, args, out: calls.append(1)):
        m(x)
    m(x)
    assert len(calls) == 2


def test_sequential_and_module_list():
    parts = [nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)]
    m = nn.Sequential(*parts)
    x = Tensor(np.ones((4, 2), np.float32))
    np.testing.assert_array_equal(m(x).data, parts[2](parts[1](parts[0](x))).data)
    assert (len(m), m[0], m[-1], list(m)) == (3, parts[0], parts[2], parts)
    np.testing.assert_array_equal(m[1:](parts[0](x)).data, m(x).data)
    assert list(m[1:].state_dict()) == ["2.weight", "2.bias"]
    named = nn.Sequential({"in": parts[0], "out": parts[2]})
    assert list(named.state_dict()) == ["in.weight", "in.bias", "out.weight", "out.bias"]
    items = nn.ModuleList(parts[:1]).append(parts[2])
    assert list(items.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert list(items[1:].state_dict()) == ["0.weight", "0.bias"]
    with pytest.raises(TypeError, match=r"ModuleList must define forward"):
        items(x)


def test_printed_like_torch(torch):
    ours = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, groups=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
                         nn.Sequential(nn.Flatten(), nn.Linear(8, 2), nn.Dropout(0.1), nn.GELU(), nn.LayerNorm(2)),
                         nn.Embedding(3, 4, padding_idx=1), nn.AdaptiveAvgPool2d(1), nn.Softmax(1), nn.Identity())
    t = torch.nn
    theirs = t.Sequential(t.Conv2d(3, 8, 3, 2, 1, groups=1, bias=False), t.BatchNorm2d(8), t.ReLU(),
                          t.Sequential(t.Flatten(), t.Linear(8, 2), t.Dropout(0.1), t.GELU(), t.LayerNorm(2)),
                          t.Embedding(3, 4, padding_idx=1), t.AdaptiveAvgPool2d(1), t.Softmax(1), t.Identity())
    assert repr(ours) == repr(theirs).replace(", inplace=False", "")


def test_deepcopy_is_independent():
    m = Block()
    other = copy.deepcopy(m)
    other.first.weight.data += 1
    assert not np.array_equal(m.first.weight.data, other.first.weight.data)
    assert names(other.named_parameters()) == names(m.named_parameters())
    assert all(p.requires_grad for p in other.parameters())
    assert "first" in dir(m)


def test_generator_states_continue_dropout():
    m = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)))
    x = Tensor(np.ones((8, 8), np.float32))
    m(x)
    states = m.generator_states()
    assert list(states) == ["0", "1.0"]
    expected = m(x).data
    assert not np.array_equal(expected, m(x).data)
    m.load_generator_states(states)
    np.testing.assert_array_equal(m(x).data, expected)
    with pytest.raises(ValueError, match=r"expected \['0', '1.0'\], got \['0'\]"):
        m.load_generator_states({"0": states["0"]})
