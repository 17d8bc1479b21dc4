"""Whole training steps at 1, 2, 3 and 5 threads, and the kernels that no step calls: the same bits everywhere."""
import hashlib
import sys

import numpy as np
import pytest

from minilp import contract, kernels, nn
from minilp import random as mlp_random
from minilp.autograd import Tensor
from minilp.bench.case import Case
from minilp.kernels import elementwise, pot_c, quantise, table
from minilp.kernels.backend import lib
from minilp.kernels.pot_geometry import Geometry
from minilp.training import TrainConfig
from minilp.training.build import build_model, build_optimizer

THREADS = (1, 2, 3, 5)
IMAGES = 37  # no multiple of a thread count or of a vector
SENTENCES = 5
CONVOLUTIONS = "resnet"
STEPS = [tuple(line.split()) for line in """
    resnet fp32 auto
    resnet potq auto
    resnet potq emulate
    resnet potq shift
    resnet potq:pot.bits=4 auto
    resnet potq:pot.bits=4 shift
    resnet potq:pot.bits=6 auto
    resnet potq:error=none auto
    resnet mls auto
    resnet mls shift
    resnet mls:mls.man=4 auto
    resnet mls:mls.group=none auto
    resnet lns-madam auto
    resnet lns-madam:lns.path=bins auto
    resnet lns-madam:lns.path=bins,lns.accumulator=24 auto
    resnet lns-madam:lns.path=bins,lns.gamma=32,update.gamma=8192 auto
    resnet int8 auto
    resnet int8:error=none auto
    resnet fp8 auto
    resnet mxfp4 auto
    resnet mxfp6 auto
    resnet mxfp8 auto
    resnet mxint8 auto
    small_cnn potq auto
    vgg11:model.width=4 fp32 auto
    transformer fp32 auto
    transformer potq:attention=coded auto
    transformer potq:attention=coded shift
    transformer mls auto
    transformer lns-madam auto
    transformer fp8 auto
    transformer int8 auto
    """.strip().splitlines()]
CODES, WEIGHTS = (np.random.default_rng(k).integers(-7, 8, shape).astype(np.int8)
                  for k, shape in enumerate(((37, 6, 9, 9), (5, 6, 3, 3))))
FLOATS = np.random.default_rng(2).standard_normal((37, 30, 50)).astype(np.float32)  # several pieces of 16,384
SHIFT = Geometry("conv2d", 37, 6, 5, 1, (9, 9), (7, 7), (3, 3), (1, 1), (0, 0), (1, 1))
DOUBLED = np.clip(2 * np.arange(256).astype(np.int8).astype(int), -127, 127).astype(np.int8)
ALONE = {  # what no recipe's step calls
    "int32": lambda: pot_c.literal(CODES, WEIGHTS, SHIFT, 0, "int32", "float32")[0],
    "int64": lambda: pot_c.literal(CODES, WEIGHTS, SHIFT, 0, "int64", "float32")[0],
    "counts": lambda: pot_c.literal(CODES, WEIGHTS, SHIFT, 0, "counts", "float32")[0],
    "table": lambda: table.contract("conv2d", CODES, WEIGHTS, table_a=DOUBLED, table_b=DOUBLED,
                                    scale_a=np.ones(1, np.float32), scale_b=np.ones(1, np.float32)),
    "add_relu": lambda: elementwise.add_relu(FLOATS, FLOATS)[0],
    "outside": lambda: quantise.outside(FLOATS, 1.5)}
NOT_IN_A_STEP = {"mlp_bench_peak": "minilp bench", "mlp_detected_tier": "asks", "mlp_keep_freed_memory": "asks",
                 "mlp_set_threads": "asks", "mlp_set_tier": "asks", "mlp_threads": "asks", "mlp_tier": "asks",
                 "mlp_vector_tier": "asks"}


def build(model, case):
    """Model, optimizer and batch loss of a step, from seed 0."""
    mlp_random.manual_seed(0)
    case, rng = Case.parse(case), np.random.default_rng(3)
    name, _, setting = model.partition(":")
    settings = [*case.settings, *filter(None, [setting])]
    if name == CONVOLUTIONS:
        settings += ["model.depth=8", "model.width=8"]
    if name == "transformer":
        settings += [f"model.{option}" for option in ("d_model=32", "num_encoder_layers=1", "num_decoder_layers=1",
                                                      "dim_feedforward=48")]
        config = TrainConfig.create("numbers", name, case.recipe, settings=settings)
        network = build_model(config, {"vocab_size": 50, "max_len": 20})
        source, target = rng.integers(4, 50, (SENTENCES, 9)), rng.integers(4, 50, (SENTENCES, 11))
        source[0, 5:] = 0  # padding

        def loss():
            logits, tokens = network.logits(source, target[:, :-1])
            return nn.functional.cross_entropy(logits, tokens.gather(target[:, 1:]))
    else:
        config = TrainConfig.create("cifar10", name, case.recipe, settings=settings)
        network = build_model(config, {"classes": [str(k) for k in range(10)], "in_channels": 3})
        x, y = rng.standard_normal((IMAGES, 3, 32, 32), dtype=np.float32), rng.integers(0, 10, IMAGES)

        def loss():
            return nn.functional.cross_entropy(network(Tensor(x)), y)
    return network, build_optimizer(config, network), loss


def train(model, case, family, steps=2):
    """Digests of the losses, and of every gradient, parameter and buffer after some steps."""
    network, optimizer, loss_of_batch = build(model, case)
    found = {}
    with kernels.use_kernels(family):
        for step in range(steps):
            optimizer.zero_grad()
            with contract.rounding_context(0, step):
                loss = loss_of_batch()
                loss.backward()
                found[f"loss {step}"] = loss.item()
                for name, parameter in network.named_parameters():
                    if parameter.grad is not None:
                        found[f"gradient of {name} {step}"] = digest(parameter.grad)
                optimizer.step()
    found |= {name: digest(parameter.data) for name, parameter in network.named_parameters()}
    found |= {name: digest(np.asarray(value)) for name, value in network.named_buffers()}
    return found


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


@pytest.fixture
def threads():
    """Put the number of threads back."""
    before = kernels.threads()
    yield
    kernels.set_num_threads(before)


@pytest.mark.parametrize(("model", "case", "family"), STEPS)
def test_any_number_of_threads_gives_the_same_bits(needs_c, threads, model, case, family):
    found = {}
    for count in THREADS:
        kernels.set_num_threads(count)
        found[count] = train(model, case, family)
    assert len(found[1]) > 10 and np.isfinite(found[1]["loss 1"])
    for count in THREADS[1:]:
        different = [name for name, value in found[1].items() if found[count][name] != value]
        assert not different, f"{count} threads: {different[:5]}"


@pytest.mark.parametrize("name", ALONE)
def test_what_no_step_calls_gives_the_same_bits_too(needs_c, threads, name):
    found = set()
    for count in THREADS:
        kernels.set_num_threads(count)
        result = ALONE[name]()
        found.add(digest(result))
        assert result.any()
    assert len(found) == 1


def test_every_kernel_is_among_them(needs_c):
    """A new kernel is in some step here, or called alone, or says in NOT_IN_A_STEP why not."""
    ran = set()

    def hook(frame, event, argument):
        if event == "c_call" and (name := getattr(argument, "__name__", "")).startswith("mlp_"):
            ran.add(name)

    before = sys.getprofile()
    try:
        for work in [lambda step=step: train(*step, steps=1) for step in STEPS] + list(ALONE.values()):
            sys.setprofile(hook)
            work()
            sys.setprofile(None)
    finally:
        sys.setprofile(before)
    there = {name for name in dir(lib()) if name.startswith("mlp_")}
    if not lib().mlp_mx_record_lanes(0):
        there -= {name for name in there if name.startswith("mlp_mx_dot_")}
    assert there - ran - set(NOT_IN_A_STEP) == set()
