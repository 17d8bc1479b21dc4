"""Networks for pictures: every layer against torch's, and the totals against the published numbers."""
import importlib.util
import pathlib

import pytest

from minilp import energy
from minilp.energy.shapes import total

spec = importlib.util.spec_from_file_location("torch_networks", pathlib.Path(__file__).with_name("torch_networks.py"))
oracle = importlib.util.module_from_spec(spec)
spec.loader.exec_module(oracle)


def facts(layers):
    """Our records in the words of ``oracle.record``."""
    for l in layers:
        if l.kind == "conv2d":
            yield ("conv2d", l.in_channels, l.out_channels, l.kernel, l.stride, l.padding, l.in_size, l.out_size,
                   l.params, l.macs)
        elif l.kind == "linear":
            yield "linear", l.in_features, l.out_features, l.params, l.macs
        else:
            yield l.kind, l.activations_out, l.activations_in, l.params


# (name, options, torch's network, multiply-accumulates, parameters). Multiply-accumulates: the issue's and the papers'
# notes' figures, 1.81, 3.66, 4.09, 7.80, 15.47, 1.58 and 0.714 G. Parameters: torchvision's model pages, where it has
# the network: resnet18 11689512, resnet34 21797672, resnet50 25557032, resnet101 44549160, alexnet 61100840, vgg16
# 138357544, vgg16_bn 138365992, googlenet 6624904 (13004888 with the auxiliary classifiers).
NETWORKS = [
    ("resnet18", {}, lambda t: oracle.resnet(t, 18), 1_814_073_344, 11_689_512),
    ("resnet34", {}, lambda t: oracle.resnet(t, 34), 3_663_761_408, 21_797_672),
    ("resnet50", {}, lambda t: oracle.resnet(t, 50), 4_089_184_256, 25_557_032),
    ("resnet50", {"variant": "v1"}, lambda t: oracle.resnet(t, 50, "v1"), 3_857_973_248, 25_557_032),
    ("resnet101", {}, lambda t: oracle.resnet(t, 101), 7_801_405_440, 44_549_160),
    ("alexnet", {}, oracle.alexnet, 714_188_480, 61_100_840),
    ("vgg16", {}, oracle.vgg16, 15_470_264_320, 138_357_544),
    ("vgg16", {"batch_norm": True}, lambda t: oracle.vgg16(t, True), 15_470_264_320, 138_365_992),
    ("googlenet", {}, lambda t: oracle.googlenet(t, 5, 3, False), 1_582_671_872, 7_005_832),
    ("googlenet", {"large_kernel": 3}, lambda t: oracle.googlenet(t, 3, 2, False), 1_498_376_192, 6_624_904),
    ("googlenet", {"large_kernel": 3, "aux": True}, lambda t: oracle.googlenet(t, 3, 2, True), 1_506_748_416,
     13_004_888),
]


@pytest.mark.parametrize(("name", "options", "build", "macs", "params"), NETWORKS)
def test_every_layer_equals_torchs(torch, name, options, build, macs, params):
    layers = energy.network(name, **options)
    assert list(facts(layers)) == oracle.record(torch, lambda: build(torch), 3, 224, 224)
    assert (total(layers), total(layers, "params")) == (macs, params)


@pytest.mark.parametrize(("name", "options", "build", "macs", "params"), NETWORKS[:1] + NETWORKS[-1:])
def test_torchs_own_flop_counter_agrees(torch, name, options, build, macs, params):
    """The counter that torch ships looks at operations, not layers, and counts a multiply-accumulate twice."""
    from torch.utils.flop_counter import FlopCounterMode
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        build(torch).eval()(torch.zeros(1, 3, 224, 224))
    assert counter.get_total_flops() == 2 * macs == 2 * total(energy.network(name, **options))


def test_vgg16_without_its_linear_layers():
    """The papers' notes give both sums."""
    assert total(energy.network("vgg16"), kinds=["conv2d"]) == 15_346_630_656


@pytest.mark.parametrize(("shortcut", "macs", "params", "weighted"), [("B", 40_813_184, 272_474, 22),
                                                                      ("A", 40_551_040, 269_722, 20)])
def test_cifar_resnet20(shortcut, macs, params, weighted):
    """The papers' notes' figures for both shortcuts, and a sum over stages of our own."""
    layers = energy.network("resnet20", shortcut=shortcut)
    assert (total(layers), total(layers, "params")) == (macs, params)
    assert sum(layer.is_contraction for layer in layers) == weighted
    stages = 6 * 9 * 16 * 16 * 1024 + (9 * 16 * 32 + 5 * 9 * 32 * 32) * 256 + (9 * 32 * 64 + 5 * 9 * 64 * 64) * 64
    projections = 16 * 32 * 256 + 32 * 64 * 64
    assert macs == 27 * 16 * 1024 + stages + 640 + projections * (shortcut == "B")


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_cifar_depths(depth, millions):
    """Parameters of table 6 of He et al. 2016 (option A); two more convolutions a stage for each 6 layers of depth."""
    layers, smallest = energy.network(f"resnet{depth}", shortcut="A"), energy.network("resnet20", shortcut="A")
    assert total(layers, "params") / 1e6 == pytest.approx(millions, abs=0.04 if depth == 110 else 0.006)
    more = 2 * (depth - 20) // 6 * (9 * 16 * 16 * 1024 + 9 * 32 * 32 * 256 + 9 * 64 * 64 * 64)
    assert total(layers) - total(smallest) == more


def test_only_the_first_layer_has_no_input_gradient():
    for name in ("small_cnn", "resnet20", "alexnet", "vgg16", "googlenet", "resnet50"):
        contractions = [layer for layer in energy.network(name) if layer.is_contraction]
        assert [layer.name for layer in contractions if not layer.input_grad] == [contractions[0].name]


@pytest.mark.parametrize(("call", "text"), [
    (lambda: energy.network("resnet19"), "unknown network 'resnet19'; available: small_cnn"),
    (lambda: energy.network("alexnet", depth=3), "alexnet: unknown option depth; it has num_classes, size"),
    (lambda: energy.network("resnet18", depth=34), "resnet18: unknown option depth"),
    (lambda: energy.network("resnet50", variant="v2"), "variant: expected 'v1'.*'v2'"),
    (lambda: energy.network("resnet20", shortcut="C"), "shortcut: expected 'A'.*'C'"),
    (lambda: energy.network("vgg16", size=256), "8, 8.* do not divide into 7 x 7"),
    (lambda: energy.network("bert_base", length=513), "length: expected 1 to 512 tokens, got 513"),
])
def test_refusals(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_names_are_unique():
    for name in energy.available_networks():
        names = [layer.name for layer in energy.network(name)]
        assert len(set(names)) == len(names)
