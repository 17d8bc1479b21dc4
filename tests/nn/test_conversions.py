"""A training step copies nothing only to change its memory order or float type, beyond what is listed here."""
import numpy as np
import pytest

from minilp import models, optim, recipe
from minilp.autograd import Tensor
from minilp.kernels import conversions
from minilp.kernels.layout import from_chwn, to_chwn
from minilp.nn import functional as F


def seen_in_a_step(name, x):
    """What a step of ResNet-20 under a recipe converts."""
    model = models.build("resnet20", width=4)
    recipe.get(name).apply(model)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    for _ in range(2):  # the second step has momentum and gradients to accumulate on
        with conversions() as seen:
            loss = F.cross_entropy(model(Tensor(x)), np.arange(len(x)))
            loss.backward()
            optimizer.step()
    return dict(seen)


@pytest.mark.parametrize("name", ["fp32", "potq", "mls"])
def test_a_step_of_resnet20(needs_c, name):
    x = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
    pooled = {"to (C, H, W, N): float32 (4, 16, 4, 4)": 1}  # global average pooling's gradient, one number a channel
    assert seen_in_a_step(name, x) == {"to (C, H, W, N): float32 (4, 3, 16, 16)": 1, **pooled}  # pictures come as NCHW
    assert seen_in_a_step(name, from_chwn(to_chwn(x))) == pooled


def test_other_float_types_and_gaps_count(needs_c):
    """A gradient that has to change its type, and a tensor with gaps that is encoded: NumPy takes those as they are."""
    x = Tensor(np.ones(3, np.float32), requires_grad=True)
    with conversions() as seen:
        (x * np.ones(3)).sum().backward()
        recipe.get("potq").roles.act.format.encode(np.ones((4, 6), np.float32)[:, ::2])
    assert seen["to float32: float64 (3,)"] == 1
    assert seen["gaps closed: float32 (4, 3)"] >= 1
