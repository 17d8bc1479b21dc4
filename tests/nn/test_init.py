"""Initialisations have torch's distributions and come from the project's own streams."""
import math

import numpy as np
import pytest

import minilp
from minilp import nn
from minilp.autograd import Tensor
from minilp.nn import init

SHAPE = (64, 48, 3, 3)
FAN_IN, FAN_OUT = 48 * 9, 64 * 9


def kolmogorov(sample, distribution):
    """Largest distance between the empirical and the expected distribution function."""
    x = np.sort(sample.ravel())
    return np.abs(distribution(x) - (np.arange(x.size) + 0.5) / x.size).max()


def uniform(bound):
    return lambda x: (x + bound) / (2 * bound)


def normal(std):
    return lambda x: np.array([0.5 * (1 + math.erf(v / std / math.sqrt(2))) for v in x])


@pytest.mark.parametrize(("fill", "expected"), [
    (lambda t: init.kaiming_uniform_(t, math.sqrt(5)), uniform(1 / math.sqrt(FAN_IN))),
    (lambda t: init.kaiming_uniform_(t, nonlinearity="relu", mode="fan_out"), uniform(math.sqrt(6 / FAN_OUT))),
    (lambda t: init.kaiming_normal_(t, nonlinearity="relu"), normal(math.sqrt(2 / FAN_IN))),
    (lambda t: init.kaiming_normal_(t, mode="fan_out", nonlinearity="tanh"), normal(5 / 3 / math.sqrt(FAN_OUT))),
    (lambda t: init.xavier_uniform_(t, 2.0), uniform(2 * math.sqrt(6 / (FAN_IN + FAN_OUT)))),
    (lambda t: init.xavier_normal_(t), normal(math.sqrt(2 / (FAN_IN + FAN_OUT)))),
    (lambda t: init.uniform_(t, -2, 2), uniform(2)),
    (lambda t: init.normal_(t, 0, 3), normal(3)),
])
def test_distributions(fill, expected):
    t = Tensor(np.full(SHAPE, np.nan, np.float32))
    array = t.data
    assert fill(t) is t
    assert t.data is array
    assert kolmogorov(array, expected) < 2.2 / math.sqrt(array.size)  # 1e-4 of the samples are further off


@pytest.mark.parametrize(("layer", "expected"), [
    (lambda: nn.Conv2d(48, 64, 3).weight, uniform(1 / math.sqrt(FAN_IN))),
    (lambda: nn.Conv2d(48, 64, 3, groups=4).weight, uniform(1 / math.sqrt(FAN_IN / 4))),
    (lambda: nn.Conv2d(4, 5000, 3).bias, uniform(1 / 6)),
    (lambda: nn.Linear(100, 200).weight, uniform(0.1)),
    (lambda: nn.Linear(4, 5000).bias, uniform(0.5)),
    (lambda: nn.Embedding(100, 100).weight, normal(1)),
])
def test_layer_defaults(layer, expected):
    param = layer()
    assert param.data.dtype == np.float32
    assert kolmogorov(param.data, expected) < 2.2 / math.sqrt(param.data.size)


@pytest.mark.parametrize("name", ["linear", "conv2d", "sigmoid", "tanh", "relu", "leaky_relu"])
def test_gains_are_torchs(torch, name):
    assert init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))


def test_seed_decides_and_every_layer_has_its_own_stream():
    def build(width):
        minilp.manual_seed(7)
        first, second = nn.Linear(3, width), nn.Linear(3, 4)
        return first.weight.data, second.weight.data
    np.testing.assert_array_equal(build(4)[0], build(4)[0])
    assert not np.array_equal(*build(4))
    np.testing.assert_array_equal(build(4)[1], build(400)[1])  # a wider layer does not shift the next one's draws


def test_errors():
    with pytest.raises(ValueError, match=r"at least 2 axes.*\(3,\)"):
        init.kaiming_normal_(Tensor(np.zeros(3, np.float32)))
    with pytest.raises(ValueError, match=r"nonlinearity.*swish"):
        init.calculate_gain("swish")
    with pytest.raises(ValueError, match=r"mode.*sum"):
        init.kaiming_uniform_(Tensor(np.zeros((2, 2), np.float32)), mode="sum")
