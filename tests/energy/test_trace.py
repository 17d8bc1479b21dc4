"""shapes_of: what a model that runs says about itself equals what is written down about it."""
import numpy as np
import pytest

import minilp
from minilp import energy, models, nn, recipe
from minilp.autograd import ops
from minilp.nn import functional as F

RUNNABLE = [("small_cnn", {}), ("small_cnn", {"width": 8, "num_classes": 7}), ("resnet20", {}),
            ("resnet20", {"shortcut": "A"}), ("resnet32", {"width": 4}), ("resnet110", {"width": 2})]


@pytest.mark.parametrize(("name", "options"), RUNNABLE)
def test_model_and_network_are_equal(name, options):
    model = models.build(name, **options)
    layers = energy.shapes_of(model, (3, 32, 32))
    assert layers == energy.network(name, **options)
    assert sum(layer.params for layer in layers) == sum(p.size for p in model.parameters())


@pytest.mark.parametrize("name", ["potq", "mls", "fp8", "lns_madam"])
def test_the_recipe_does_not_matter(name):
    model = models.build("small_cnn", width=4)
    plain = energy.shapes_of(model, (3, 16, 16))
    recipe.get(name).apply(model)
    assert energy.shapes_of(model, (3, 16, 16)) == plain == energy.network("small_cnn", width=4, size=16)


def test_other_sizes_and_channels():
    model = models.build("resnet", depth=8, in_channels=1, width=4)
    (first, *_), last = energy.shapes_of(model, (1, 17, 23)), energy.shapes_of(model, (1, 17, 23))[-1]
    assert (first.in_channels, first.in_size, first.out_size, first.input_grad) == (1, (17, 23), (17, 23), False)
    assert (last.name, last.kind, last.in_features, last.bias) == ("fc", "linear", 16, True)


class Attention(nn.Module):
    """A table, one head of attention, and the table again as the output layer."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.project, self.norm, self.drop = nn.Linear(8, 8), nn.LayerNorm(8), nn.Dropout(0.5)
        self.act = nn.GELU()

    def forward(self, index):
        x = self.table(index)
        q, k = self.project(x), self.project(x)
        p = F.softmax(q @ k.transpose(1, 2) * 0.5)
        x = self.norm(x + self.drop(p @ x))
        return F.linear(self.act(x), self.table.weight)


def test_attention_and_shared_weights():
    model = Attention()
    layers = energy.shapes_of(model, (5,), np.int64)
    L = energy.LayerShape
    assert layers == (
        L(name="table", kind="embedding", rows=11, features=8, elements=40),
        L(name="project", kind="linear", in_features=8, out_features=8, tokens=5, bias=True),
        L(name="project.linear2", kind="linear", in_features=8, out_features=8, tokens=5, bias=True, shared=True),
        L(name="matmul1", kind="matmul", m=5, k=8, n=5, keys=True),
        L(name="mul1", kind="mul", elements=25),
        L(name="softmax1", kind="softmax", elements=25, features=5), L(name="matmul2", kind="matmul", m=5, k=5, n=8),
        L(name="add1", kind="add", elements=40),
        L(name="norm", kind="layer_norm", elements=40, features=8, bias=True), L(name="act", kind="gelu", elements=40),
        L(name="linear1", kind="linear", in_features=8, out_features=11, tokens=5, shared=True))
    assert sum(layer.params for layer in layers) == sum(p.size for p in model.parameters())


@pytest.mark.parametrize("q", [None, "potq", "fp8"])
def test_geometry_and_biases_plain_and_coded(q):
    minilp.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 6, (3, 5), (2, 1), (1, 2), groups=2), nn.AvgPool2d(3, 2, 1), nn.ReLU(),
                          nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 3))
    if q is not None:
        recipe.get(q).apply(model)
    L = energy.LayerShape
    assert energy.shapes_of(model, (4, 15, 8)) == (
        L(name="0", kind="conv2d", in_channels=4, out_channels=6, kernel=(3, 5), stride=(2, 1), padding=(1, 2),
          groups=2, in_size=(15, 8), out_size=(8, 8), bias=True, input_grad=False),
        L(name="1", kind="avg_pool", in_channels=6, out_channels=6, kernel=(3, 3), stride=(2, 2), padding=(1, 1),
          in_size=(8, 8), out_size=(4, 4)),
        L(name="2", kind="relu", elements=96),
        L(name="3", kind="max_pool", in_channels=6, out_channels=6, kernel=(2, 2), stride=(2, 2), in_size=(4, 4),
          out_size=(2, 2)),
        L(name="5", kind="linear", in_features=24, out_features=3, bias=True))


def test_nothing_is_left_behind():
    """Statistics, modes, frozen parameters, hooks, and no_grad around it."""
    model = models.build("small_cnn", width=4)
    model.bn2.eval()
    model.conv1.requires_grad_(False)
    before = model.state_dict()
    with minilp.no_grad():
        layers = energy.shapes_of(model, (3, 8, 8))
    assert layers == energy.network("small_cnn", width=4, size=8)
    after = model.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert model.training and model.conv3.training and not model.bn2.training
    assert not model.conv1.weight.requires_grad and model.conv2.weight.requires_grad
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(param.grad is None for param in model.parameters())


def test_arithmetic_without_a_record_is_an_error():
    class Odd(nn.Module):
        def forward(self, x):
            return ops.exp(x)
    model = nn.Sequential(nn.Flatten(), Odd())
    with pytest.raises(ValueError, match=r"shapes_of: 1 computes Exp, of which there is no record"):
        energy.shapes_of(model, (1, 2, 2))
    assert not any(module._forward_hooks for module in model.modules())
