"""LayerShape: counts against torch's own layers, and what it refuses."""
import dataclasses
import math

import pytest

from minilp.energy import LayerShape
from minilp.energy.shapes import total


@pytest.mark.parametrize(("ci", "co", "kernel", "stride", "padding", "dilation", "groups", "size"), [
    (3, 64, (7, 7), (2, 2), (3, 3), (1, 1), 1, (224, 224)),
    (8, 12, (3, 5), (2, 1), (1, 0), (1, 2), 4, (17, 23)),
    (16, 16, (3, 3), (1, 1), (1, 1), (1, 1), 16, (8, 8)),
])
def test_conv2d_counts(torch, ci, co, kernel, stride, padding, dilation, groups, size):
    """Sizes from torch's layer; every output element is a sum over one row of its weight."""
    layer = torch.nn.Conv2d(ci, co, kernel, stride, padding, dilation, groups)
    x = torch.zeros(1, ci, *size)
    y = layer(x)
    ours = LayerShape(name="c", kind="conv2d", in_channels=ci, out_channels=co, kernel=kernel, stride=stride,
                      padding=padding, dilation=dilation, groups=groups, in_size=size, out_size=tuple(y.shape[2:]),
                      bias=True)
    assert ours.params == sum(p.numel() for p in layer.parameters())
    assert (ours.weights, ours.summed) == (layer.weight.numel(), layer.weight[0].numel())
    assert (ours.activations_in, ours.activations_out) == (x.numel(), y.numel())
    assert ours.macs == y.numel() * layer.weight[0].numel()
    assert ours.training_macs == 3 * ours.macs
    assert dataclasses.replace(ours, input_grad=False).training_macs == 2 * ours.macs


def test_linear_and_matmul():
    linear = LayerShape(name="l", kind="linear", in_features=5, out_features=7, tokens=3, bias=True)
    assert (linear.macs, linear.params, linear.activations_in, linear.activations_out) == (105, 42, 15, 21)
    assert dataclasses.replace(linear, shared=True).params == 0
    product = LayerShape(name="a", kind="matmul", m=4, k=5, n=6, heads=2)
    assert (product.macs, product.params, product.activations_in, product.activations_out) == (240, 0, 100, 48)
    assert product.is_contraction and product.weights == 0


def test_layers_that_do_not_contract():
    norm = LayerShape(name="n", kind="batch_norm", features=4, elements=4 * 9, bias=True)
    assert (norm.macs, norm.params, norm.activations_in, norm.activations_out) == (0, 8, 36, 36)
    both = LayerShape(name="s", kind="add", elements=36)
    assert (both.activations_in, both.activations_out, both.params) == (72, 36, 0)
    table = LayerShape(name="e", kind="embedding", rows=11, features=4, elements=12)
    assert (table.params, table.activations_in, table.activations_out) == (44, 0, 12)
    pool = LayerShape(name="p", kind="max_pool", in_channels=4, out_channels=4, kernel=(2, 2), stride=(2, 2),
                      in_size=(6, 6), out_size=(3, 3))
    assert (pool.activations_in, pool.activations_out, pool.macs, pool.is_contraction) == (144, 36, 0, False)
    assert total([norm, both, table, pool], "params") == 52
    assert total([norm, both, table, pool], "activations_out", kinds=["add", "max_pool"]) == 72


CONV = {"name": "c", "kind": "conv2d", "in_channels": 4, "out_channels": 8, "kernel": (3, 3), "padding": (1, 1),
        "in_size": (8, 8), "out_size": (8, 8)}


@pytest.mark.parametrize(("change", "text"), [
    ({"kind": "conv3d"}, "kind: expected one of conv2d, linear.*'conv3d'"),
    ({"groups": 3}, "groups=3 does not divide"),
    ({"out_size": (7, 8)}, r"c: out_size: \(8, 8\) becomes \(8, 8\), got \(7, 8\)"),
    ({"in_channels": 0}, "needs in_channels >= 1, got 0"),
    ({"stride": (0, 1)}, "must be positive"),
    ({"kind": "linear"}, "a linear needs in_features >= 1"),
    ({"kind": "relu"}, "a relu needs elements >= 1"),
])
def test_refusals(change, text):
    assert LayerShape(**CONV).macs == 8 * 64 * math.prod((4, 3, 3))
    with pytest.raises(ValueError, match=text):
        LayerShape(**{**CONV, **change})


def test_total_names_its_counts():
    with pytest.raises(ValueError, match=r"what: expected one of macs.*'flops'"):
        total([LayerShape(**CONV)], "flops")
